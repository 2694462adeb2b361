"""accelerate() and restore(): the recurrent layers of any model become Tidegate's, in place, and torch.nn's again."""

from typing import Any

import torch
from torch import Tensor, nn

from tidegate import ops
from tidegate.conventions import PackedWeights
from tidegate.convert.changes import Changes, Layer, sizes_of
from tidegate.convert.classes import Added, added_to, plain_class, tidegates_class, torchs_class
from tidegate.convert.find import is_any_recurrent, reason_to_leave
from tidegate.errors import BackendError, InputTypeError
from tidegate.nn.spec import Recurrent
from tidegate.nn.walk import walk
from tidegate.ops.backends import check_backend
from tidegate.ops.call import SYSTEMS, Call

__all__ = ["accelerate", "prospects", "restore"]

#: What may change while a layer is Tidegate's without changing what it computes.
_HOW_IT_RUNS = ("accelerated", "backend", "recompute")


def accelerate(model: nn.Module, backend: str = "auto") -> Changes:
    """Make every `torch.nn.GRU`, `RNN`, `GRUCell` and `RNNCell` in `model` Tidegate's, in place; tells what it did.

    The layers stay the objects that they are, and change their class: parameters, optimizer state, tied weights,
    `state_dict`, hooks, parametrizations, training mode, `isinstance(layer, torch.nn.GRU)`, pickling and copying stay,
    and the results up to the rounding of floating-point numbers. `model` may be such a layer itself. Everything is
    checked before anything is changed.

    Args:
        model: the model; what it holds outside its registered modules is not found, as by `model.parameters()`.
        backend: "auto", which leaves a layer that no backend here runs faster than torch.nn does; or the name of the
            one that every changed layer is to use, "reference" among them.

    Raises:
        InputTypeError: `model` is not a `torch.nn.Module`.
        BackendError: there is no such backend, or it can't run one of the layers.
    """
    check_backend(backend)
    changed, left, plan = [], [], []
    for module, names in _recurrent(model):
        layer, added = _prospect(module, names, backend)
        if layer.backend is None:
            left.append(layer)
            continue
        changed.append(layer)
        plan.append((module, tidegates_class(module), added))
    for module, cls, added in plan:
        module.__class__ = cls
        vars(module).update(added.pop(""), accelerated=True)
        for register, entries in added.items():
            vars(module)[register].update(entries)
    return Changes(tuple(changed), tuple(left))


def restore(model: nn.Module) -> Changes:
    """Make the layers of `model` that `accelerate` changed torch.nn's again, in place; tells what it did.

    Layers that were made as Tidegate's stay so, and so do those whose settings say by now what torch.nn's can't.

    Raises:
        InputTypeError: `model` is not a `torch.nn.Module`.
    """
    changed, left, plan = [], [], []
    for module, names in _recurrent(model):
        if not issubclass(type(module), Recurrent):
            continue
        added = added_to(module, module.backend) if module.accelerated else {}
        reason = _reason_to_stay(module, added)
        if reason is not None:
            left.append(_layer(module, names, reason))
            continue
        changed.append(_layer(module, names, "torch.nn's again"))
        plan.append((module, torchs_class(module), added))
    for module, cls, added in plan:
        module.__class__ = cls
        for name in (*added.pop(""), "accelerated"):
            vars(module).pop(name, None)
        for register, entries in added.items():
            for name in entries:
                vars(module)[register].pop(name, None)  # a shallow copy, restored before, shares the register
    return Changes(tuple(changed), tuple(left))


def prospects(model: nn.Module) -> list[tuple[nn.Module, Layer]]:
    """Every recurrent module of `model`, and what `accelerate` would say of it; nothing is changed.

    Raises `InputTypeError` if `model` is not a `torch.nn.Module`.
    """
    return [(module, _prospect(module, names, "auto")[0]) for module, names in _recurrent(model)]


def _prospect(module: Any, names: tuple[str, ...], backend: str) -> tuple[Layer, Added]:
    """What is to be done with a module, and what it then gets; its backend is None where it is left."""
    reason = reason_to_leave(module)
    if reason is not None:
        return _layer(module, names, reason), {}
    added = added_to(module, backend)
    choice = _choose(module, added, names[0], backend)
    if backend == "auto" and choice.backend == "reference":
        return _layer(module, names, f"torch.nn's own is faster here ({choice.reason})"), {}
    return _layer(module, names, f"runs on {choice.backend} ({choice.reason})", choice.backend), added


def _recurrent(model: nn.Module) -> list[tuple[Any, tuple[str, ...]]]:
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    return [(module, names) for module, names in walk(model) if is_any_recurrent(module)]


def _layer(module: Any, names: tuple[str, ...], reason: str, backend: str | None = None) -> Layer:
    scripted = isinstance(module, torch.jit.ScriptModule)
    kind = module.original_name if scripted else plain_class(module).__name__
    return Layer(names[0], names[1:], kind, sizes_of(module), reason, backend)


def _reason_to_stay(module: Any, added: Added) -> str | None:
    """Why a layer of Tidegate's can't become torch.nn's again, or None if it can."""
    if not module.accelerated:
        return "it was made as Tidegate's"
    for register, entries in added.items():
        now = vars(module)[register] if register else vars(module)
        for name, before in entries.items():
            if name not in _HOW_IT_RUNS and _differs(now.get(name, before), before):
                return f"its {name} has been changed since, to what torch.nn's does not have"
    return None


def _differs(now: object, before: object) -> bool:
    return now is not before and (isinstance(now, Tensor) or now != before)


def _choose(module: Any, added: Added, name: str, backend: str) -> ops.Choice:
    """The backend for a short sequence, as far as it can be told without one."""
    held = [*module.parameters(), *module.buffers()]
    like = held[0] if held else torch.empty(0)
    settings = added[""]
    rows = SYSTEMS[settings["system"]].blocks * module.hidden_size
    shapes = ((rows, module.input_size), (rows, module.hidden_size), (rows,), (rows,))
    suffix = "_l0" if isinstance(module, nn.RNNBase) else ""
    weights = [
        _weight(module, f"{kind}{suffix}", like, shape)
        for kind, shape in zip(PackedWeights._fields, shapes, strict=False)  # the other fields are not torch.nn's
    ]
    x, h_0 = like.new_empty(1, 1, module.input_size), like.new_empty(1, module.hidden_size)
    call = Call(settings["system"], x, h_0, PackedWeights(*weights), settings["activation"])
    try:
        return ops.choose(call, backend)
    except BackendError as error:
        raise BackendError(f"{error} (layer {name!r})" if name else str(error)) from None


def _weight(module: nn.Module, name: str, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A weight as it lies in the module; a computed one is not asked for, which may change it, but stood in for."""
    registered = module._parameters.get(name)
    return like.new_empty(shape) if registered is None else registered
