"""What is learned from, what tells when to stop, and what is asked about only at the end: sequences, or their steps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError
from tidegate.train.spans import Spans

__all__ = ["Parts", "Split", "TimeSplit", "split", "split_by_time"]

_HINT = " (id names the column of a table that tells them apart)"
#: Steps that are read before those that a later part asks about, for a state that has seen something.
_WARM_UP = 1024


@dataclass(frozen=True, eq=False)
class Split:
    """Three sets of sequences that share none."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TimeSplit:
    """Three sets of stretches that share no step that is asked about."""

    train: Spans
    validation: Spans
    test: Spans


Parts = Split | TimeSplit


def split(sequences: Sequences, *, validation: float, test: float, seed: int) -> Split:
    """Draw the parts, whole sequences each, with every class in each part in its share as far as there are enough.

    Raises `InputValueError` if there are too few sequences for a part that was asked for.
    """
    _check_shares(validation, test)
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(len(sequences))
    label = sequences.label
    if label is not None and not label.per_step and label.categories is not None:
        order = _interleaved(order, label.values)
    wanted = [round(share * len(sequences)) for share in (test, validation)]
    counts = [max(count, 1) if share else 0 for count, share in zip(wanted, (test, validation), strict=True)]
    if sum(counts) >= len(sequences):
        raise InputValueError(
            f"data must hold more sequences to be split into train, validation and test; got {len(sequences)}"
            f"{_HINT if len(sequences) == 1 else ''}"
        )
    ends = np.cumsum(counts)
    parts = [np.sort(part) for part in np.split(order, ends)]
    return Split(train=parts[2], validation=parts[1], test=parts[0])


def split_by_time(sequences: Sequences, *, validation: float, test: float, horizon: int) -> TimeSplit:
    """Cut every sequence in time: its last steps are the test part, those before the validation part, the first train.

    A part counts the forecasts of its own steps alone. Later parts read up to 1024 steps before them, and no less than
    the `horizon`. A sequence too short to leave two steps to learn from is learned from whole.

    Raises `InputValueError` if all sequences are that short.
    """
    _check_shares(validation, test)
    lengths = sequences.lengths
    shares = [np.maximum(np.rint(share * lengths), share > 0).astype(np.int64) for share in (validation, test)]
    cut = lengths - shares[0] - shares[1] >= 2
    if not cut.any():
        raise InputValueError(
            "data must hold a sequence of enough steps to be split into train, validation and test; the longest has "
            f"{lengths.max(initial=0)}"
        )
    tested = np.where(cut, lengths - shares[1], lengths)
    validated = np.where(cut, tested - shares[0], lengths)
    zero = np.zeros(len(sequences), np.int64)
    warm = max(_WARM_UP, horizon)

    def part(low: NDArray[np.int64], high: NDArray[np.int64]) -> Spans:
        some = np.flatnonzero(high > low)
        return Spans(some, np.maximum(low - warm, 0)[some], high[some], low[some], high[some])

    return TimeSplit(part(zero, validated), part(validated, tested), part(tested, lengths))


def _check_shares(validation: float, test: float) -> None:
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise InputValueError(f"{name} must be a share of at least 0 and below 1; got {share}")
    if validation + test >= 1:
        raise InputValueError(f"validation and test must leave something to train on; got {validation} + {test}")


def _interleaved(order: NDArray[np.int64], classes: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same sequences so that any run of them has the classes in their shares: each class spread out evenly."""
    place = np.empty(len(order))
    for one in np.unique(np.nan_to_num(classes, nan=-1)):
        members = np.flatnonzero(np.nan_to_num(classes[order], nan=-1) == one)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place, kind="stable")]
