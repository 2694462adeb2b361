"""Refusals: every check raises one sentence that names the argument, what came and what was expected."""

from collections.abc import Mapping, Sequence, Set
from numbers import Real

import torch
from torch import Tensor

from tidegate.equations import ACTIVATIONS
from tidegate.errors import InputTypeError, InputValueError

__all__ = [
    "autocasting",
    "check_activation",
    "check_flags",
    "check_lengths",
    "check_like",
    "check_mask",
    "check_nonlinearity",
    "check_number",
    "check_reset_at",
    "check_shape",
    "check_sizes",
    "check_tensor",
]


def check_tensor(name: str, value: object) -> Tensor:
    """`value`, if it is a floating tensor."""
    if not isinstance(value, Tensor):
        raise InputTypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
    if not value.is_floating_point():
        raise InputTypeError(f"{name} must be a floating tensor; got {value.dtype}")
    if value.is_nested or value.layout != torch.strided:
        got = "a nested one" if value.is_nested else str(value.layout)
        raise InputTypeError(f"{name} must be a tensor that is neither nested nor sparse; got {got}")
    return value


def check_number(name: str, value: object) -> float:
    """`value` as a float, if it is a number or a tensor of one."""
    whole = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
    if not whole and (isinstance(value, bool) or not isinstance(value, Real)):
        raise InputTypeError(f"{name} must be a number; got {type(value).__name__}")
    return float(value)  # type: ignore[arg-type]


def check_flags(**flags: object) -> None:
    """Each flag, given by its argument's name, is a bool."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise InputTypeError(f"{name} must be a bool; got {type(flag).__name__}")


def check_like(name: str, value: Tensor, like_name: str, like: Tensor) -> None:
    """`value` has the dtype and the device of `like`."""
    if value.dtype != like.dtype and not autocasting(value.device):
        raise InputTypeError(f"{name} must have the dtype of {like_name}, {like.dtype}; got {value.dtype}")
    if value.device != like.device:
        raise InputTypeError(f"{name} must be on the device of {like_name}, {like.device}; got {value.device}")


def autocasting(device: torch.device) -> bool:
    """Whether autocast is on for tensors of `device`; some kinds of device, such as meta, have none to ask for."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def check_shape(name: str, value: Tensor, expected: Sequence[int], axes: str) -> None:
    """`value` has exactly the shape `expected`, whose axes are called `axes`."""
    if tuple(value.shape) != tuple(expected):
        raise InputValueError(f"{name} must be {axes} = {tuple(expected)}; got {tuple(value.shape)}")


def check_mask(mask: object, expected: Sequence[int], axes: str, device: torch.device) -> Tensor:
    """`mask`, if it is a bool tensor of the shape `expected` on `device`."""
    return _check_bools("mask", "True where a step is used", mask, expected, axes, device)


def check_reset_at(reset_at: object, expected: Sequence[int], axes: str, device: torch.device) -> Tensor:
    """`reset_at`, if it is a bool tensor of the shape `expected` on `device`."""
    return _check_bools("reset_at", "True where the state begins anew", reset_at, expected, axes, device)


def _check_bools(
    name: str, meaning: str, value: object, expected: Sequence[int], axes: str, device: torch.device
) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputTypeError(f"{name} must be a bool tensor, {meaning}; got {got}")
    check_shape(name, value, expected, axes)
    if value.device != device:
        raise InputTypeError(f"{name} must be on the device of the input, {device}; got {value.device}")
    return value


def check_lengths(lengths: object, batch: int, steps: int, device: torch.device) -> Tensor:
    """`lengths` as int64 (B,) on `device`, if each lies in 0..T."""
    if isinstance(lengths, Set | Mapping):
        raise InputTypeError(f"lengths must be ints in the order of the sequences; got {type(lengths).__name__}")
    try:
        values = torch.as_tensor(lengths if isinstance(lengths, Tensor) else list(lengths), device=device)  # type: ignore[call-overload]
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError(f"lengths must be ints; got {type(lengths).__name__}") from None
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise InputTypeError(f"lengths must be ints; got {values.dtype}")
    check_shape("lengths", values, (batch,), "(B,)")
    if torch.compiler.is_compiling():  # numbers are not known yet: look when they are
        inside = ((values >= 0) & (values <= steps)).all()
        torch._assert_async(inside, f"lengths must lie in 0..T = 0..{steps}")
        return values.long()
    for length in values[(values < 0) | (values > steps)].tolist():
        raise InputValueError(f"lengths must lie in 0..T = 0..{steps}; got {length}")
    return values.long()


def check_sizes(**sizes: object) -> None:
    """Each size, given by its argument's name, is an int of at least 1."""
    for name, size in sizes.items():
        if type(size) is not int:
            raise InputTypeError(f"{name} must be an int; got {type(size).__name__}")
        if size < 1:
            raise InputValueError(f"{name} must be at least 1; got {size}")


def check_nonlinearity(nonlinearity: object) -> None:
    """`nonlinearity` is one of torch.nn's two."""
    if nonlinearity not in ("tanh", "relu"):
        raise InputValueError(f'nonlinearity must be "tanh" or "relu" (activation takes others); got {nonlinearity!r}')


def check_activation(name: str, activation: object) -> None:
    """`activation` is callable or one of the names in `equations.ACTIVATIONS`."""
    if isinstance(activation, str) and activation not in ACTIVATIONS:
        known = ", ".join(f'"{key}"' for key in ACTIVATIONS)
        raise InputValueError(f"{name} must be one of {known} or a function; got {activation!r}")
    if not isinstance(activation, str) and not callable(activation):
        raise InputTypeError(f"{name} must be a name or a function; got {type(activation).__name__}")
