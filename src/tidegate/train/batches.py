"""Batches of sequences, or of stretches of them: which come together, in which order, cut into chunks where long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from tidegate.data.sequences import Label, Sequences
from tidegate.errors import InputValueError
from tidegate.train.ahead import changes_ahead, last_known
from tidegate.train.spans import Spans, Which, spans_of

__all__ = ["Batch", "Batches"]

#: How many batches' worth of sequences are sorted by length together, so that little is padded and much is shuffled.
_SORTED_TOGETHER = 16


@dataclass(frozen=True, eq=False)
class Batch:
    """Some sequences or stretches, or a chunk of each, side by side and padded."""

    #: (B,) which sequences they are.
    numbers: NDArray[np.int64]
    values: Shaped[Tensor, "T B F"]
    #: (B,) how many of the steps are theirs; 0 for a sequence that ended in an earlier chunk.
    lengths: Int[Tensor, "B"]
    #: (B,) or per step (T, B), or (T, B, h) changes ahead; NaN where it is not known, or a sequence is not at its end.
    label: Tensor | None
    #: The first step of the chunk in its stretches: 0 where the state begins anew.
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
    """The sequences or stretches `which` in batches, in an order that follows from the seed and the epoch alone.

    Iterating gives one epoch. Sequences of like length come together, unless `sort` is False; with `chunk`, each batch
    is given in pieces of at most so many steps, one after the other. What lies on disk is read piece by piece.

    With `part`, only one of so many parts of each batch is given, in as many pieces as every other part: the batches of
    all parts together are those of one. A batch of fewer sequences than parts lends its first one, without its label.

    Raises `InputValueError` for a sequence without steps.
    """

    def __init__(
        self,
        sequences: Sequences,
        which: Which,
        batch_size: int,
        *,
        chunk: int | None = None,
        shuffle: int | None = None,
        sort: bool = True,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.sequences, self.spans = sequences, spans_of(sequences, which)
        short = self.spans.numbers[self.spans.lengths == 0]
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
        """The stretches of each batch, by their places."""
        ordered = np.arange(len(self.spans))
        if self.shuffle is not None:
            ordered = np.random.default_rng([self.shuffle, self.epoch]).permutation(ordered)
        together = self.batch_size * _SORTED_TOGETHER
        groups = []
        for start in range(0, len(ordered), together):
            near = ordered[start : start + together]
            if self.sort:
                near = near[np.argsort(self._lengths(near), kind="stable")]
            groups += np.array_split(near, -(-len(near) // self.batch_size))  # all alike: a batch of few is noise
        if self.shuffle is not None:
            order = np.random.default_rng([self.shuffle, self.epoch, 1]).permutation(len(groups))
            groups = [groups[at] for at in order]
        return groups

    def _lengths(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = self.spans.stop[places] - self.spans.start[places]
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
        spans = self.spans.chosen(mine)
        last = np.full(len(spans), np.nan)  # known of a target that is forecast, at the end of the chunk before
        for start in range(0, longest, width):
            stop = min(start + width, longest)
            here = np.clip(spans.lengths - start, 0, stop - start)
            steps = max(int(here.max()), 1)  # all of this part may have ended while another's go on
            rows = [
                slice(first := spans.rows(self.sequences, place).start + start, first + int(count))
                for place, count in enumerate(here)
            ]
            label, held = self._label(spans, rows, steps, last), self._held(spans, rows, steps)
            if lent:
                for told in (label, held):
                    if told is not None:
                        told.fill_(torch.nan)
            yield Batch(
                spans.numbers,
                self._values(rows, steps),
                torch.from_numpy(here),
                label,
                start,
                stop == longest,
                held,
                lent,
            )

    def _values(self, rows: list[slice], width: int) -> Tensor:
        held = self.sequences.values
        values = np.zeros((width, len(rows), held.shape[1]), _torch_dtype(held.dtype))
        for place, one in enumerate(rows):
            values[: one.stop - one.start, place] = held[one]
        return torch.from_numpy(values)

    def _label(self, spans: Spans, rows: list[slice], width: int, last: NDArray[np.float64]) -> Tensor | None:
        label = self.sequences.label
        if label is None:
            return None
        if not label.per_step:
            ends = [spans.rows(self.sequences, place).stop for place in range(len(rows))]
            here = [one.start < one.stop == end for one, end in zip(rows, ends, strict=True)]
            return torch.from_numpy(np.where(here, label.values[spans.numbers], np.nan))
        if not label.ahead:
            return self._per_step(label.values, spans, rows, width)
        values = np.full((width, len(rows), label.ahead), np.nan)
        for place, one in enumerate(rows):
            asked = spans.asked(self.sequences, place)
            values[: one.stop - one.start, place], last[place] = _ahead(label, one, asked, last[place])
        return torch.from_numpy(values)

    def _held(self, spans: Spans, rows: list[slice], width: int) -> Tensor | None:
        held = self.sequences.held
        return None if held is None else self._per_step(held, spans, rows, width)

    def _per_step(self, told: NDArray[np.float64], spans: Spans, rows: list[slice], width: int) -> Tensor:
        """One number a step, (N,), as (T, B); NaN where it is not asked for, and behind a sequence's end."""
        values = np.full((width, len(rows)), np.nan)
        for place, one in enumerate(rows):
            asked = spans.asked(self.sequences, place)
            counts = slice(max(one.start, asked.start), max(min(one.stop, asked.stop), one.start))
            values[counts.start - one.start : counts.stop - one.start, place] = told[counts]
        return torch.from_numpy(values)


def _ahead(label: Label, rows: slice, asked: slice, before: float) -> tuple[NDArray[np.float64], float]:
    """What comes after each of the rows, (T, h), as changes from what is known there; and what is known at the end."""
    count = rows.stop - rows.start
    values = np.full(count + label.ahead, np.nan)
    read = np.asarray(label.values[rows.start : max(rows.stop, min(rows.stop + label.ahead, asked.stop))], np.float64)
    values[: len(read)] = read
    places = np.arange(rows.start, rows.start + len(values))
    last = last_known(values[:count], before)
    changes = changes_ahead(values, last, label.ahead, (places >= asked.start) & (places < asked.stop))
    return changes, float(last[-1]) if count else before


def _torch_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The smallest type that holds the same numbers and that torch computes with."""
    wider = {"u2": "i4", "u4": "i8", "u8": "f8"}
    return np.dtype(wider.get(dtype.str[1:], dtype.str[1:]))
