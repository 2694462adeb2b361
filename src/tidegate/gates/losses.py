"""Losses on the gates: how often a network may write, and which steps it is to let in or to leave out."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tidegate.errors import InputTypeError, InputValueError
from tidegate.gates.trace import DirectionTrace, Trace

__all__ = ["hold", "steps_of", "write", "write_budget"]

#: Gates nearer than this to the end that a loss drives them from count as so near: the loss stays finite.
_LEAST = 1e-6


def write_budget(
    traced: Trace | DirectionTrace | Tensor, share: float, mask: Tensor | None = None
) -> Float[Tensor, ""]:
    """How far the update gate goes beyond a budget: the mean over sequences and units of `max(0, mean_t Gu - share)²`.

    A unit whose gate is 0.1 on average writes a tenth of its candidate a step. Under the budget the loss is 0, so it
    asks for no less.

    Args:
        traced: a trace of the layer in training, whose gates are differentiable; or the update gates (T, B, H) alone.
        share: the budget, in [0, 1].
        mask: (T, B) bool, False where a step does not count; a trace's own mask counts too.

    Raises `InputValueError` or `InputTypeError` for an argument of another kind, shape or range.
    """
    if not 0 <= share <= 1:
        raise InputValueError(f"share must lie in 0..1; got {share}")
    update, known = _read(traced, mask)
    counted = known.sum(0).clamp_min(1).unsqueeze(-1)
    mean = torch.where(known.unsqueeze(-1), update, 0).sum(0) / counted
    return (mean - share).clamp_min(0).square().mean()


def hold(traced: Trace | DirectionTrace | Tensor, steps: Tensor, mask: Tensor | None = None) -> Float[Tensor, ""]:
    """The loss that teaches to leave steps out: the mean of `-log(1 - Gu)` over the steps that are True.

    That is the cross-entropy of the update gate with 0. Without such a step the loss is 0.

    Args:
        traced: as in `write_budget`.
        steps: (T, B) bool, True where nothing is to be written: an advert, a pause, a fault of the sensor.
        mask: (T, B) bool, False where a step does not count; a trace's own mask counts too.
    """
    update, known = _read(traced, mask)
    return _mean(-torch.log((1 - update[known & _check_steps(steps, update)]).clamp_min(_LEAST)))


def write(traced: Trace | DirectionTrace | Tensor, steps: Tensor, mask: Tensor | None = None) -> Float[Tensor, ""]:
    """The loss that teaches to let steps in: the mean of `-log(Gu)` over the steps that are True; see `hold`."""
    update, known = _read(traced, mask)
    return _mean(-torch.log(update[known & _check_steps(steps, update)].clamp_min(_LEAST)))


def steps_of(spans: Iterable[tuple[float, float]], times: Tensor, *, end: float | None = None) -> Bool[Tensor, "T"]:
    """Which steps lie in spans of time `[start, stop)`; a step lasts until the next one, the last until `end`.

    A step counts as inside if at least half of it is. Times are in seconds or whatever the spans are in; without `end`
    the last step lasts as long as the one before it.
    """
    if times.ndim != 1 or not len(times):
        raise InputValueError(f"times must be (T,) with T of at least 1; got {tuple(times.shape)}")
    if (times.diff() < 0).any():
        raise InputValueError("times must not fall")
    last = times[-1] + ((times[-1] - times[-2]) if len(times) > 1 else 1) if end is None else times.new_tensor(end)
    stops = torch.cat([times[1:], last.reshape(1)])
    inside = torch.zeros_like(times)
    for start, stop in _apart(spans):
        inside += (
            torch.minimum(stops, stops.new_tensor(stop)) - torch.maximum(times, times.new_tensor(start))
        ).clamp_min(0)
    return (inside >= 0.5 * (stops - times)) & (inside > 0)


def _apart(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same spans in order, those that overlap as one."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if not start <= stop:
            raise InputValueError(f"spans must be (start, stop) with start before stop; got ({start}, {stop})")
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _read(traced: Trace | DirectionTrace | Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The update gates in float32 at least, and which steps count."""
    if isinstance(traced, Trace):
        traced = traced.layers[-1]
    update = traced.update if isinstance(traced, DirectionTrace) else traced
    if not isinstance(update, Tensor) or not update.is_floating_point():
        raise InputTypeError(f"traced must be a Trace or the update gates (T, B, H); got {type(update).__name__}")
    if update.ndim != 3:
        raise InputValueError(f"update gates must be (T, B, H); got {tuple(update.shape)}")
    update = update.float() if update.dtype in (torch.float16, torch.bfloat16) else update
    known = torch.ones(update.shape[:2], dtype=torch.bool, device=update.device)
    if isinstance(traced, DirectionTrace) and traced.mask is not None:
        known = known & traced.mask
    return update, known if mask is None else known & _check_steps(mask, update, "mask")


def _check_steps(steps: Tensor, update: Tensor, name: str = "steps") -> Tensor:
    if not isinstance(steps, Tensor) or steps.dtype != torch.bool:
        raise InputTypeError(
            f"{name} must be a bool tensor (T, B); got {getattr(steps, 'dtype', type(steps).__name__)}"
        )
    if steps.shape != update.shape[:2]:
        raise InputValueError(f"{name} must be (T, B) = {tuple(update.shape[:2])}; got {tuple(steps.shape)}")
    return steps


def _mean(losses: Tensor) -> Tensor:
    """Over the units and the steps that count; 0 where there are none, with a gradient of 0."""
    return losses.sum() / max(losses.numel(), 1)
