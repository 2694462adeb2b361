"""Tidegate and torch.nn as competitors: the same few lines around either layer."""

from typing import Any

import torch

import tidegate as tg
from benchmarks.problem import WEIGHTS, Problem
from benchmarks.rounds import Competitor, Results
from tidegate import ops

__all__ = ["tidegate_forward", "tidegate_gates", "tidegate_training", "torch_forward", "torch_training", "training"]


def _forward(name: str, layer: torch.nn.Module, problem: Problem) -> Competitor:
    """A layer's forward without gradients."""
    layer.load_state_dict(problem.state_dict())
    x = torch.from_numpy(problem.x)

    def call() -> torch.Tensor:
        with torch.no_grad():
            output: torch.Tensor = layer(x)[0]
            return output

    return Competitor(name, call, lambda output: {"output": output.numpy()})


def training(name: str, layer: torch.nn.Module, problem: Problem) -> Competitor:
    """A layer forwards and back to its weights."""
    layer.load_state_dict(problem.state_dict())
    x, g = torch.from_numpy(problem.x), torch.from_numpy(problem.g)
    parameters = list(layer.parameters())

    def call() -> torch.Tensor:
        for parameter in parameters:
            parameter.grad = None
        output: torch.Tensor = layer(x)[0]
        torch.autograd.backward((output * g).sum())
        return output.detach()

    def results(output: torch.Tensor) -> Results:
        return {"output": output.numpy(), **{name: getattr(layer, f"{name}_l0").grad.numpy() for name in WEIGHTS}}

    return Competitor(name, call, results)


def tidegate_forward(problem: Problem, _threads: int) -> Competitor:
    """`tidegate.GRU` on its CPU engine, forwards."""
    return _forward("tidegate", tg.GRU(*problem.shape[2:], backend="cpu"), problem)


def tidegate_training(problem: Problem, _threads: int) -> Competitor:
    """`tidegate.GRU` on its CPU engine, forwards and back."""
    return training("tidegate", tg.GRU(*problem.shape[2:], backend="cpu"), problem)


def torch_forward(problem: Problem, _threads: int) -> Competitor:
    """`torch.nn.GRU`, forwards."""
    return _forward("torch", torch.nn.GRU(*problem.shape[2:]), problem)


def torch_training(problem: Problem, _threads: int) -> Competitor:
    """`torch.nn.GRU`, forwards and back."""
    return training("torch", torch.nn.GRU(*problem.shape[2:]), problem)


def tidegate_gates(problem: Problem, *, gates: bool) -> Competitor:
    """`tidegate.ops.gru` forwards, with or without giving out the gates."""
    x = torch.from_numpy(problem.x)
    h_0 = x.new_zeros(problem.shape.batch, problem.shape.units)
    weights = [torch.from_numpy(problem.weights[name]) for name in WEIGHTS]

    def call() -> Any:
        with torch.no_grad():
            return ops.gru(x, h_0, *weights, gates=gates, backend="cpu")

    return Competitor("with gates" if gates else "without gates", call, lambda steps: {"output": steps.hidden.numpy()})
