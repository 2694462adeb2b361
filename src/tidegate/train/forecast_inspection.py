"""A forecast as the page of a run shows it: beside what came, and beyond the end of a sequence."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tidegate.data.gaps import times_after
from tidegate.data.sequences import Sequences
from tidegate.report.numbers import count, percent
from tidegate.report.run_records import Ahead, Answer, Beyond, ForecastRecord, TimeAxis
from tidegate.train.ahead import last_known
from tidegate.train.forecast import Forecast
from tidegate.train.looking import Piece, columns_of, reduced
from tidegate.train.showing import axis_of_times, series

__all__ = ["Foretold"]

#: Steps before the end that are shown beside what lies beyond it, at least; or twice as many as lie beyond.
_BEFORE = 24


class Foretold:
    """What a network forecast while it read one sequence, gathered piece by piece."""

    def __init__(self, task: Forecast, sequences: Sequences, number: int) -> None:
        label = sequences.label
        assert label is not None
        self._task, self._sequences, self._rows = task, sequences, sequences.rows(number)
        self._came = np.array(label.values[self._rows], np.float64)
        self._last = last_known(self._came)
        #: By the steps ahead, of each step (T, 3): the lowest quantile, the median and the highest of it.
        self._ahead = {ahead: np.full((len(self._came), 3), np.nan) for ahead in (1, task.horizon)}
        self._scores = task.metrics()
        self._beyond: NDArray[np.float64] = np.empty((0, 0))

    def add(self, piece: Piece) -> None:
        """The next piece."""
        task, start = self._task, piece.batch.start
        assert piece.batch.label is not None
        task.judge(self._scores, piece.scores, piece.batch.label)
        changes = task.told(piece.scores)[:, 0].numpy()
        outer = changes[..., [0, task.median, len(task.quantiles) - 1]]
        for ahead, told in self._ahead.items():
            steps = min(len(changes), len(told) - start - ahead)
            if steps > 0:
                known = self._last[start : start + steps, None]
                told[start + ahead : start + ahead + steps] = known + outer[:steps, ahead - 1]
        now = start + len(changes) - 1
        self._beyond = task.values(self._last[now : now + 1], changes[-1:])[0]

    def answer(self, axis: TimeAxis, time: str) -> Answer:
        """All of it over the columns of `axis`; `time` is what times are called."""
        aheads = []
        for steps, told in self._ahead.items():
            low, median, high = (series(told[:, place], axis) for place in range(3))
            aheads.append(Ahead(steps, median, low.low, high.high))
        scores = {name: float(value) for name, value in self._scores.compute().items()} if self._scores.count else {}
        record = ForecastRecord(
            self._task.horizon,
            self._task.quantiles,
            scores.get("mae", np.nan),
            scores.get("naive_mae", np.nan),
            tuple(aheads),
            self._at_the_end(time),
        )
        came = series(self._came, axis)
        return Answer(self._next(), None, None, self._how_good(scores), truth=came, forecast=record)

    def _at_the_end(self, time: str) -> Beyond:
        steps, horizon = len(self._came), self._task.horizon
        before = min(steps, max(_BEFORE, 2 * horizon))
        bounds = np.append(columns_of(before), before + columns_of(horizon)[1:])
        came = np.append(self._came[steps - before :], np.full(horizon, np.nan))
        quantiles = np.full((before + horizon, len(self._task.quantiles)), np.nan)
        quantiles[before:] = self._beyond
        told = reduced(quantiles, bounds)[0]
        return Beyond(self._axis(bounds, before, time), reduced(came, bounds)[0], told, told[:, self._task.median])

    def _axis(self, bounds: NDArray[np.int64], before: int, time: str) -> TimeAxis:
        """Times, if those ahead are known; else steps, counted from the sequence's first."""
        times, rows = self._sequences.times, self._rows
        if times is not None:
            after = times_after(times, rows, np.arange(1, self._task.horizon + 1))
            found = axis_of_times(np.append(times[rows.stop - before : rows.stop], after), bounds, time)
            if found is not None:
                return found
        steps = bounds + (len(self._came) - before)
        return TimeAxis(steps, steps - np.float64(0.5), (steps[:-1] + steps[1:] - 1) / np.float64(2), "step")

    def _next(self) -> str:
        """The first and the last of what lies beyond the end."""
        told = f"Next {self._in_words(0)}"
        last = self._task.horizon - 1
        return f"{told}; {count(last + 1)} steps ahead {self._in_words(last)}" if last else told

    def _in_words(self, place: int) -> str:
        quantiles = self._beyond[place]
        number = f"{quantiles[self._task.median]:.4g}"
        return number if len(quantiles) == 1 else f"{number} ({quantiles[0]:.4g} to {quantiles[-1]:.4g})"

    def _how_good(self, scores: Mapping[str, float]) -> str:
        """The error beside the naive forecast's, in words; nothing where no value came."""
        if not scores:
            return ""
        task = self._task
        ahead = "1 step" if task.horizon == 1 else f"1 to {count(task.horizon)} steps"
        told = f"mean absolute error {scores['mae']:.4g}, the naive forecast's {scores['naive_mae']:.4g}"
        if scores["naive_mae"] > 0:
            told += f": {scores['relative_mae']:.2f} of it"
        if "coverage" in scores:
            low, high = task.quantiles[0], task.quantiles[-1]
            told += f"; {percent(scores['coverage'], 0)} came between the quantiles {low:g} and {high:g}"
        return f"{told} ({count(int(self._scores.count))} forecasts, {ahead} ahead)"
