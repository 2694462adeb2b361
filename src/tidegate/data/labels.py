"""The label of a table: of a sequence or of its steps, a number or a category."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.cells import Reading
from tidegate.data.classes import classes_among
from tidegate.data.fill import chunks
from tidegate.data.sequences import Label
from tidegate.data.store import Store
from tidegate.errors import FileError, InputValueError

__all__ = ["check_label", "label_of"]


def check_label(label: Label) -> None:
    """Refuse a label from which nothing can be learned.

    Raises:
        InputValueError: it is missing everywhere, or the same everywhere.
    """
    low, high = np.nan, np.nan
    for rows in chunks(0, len(label.values)):
        part = label.values[rows]
        low, high = float(np.fmin(low, np.fmin.reduce(part))), float(np.fmax(high, np.fmax.reduce(part)))
    if np.isnan(low):
        raise InputValueError(f"the label {label.name!r} must have values to learn from; all are missing")
    if low == high:
        always = label.categories[int(low)] if label.categories and low >= 0 else f"{low:.15g}"
        raise InputValueError(f"the label {label.name!r} must differ somewhere; it is always {always!r}")


def label_of(
    reading: Reading,
    values: NDArray[Any],
    offsets: NDArray[np.int64],
    ids: Sequence[str],
    known: Label | None,
    store: Store,
) -> Label:
    """The label of sequences, from what each row (N,) says.

    It belongs to a sequence if no sequence has two different values, rows without one aside; else to each step.
    A number is a category if it looks like one, see `classes_among`. A `known` label says both.

    Raises:
        FileError: a label that was one of sequences differs within one.
    """
    lowest, differs = _by_sequence(values, offsets)
    if known is None:
        per_step = differs is not None
    else:
        per_step = known.per_step
        if differs is not None and not per_step:
            raise FileError(
                f"the label {reading.name!r} must be the same in every row of a sequence, as in training; "
                f"it differs in {ids[differs]!r}"
            )
    if not per_step:
        store.drop(values)
        values = lowest
    categories: tuple[str, ...] | None = reading.categories if reading.kind == "category" else None
    if known is None and categories is None:
        whole = classes_among(values)
        if whole is not None:
            for rows in chunks(0, len(values)):
                part = values[rows]
                values[rows] = np.where(np.isnan(part), np.nan, np.searchsorted(whole, part))
            categories = tuple(str(int(value)) for value in whole)
    return Label(reading.name, values, per_step, categories)


def _by_sequence(values: NDArray[Any], offsets: NDArray[np.int64]) -> tuple[NDArray[np.float64], int | None]:
    """(S,) the least value of each sequence, and the first sequence that has two."""
    low = np.full(len(offsets) - 1, np.nan)
    high = low.copy()
    for rows in chunks(0, len(values)):
        first = int(np.searchsorted(offsets, rows.start, side="right")) - 1
        last = int(np.searchsorted(offsets, rows.stop, side="left"))
        begins = np.maximum(offsets[first:last] - rows.start, 0)
        part = np.asarray(values[rows])
        low[first:last] = np.fmin(low[first:last], np.fmin.reduceat(part, begins))
        high[first:last] = np.fmax(high[first:last], np.fmax.reduceat(part, begins))
    differs = np.flatnonzero(low < high)
    return low, int(differs[0]) if len(differs) else None
