"""Recurrent layers inside a model: find them, and run the model with them watched or steered."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn.run import Ran, run
from tidegate.nn.spec import is_cell, is_recurrent

__all__ = ["check_module", "observe", "recurrent_layers"]


def observe(
    model: nn.Module, x: Tensor | PackedSequence, hx: Tensor | None = None, *, layer: str | None = None, **steering: Any
) -> tuple[Any, Ran]:
    """Run `model` on `x` with its recurrent layer steered; what it returned, and how the layer ran.

    `model` is a recurrent layer, or contains it: then it is called with `x` alone, and `layer` says which of several.
    """
    check_module(model)
    if is_recurrent(model):
        if layer is not None:
            raise InputValueError(f"layer must be None, since the model is a recurrent layer itself; got {layer!r}")
        ran = run(model, x, hx, **steering)
        return ran.output, ran
    if hx is not None:
        raise InputValueError("hx must be None for a model that contains the layer: its own forward gives it")
    name, module = _find(model, layer)
    with _running(name, module, steering) as runs:
        output = model(x)
    if len(runs) != 1:
        raise InputValueError(f"layer {name!r} must run once in the model's forward; it ran {len(runs)} times")
    return output, runs[0]


def check_module(model: object) -> None:
    """`model` is a module."""
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"the model must be a torch.nn.Module; got {type(model).__name__}")


def recurrent_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every recurrent layer of `model` by its name; cells are left out, since a model runs them step by step itself."""
    return {name: part for name, part in model.named_modules() if is_recurrent(part) and not is_cell(part)}


@contextmanager
def _running(name: str, module: nn.Module, steering: dict[str, Any]) -> Iterator[list[Ran]]:
    """While open, `module` runs with `steering`, recorded; only its `forward` is replaced, and put back."""
    runs: list[Ran] = []
    asked = {key: value for key, value in steering.items() if value is not None}

    def forward(
        input: Tensor | PackedSequence, hx: Tensor | None = None, **given: Any
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        for key in asked.keys() & given.keys():
            raise InputValueError(f"{key} must be None here: the model itself gives it to layer {name!r}")
        ran = run(module, input, hx, **given, **asked)
        runs.append(ran)
        return ran.output, ran.h_n

    already = vars(module).get("forward")  # another tool's wrapper around this layer
    module.forward = forward
    try:
        yield runs
    finally:
        if already is None:
            del module.forward
        else:
            module.forward = already


def _find(model: nn.Module, layer: str | None) -> tuple[str, nn.Module]:
    layers = recurrent_layers(model)
    if not layers:
        raise InputTypeError(f"the model must contain a GRU or RNN layer; {type(model).__name__} has none")
    if layer is None and len(layers) > 1:
        raise InputValueError(f"layer must name one of the model's recurrent layers: {', '.join(layers)}; got None")
    name = next(iter(layers)) if layer is None else layer
    if name not in layers:
        raise InputValueError(f"layer must be one of {', '.join(layers)}; got {name!r}")
    return name, layers[name]
