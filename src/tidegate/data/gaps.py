"""The time between steps: whether it is always the same, and as one more feature where it is not."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.data.derived import beside, differences
from tidegate.data.rows import CHUNK
from tidegate.data.sequences import Feature, Sequences
from tidegate.errors import InputValueError

__all__ = ["GAP", "Gaps", "gaps_in", "times_after", "with_gaps"]

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


def times_after(times: NDArray[np.float64], rows: slice, ahead: NDArray[np.int64]) -> NDArray[np.float64]:
    """The times of steps after the last of `rows`, if those before are evenly spaced; NaN otherwise."""
    gaps = gaps_in(times, [rows])
    gap = np.nan if gaps.vary or not gaps.count else gaps.mean
    after: NDArray[np.float64] = times[rows.stop - 1] + ahead * gap
    return after


def with_gaps(sequences: Sequences) -> Sequences:
    """The same with `GAP` as the last feature, whose values are made when their rows are asked for.

    Raises:
        InputValueError: the steps have no times, or there is a feature of that name.
    """
    if sequences.times is None:
        raise InputValueError("data must have times (time), since the time between steps is an input; they have none")
    times, offsets = sequences.times, sequences.offsets
    return beside(sequences, GAP, lambda start, stop: np.log1p(differences(times, offsets, start, stop)))
