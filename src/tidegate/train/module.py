"""The Lightning module that trains a classifier, and the callback that tells how it goes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tidegate.extras import require
from tidegate.train.models import SequenceClassifier

require("torchmetrics", "train")  # first, for Lightning needs it too
require("lightning", "train")  # the classes below are built on it, so it cannot wait for a function

import lightning.pytorch as lightning  # noqa: E402
from torchmetrics.functional.classification import multiclass_accuracy  # noqa: E402

__all__ = ["ClassifierTraining", "Progress", "ProgressCallback"]

#: Called after every step with how many steps are done, the loss and the share of the batch that was right.
Progress = Callable[[int, float, float], None]


class ClassifierTraining(lightning.LightningModule):
    """Cross-entropy on (x, label) batches, x (T, B, I) and label (B,), with Adam; every step's loss is kept."""

    def __init__(self, model: SequenceClassifier, learning_rate: float) -> None:
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:  # noqa: ARG002 - Lightning's names
        """The loss of one batch."""
        x, label = batch
        scores = self.model(x)
        loss = cross_entropy(scores, label)
        right = multiclass_accuracy(scores.detach(), label, num_classes=scores.shape[1], average="micro")
        self.losses.append(loss.item())
        self.accuracies.append(right.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)


class ProgressCallback(lightning.Callback):
    """Tells `progress` how the training goes, step by step."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Pass on the step's loss and accuracy."""
        assert isinstance(pl_module, ClassifierTraining)
        self.progress(trainer.global_step, pl_module.losses[-1], pl_module.accuracies[-1])
