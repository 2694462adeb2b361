"""Operators that go along axes: sums, maxima, where a maximum is."""

from collections.abc import Callable

import torch
from torch import Tensor

from tidegate.convert.onnx.operators.table import numbers, operator

__all__: list[str] = []


def _reduction(name: str, reduce: Callable[[Tensor, list[int], bool], Tensor]) -> None:
    def run(
        x: Tensor,
        axes_given: Tensor | None = None,
        *,
        axes: list[int] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        over = axes if axes_given is None else numbers(axes_given)
        if not over:
            if noop_with_empty_axes:
                return x
            over = list(range(x.ndim))
        return reduce(x, over, bool(keepdims)) if x.ndim else x

    operator(name)(run)


_reduction("ReduceMax", torch.amax)
_reduction("ReduceMean", torch.mean)
_reduction("ReduceMin", torch.amin)
_reduction("ReduceSum", lambda x, axes, keep: torch.sum(x, axes, keep).to(x.dtype))


@operator("ArgMax", since=12)
def _argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if not select_last_index:
        return torch.argmax(x, axis, bool(keepdims))
    return x.shape[axis] - 1 - torch.argmax(x.flip(axis), axis, bool(keepdims))


@operator("CumSum", since=11)
def _cumsum(x: Tensor, axis_given: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    axis = int(axis_given)
    flipped = x.flip(axis) if reverse else x
    total = flipped.cumsum(axis).to(x.dtype)
    total = total - flipped if exclusive else total
    return total.flip(axis) if reverse else total
