"""Stretches of sequences: which steps are read, and of which the label counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidegate.data.sequences import Sequences

__all__ = ["Spans", "Which", "spans_of"]


@dataclass(frozen=True, eq=False)
class Spans:
    """N stretches, each of one sequence; steps are counted from the sequence's first, which is 0.

    Steps that are read and not asked about warm the state up.
    """

    #: (N,) which sequences they are of; one may have several.
    numbers: NDArray[np.int64]
    #: (N,) steps `start` to `stop` are read.
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    #: (N,) what is known of steps `low` to `high` counts, and nothing that is known of others.
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) how many steps are read."""
        return self.stop - self.start

    def chosen(self, places: NDArray[np.int64]) -> "Spans":
        """Some of them, in the order given."""
        return Spans(*(array[places] for array in (self.numbers, self.start, self.stop, self.low, self.high)))

    def rows(self, sequences: Sequences, place: int) -> slice:
        """Where the steps that stretch `place` reads lie in the sequences' arrays."""
        first = int(sequences.offsets[self.numbers[place]])
        return slice(first + int(self.start[place]), first + int(self.stop[place]))

    def asked(self, sequences: Sequences, place: int) -> slice:
        """Where the steps whose label counts in stretch `place` lie."""
        first = int(sequences.offsets[self.numbers[place]])
        return slice(first + int(self.low[place]), first + int(self.high[place]))


#: Stretches, or whole sequences by their numbers.
Which = Spans | Sequence[int] | NDArray[np.int64]


def spans_of(sequences: Sequences, which: Which) -> Spans:
    """Stretches as they are; of numbers, the whole sequences."""
    if isinstance(which, Spans):
        return which
    numbers = np.array(which, np.int64)
    stop = sequences.offsets[numbers + 1] - sequences.offsets[numbers]
    start = np.zeros(len(numbers), np.int64)
    return Spans(numbers, start, stop, start, stop)
