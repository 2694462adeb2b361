"""How a `SequenceModel` learns: Lightning's module, with losses over what is known, chunks, and a schedule."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.extras import require
from tidegate.gates import Trace
from tidegate.train.batches import Batch
from tidegate.train.model import SequenceModel
from tidegate.train.processes import ALONE, Processes
from tidegate.train.settings import Settings
from tidegate.train.tasks import Task
from tidegate.train.teaching import GateUse, Teaching, Term

require("torchmetrics", "train")  # first, for Lightning needs it too
require("lightning", "train")  # the classes below are built on it, so it cannot wait for a function

import lightning.pytorch as lightning  # noqa: E402

__all__ = ["Learner"]

_WARM_UP = 0.05  # of all steps, but no more than a hundred
_NORMALISED_DECAY = 0.1


class Learner(lightning.LightningModule):
    """The model, its task and its optimizer.

    The loss of a step is the mean over the labels known in it, and what is asked of the gates.

    Among several processes that is the mean over the labels that all of them know of it.
    """

    def __init__(
        self, model: SequenceModel, task: Task, settings: Settings, steps: int, processes: Processes = ALONE
    ) -> None:
        super().__init__()
        self.model, self.task, self.settings = model, task, settings
        #: Optimizer steps of the whole run, which the schedule is for; and those that are done.
        self.steps, self.done = steps, 0
        self.processes = processes
        self.validation = task.metrics(together=processes.size > 1)
        #: What is asked of the gates; None if nothing.
        self.teaching = Teaching.of(settings)
        self._gates: GateUse | None = None
        #: Labels known in the last step of training, and what else it asked, by all processes; 0 for no step.
        self.asked = 0
        self._carried: Tensor | None = None
        self._losses: list[Tensor] = []
        self._known = 0

    def forward(self, batch: Batch) -> Tensor:
        """The answers to a batch; the state goes from one chunk to the next."""
        answers: Tensor
        answers, h_n = self.model(batch.values, batch.lengths, self._before(batch))
        self._carried = None if batch.last else h_n.detach()
        return answers

    def _watched(self, batch: Batch) -> tuple[Tensor, Trace | None]:
        """The answers and, if something is asked of the gates, what they did."""
        if self.teaching is None:
            return self(batch), None
        answers, seen = self.model.traced(batch.values, batch.lengths, self._before(batch))
        self._carried = None if batch.last else seen.h_n.detach()
        return answers, seen

    def _before(self, batch: Batch) -> Tensor | None:
        """The states that the chunk before left."""
        return None if batch.start == 0 else self._carried

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:  # noqa: ARG002 - Lightning's names
        """The loss of one batch or chunk, so that its mean over the processes is the loss of all that they know."""
        assert batch.label is not None
        answers, seen = self._watched(batch)
        losses = self.task.loss_of(answers, batch.label)
        terms = [Term(1.0, losses.mean() if len(losses) else losses.sum(), len(losses))]
        if seen is not None and self.teaching is not None:
            terms += self.teaching.terms(seen, batch)
        counts = self.processes.total(torch.tensor([term.count for term in terms])).tolist()
        self.asked = sum(counts)
        parts = [
            term.loss * (term.weight * term.count / max(count, 1)) for term, count in zip(terms, counts, strict=True)
        ]
        return torch.stack(parts).sum() * self.processes.size

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Where nothing is asked there is no step: Adam leaves alone what has no gradient."""
        if not self.asked:
            optimizer.zero_grad()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Nothing: batches are made on the CPU, where this version trains."""
        return batch

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:  # noqa: ARG002
        """Set the learning rate of this step."""
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._share_of_rate(self.done)
        self.done += 1

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.validation.reset()
        self._losses, self._known = [], 0
        self._gates = None if self.teaching is None else GateUse(self.teaching)

    def validation_step(self, batch: Batch, batch_index: int) -> None:  # noqa: ARG002
        """Count what is right and wrong in a batch."""
        assert batch.label is not None
        answers, seen = self._watched(batch)
        if seen is not None and self._gates is not None:
            self._gates.count(seen, batch)
        losses = self.task.loss_of(answers, batch.label)
        self._losses.append(losses.double().sum())
        self._known += len(losses)
        if len(losses):
            self.task.judge(self.validation, answers, batch.label)

    def validated(self) -> dict[str, float]:
        """The loss and the metrics of the last validation, by name; nothing if no label was known in it."""
        summed = torch.stack(self._losses).sum() if self._losses else torch.zeros((), dtype=torch.float64)
        known = int(self.processes.total(torch.tensor(self._known)))
        loss = self.processes.total(summed)
        if not known:
            return {}
        scores = {name: float(value) for name, value in self.validation.compute().items()}
        gates = {} if self._gates is None else self._gates.told(self.processes)
        return {"loss": float(loss) / known, **scores, **gates}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; weights decay, biases, gains and initial states do not.

        If nobody says by how much, it is less the more steps there are, as Loshchilov & Hutter 2019 normalise it; but
        no epoch takes more than a tenth of a weight, for data that are seen but a few times need no decay.
        """
        decay = self.settings.weight_decay
        if decay is None:
            slow = max(math.sqrt(self.steps), self.steps / self.settings.epochs)
            decay = _NORMALISED_DECAY / (self.settings.learning_rate * slow)
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for module in self.model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                matrix = parameter.ndim > 1 and name != "h_0" and not isinstance(module, nn.Embedding)
                (decayed if matrix else kept).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.learning_rate)

    def _share_of_rate(self, step: int) -> float:
        """The learning rate of a step as a share of the largest: a short warm-up, then constant or a half cosine."""
        warm = min(100, max(1, math.ceil(_WARM_UP * self.steps)))
        if step < warm:
            return (step + 1) / warm
        if self.settings.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, self.steps - warm))))
