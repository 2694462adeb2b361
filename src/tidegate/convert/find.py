"""Which modules are recurrent layers, and why one of them can't become Tidegate's, or torch.nn's again."""

from typing import Any

import torch
from torch import nn

from tidegate.convert.classes import KINDS, plain_class
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
    return _of_another_make(module) or _unknown_forward(module) or _unknown_options(module)


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
    cls = plain_class(module)
    kind = next(kind for kind in KINDS if issubclass(cls, kind))
    if "forward" in vars(module):
        return "its forward has been replaced, so that what it computes is not known"
    for name in _PARTS_OF_FORWARD:
        if getattr(cls, name, None) is not getattr(kind, name, None):
            return f"{cls.__name__} has a {name} of its own, so that what it computes is not known"
    if type(cls) is not type:
        return f"its class has a metaclass, {type(cls).__name__}, which need not let another class be made from it"
    return None


def _unknown_options(module: Any) -> str | None:
    """What torch.nn lets pass when a layer is made, and Tidegate does not."""
    for name in ("input_size", "hidden_size"):
        if getattr(module, name) < 1:
            return f"its {name} is {getattr(module, name)}"
    known = ("tanh", "relu")
    if isinstance(module, nn.RNNCell) and module.nonlinearity not in known:
        return f"its nonlinearity is {module.nonlinearity!r}, which torch.nn does not have either"
    return None


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.ao.nn.quant")
