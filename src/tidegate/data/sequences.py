"""What every reader gives: sequences of steps, rows of numbers, with their labels; in memory or on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import InputValueError

__all__ = ["Columns", "Feature", "Kind", "Label", "Recorded", "Sequences", "sequence_at"]

#: Made of others: a "gap" is the time since the step before, a "change" that of a number; see `tidegate.data.derived`.
Kind = Literal["number", "boolean", "category", "gap", "change"]


@dataclass(frozen=True)
class Feature:
    """One input of every step."""

    name: str
    kind: Kind = "number"
    #: The values of a category, by their codes 0, 1, ...
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Label:
    """What is to be told of a sequence, or of each of its steps."""

    name: str
    #: (S,) or, per step, (N,): numbers, or codes of `categories`; NaN where it is not known. In float64, but where a
    #: feature is what is to be told: then they are its column.
    values: NDArray[Any]
    per_step: bool
    #: None for a label that is a number.
    categories: tuple[str, ...] | None = None
    #: How many steps ahead it is to be told; 0 for the step itself.
    ahead: int = 0


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what; None where a table has none, or all others."""

    #: A sequence is the rows of one id, in the order of `time`; without an id, a file is one sequence.
    id: str | None = None
    #: Numbers or time stamps; without it, steps are in the order of the rows.
    time: str | None = None
    label: str | None = None
    #: The inputs; every other column if not given.
    features: tuple[str, ...] | None = None
    #: Columns that are categories although their values are numbers.
    categorical: tuple[str, ...] = ()
    #: Columns that are not looked at.
    ignore: tuple[str, ...] = ()
    #: True at the steps of which nothing is to be remembered; no feature.
    hold: str | None = None


@dataclass(frozen=True, eq=False)
class Recorded:
    """How the steps of recordings, sound or video, lie in their time."""

    #: Seconds from the beginning of a step to its time.
    lead: float
    #: (S,) when the last step of each recording ends, in seconds.
    ends: NDArray[np.float64]
    #: (S,) frames a second of each video; None for sound.
    rates: NDArray[np.float64] | None = None

    def only(self, numbers: NDArray[np.int64]) -> "Recorded":
        """Of some of the recordings, in the order given."""
        return Recorded(self.lead, self.ends[numbers], None if self.rates is None else self.rates[numbers])


def sequence_at(offsets: NDArray[np.int64], row: int) -> int:
    """The sequence that a row lies in."""
    return int(np.searchsorted(offsets, row, side="right")) - 1


@dataclass(frozen=True, eq=False)
class Sequences:
    """S sequences of steps, one after the other: sequence s is the rows `offsets[s]` to `offsets[s+1]` of N.

    Large ones lie on disk: the arrays are then memory maps, of which the parts that are asked for are read.
    """

    features: tuple[Feature, ...]
    #: (N, F) numbers, 0 or 1, or codes of categories; NaN where one is missing, -1 for a category that is not known.
    #: An array, or, with features that are made of others, what makes rows as one asks for them by a slice.
    values: Any
    #: (S+1,)
    offsets: NDArray[np.int64]
    #: (S,) the sequences' names, in the order of their first rows.
    ids: Sequence[str]
    #: (N,) in seconds where they were time stamps; None where steps have no time. Never falls within a sequence.
    times: NDArray[np.float64] | None = None
    label: Label | None = None
    #: The files that they were read from.
    files: tuple[str, ...] = ()
    #: (N,) 1 at the steps of which nothing is to be remembered, 0 at others, NaN where it is not known.
    held: NDArray[np.float64] | None = None
    #: Of recordings; sequence s is then the file `files[s]`.
    recorded: Recorded | None = None

    def __post_init__(self) -> None:
        steps, width = self.values.shape
        if width != len(self.features) or self.offsets[0] != 0 or self.offsets[-1] != steps:
            raise InputValueError(
                f"values must be ({self.offsets[-1]}, {len(self.features)}) for these offsets and features; "
                f"got {self.values.shape}"
            )
        if len(self.ids) != len(self):
            raise InputValueError(f"ids must name {len(self)} sequences; got {len(self.ids)}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(S,) the steps of each sequence."""
        return np.diff(self.offsets)

    def rows(self, number: int) -> slice:
        """Where sequence `number` lies."""
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def column(self, name: str) -> int:
        """Which feature has this name; there is one."""
        return [feature.name for feature in self.features].index(name)

    def place(self, row: int) -> str:
        """Which step of which sequence a row is, in words."""
        number = sequence_at(self.offsets, row)
        return f"sequence {self.ids[number]!r}, step {row - int(self.offsets[number]) + 1}"

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """The values of each sequence, (T, F)."""
        return (self.values[self.rows(number)] for number in range(len(self)))

    def only(self, numbers: Sequence[int] | NDArray[np.int64]) -> "Sequences":
        """Some of the sequences, in the order given, in memory."""
        chosen = [self.rows(int(number)) for number in numbers]
        lengths = [rows.stop - rows.start for rows in chosen]
        label = self.label
        if label is not None:
            values = self._gathered(label.values, chosen) if label.per_step else label.values[np.asarray(numbers, int)]
            label = replace(label, values=values)
        return Sequences(
            self.features,
            self._gathered(self.values, chosen),
            np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
            [self.ids[int(number)] for number in numbers],
            None if self.times is None else self._gathered(self.times, chosen),
            label,
            self.files if self.recorded is None else tuple(self.files[int(number)] for number in numbers),
            None if self.held is None else self._gathered(self.held, chosen),
            None if self.recorded is None else self.recorded.only(np.asarray(numbers, np.int64)),
        )

    @staticmethod
    def _gathered(array: Any, chosen: Sequence[slice]) -> NDArray[Any]:
        return np.concatenate([array[rows] for rows in chosen]) if chosen else np.array(array[:0])
