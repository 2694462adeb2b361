"""A model is run, and is afterwards what it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tidegate.nn.walk import walk

__all__ = ["unchanged"]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Afterwards every module has the attributes and buffers it had, and torch its random state.

    What a module's own `forward` changes in place, lists or tensors that are no buffers, stays changed.
    """
    modules = [module for module, _ in walk(model) if not isinstance(module, torch.jit.ScriptModule)]
    attributes = [(module, dict(vars(module)), dict(module._buffers)) for module in modules]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if not buffer.is_meta]
    with torch.random.fork_rng(devices=_devices(model)):
        try:
            yield
        finally:
            for module, held, named in attributes:
                vars(module).clear()
                vars(module).update(held)
                module._buffers.clear()
                module._buffers.update(named)
            with torch.no_grad():
                for buffer, was in buffers:
                    if not torch.equal(buffer, was):  # else a graph that holds it would take it for changed
                        buffer.copy_(was)


def _devices(model: nn.Module) -> list[int]:
    """The CUDA devices that a model's tensors are on."""
    return sorted({tensor.get_device() for tensor in [*model.parameters(), *model.buffers()] if tensor.is_cuda})
