"""What is asked of a sequence: its loss, its metrics, and how an answer reads."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, huber_loss, l1_loss, mse_loss

from tidegate.data.rows import chunks
from tidegate.data.sequences import Label, Sequences
from tidegate.errors import InputValueError
from tidegate.extras import require
from tidegate.train.spans import Which, spans_of

__all__ = ["Task", "TaskName", "is_known", "known_values", "task_for"]

TaskName = Literal["classify", "label-steps", "regress", "regress-steps", "forecast"]
LossName = Literal["auto", "cross-entropy", "mse", "mae", "huber", "pinball"]

_LOSSES: dict[bool, tuple[str, ...]] = {True: ("cross-entropy",), False: ("mse", "mae", "huber")}


@dataclass(frozen=True)
class Task:
    """One kind of question about sequences, and what is needed to ask it again: no weights, all of it JSON."""

    name: TaskName
    #: The label's name in the data.
    label: str
    loss: str
    #: Of a classification.
    categories: tuple[str, ...] | None = None
    #: (C,) how much each class counts in the loss; all alike if None.
    class_weights: tuple[float, ...] | None = None
    #: Of a number: answers are trained as (label - mean) / spread.
    mean: float = 0.0
    spread: float = 1.0

    @property
    def per_step(self) -> bool:
        """Whether every step is asked, not each sequence once."""
        return self.name.endswith("-steps")

    @property
    def outputs(self) -> int:
        """How many numbers the model answers with."""
        return 1 if self.categories is None else len(self.categories)

    def to_dict(self) -> dict[str, Any]:
        """The task as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Task":
        """The inverse of `to_dict`; raises `InputValueError` for a value that cannot be."""
        if values["name"] not in get_args(TaskName):
            raise InputValueError(f"name must be one of {', '.join(get_args(TaskName))}; got {values['name']!r}")
        names = values["categories"]
        if names is not None and not (
            isinstance(names, list | tuple) and names and all(isinstance(one, str) for one in names)
        ):
            raise InputValueError(f"categories must be a list of names; got {names!r}")
        for name in ("mean", "spread"):
            if type(values[name]) not in (int, float):
                raise InputValueError(f"{name} must be a number; got {values[name]!r}")
        tuples = {
            name: None if values[name] is None else tuple(values[name]) for name in ("categories", "class_weights")
        }
        return cls(**{**values, **tuples})

    def loss_of(self, answers: Tensor, label: Tensor) -> Float[Tensor, "known"]:
        """The loss of every sequence or step whose label is known: answers (..., outputs), label (...) with NaN."""
        known = ~label.isnan()
        answers, label = answers[known], label[known]
        answers = answers.to(torch.promote_types(answers.dtype, torch.float32))  # the digits of a bfloat16 are too few
        if self.categories is not None:
            weight = None if self.class_weights is None else answers.new_tensor(self.class_weights)
            return cross_entropy(answers, label.long(), weight, reduction="none")
        target = ((label - self.mean) / self.spread).to(answers.dtype)
        functions: dict[str, Callable[..., Tensor]] = {"mse": mse_loss, "mae": l1_loss, "huber": huber_loss}
        return functions[self.loss](answers.squeeze(-1), target, reduction="none")

    def metrics(self, *, together: bool = False) -> Any:
        """A torchmetrics collection: fed by `judge`, it says how well the model does.

        With `together`, it says so of what all processes fed it, and all of them must ask.
        """
        torchmetrics = require("torchmetrics", "train")
        if self.categories is not None:
            classes = {"num_classes": len(self.categories), "sync_on_compute": together}
            return torchmetrics.MetricCollection(
                {
                    "accuracy": torchmetrics.classification.MulticlassAccuracy(average="micro", **classes),
                    "f1": torchmetrics.classification.MulticlassF1Score(average="macro", **classes),
                }
            )
        return torchmetrics.MetricCollection(
            {
                "mae": torchmetrics.MeanAbsoluteError(sync_on_compute=together),
                "rmse": torchmetrics.MeanSquaredError(squared=False, sync_on_compute=together),
            }
        )

    def judge(self, metrics: Any, answers: Tensor, label: Tensor) -> None:
        """Feed `metrics` with what is known: answers (..., outputs), label (...) with NaN."""
        known = ~label.isnan()
        label = label[known]
        metrics.update(self.told(answers[known]), label if self.categories is None else label.long())

    def told(self, answers: Tensor) -> Tensor:
        """What the model says: probabilities (..., C) of the classes, or the number (...) itself."""
        if self.categories is not None:
            return answers.float().softmax(-1)
        return answers.squeeze(-1).double() * self.spread + self.mean

    def number(self, told: Tensor) -> Tensor:
        """Of what the model says of a number, that which is nearest to it; all of it, unless there are quantiles."""
        return told

    def known_label(self) -> Label | None:
        """The label as a reader is told of it."""
        return Label(self.label, np.empty(0), self.per_step, self.categories)

    def check(self, sequences: Sequences) -> None:
        """Raise `InputValueError` unless the sequences have this label, read as `known_label`, and no other class."""
        label = sequences.label
        if label is None:
            raise InputValueError(f"data must have the label {self.label!r} to be scored")
        if label.categories != self.categories or label.per_step != self.per_step:
            raise InputValueError(f"label {label.name!r} must be of the kind that was trained on, {self.name}")
        if self.categories is not None and len(others := np.flatnonzero(label.values < 0)):
            first = int(others[0])
            where = sequences.place(first) if label.per_step else f"sequence {sequences.ids[first]!r}"
            raise InputValueError(
                f"label {label.name!r} must have classes seen in training, {', '.join(self.categories)}; "
                f"{where} has another"
            )


def task_for(
    sequences: Sequences,
    train: Which,
    *,
    name: str = "auto",
    loss: str = "auto",
    class_weights: str = "none",
) -> Task:
    """The task that the label asks for, or the one that is named, with what the training part says of the label.

    Raises `InputValueError` for a task or loss that does not go with the label, and for a label that is constant, or
    not known anywhere, in the training part.
    """
    label = sequences.label
    if label is None:
        raise InputValueError("label must name a column of the data; got None")
    kind = _kind(label)
    if name not in ("auto", kind):
        raise InputValueError(f"task must be {kind!r}, since label {label.name!r} is {_words(label)}; got {name!r}")
    known = known_values(sequences, train)
    if not np.isfinite(known).all():
        raise InputValueError(f"label {label.name!r} must be finite; it holds {known[~np.isfinite(known)][0]:g}")
    mean, spread = float(known.mean()) if len(known) else 0.0, _spread(known)
    if not spread:
        got = "it is not known anywhere" if not len(known) else "it is always the same"
        raise InputValueError(f"label {label.name!r} must vary in the training part; {got}")
    losses = _LOSSES[label.categories is not None]
    if loss not in ("auto", *losses):
        raise InputValueError(f"loss must be {' or '.join(losses)} for this label; got {loss!r}")
    chosen = losses[0] if loss == "auto" else loss
    if label.categories is None:
        if class_weights != "none":
            raise InputValueError(f"class_weights must be 'none' for a label that is a number; got {class_weights!r}")
        return Task(kind, label.name, chosen, mean=mean, spread=spread)
    if class_weights not in ("none", "balanced"):
        raise InputValueError(f"class_weights must be 'none' or 'balanced'; got {class_weights!r}")
    counts = np.bincount(known.astype(int), minlength=len(label.categories))
    weights = None
    if class_weights == "balanced":  # 1 on the average of the training part; a class that is not in it counts as one
        present = np.count_nonzero(counts)
        weights = tuple(float(len(known) / (present * max(count, 1))) for count in counts)
    return Task(kind, label.name, chosen, label.categories, weights)


def _kind(label: Label) -> TaskName:
    if label.categories is not None:
        return "label-steps" if label.per_step else "classify"
    return "regress-steps" if label.per_step else "regress"


def _words(label: Label) -> str:
    what = "a category" if label.categories is not None else "a number"
    return f"{what} of every {'step' if label.per_step else 'sequence'}"


def known_values(sequences: Sequences, which: Which) -> NDArray[np.float64]:
    """The label of some sequences, or of their steps, as far as it is known."""
    label, spans = sequences.label, spans_of(sequences, which)
    if label is None:
        return np.empty(0)
    if label.per_step:
        rows = [spans.asked(sequences, place) for place in range(len(spans))]
        values = np.concatenate([label.values[one] for one in rows] or [np.empty(0)])
    else:
        values = label.values[spans.numbers]
    known: NDArray[np.float64] = values[~np.isnan(values)]
    return known


def is_known(sequences: Sequences, which: Which) -> bool:
    """Whether the label of some sequences, or of one of their steps, is known; reading stops where it is."""
    label, spans = sequences.label, spans_of(sequences, which)
    if label is None:
        return False
    if not label.per_step:
        return not np.isnan(label.values[spans.numbers]).all()
    stretches = [spans.asked(sequences, place) for place in range(len(spans))]
    return any(not np.isnan(piece).all() for one in stretches for _, piece in chunks(label.values[one]))


def _spread(known: NDArray[np.float64]) -> float:
    """The standard deviation; 0 where nothing varies."""
    if not len(known) or known.min() == known.max():
        return 0.0
    deviation = known - known.mean()
    largest = float(np.abs(deviation).max())
    return largest * float(np.sqrt(np.mean((deviation / largest) ** 2)))  # squares of what is tiny would be 0
