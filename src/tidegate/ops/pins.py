"""Pins: gates forced to a value, at some steps, in some units, of some sequences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tidegate.equations import Pinned
from tidegate.errors import InputTypeError, InputValueError

__all__ = ["Pins", "read_pins", "resolve"]

Selection = int | slice | Sequence[int] | Tensor | None
GATES: tuple[Literal["update"], Literal["reset"]] = ("update", "reset")


@dataclass(frozen=True, eq=False)
class Pins:
    """Gates forced to a value: `Pins(update=0.0, steps=slice(5, 9))` writes nothing during steps 5 to 8.

    `update` and `reset` are a number in [0, 1], or a tensor of shape (H,), one value per unit, or (T, B, H), one per
    step, sequence and unit, time-major as in a trace (so a trace's gates can be played back). None leaves it free.

    Each selection is None (all), an int, a slice, a sequence of ints, or a bool tensor; together they say where the
    pin holds. `steps` may also be a bool tensor (T, B), for other steps in each sequence. `layer` counts from 0, and
    `direction` is "forward" or "reverse"; None means every one.

    A pin is a constant: no gradient flows into it, nor through the gate that it forces.
    """

    update: float | Tensor | None = None
    reset: float | Tensor | None = None
    steps: Selection = None
    units: Selection = None
    sequences: Selection = None
    layer: int | None = None
    direction: Literal["forward", "reverse"] | None = None

    def __post_init__(self) -> None:
        if self.update is None and self.reset is None:
            raise InputValueError("pins must force update, reset or both; got neither")
        if self.layer is not None and type(self.layer) is not int:
            raise InputTypeError(f"pins layer must be an int or None; got {type(self.layer).__name__}")
        if self.direction not in (None, "forward", "reverse"):
            raise InputValueError(f'pins direction must be "forward", "reverse" or None; got {self.direction!r}')
        for gate in GATES:
            _check_value(gate, getattr(self, gate))


def read_pins(
    pins: Pins | Iterable[Pins] | None,
    system: str,
    *,
    layers: int = 1,
    directions: tuple[str, ...] = ("forward",),
) -> tuple[Pins, ...]:
    """One pin, several or none as a tuple, if each concerns something that there is."""
    try:
        read = () if pins is None else (pins,) if isinstance(pins, Pins) else tuple(pins)
    except TypeError:
        raise InputTypeError(f"pins must be tidegate.Pins or several of them; got {type(pins).__name__}") from None
    for pin in read:
        if not isinstance(pin, Pins):
            raise InputTypeError(f"pins must be tidegate.Pins or several of them; got {type(pin).__name__}")
        if pin.layer is not None and not 0 <= pin.layer < layers:
            raise InputValueError(f"pins layer must lie in 0..{layers - 1}; got {pin.layer}")
        if pin.direction not in (None, *directions):
            raise InputValueError(f'pins direction must be "{directions[0]}" or None here; got "{pin.direction}"')
        if pin.reset is not None and system == "dense":
            raise InputValueError("pins reset must be None for a dense layer, which has no past to gate; got a value")
    return read


def resolve(
    pins: Iterable[Pins],
    shape: tuple[int, int, int],
    like: Tensor,
    *,
    layer: int = 0,
    reverse: bool = False,
) -> Pinned:
    """Lay the pins that concern this layer and direction over each other, later ones on top.

    `shape` is (T, B, H). A gate that no pin names is None, any other is NaN where free, with the axes that every
    value has in common left at size 1.
    """
    direction = "reverse" if reverse else "forward"
    here = [pin for pin in pins if pin.layer in (None, layer) and pin.direction in (None, direction)]
    return Pinned(*(_resolve_gate(gate, here, shape, like) for gate in GATES))


def _resolve_gate(
    gate: str, pins: list[Pins], shape: tuple[int, int, int], like: Tensor
) -> Float[Tensor, "T #B #H"] | None:
    named = [(pin, getattr(pin, gate)) for pin in pins if getattr(pin, gate) is not None]
    if not named:
        return None
    steps, batch, hidden = shape
    whole = [isinstance(value, Tensor) and value.ndim == 3 for _, value in named]
    each_sequence = any(whole) or any(pin.sequences is not None or _is_plane(pin.steps) for pin, _ in named)
    each_unit = any(isinstance(value, Tensor) for _, value in named) or any(pin.units is not None for pin, _ in named)
    size = (steps, batch if each_sequence else 1, hidden if each_unit else 1)
    forced = like.new_full(size, torch.nan)
    for pin, value in named:
        where = _where(pin, shape, like.device)
        forced = torch.where(where, _as_tensor(gate, value, shape, like), forced)
    return forced


def _where(pin: Pins, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Where the pin holds, as bools broadcastable to (T, B, H)."""
    steps, batch, hidden = shape
    if _is_plane(pin.steps):
        assert isinstance(pin.steps, Tensor)
        if tuple(pin.steps.shape) != (steps, batch):
            raise InputValueError(f"pins steps must be (T, B) = ({steps}, {batch}); got {tuple(pin.steps.shape)}")
        where = pin.steps.to(device).unsqueeze(-1)
    else:
        where = _select("steps", pin.steps, steps, device)[:, None, None]
    if pin.sequences is not None:
        where = where & _select("sequences", pin.sequences, batch, device)[:, None]
    if pin.units is not None:
        where = where & _select("units", pin.units, hidden, device)
    return where


def _select(name: str, selection: Selection, size: int, device: torch.device) -> Tensor:
    """A selection along one axis of `size` as bools (size,)."""
    chosen = torch.zeros(size, dtype=torch.bool, device=device)
    if selection is None:
        return ~chosen
    if isinstance(selection, Tensor) and selection.dtype == torch.bool:
        if tuple(selection.shape) != (size,):
            raise InputValueError(f"pins {name} must be a bool tensor of {size}; got shape {tuple(selection.shape)}")
        return selection.to(device)
    indices = _indices(name, selection, size)
    if not indices:
        raise InputValueError(f"pins {name} must name at least one of {size}; {selection!r} names none")
    outside = [index for index in indices if not -size <= index < size]
    if outside:
        raise InputValueError(f"pins {name} must lie in 0..{size - 1}; got {outside[0]}")
    chosen[torch.tensor(indices, device=device)] = True
    return chosen


def _indices(name: str, selection: int | slice | Sequence[int] | Tensor, size: int) -> list[int]:
    if isinstance(selection, slice):
        parts = [part for part in (selection.start, selection.stop, selection.step) if part is not None]
        if any(type(part) is not int for part in parts):
            raise InputTypeError(f"pins {name} must be a slice of ints; got {selection!r}")
        if selection.step == 0:
            raise InputValueError(f"pins {name} must be a slice with a step other than 0; got {selection!r}")
        bounds = [bound for bound in (selection.start, selection.stop) if bound is not None]
        outside = [bound for bound in bounds if not -size <= bound <= size]
        if outside:
            raise InputValueError(f"pins {name} must lie in 0..{size - 1}; got a slice to {outside[0]}")
        return list(range(*selection.indices(size)))
    values = selection.tolist() if isinstance(selection, Tensor) else selection
    listed = list(values) if isinstance(values, Iterable) else [values]
    if any(isinstance(index, bool) or not isinstance(index, Integral) for index in listed):
        got = (
            f"{selection.dtype} of shape {tuple(selection.shape)}" if isinstance(selection, Tensor) else repr(selection)
        )
        raise InputTypeError(f"pins {name} must be an int, a slice, ints or a bool tensor; got {got}")
    return [int(index) for index in listed]


def _check_value(gate: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise InputTypeError(f"pins {gate} must be a floating tensor; got {value.dtype}")
        if value.requires_grad:
            raise InputValueError(f"pins {gate} is a constant and must not require a gradient; detach it first")
        if value.ndim not in (1, 3):
            raise InputValueError(f"pins {gate} must be (H,) or (T, B, H); got shape {tuple(value.shape)}")
        outside = value[~((value >= 0) & (value <= 1))]
        if outside.numel():
            raise InputValueError(f"pins {gate} must lie in [0, 1]; got {outside[0].item():g}")
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise InputTypeError(f"pins {gate} must be a number or a tensor; got {type(value).__name__}")
    elif not 0 <= float(value) <= 1:
        raise InputValueError(f"pins {gate} must lie in [0, 1]; got {float(value):g}")


def _as_tensor(gate: str, value: float | Tensor, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        return like.new_tensor(value)
    expected = shape if value.ndim == 3 else shape[-1:]
    if tuple(value.shape) != expected:
        raise InputValueError(f"pins {gate} must have shape {expected} here; got {tuple(value.shape)}")
    return value.to(like)


def _is_plane(steps: Selection) -> bool:
    return isinstance(steps, Tensor) and steps.ndim == 2 and steps.dtype == torch.bool
