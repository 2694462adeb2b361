"""Forecasts: the next h values of a feature, as quantiles, told after every step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from tidegate.data.known import require_names
from tidegate.data.sequences import Label, Sequences
from tidegate.errors import InputValueError
from tidegate.train.batches import Batches
from tidegate.train.settings import Settings
from tidegate.train.spans import Which, spans_of
from tidegate.train.tasks import Task

__all__ = ["Forecast", "forecast_for", "task_from", "with_target"]

#: Numbers of a label that are looked at together.
_TOGETHER = 2**20


@dataclass(frozen=True)
class Forecast(Task):
    """The question what the next `horizon` values of the feature `label` will be.

    A label is how much each of them differs from the last value known at the step, and an answer is the `quantiles` of
    that difference, in units of `spread`: the mean size of these differences in training. A network that answers 0
    says that nothing will change. Where no value is known yet, `mean` stands for it, and nothing is learned.
    """

    horizon: int = 1
    #: Rising; 0.5, the median, is among them.
    quantiles: tuple[float, ...] = (0.5,)

    @property
    def per_step(self) -> bool:
        """Every step is asked."""
        return True

    @property
    def outputs(self) -> int:
        """A number for each quantile of each step ahead."""
        return self.horizon * len(self.quantiles)

    @property
    def median(self) -> int:
        """Which of the quantiles is the prediction."""
        return self.quantiles.index(0.5)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Forecast":
        """The inverse of `to_dict`."""
        return cls(**{**values, "quantiles": tuple(values["quantiles"])})

    def loss_of(self, answers: Tensor, label: Tensor) -> Float[Tensor, "known"]:
        """The pinball loss of every known value ahead, its mean over the quantiles: answers (..., hQ), label (..., h).

        Koenker & Bassett 1978: a miss costs q above the quantile q and 1 - q below it.
        """
        answers, label = self._known(answers, label)
        miss = (label / self.spread).to(answers.dtype)[:, None] - answers
        quantiles = answers.new_tensor(self.quantiles)
        return torch.maximum(quantiles * miss, (quantiles - 1) * miss).mean(-1)

    def metrics(self, *, together: bool = False) -> Any:
        """Counts the differences of `told` from labels; see `ForecastScores`."""
        from tidegate.train.forecast_scores import ForecastScores  # noqa: PLC0415 - torchmetrics, which is an extra

        return ForecastScores(len(self.quantiles), self.median, together=together)

    def judge(self, metrics: Any, answers: Tensor, label: Tensor) -> None:
        """Feed `metrics` with what is known."""
        answers, label = self._known(answers, label)
        metrics.update(self._sorted(answers), label)

    def told(self, answers: Tensor) -> Float[Tensor, "... h Q"]:
        """The quantiles of how much each value ahead differs from the last known one; none crosses another."""
        return self._sorted(self._apart(answers))

    def number(self, told: Tensor) -> Float[Tensor, "... h"]:
        """The median."""
        return told[..., self.median]

    def values(
        self, last: Float[NDArray[np.float64], "..."], changes: Float[NDArray[np.float64], "... h Q"]
    ) -> Float[NDArray[np.float64], "... h Q"]:
        """What comes, of what is `told`, from the last value known before it; NaN where none is."""
        found: NDArray[np.float64] = np.where(np.isnan(last), self.mean, last)[..., None, None] + changes
        return found

    def known_label(self) -> None:
        """Nothing: a reader is asked for no label, since it is a feature."""
        return

    def check(self, sequences: Sequences) -> None:
        """Nothing: whatever has the features can be forecast."""

    def _known(self, answers: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The answers (K, Q), of no less digits than float32, and the K labels that are known."""
        known = ~label.isnan()
        answers = self._apart(answers)[known]
        return answers.to(torch.promote_types(answers.dtype, torch.float32)), label[known]

    def _apart(self, answers: Tensor) -> Float[Tensor, "... h Q"]:
        return answers.reshape(*answers.shape[:-1], self.horizon, len(self.quantiles))

    def _sorted(self, answers: Tensor) -> Tensor:
        # quantiles that cross are put in order, which is never farther from the truth (Chernozhukov et al. 2010)
        return answers.double().sort(-1).values * self.spread


def task_from(values: Mapping[str, Any]) -> Task:
    """The task that `to_dict` told."""
    return (Forecast if values["name"] == "forecast" else Task).from_dict(values)


def with_target(sequences: Sequences, name: str | None, horizon: int) -> Sequences:
    """The sequences with the feature `name` as what is to be told `horizon` steps ahead; it stays an input.

    Raises `InputValueError` for a feature that is not there, or is no number.
    """
    if name is None:
        raise InputValueError("label must name the feature that is to be forecast; got None")
    require_names("label", [name], [feature.name for feature in sequences.features])
    place = sequences.column(name)
    kind = sequences.features[place].kind
    if kind != "number":
        raise InputValueError(f"label must name a feature that is a number, to be forecast; {name!r} is a {kind}")
    return replace(sequences, label=Label(name, sequences.values[:, place], True, ahead=horizon))


def forecast_for(sequences: Sequences, train: Which, settings: Settings) -> Forecast:
    """The forecast of the sequences' label, with what the training part says of it; read in bounded memory.

    Raises `InputValueError` for a loss that does not go with it, a horizon beyond the training part, and a label that
    never changes in that part, or has no known value with another ahead.
    """
    label = sequences.label
    assert label is not None
    if settings.loss not in ("auto", "pinball"):
        raise InputValueError(f"loss must be pinball for a forecast; got {settings.loss!r}")
    if settings.class_weights != "none":
        raise InputValueError(
            f"class_weights must be 'none' for a label that is a number; got {settings.class_weights!r}"
        )
    spans = spans_of(sequences, train)
    longest = int((spans.high - spans.low).max())
    if label.ahead >= longest:
        raise InputValueError(
            f"horizon must be below the steps to learn from, {longest:,} in the longest sequence; got {label.ahead:,}"
        )
    place = sequences.column(label.name)
    sizes, values, count, seen = [0.0], [0.0], 0, 0
    for batch in Batches(sequences, spans, 1, chunk=max(1, _TOGETHER // label.ahead)):
        assert batch.label is not None
        changes, own = batch.label.numpy(), batch.values[..., place].double().numpy()
        changes, own = changes[~np.isnan(changes)], own[~np.isnan(own)]
        sizes.append(float(np.abs(changes).sum()))
        values.append(float(own.sum()))
        count, seen = count + len(changes), seen + len(own)
    if not count or not (spread := math.fsum(sizes) / count):
        got = "it is always the same" if count else "no value with another ahead of it is known"
        raise InputValueError(f"label {label.name!r} must vary in the training part; {got}")
    if not math.isfinite(spread):
        raise InputValueError(f"label {label.name!r} must hold numbers whose differences are finite; they are not")
    return Forecast(
        "forecast",
        label.name,
        "pinball",
        mean=math.fsum(values) / seen,
        spread=spread,
        horizon=label.ahead,
        quantiles=settings.quantiles,
    )
