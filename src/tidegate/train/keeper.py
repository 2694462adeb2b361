"""What goes on between the epochs of a run: random numbers, the best weights, checkpoints, and who is told."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.errors import FileError, InputValueError
from tidegate.extras import require
from tidegate.train.alarms import is_looked_at
from tidegate.train.batches import Batch, Batches
from tidegate.train.checkpoint import (
    Checkpoint,
    optimizer_state,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from tidegate.train.fingerprint import difference
from tidegate.train.learner import Learner
from tidegate.train.processes import ALONE, Processes
from tidegate.train.settings import Settings

require("lightning", "train")

import lightning.pytorch as lightning  # noqa: E402

__all__ = ["Keeper", "Moment", "Standing"]

#: Epochs without a better one, if nobody says how many.
_PATIENCE = 30


@dataclass(frozen=True)
class Moment:
    """How a run stands, told after every batch and after every epoch."""

    epoch: int
    epochs: int
    #: Batches or chunks of this epoch that are done, of how many.
    batch: int
    batches: int
    loss: float | None
    #: The validation's scores, after an epoch; None within one.
    scores: Mapping[str, float] | None = None
    #: Whether they are the best so far.
    best: bool = False
    #: What is wrong with the gates, each a line that was not told before; looked at after some epochs.
    alarms: tuple[str, ...] = ()
    #: Whether it learns once more, with the validation part.
    again: bool = False


@dataclass(eq=False)
class Standing:
    """What the keeper knows of the run so far; all of it goes into the checkpoint."""

    epoch: int = 0
    done: int = 0
    best_epoch: int = -1
    #: None before an epoch has a finite loss.
    best_loss: float | None = None
    #: Whether a weight is NaN or infinite, from where no step leads back.
    diverged: bool = False
    history: list[dict[str, float | None]] = field(default_factory=list)


class Keeper(lightning.Callback):
    """Draws every epoch's random numbers from seed and epoch, keeps the best weights, writes checkpoints.

    Among several processes all keep what there is to know; the first one alone reads, writes and tells, and what
    happens then is what it says.
    """

    def __init__(
        self,
        batches: Batches,
        folder: Path | None,
        fingerprint: dict[str, Any],
        progress: Callable[[Moment], None] | None,
        alarmed: Callable[[], list[tuple[str, str]]],
        processes: Processes = ALONE,
        *,
        to_the_end: bool = False,
        again: bool = False,
    ) -> None:
        self.batches, self.folder, self.fingerprint = batches, folder, fingerprint
        #: Whether the last epoch counts as the best, and nothing but divergence stops it before.
        self.to_the_end = to_the_end
        #: Whether the same was learned before without the validation part; its alarms were told then.
        self.again = again
        self.progress = progress if processes.rank == 0 else None
        self.processes = processes
        #: What is wrong with the gates now, by kind; asked after some epochs, and each kind told once.
        self.alarmed = alarmed
        self._alarms: set[str] = set()
        assert batches.shuffle is not None
        self.seed = batches.shuffle
        self.standing = Standing()
        self._best: dict[str, Tensor] | None = None
        self._optimizer: dict[str, Tensor] = {}
        self._losses: list[float] = []
        self._count = 0

    # ------------------------------------------------------------------------------------------ checkpoints

    def resume(self, learner: Learner, path: Path) -> None:
        """Take up what a checkpoint says."""
        found = self.processes.first(lambda: read_checkpoint(path))
        with _as_damage(path):
            state = dict(found.state)
            differs = difference(state.pop("run"), self.fingerprint)
        if differs is not None:
            raise InputValueError(differs)
        with _as_damage(path):
            self.standing = Standing(**state)
            learner.model.load_state_dict(_part(found, "model/"))
            self._optimizer = _part(found, "optimizer/")
            known = dict(learner.model.named_parameters())
            _demand({name.rpartition("/")[0] for name in self._optimizer}, among=known)
        learner.done = self.standing.done
        if self.standing.best_epoch >= 0:
            beside = path.with_name("best.safetensors")
            best = dict(self.processes.first(lambda: read_checkpoint(beside)).tensors)
            with _as_damage(beside):
                _demand(best, among=learner.model.state_dict())
                _demand(learner.model.state_dict(), among=best)
            self._best = best

    def over(self, settings: Settings) -> bool:
        """Whether nothing is left to do."""
        return self.standing.epoch >= settings.epochs or self._stops(settings)

    def best(self) -> dict[str, Tensor] | None:
        """The weights of the best epoch."""
        return self._best

    def _keep(self, learner: Learner, optimizer: torch.optim.Optimizer, *, best: bool) -> None:
        weights = learner.model.state_dict()
        if best:
            self._best = {name: tensor.clone() for name, tensor in weights.items()}
        if self.folder is None:
            return
        names = {id(parameter): name for name, parameter in learner.model.named_parameters()}
        tensors = {f"model/{name}": tensor for name, tensor in weights.items()}
        tensors |= {f"optimizer/{name}": held for name, held in optimizer_state(optimizer, names).items()}
        last = Checkpoint(tensors, {"run": self.fingerprint, **vars(self.standing)})
        chosen = Checkpoint(weights, {"epoch": self.standing.best_epoch}) if best else None
        self.processes.first(partial(_write, chosen, last, self.folder))

    # ------------------------------------------------------------------------------------------ Lightning's hooks

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Give the optimizer what it knew."""
        assert isinstance(pl_module, Learner)
        if self.processes.size > 1:
            self._settle(trainer)
        if self._optimizer:
            restore_optimizer(trainer.optimizers[0], dict(pl_module.model.named_parameters()), self._optimizer)
        self._begin()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Random numbers that follow from the seed and the epoch alone."""
        self._begin()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002 - Lightning's names
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Tell how it goes."""
        assert isinstance(pl_module, Learner)
        if pl_module.asked:
            self._losses.append(float(outputs["loss"]))
        self._tell(pl_module, batch_idx + 1)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """An epoch is over: keep what it brought, and stop if it was not better for long."""
        assert isinstance(pl_module, Learner)
        scores = self.processes.told(pl_module.validated())
        standing = self.standing
        standing.diverged = not all(bool(parameter.isfinite().all()) for parameter in pl_module.model.parameters())
        loss = scores["loss"] + scores.get("gate_loss", 0.0)
        better = math.isfinite(loss) and not standing.diverged
        better = better and (self.to_the_end or standing.best_loss is None or loss < standing.best_loss)
        if better:
            standing.best_epoch, standing.best_loss = standing.epoch, loss
        train_loss = float(np.mean(self._losses)) if self._losses else float("nan")
        train_loss = float(self.processes.total(torch.tensor(train_loss, dtype=torch.float64))) / self.processes.size
        validated = {f"validation_{name}": value for name, value in scores.items()}
        told = {"train_loss": train_loss, **validated}
        finite = {name: value if math.isfinite(value) else None for name, value in told.items()}
        if trainer.logger is not None:
            trainer.logger.log_metrics(
                {name: value for name, value in finite.items() if value is not None}, standing.epoch
            )
        standing.history.append({"epoch": standing.epoch, **finite})
        standing.epoch += 1
        standing.done = pl_module.done
        self._keep(pl_module, trainer.optimizers[0], best=better)
        self._tell(pl_module, self._count, scores, best=better, alarms=self._new_alarms())
        if self._stops(pl_module.settings):
            trainer.should_stop = True
        self._begin()  # Lightning asks for the next epoch's batches before it says that the epoch begins

    # ------------------------------------------------------------------------------------------

    def _settle(self, trainer: lightning.Trainer) -> None:
        """Go through a batch for nothing.

        DDP orders gradients anew after its first step, and among three processes or more another order is another
        sum; the first step of a run that goes on would then not be what it is in one that was never cut off.
        """
        loss: Any = trainer.strategy.training_step(next(iter(self.batches)), 0)
        loss.backward()
        trainer.optimizers[0].zero_grad()

    def _begin(self) -> None:
        self.batches.epoch = self.standing.epoch
        self._count = len(self.batches)
        self._losses = []
        torch.manual_seed(_mixed(self.seed, self.standing.epoch, self.processes.rank))

    def _new_alarms(self) -> tuple[str, ...]:
        """The alarms that were not told before, if this is an epoch to look and there is somebody to tell."""
        asked = self.progress is not None and not self.again
        if not asked or self.standing.diverged or not is_looked_at(self.standing.epoch):
            return ()
        new = [(kind, line) for kind, line in self.alarmed() if kind not in self._alarms]
        self._alarms.update(kind for kind, _ in new)
        return tuple(line for _, line in new)

    def _stops(self, settings: Settings) -> bool:
        """Whether nothing better is to be expected."""
        standing, patience = self.standing, _PATIENCE if settings.patience is None else settings.patience
        waited = standing.epoch - 1 - standing.best_epoch >= patience
        return standing.diverged or (waited and not self.to_the_end)

    def _tell(
        self,
        learner: lightning.LightningModule,
        batch: int,
        scores: Mapping[str, float] | None = None,
        *,
        best: bool = False,
        alarms: tuple[str, ...] = (),
    ) -> None:
        if self.progress is None:
            return
        assert isinstance(learner, Learner)
        epoch = self.standing.epoch - (scores is not None)
        loss = self._losses[-1] if self._losses else None
        moment = Moment(epoch, learner.settings.epochs, batch, self._count, loss, scores, best, alarms, self.again)
        self.progress(moment)


def _mixed(seed: int, epoch: int, rank: int) -> int:
    """One seed of three."""
    return int(np.random.default_rng([seed, epoch, 3, rank]).integers(2**63))


def _write(best: Checkpoint | None, last: Checkpoint, folder: Path) -> None:
    # first the best: a crash between the two leaves a last one that repeats this epoch, with the same result
    if best is not None:
        write_checkpoint(best, folder / "best.safetensors")
    write_checkpoint(last, folder / "last.safetensors")


@contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """What a file of another form brings about, as one sentence."""
    try:
        yield
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        words = " ".join(str(error).split())
        raise FileError(f"{str(path)!r} does not hold a run of this version of Tidegate: {words}") from error


def _demand(names: Iterable[str], *, among: Container[str]) -> None:
    for name in names:
        if name not in among:
            raise KeyError(name)


def _part(found: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in found.tensors.items() if name.startswith(prefix)}
