"""Which modules are recurrent layers, and why one of them can't become Tidegate's, or torch.nn's again."""

from typing import Any, Generic

import torch
from torch import nn

from tidegate.convert.classes import KINDS, added_to, plain_class
from tidegate.nn.spec import Recurrent

__all__ = ["is_any_recurrent", "reason_to_leave"]

_NAMES = {"GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"}
#: What torch.nn's forwards are made of, or what comes before them: a class that has its own computes something else.
_PARTS_OF_FORWARD = (
    "__call__",
    "__getattr__",
    "__getattribute__",
    "_call_impl",
    "_flat_weights",
    "_update_flat_weights",
    "_weights_have_changed",
    "_wrapped_call_impl",
    "check_forward_args",
    "check_hidden_size",
    "check_input",
    "forward",
    "get_expected_hidden_size",
    "permute_hidden",
)


def is_any_recurrent(module: nn.Module) -> bool:
    """Whether `module` is a recurrent layer or cell of whatever make: Tidegate's, torch.nn's, quantized, scripted."""
    if isinstance(module, torch.jit.ScriptModule):
        return getattr(module, "original_name", None) in _NAMES
    return isinstance(module, Recurrent | nn.RNNBase | nn.RNNCellBase) or (
        _is_quantized(module) and any(cls.__name__ in _NAMES for cls in type(module).__mro__)
    )


def reason_to_leave(module: Any) -> str | None:
    """Why a recurrent module stays what it is, or None if it can become Tidegate's."""
    return _of_another_make(module) or _unknown_forward(module) or _unknown_options(module) or _covered(module)


def _of_another_make(module: Any) -> str | None:
    if isinstance(module, Recurrent):
        accelerated = ", accelerated before" if module.accelerated else ""
        return f"it is Tidegate's already{accelerated}"
    if isinstance(module, torch.jit.ScriptModule):
        return "it is a ScriptModule, whose code is fixed"
    if _is_quantized(module):
        return "it is quantized, and Tidegate calculates in floating point"
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return "it is an LSTM, which Tidegate does not have"
    if not isinstance(module, tuple(KINDS)):
        return "it is neither a GRU nor an RNN of torch.nn"
    return None


def _unknown_forward(module: nn.Module) -> str | None:
    cls, kind = plain_class(module), _kind(module)
    for name in _PARTS_OF_FORWARD:
        if name in vars(module) and name != "_flat_weights":  # which every layer has
            return f"its {name} has been replaced, so that what it computes is not known"
        if getattr(cls, name, None) is not getattr(kind, name, None):
            return f"{cls.__name__} has a {name} of its own, so that what it computes is not known"
    if type(cls) is not type:
        return f"its class has a metaclass, {type(cls).__name__}, which need not let another class be made from it"
    if any("__init_subclass__" in vars(base) for base in cls.__mro__ if base not in (object, Generic)):
        return f"{cls.__name__} has an __init_subclass__ of its own, which a class that is made from it would run"
    return None


def _unknown_options(module: Any) -> str | None:
    """What torch.nn lets pass when a layer is made, and Tidegate does not."""
    for name in ("input_size", "hidden_size"):
        if getattr(module, name) < 1:
            return f"its {name} is {getattr(module, name)}"
    known = ("tanh", "relu")
    if isinstance(module, nn.RNNCell) and module.nonlinearity not in known:
        return f"its nonlinearity is {module.nonlinearity!r}, which torch.nn does not have either"
    if (odd := next((one.dtype for one in module.parameters() if not one.is_floating_point()), None)) is not None:
        return f"its weights are {odd}, and Tidegate calculates with real numbers"
    return None


def _covered(module: Any) -> str | None:
    """What a layer has of its own that Tidegate's attributes would cover, and `restore` could not bring back."""
    kind = _kind(module)
    theirs = dir(kind)
    added = {name for names in added_to(module, "auto").values() for name in names}
    registered = (module._parameters, module._buffers, module._modules)
    own = {*vars(module), *dir(plain_class(module))}.difference(theirs)
    own.update(name for register in registered for name, entry in register.items() if entry is not None)
    for name in sorted(added.union(dir(KINDS[kind])).difference(theirs) & own):
        if not name.startswith("_"):
            return f"its own {name!r} would be covered, for Tidegate's layers have something else of that name"
    return None


def _kind(module: nn.Module) -> type[nn.Module]:
    """The class of torch.nn's that `module` is an instance of."""
    return next(kind for kind in KINDS if isinstance(module, kind))


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.nn.quant")
