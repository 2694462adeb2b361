"""Features that are made as rows are read: beside what lies in memory or on disk, and never written there."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.sequences import Feature, Sequences
from tidegate.errors import InputValueError

__all__ = ["beside", "differences", "read_features", "with_change"]

#: Kinds that no reader finds in data.
_DERIVED = ("gap", "change")
#: The column of the rows from one to another, (T,).
Column = Callable[[int, int], NDArray[np.float64]]


def beside(sequences: Sequences, feature: Feature, column: Column) -> Sequences:
    """The same with one more feature, the last.

    Raises `InputValueError` if there is a feature of that name.
    """
    if feature.name in [one.name for one in sequences.features]:
        raise InputValueError(f"features must not be named {feature.name!r}, which is made of others; one is")
    return replace(sequences, features=(*sequences.features, feature), values=_Rows(sequences.values, column))


def differences(of: NDArray[Any], offsets: NDArray[np.int64], start: int, stop: int) -> NDArray[np.float64]:
    """How rows `start` to `stop` of a column differ from the row before each; NaN at the first of a sequence."""
    before = max(start - 1, 0)
    read = np.asarray(of[before:stop], np.float64)
    found: NDArray[np.float64] = np.diff(read, prepend=np.nan)[start - before :]
    found[offsets[np.searchsorted(offsets, start) : np.searchsorted(offsets, stop)] - start] = np.nan
    return found


def with_change(sequences: Sequences, name: str) -> Sequences:
    """The same with how the feature `name` changed since the step before: it stays within bounds where that rises."""
    column = sequences.values[:, sequences.column(name)]
    offsets = sequences.offsets
    return beside(
        sequences,
        Feature(f"change of {name}", "change"),
        lambda start, stop: differences(column, offsets, start, stop),
    )


def read_features(features: tuple[Feature, ...]) -> tuple[Feature, ...]:
    """Those that a reader is to find in data."""
    return tuple(feature for feature in features if feature.kind not in _DERIVED)


class _Rows:
    """(N, F + 1): the rows of an array and a column beside them; what lies on disk stays there until it is read."""

    ndim = 2
    dtype = np.dtype(np.float64)

    def __init__(self, values: Any, column: Column) -> None:
        self._values, self._column = values, column
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
        found[:, -1] = self._column(start, stop)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)
