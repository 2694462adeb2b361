"""Which sequences are learned from, which tell when to stop, and which are asked about only at the end."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError

__all__ = ["Split", "split"]


@dataclass(frozen=True, eq=False)
class Split:
    """Three sets of sequences that share none."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split(sequences: Sequences, *, validation: float, test: float, seed: int) -> Split:
    """Draw the parts, whole sequences each, with every class in each part in its share as far as there are enough.

    Raises `InputValueError` if there are too few sequences for a part that was asked for.
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise InputValueError(f"{name} must be a share of at least 0 and below 1; got {share}")
    if validation + test >= 1:
        raise InputValueError(f"validation and test must leave something to train on; got {validation} + {test}")
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
        )
    ends = np.cumsum(counts)
    parts = [np.sort(part) for part in np.split(order, ends)]
    return Split(train=parts[2], validation=parts[1], test=parts[0])


def _interleaved(order: NDArray[np.int64], classes: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same sequences so that any run of them has the classes in their shares: each class spread out evenly."""
    place = np.empty(len(order))
    for one in np.unique(np.nan_to_num(classes, nan=-1)):
        members = np.flatnonzero(np.nan_to_num(classes[order], nan=-1) == one)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place, kind="stable")]
