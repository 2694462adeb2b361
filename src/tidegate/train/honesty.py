"""Is the memory map honest: does holding out the steps that it calls forgotten leave the answer alone?"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from tidegate.data.sequences import Sequences
from tidegate.report.run_records import Check, Checked
from tidegate.train.forecast import Forecast
from tidegate.train.looking import DirectionView, Piece, columns_of, look, pieces
from tidegate.train.model import SequenceModel
from tidegate.train.tasks import Task

__all__ = ["LEAST", "check_map", "parted", "shares_of"]

#: Columns that together hold no more of the state than this are called forgotten.
LEAST = 0.05


def check_map(model: SequenceModel, task: Task, sequences: Sequences, numbers: Iterable[int]) -> Check:
    """Hold out what the map calls forgotten, then as many steps that it calls remembered; compare the answers.

    Steps are held out of every layer and direction (`Gu=0`), as by `tidegate.counterfactual`; the map is that of the
    last layer, mean over its units and directions, by the columns of the page.
    """
    checked, without = [], 0
    for number in numbers:
        bounds = columns_of(int(sequences.lengths[number]))
        moment = _moment(model, task, int(bounds[-1]))
        shares = shares_of(model, task, sequences, number)
        forgotten, remembered = parted(shares)
        if not len(forgotten):
            without += 1
            continue
        told = _told(task, pieces(model, sequences, number, gates=False), moment)
        changes = []
        for columns in (forgotten, remembered):
            without_them = pieces(model, sequences, number, held_out=_steps(columns, bounds), gates=False)
            changes.append(_change(task, told, _told(task, without_them, moment)))
        (small, small_flip), (large, large_flip) = changes
        checked.append(
            Checked(
                sequences.ids[number],
                small,
                large,
                small_flip,
                large_flip,
                float(shares[forgotten].sum()),
                float(shares[remembered].sum()),
                float(_steps(forgotten, bounds).mean()),
            )
        )
    unit = "the naive forecast's mean error" if isinstance(task, Forecast) else "the label's spread"
    return Check(tuple(checked), without, LEAST, task.categories is not None, _moment_in_words(model, task), unit)


def shares_of(model: SequenceModel, task: Task, sequences: Sequences, number: int) -> NDArray[np.float64]:
    """(n,) what the state that answers holds of each column, by the map: mean over the last layer's units and ways."""
    bounds = columns_of(int(sequences.lengths[number]))
    moment = _moment(model, task, int(bounds[-1]))
    config = model.config
    ways = (False, True) if config.bidirectional else (False,)
    views = {(config.num_layers - 1, way): DirectionView(bounds, config.hidden_size) for way in ways}
    for piece in pieces(model, sequences, number):
        look(views, piece, until=moment if task.per_step else None)
    shares: NDArray[np.float64] = np.mean([view.memory.mean(1) for view in views.values()], axis=0)
    return shares


def parted(shares: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The columns that hold least, together at most `LEAST`; and as many that hold most, or all others if fewer."""
    order = np.argsort(shares, kind="stable")
    count = int((np.cumsum(shares[order]) <= LEAST).sum())
    count = min(count, len(shares) - 1)  # all, where the initial state holds nearly everything
    return order[:count], order[max(count, len(order) - count) :]


def _moment(model: SequenceModel, task: Task, steps: int) -> int:
    """The step whose answer is asked: the last; of answers of every step, read both ways, the middle one."""
    return (steps - 1) // 2 if task.per_step and model.config.bidirectional else steps - 1


def _moment_in_words(model: SequenceModel, task: Task) -> str:
    if not task.per_step:
        return "the answer"
    if isinstance(task, Forecast):
        return "the forecast after the last step"
    return "the answer of the middle step" if model.config.bidirectional else "the answer of the last step"


def _steps(columns: NDArray[np.intp], bounds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(T,) whether a step lies in one of some columns."""
    which = np.zeros(len(bounds) - 1, bool)
    which[columns] = True
    return np.repeat(which, np.diff(bounds))


def _told(task: Task, run: Iterable[Piece], moment: int) -> torch.Tensor:
    """What the model says: of the sequence, or of step `moment`."""
    told = torch.empty(0)
    for piece in run:
        if not task.per_step:
            told = task.told(piece.scores)[0]
        elif piece.batch.start <= moment < piece.batch.start + len(piece.batch.values):
            told = task.told(piece.scores)[moment - piece.batch.start, 0]
    return told.double()


def _change(task: Task, told: torch.Tensor, without: torch.Tensor) -> tuple[float, bool]:
    """How far the answer went, and whether it became another class.

    Of probabilities, half the sum of their changes: 0 for none, 1 for all of them. Of a number, over its spread; of a
    forecast, the mean of the medians' over all steps ahead.
    """
    if task.categories is None:
        return float((task.number(without) - task.number(told)).abs().mean() / task.spread), False
    return float((without - told).abs().sum() / 2), bool(without.argmax() != told.argmax())
