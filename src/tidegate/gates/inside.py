"""Recurrent layers inside a model: find them, and run the model with them watched or steered."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn.run import Ran, run
from tidegate.nn.spec import is_cell, is_recurrent, opaque
from tidegate.nn.walk import walk

__all__ = ["evaluating", "observe", "recurrent_layers"]

#: Held while a model is watched, or two threads would take each other's `forward` for the model's own.
_WATCHING = threading.RLock()


def observe(
    model: nn.Module,
    x: Tensor | PackedSequence,
    hx: Tensor | None = None,
    *,
    layer: str | None = None,
    evaluate: bool = False,
    **steering: Any,
) -> tuple[Any, Ran]:
    """Run `model` on `x` with its recurrent layer steered; what it returned, and how the layer ran.

    `model` is a recurrent layer, or contains it: then it is called with `x` alone, and `layer` says which of several.
    Hooks run as ever. With `evaluate` the model is in evaluation mode meanwhile. Threads may call the model at the same
    time, and run it as it is; those that observe take turns.
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"the model must be a torch.nn.Module; got {type(model).__name__}")
    inside = not is_recurrent(model)
    if inside and hx is not None:
        raise InputValueError("hx must be None for a model that contains the layer: its own forward gives it")
    if not inside and layer is not None:
        raise InputValueError(f"layer must be None, since the model is a recurrent layer itself; got {layer!r}")
    name, module = _find(model, layer) if inside else ("", model)
    with _WATCHING, evaluating(model) if evaluate else nullcontext():
        reason = opaque(module)
        if reason is not None:
            raise InputTypeError(f"{f'layer {name!r}' if name else 'the layer'} cannot be looked into: {reason}")
        if is_cell(module):  # its forward is one step: unrolled here instead
            ran = run(module, x, hx, **steering)
            return ran.output, ran
        with _running(name, module, steering) as runs:
            output = model(x) if hx is None else model(x, hx)
    if len(runs) != 1:
        raise InputValueError(f"layer {name!r} must run once in the model's forward; it ran {len(runs)} times")
    return output, runs[0]


def recurrent_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every recurrent layer of `model` by its names; no cells, since a model runs those step by step itself."""
    return {name: part for name, part in _named(model) if is_recurrent(part) and not is_cell(part)}


def _named(module: nn.Module, name: str = "", above: tuple[nn.Module, ...] = ()) -> Iterator[tuple[str, nn.Module]]:
    """Every module by every name that it has; a name that goes round in a circle is none."""
    if any(module is one for one in above):
        return
    yield name, module
    for key, child in module._modules.items():
        if child is not None:
            yield from _named(child, f"{name}.{key}" if name else key, (*above, module))


@contextmanager
def _running(name: str, module: nn.Module, steering: dict[str, Any]) -> Iterator[list[Ran]]:
    """While open, this thread runs `module` with `steering`, recorded; its `forward` is replaced, and put back."""
    runs: list[Ran] = []
    asked = {key: value for key, value in steering.items() if value is not None}
    original, watcher = module.forward, threading.get_ident()

    def forward(input: Tensor | PackedSequence, hx: Tensor | None = None, **given: Any) -> Any:
        if threading.get_ident() != watcher:
            return original(input, hx, **given)
        for key in asked.keys() & given.keys():
            raise InputValueError(f"{key} must be None here: the model itself gives it to layer {name!r}")
        ran = run(module, input, hx, **given, **asked)
        runs.append(ran)
        return ran.output, ran.h_n

    module.forward = forward
    try:
        yield runs
    finally:
        del module.forward


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, then every module's own mode again.

    Only the flags are set: a `train` of the user's own may change weights, and modules in a circle call each other's.
    """
    # a frozen ScriptModule has no mode
    training = [(module, module.training) for module, _ in walk(model) if hasattr(module, "training")]
    try:
        for module, _ in training:
            module.training = False
        yield
    finally:
        for module, was in training:
            module.training = was


def _find(model: nn.Module, layer: str | None) -> tuple[str, nn.Module]:
    layers = recurrent_layers(model)
    if not layers:
        raise InputTypeError(f"the model must contain a GRU or RNN layer; {type(model).__name__} has none")
    if layer is None and len(set(layers.values())) > 1:
        raise InputValueError(f"layer must name one of the model's recurrent layers: {', '.join(layers)}; got None")
    name = next(iter(layers)) if layer is None else layer
    if name not in layers:
        raise InputValueError(f"layer must be one of {', '.join(layers)}; got {name!r}")
    return name, layers[name]
