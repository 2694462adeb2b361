"""The column that says of which steps nothing is to be remembered: taken out of the features."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tidegate.data.rows import Rows, chunks
from tidegate.data.sequences import Feature, Sequences
from tidegate.errors import InputValueError

__all__ = ["held_of", "without_last"]


def held_of(sequences: Sequences, name: str) -> NDArray[np.float64]:
    """(N,) the feature `name` as `Sequences.held` has it: 0, 1, or NaN where it is missing.

    Raises `InputValueError` unless it is true and false, or 0 and 1.
    """
    place = sequences.column(name)
    feature, rows = sequences.features[place], Rows((), np.float64)
    if feature.kind == "category":
        raise InputValueError(_told(feature, repr(feature.categories[0]) if feature.categories else "nothing"))
    for start, piece in chunks(sequences.values):
        part = np.asarray(piece[:, place], np.float64)
        wrong = np.flatnonzero((part != 0) & (part != 1) & ~np.isnan(part))
        if len(wrong):
            where = sequences.place(start + int(wrong[0]))
            raise InputValueError(_told(feature, f"{part[wrong[0]]:g} at {where}"))
        rows.append(part)
    return rows.finish()


def without_last(sequences: Sequences) -> Sequences:
    """The last feature as `held`; nothing else is copied."""
    held = held_of(sequences, sequences.features[-1].name)
    return replace(sequences, features=sequences.features[:-1], values=sequences.values[:, :-1], held=held)


def _told(feature: Feature, got: str) -> str:
    return f"hold must name a column of true and false, or 0 and 1; {feature.name!r} holds {got}"
