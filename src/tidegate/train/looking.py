"""One sequence through a network, seen from inside in bounded memory: gates and memory by columns of time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from tidegate.data.sequences import Sequences
from tidegate.gates.flow import flow_of
from tidegate.gates.inside import observe
from tidegate.gates.trace import DirectionTrace, trace_of
from tidegate.nn.run import Ran
from tidegate.ops.pins import Pins
from tidegate.train.batches import Batch, Batches
from tidegate.train.model import SequenceModel

__all__ = ["COLUMNS", "Carrying", "DirectionView", "Piece", "columns_of", "flow", "look", "pieces", "reduced"]

Numbers = NDArray[np.float64]

#: Columns of a page; a longer sequence has several steps in each.
COLUMNS = 240
#: Steps that go through the network together. A network that reads both ways reads a sequence whole.
_CHUNK = 2**13


@dataclass(frozen=True, eq=False)
class Piece:
    """A chunk of a sequence as it went through the network."""

    batch: Batch
    #: What the model answered; per step (T, 1, O), or (1, O) as if the sequence ended here.
    scores: Tensor
    ran: Ran


class DirectionView:
    """What one layer did in one direction, gathered chunk by chunk into columns.

    The memory map of the last state is kept as each column's share, (n, H): what a chunk writes is added, and what was
    there before is multiplied by what the chunk leaves of it. That is exact, and no map of all steps is ever held.
    """

    def __init__(self, bounds: NDArray[np.int64], units: int, *, held: bool = False) -> None:
        columns = len(bounds) - 1
        self.bounds = bounds
        #: (n, H) and (H,): the shares of the state after the steps that were added.
        self.memory, self.initial = np.zeros((columns, units)), np.ones(units)
        #: (n, n) mean over units: what the state after a column (row) holds of each column.
        self.held = np.zeros((columns, columns)) if held else None
        #: (n, H) mean gates.
        self.update, self.reset = np.zeros((columns, units)), np.zeros((columns, units))
        #: (n,) over the units the 10th and 90th of 100, lowest and highest of the steps.
        self.update_band, self.reset_band = _band(columns), _band(columns)
        self._written = np.zeros(units)
        self._steps = 0

    def add(self, seen: DirectionTrace, start: int, *, until: int | None = None) -> None:
        """A chunk of one sequence that begins at step `start`; only what the state at step `until` saw, if given."""
        steps = len(seen.update)
        first, stop = start, start + steps
        if until is not None:
            first, stop = (max(first, until), stop) if seen.backward else (first, min(stop, until + 1))
        if first >= stop:
            return
        here = slice(first - start, stop - start)
        update, reset = (gate[here, 0].double().cpu().numpy() for gate in (seen.update, seen.reset))
        counts = np.diff(self.bounds)
        for gate, mean, band in ((update, self.update, self.update_band), (reset, self.reset, self.reset_band)):
            low, high = np.quantile(gate, (0.1, 0.9), axis=1)
            for column, rows in self._runs(first, stop):
                mean[column] += gate[rows].sum(0) / counts[column]
                band[0][column] = min(band[0][column], low[rows].min())
                band[1][column] = max(band[1][column], high[rows].max())
        runs = list(self._runs(first, stop))
        for column, rows in reversed(runs) if seen.backward else runs:
            self._remember(column, update[rows][::-1] if seen.backward else update[rows])
        self._written += update.sum(0)
        self._steps += len(update)

    @property
    def half_life(self) -> Numbers:
        """(H,) steps, as `DirectionTrace.half_life` has it."""
        with np.errstate(divide="ignore"):
            half: Numbers = np.log(2) / np.abs(np.log1p(-self._written / max(self._steps, 1)))
        return half

    def _remember(self, column: int, update: Numbers) -> None:
        """Some steps of one column, in the order in which they ran."""
        keep = np.cumprod(1 - update[::-1], axis=0)[::-1]  # what each step and those after it leave of what was before
        later = np.concatenate([keep[1:], np.ones_like(keep[:1])])
        self.memory *= keep[0]
        self.initial *= keep[0]
        self.memory[column] += (update * later).sum(0)
        if self.held is not None:
            self.held[column] = self.memory.mean(1)

    def _runs(self, first: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The columns of steps `first` to `stop`, and which of the steps lie in each, counted from `first`."""
        column = int(np.searchsorted(self.bounds, first, "right")) - 1
        at = first
        while at < stop:
            end = min(int(self.bounds[column + 1]), stop)
            yield column, slice(at - first, end - first)
            at, column = end, column + 1


def columns_of(steps: int) -> NDArray[np.int64]:
    """(n+1,) the first step of each column, and the number of steps; all of one size, but for the first."""
    size = -(-steps // COLUMNS)
    return np.append(0, np.arange(steps, 0, -size)[::-1]).astype(np.int64)


def pieces(
    model: SequenceModel,
    sequences: Sequences,
    number: int,
    *,
    held_out: NDArray[np.bool_] | None = None,
    gates: bool = True,
) -> Iterator[Piece]:
    """One sequence chunk by chunk, the state carried on; with `gates`, they are recorded.

    `held_out` is (T,): where it is True, the update gate of all layers and directions is held at 0.
    """
    steps = int(sequences.lengths[number])
    count = 1 if model.config.bidirectional else -(-steps // _CHUNK)
    carried = None
    for batch in Batches(sequences, [number], 1, chunk=-(-steps // count)):
        here = None if held_out is None else torch.from_numpy(held_out[batch.start : batch.start + len(batch.values)])
        pins = Pins(update=0.0, steps=here) if here is not None and here.any() else None
        with torch.no_grad():
            (scores, carried), ran = observe(
                Carrying(model, carried), batch.values, layer="model.layer", evaluate=True, pins=pins, gates=gates
            )
        yield Piece(batch, scores, ran)


class Carrying(nn.Module):
    """A model with its lengths and the state that it goes on from: what watches it calls it with the input alone."""

    def __init__(self, model: SequenceModel, carried: Tensor | None = None, lengths: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self._carried, self._lengths = carried, lengths

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """As the model's."""
        answers: tuple[Tensor, Tensor] = self.model(values, self._lengths, self._carried)
        return answers


def look(views: dict[tuple[int, bool], DirectionView], piece: Piece, *, until: int | None = None) -> None:
    """Add a piece to the views of some layers (depth) and directions (whether backward)."""
    traced = trace_of(piece.ran)
    for (depth, backward), view in views.items():
        layer = traced.layers[depth]
        seen = layer.reverse if backward else layer
        assert seen is not None
        view.add(seen, piece.batch.start, until=until)


def flow(piece: Piece, depth: int, *, backward: bool, steps: int) -> Float[Tensor, "rows"]:
    """The logarithms of the gradient's norm over the last `steps` of a piece, 0 at its end, in the order of the run.

    In the Frobenius norm: the root mean square over all directions of a small change.
    """
    record = piece.ran.layers[depth][int(backward)]
    log_norm = flow_of(record, "frobenius", steps=min(steps, len(piece.batch.values))).log_norm[:, 0]
    return log_norm - log_norm[-1]


def reduced(values: NDArray[np.float64], bounds: NDArray[np.int64]) -> tuple[Numbers, Numbers, Numbers]:
    """The mean, lowest and highest of (T, ...) by columns, (n, ...); NaN is passed over, and told where all are."""
    there = ~np.isnan(values)
    counts = np.add.reduceat(there, bounds[:-1], axis=0, dtype=np.int64)
    sums = np.add.reduceat(np.where(there, values, 0.0), bounds[:-1], axis=0)
    with np.errstate(invalid="ignore"):
        mean = sums / counts
    low, high = np.fmin.reduceat(values, bounds[:-1], axis=0), np.fmax.reduceat(values, bounds[:-1], axis=0)
    return mean, low, high


def _band(columns: int) -> tuple[Numbers, Numbers]:
    return np.full(columns, np.inf), np.full(columns, -np.inf)
