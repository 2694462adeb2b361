"""Batches of sequences: which come together, in which order, cut into chunks where they are long."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError

__all__ = ["Batch", "Batches"]

#: How many batches' worth of sequences are sorted by length together, so that little is padded and much is shuffled.
_SORTED_TOGETHER = 16


@dataclass(frozen=True, eq=False)
class Batch:
    """Some sequences, or a chunk of each, side by side and padded."""

    #: (B,) which sequences they are.
    numbers: NDArray[np.int64]
    values: Shaped[Tensor, "T B F"]
    #: (B,) how many of the steps are theirs; 0 for a sequence that ended in an earlier chunk.
    lengths: Int[Tensor, "B"]
    #: (B,) or per step (T, B); NaN where it is not known, or where a sequence is not at its end.
    label: Tensor | None
    #: The first step of the chunk in its sequences: 0 where the state begins anew.
    start: int
    #: No chunk follows.
    last: bool
    #: (T, B) 1 where nothing is to be remembered, 0 elsewhere; NaN where it is not known.
    held: Tensor | None = None
    #: It is another process's, and nothing is asked of it here.
    lent: bool = False

    def pin_memory(self) -> "Batch":
        """Itself: what is on the CPU stays there."""
        return self


class Batches:
    """The sequences `numbers` in batches, in an order that follows from the seed and the epoch alone.

    Iterating gives one epoch. Sequences of like length come together, unless `sort` is False; with `chunk`, each batch
    is given in pieces of at most so many steps, one after the other. What lies on disk is read piece by piece.

    With `part`, only one of so many parts of each batch is given, in as many pieces as every other part: the batches of
    all parts together are those of one. A batch of fewer sequences than parts lends its first one, without its label.

    Raises `InputValueError` for a sequence without steps.
    """

    def __init__(
        self,
        sequences: Sequences,
        numbers: Sequence[int] | NDArray[np.int64],
        batch_size: int,
        *,
        chunk: int | None = None,
        shuffle: int | None = None,
        sort: bool = True,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.sequences, self.numbers = sequences, np.asarray(numbers, np.int64)
        short = self.numbers[self._lengths(self.numbers) == 0]
        if len(short):
            raise InputValueError(f"sequence {sequences.ids[int(short[0])]!r} must have at least one step; it has none")
        self.batch_size, self.chunk, self.shuffle, self.sort = batch_size, chunk, shuffle, sort
        self.part = part
        self.epoch = 0

    def __len__(self) -> int:
        """How many pieces this epoch has: with `chunk` and `shuffle` that differs from one epoch to another."""
        return sum(self._pieces(group) for group in self._groups())

    def __iter__(self) -> Iterator[Batch]:
        for group in self._groups():
            yield from self._of(group)

    def _groups(self) -> list[NDArray[np.int64]]:
        """The sequences of each batch."""
        if self.shuffle is None:
            ordered = self.numbers
        else:
            ordered = np.random.default_rng([self.shuffle, self.epoch]).permutation(self.numbers)
        together = self.batch_size * _SORTED_TOGETHER
        groups = []
        for start in range(0, len(ordered), together):
            near = ordered[start : start + together]
            if self.sort:
                near = near[np.argsort(self._lengths(near), kind="stable")]
            groups += [near[at : at + self.batch_size] for at in range(0, len(near), self.batch_size)]
        if self.shuffle is not None:
            order = np.random.default_rng([self.shuffle, self.epoch, 1]).permutation(len(groups))
            groups = [groups[at] for at in order]
        return groups

    def _lengths(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        offsets = self.sequences.offsets  # not of all sequences: there may be millions, and every batch asks
        lengths: NDArray[np.int64] = offsets[numbers + 1] - offsets[numbers]
        return lengths

    def _pieces(self, group: NDArray[np.int64]) -> int:
        longest = int(self._lengths(group).max())
        return 1 if self.chunk is None else -(-longest // self.chunk)

    def _of(self, group: NDArray[np.int64]) -> Iterator[Batch]:
        longest = int(self._lengths(group).max())
        width = longest if self.chunk is None else self.chunk
        which, of = self.part
        mine = group[which::of]
        lent = not len(mine)
        if lent:
            mine = group[:1]
        lengths = self._lengths(mine)
        for start in range(0, longest, width):
            stop = min(start + width, longest)
            here = np.clip(lengths - start, 0, stop - start)
            steps = max(int(here.max()), 1)  # all of this part may have ended while another's go on
            label, held = self._label(mine, start, here, steps), self._held(mine, start, here, steps)
            if lent:
                for told in (label, held):
                    if told is not None:
                        told.fill_(torch.nan)
            yield Batch(
                mine,
                self._values(mine, start, here, steps),
                torch.from_numpy(here),
                label,
                start,
                stop == longest,
                held,
                lent,
            )

    def _values(self, group: NDArray[np.int64], start: int, here: NDArray[np.int64], width: int) -> Tensor:
        held = self.sequences.values
        values = np.zeros((width, len(group), held.shape[1]), _torch_dtype(held.dtype))
        for place, (number, count) in enumerate(zip(group, here, strict=True)):
            first = int(self.sequences.offsets[number]) + start
            values[:count, place] = held[first : first + count]
        return torch.from_numpy(values)

    def _label(self, group: NDArray[np.int64], start: int, here: NDArray[np.int64], width: int) -> Tensor | None:
        label = self.sequences.label
        if label is None:
            return None
        if not label.per_step:
            ends = start + here == self._lengths(group)
            return torch.from_numpy(np.where(ends & (here > 0), label.values[group], np.nan))
        return self._per_step(label.values, group, start, here, width)

    def _held(self, group: NDArray[np.int64], start: int, here: NDArray[np.int64], width: int) -> Tensor | None:
        held = self.sequences.held
        return None if held is None else self._per_step(held, group, start, here, width)

    def _per_step(
        self, held: NDArray[np.float64], group: NDArray[np.int64], start: int, here: NDArray[np.int64], width: int
    ) -> Tensor:
        """One number a step, (N,), as (T, B); NaN behind a sequence's end."""
        values = np.full((width, len(group)), np.nan)
        for place, (number, count) in enumerate(zip(group, here, strict=True)):
            first = int(self.sequences.offsets[number]) + start
            values[:count, place] = held[first : first + count]
        return torch.from_numpy(values)


def _torch_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The smallest type that holds the same numbers and that torch computes with."""
    wider = {"u2": "i4", "u4": "i8", "u8": "f8"}
    return np.dtype(wider.get(dtype.str[1:], dtype.str[1:]))
