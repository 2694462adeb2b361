"""The time between steps: whether it is always the same, and as one more feature where it is not."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.rows import CHUNK
from tidegate.data.sequences import Feature, Sequences
from tidegate.errors import InputValueError

__all__ = ["GAP", "Gaps", "gaps_in", "with_gaps"]

#: The feature: ln(1 + the time since the step before); missing at the first step of a sequence.
GAP = Feature("time gap", "gap")
#: Gaps that differ by no more than this share of their mean are the same: rounded clocks, months.
_ROUNDING = 0.1


@dataclass(frozen=True)
class Gaps:
    """The times between the steps of some stretches."""

    count: int
    least: float
    most: float
    mean: float

    @property
    def vary(self) -> bool:
        """Whether they differ by more than rounding."""
        return self.count > 0 and self.most - self.least > _ROUNDING * self.mean


def gaps_in(times: NDArray[np.float64], stretches: Iterable[slice]) -> Gaps:
    """The gaps between the steps of each stretch of `times` (N,), read in bounded memory."""
    count, least, most, total = 0, np.inf, -np.inf, 0.0
    for rows in stretches:
        for start in range(rows.start, rows.stop - 1, CHUNK):
            gaps = np.diff(times[start : min(start + CHUNK, rows.stop - 1) + 1])
            least, most = min(least, float(gaps.min())), max(most, float(gaps.max()))
            total += float(gaps.sum())
            count += len(gaps)
    return Gaps(count, least, most, total / count) if count else Gaps(0, np.nan, np.nan, np.nan)


def with_gaps(sequences: Sequences) -> Sequences:
    """The same with `GAP` as the last feature, whose values are made when their rows are asked for.

    Raises:
        InputValueError: the steps have no times, or there is a feature of that name.
    """
    if sequences.times is None:
        raise InputValueError("data must have times (time), since the time between steps is an input; they have none")
    if GAP.name in [feature.name for feature in sequences.features]:
        raise InputValueError(f"features must not be named {GAP.name!r} where the time between steps is an input")
    values = _Gapped(sequences.values, sequences.times, sequences.offsets)
    return replace(sequences, features=(*sequences.features, GAP), values=values)


class _Gapped:
    """(N, F + 1): the rows of an array with the gaps beside them; what lies on disk stays there until it is read."""

    ndim = 2
    dtype = np.dtype(np.float64)

    def __init__(self, values: NDArray[Any], times: NDArray[np.float64], offsets: NDArray[np.int64]) -> None:
        self._values, self._times, self._offsets = values, times, offsets
        self.shape = (len(values), values.shape[1] + 1)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: slice) -> NDArray[np.float64]:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise InputValueError(f"rows must be asked for one after the other; got a step of {step}")
        stop = max(start, stop)
        found = np.empty((stop - start, self.shape[1]))
        found[:, :-1] = self._values[start:stop]
        before = max(start - 1, 0)
        gaps = np.diff(self._times[before:stop], prepend=np.nan)[start - before :]
        first = self._offsets[np.searchsorted(self._offsets, start) : np.searchsorted(self._offsets, stop)] - start
        gaps[first] = np.nan
        found[:, -1] = np.log1p(gaps)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)
