"""Operators that lay numbers out anew, or choose among them: shapes, pieces, indices."""

import torch
from torch import Tensor

from tidegate.convert.onnx.operators.table import numbers, operator, place_of
from tidegate.errors import InputValueError

__all__: list[str] = []


@operator("Shape")
def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape)[slice(start, end)], dtype=torch.int64)


@operator("Size")
def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@operator("Reshape", lays_out=True)
def _reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    sizes = numbers(shape)
    if not allowzero:
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(tuple(sizes))


@operator("Flatten", lays_out=True)
def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    if not -x.ndim <= axis <= x.ndim:
        raise InputValueError(f"axis must lie in {-x.ndim}..{x.ndim}; got {axis}")
    rows = x.shape[: axis % x.ndim if axis < 0 else axis].numel()
    return x.reshape(rows, x.numel() // rows if rows else 0)


@operator("Transpose", lays_out=True)
def _transpose(x: Tensor, *, perm: list[int] | None = None) -> Tensor:
    return x.permute(list(range(x.ndim))[::-1] if perm is None else perm)


@operator("Squeeze", lays_out=True)
def _squeeze(x: Tensor, axes_given: Tensor | None = None, *, axes: list[int] | None = None) -> Tensor:
    told = axes if axes_given is None else numbers(axes_given)
    away = (
        [axis for axis, size in enumerate(x.shape) if size == 1]
        if told is None
        else [place_of(axis, x.ndim) for axis in told]
    )
    if any(x.shape[axis] != 1 for axis in away):
        raise InputValueError(f"axes of a Squeeze node must have the size 1; got {away} of {tuple(x.shape)}")
    return x.reshape(tuple(size for axis, size in enumerate(x.shape) if axis not in away))


@operator("Unsqueeze", lays_out=True)
def _unsqueeze(x: Tensor, axes_given: Tensor | None = None, *, axes: list[int] | None = None) -> Tensor:
    told = axes if axes_given is None else numbers(axes_given)
    if told is None:
        raise InputValueError("axes of an Unsqueeze node must be given")
    rank = x.ndim + len(told)
    for axis in sorted(place_of(axis, rank) for axis in told):
        x = x.unsqueeze(axis)
    return x


@operator("Expand", since=8)
def _expand(x: Tensor, shape: Tensor) -> Tensor:
    like = x.new_empty(()).expand(tuple(numbers(shape)))
    expanded: Tensor = torch.broadcast_tensors(x, like)[0]  # type: ignore[no-untyped-call]
    return expanded


@operator("Tile")
def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(numbers(repeats))


@operator("Concat", lays_out=True)
def _concat(*tensors: Tensor, axis: int) -> Tensor:
    return torch.cat(tensors, axis)


@operator("Split", lays_out=True)
def _split(
    x: Tensor,
    sizes: Tensor | None = None,
    *,
    axis: int = 0,
    split: list[int] | None = None,
    num_outputs: int | None = None,
    outputs: int,
) -> tuple[Tensor, ...]:
    told = split if sizes is None else numbers(sizes)
    if told is None:
        count = outputs if num_outputs is None else num_outputs
        whole = -(-x.shape[axis] // count)
        told = [whole] * (count - 1)
        told.append(x.shape[axis] - sum(told))
    return torch.split(x, told, axis)


@operator("Slice", since=10, lays_out=True)
def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    first, last = numbers(starts), numbers(ends)
    over = list(range(len(first))) if axes is None else numbers(axes)
    by = [1] * len(first) if steps is None else numbers(steps)
    for axis, start, end, step in zip(over, first, last, by, strict=True):
        chosen = range(*slice(start, end, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, chosen.start if chosen else 0, len(chosen))
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


@operator("Gather")
def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis = place_of(axis, x.ndim)
    chosen = _counted_from_the_start(indices, x.shape[axis])
    return x.index_select(axis, chosen.flatten()).reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@operator("GatherElements", since=11)
def _gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return torch.gather(x, axis, _counted_from_the_start(indices, x.shape[axis]))


def _counted_from_the_start(indices: Tensor, size: int) -> Tensor:
    """Indices of which negative ones counted from the end; refused where they lie outside."""
    if indices.numel() and not bool(((indices >= -size) & (indices < size)).all()):
        raise InputValueError(f"indices must lie in {-size}..{size - 1}; got {indices.min()} to {indices.max()}")
    return torch.where(indices < 0, indices + size, indices).long()


@operator("ReverseSequence", since=10)
def _reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    moved = x.movedim((time_axis, batch_axis), (0, 1))
    steps = torch.arange(moved.shape[0], device=x.device).unsqueeze(-1)
    mirrored = torch.where(steps < lengths, lengths - 1 - steps, steps)
    turned = moved.gather(0, mirrored.reshape(*mirrored.shape, *[1] * (x.ndim - 2)).expand_as(moved))
    return turned.movedim((0, 1), (time_axis, batch_axis))
