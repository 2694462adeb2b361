"""A training run from sequences to a model: parts, first weights, epochs, the best of them, and its score."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError
from tidegate.extras import require
from tidegate.nn.init import chrono_
from tidegate.train.batches import Batch, Batches
from tidegate.train.checkpoint import (
    Checkpoint,
    optimizer_state,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from tidegate.train.encoder import statistics
from tidegate.train.learner import Learner
from tidegate.train.loop import fit_quietly, quiet
from tidegate.train.model import ModelConfig, SequenceModel
from tidegate.train.settings import Settings
from tidegate.train.split import Split
from tidegate.train.tasks import Task

require("lightning", "train")

import lightning.pytorch as lightning  # noqa: E402

__all__ = ["Fitted", "Moment", "evaluate", "fit_model", "new_model"]

#: Variants whose update gate can be started for a memory of many steps.
_GATED = ("update-only", "gru", "gru-reset-before", "gru-layer-norm")


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


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model with the weights of its best epoch, and how it came to be."""

    model: SequenceModel
    task: Task
    #: One record an epoch: epoch, train_loss, and the validation's loss and metrics.
    history: tuple[Mapping[str, float], ...]
    best_epoch: int
    #: The validation's loss and metrics with the best weights.
    validation: Mapping[str, float]


@dataclass(eq=False)
class _Standing:
    """What the keeper knows of the run so far; all of it goes into the checkpoint."""

    epoch: int = 0
    done: int = 0
    best_epoch: int = -1
    best_loss: float = float("inf")
    history: list[dict[str, float]] = field(default_factory=list)


def new_model(sequences: Sequences, parts: Split, task: Task, settings: Settings) -> SequenceModel:
    """A model with its first weights, normalised by the training part. The same seed gives the same."""
    found = statistics(sequences, parts.train)
    for feature, count in zip(sequences.features, found.count, strict=True):
        if not count:
            raise InputValueError(
                f"feature {feature.name!r} must have a value somewhere in the training part; all are missing"
            )
    config = ModelConfig(
        features=sequences.features,
        flagged=tuple(bool(missing) for missing in found.missing),
        outputs=task.outputs,
        per_step=task.per_step,
        variant=settings.variant,  # type: ignore[arg-type]  # checked by the settings
        hidden_size=settings.hidden_size,
        num_layers=settings.num_layers,
        bidirectional=settings.bidirectional,
        dropout=settings.dropout,
        recurrent_dropout=settings.recurrent_dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = SequenceModel(config)
        model.encoder.fit(found)
        steps = _memory_steps(sequences, parts, settings)
        if steps and settings.variant in _GATED:
            chrono_(model.layer, steps)
    if settings.recompute:
        model.layer.recompute = True  # type: ignore[assignment]
    return model


def fit_model(
    sequences: Sequences,
    parts: Split,
    task: Task,
    settings: Settings,
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Callable[[Moment], None] | None = None,
) -> Fitted:
    """Train a new model, or go on where `folder` left off; on the CPU, the same to the bit either way.

    Checkpoints go to `folder`, after every epoch: `last.safetensors`, from which to go on, and `best.safetensors`.

    Raises:
        InputValueError: the data do not go with the settings, or with the run to be resumed.
        FileError: a checkpoint cannot be written or read.
        KeyboardInterrupt: interrupted; the last checkpoint is there.
    """
    train = Batches(sequences, parts.train, settings.batch_size, chunk=settings.chunk, shuffle=settings.seed)
    stop = Batches(sequences, parts.validation, settings.batch_size, chunk=settings.chunk)
    if not len(parts.validation):
        raise InputValueError("validation must leave sequences that tell when to stop; there are none")
    model = new_model(sequences, parts, task, settings)
    learner = Learner(model, task, settings, len(train) * settings.epochs)
    keeper = _Keeper(train, folder, _fingerprint(sequences, parts, settings), progress)
    if resume:
        assert folder is not None
        keeper.resume(learner, read_checkpoint(folder / "last.safetensors"))
    if not keeper.over(settings):
        with threads(settings.threads), quiet(), torch.random.fork_rng(devices=[]):
            trainer = lightning.Trainer(
                accelerator="cpu",
                devices=1,
                max_epochs=settings.epochs - keeper.standing.epoch,
                gradient_clip_val=settings.clip_norm or None,
                precision="32-true" if settings.precision == "32" else "bf16-mixed",
                callbacks=[keeper],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
            )
            fit_quietly(trainer, learner, train, stop)
    best = keeper.best()
    if best is None:
        raise InputValueError("the validation loss must become finite in some epoch; it never did: lower learning_rate")
    model.load_state_dict(best)
    standing = keeper.standing
    validation = {
        name.removeprefix("validation_"): value
        for name, value in standing.history[standing.best_epoch].items()
        if name.startswith("validation_")
    }
    return Fitted(model.eval(), task, tuple(standing.history), standing.best_epoch, validation)


@torch.no_grad()
def evaluate(model: SequenceModel, task: Task, batches: Batches, settings: Settings) -> dict[str, float]:
    """The loss and metrics of a model on sequences that it was not trained on."""
    learner = Learner(model.eval(), task, settings, 1)
    learner.on_validation_epoch_start()
    with threads(settings.threads):
        for number, batch in enumerate(batches):
            learner.validation_step(batch, number)
    return learner.validated()


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use so many threads for a while; as many as before if None."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


class _Keeper(lightning.Callback):
    """Draws every epoch's random numbers from seed and epoch, keeps the best weights, writes checkpoints."""

    def __init__(
        self,
        batches: Batches,
        folder: Path | None,
        fingerprint: Mapping[str, Any],
        progress: Callable[[Moment], None] | None,
    ) -> None:
        self.batches, self.folder, self.fingerprint, self.progress = batches, folder, fingerprint, progress
        self.standing = _Standing()
        self._best: dict[str, Tensor] | None = None
        self._optimizer: dict[str, Tensor] = {}
        self._losses: list[float] = []

    # ------------------------------------------------------------------------------------------ checkpoints

    def resume(self, learner: Learner, found: Checkpoint) -> None:
        """Take up what a checkpoint says."""
        told = dict(found.state)
        if told.pop("run") != dict(self.fingerprint):
            raise InputValueError("data and options must be those of the run that is resumed; they differ")
        self.standing = _Standing(**told)
        parts = {"model": {}, "optimizer": {}}  # type: dict[str, dict[str, Tensor]]
        for name, tensor in found.tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        learner.model.load_state_dict(parts["model"])
        self._optimizer = parts["optimizer"]
        learner.done = self.standing.done
        assert self.folder is not None
        if self.standing.best_epoch >= 0:
            self._best = dict(read_checkpoint(self.folder / "best.safetensors").tensors)

    def over(self, settings: Settings) -> bool:
        """Whether nothing is left to do."""
        return self.standing.epoch >= settings.epochs or self._patience_is_over(settings)

    def best(self) -> dict[str, Tensor] | None:
        """The weights of the best epoch."""
        return self._best

    def _keep(self, learner: Learner, optimizer: torch.optim.Optimizer, *, best: bool) -> None:
        weights = learner.model.state_dict()
        if best:
            self._best = {name: tensor.clone() for name, tensor in weights.items()}
        if self.folder is None:
            return
        if best:
            # first the best: a crash between the two leaves a last one that repeats this epoch, with the same result
            write_checkpoint(Checkpoint(weights, {"epoch": self.standing.best_epoch}), self.folder / "best.safetensors")
        names = {id(parameter): name for name, parameter in learner.model.named_parameters()}
        tensors = {f"model/{name}": tensor for name, tensor in weights.items()}
        tensors |= {f"optimizer/{name}": held for name, held in optimizer_state(optimizer, names).items()}
        state = {"run": dict(self.fingerprint), **vars(self.standing)}
        write_checkpoint(Checkpoint(tensors, state), self.folder / "last.safetensors")

    # ------------------------------------------------------------------------------------------ Lightning's hooks

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Give the optimizer what it knew."""
        assert isinstance(pl_module, Learner)
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
        if outputs is not None:
            self._losses.append(float(outputs["loss"]))
        self._tell(pl_module, batch_idx + 1)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """An epoch is over: keep what it brought, and stop if it was not better for long."""
        assert isinstance(pl_module, Learner)
        scores = pl_module.validated()
        standing = self.standing
        better = scores["loss"] < standing.best_loss
        if better:
            standing.best_epoch, standing.best_loss = standing.epoch, scores["loss"]
        train_loss = float(np.mean(self._losses)) if self._losses else float("nan")
        validated = {f"validation_{name}": value for name, value in scores.items()}
        standing.history.append({"epoch": standing.epoch, "train_loss": train_loss, **validated})
        standing.epoch += 1
        standing.done = pl_module.done
        self._keep(pl_module, trainer.optimizers[0], best=better)
        self._tell(pl_module, len(self.batches), scores, best=better)
        if self._patience_is_over(pl_module.settings):
            trainer.should_stop = True
        self._begin()  # Lightning asks for the next epoch's batches before it says that the epoch begins

    # ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.batches.epoch = self.standing.epoch
        self._losses = []
        torch.manual_seed(_mixed(self.fingerprint["seed"], self.standing.epoch))

    def _patience_is_over(self, settings: Settings) -> bool:
        return self.standing.epoch - 1 - self.standing.best_epoch >= settings.patience

    def _tell(
        self,
        learner: lightning.LightningModule,
        batch: int,
        scores: Mapping[str, float] | None = None,
        *,
        best: bool = False,
    ) -> None:
        if self.progress is None:
            return
        assert isinstance(learner, Learner)
        epoch = self.standing.epoch - (scores is not None)
        loss = self._losses[-1] if self._losses else None
        self.progress(Moment(epoch, learner.settings.epochs, batch, len(self.batches), loss, scores, best))


def _mixed(seed: int, epoch: int) -> int:
    """One seed of two."""
    return int(np.random.default_rng([seed, epoch, 3]).integers(2**63))


def _memory_steps(sequences: Sequences, parts: Split, settings: Settings) -> float:
    """How long a memory the gates start with; 0 for torch's own start."""
    if settings.memory_steps != "auto":
        return float(settings.memory_steps)
    longest = int(sequences.lengths[parts.train].max())
    return float(longest) if longest > 2 else 0.0


def _fingerprint(sequences: Sequences, parts: Split, settings: Settings) -> dict[str, Any]:
    """What must be the same for a run to go on as if it had never stopped."""
    chosen = settings.to_dict()
    for name in ("data", "test_data"):  # the same files may lie elsewhere
        chosen.pop(name)
    return {
        "seed": settings.seed,
        "settings": chosen,
        "sequences": len(sequences),
        "steps": int(sequences.offsets[-1]),
        "parts": [len(parts.train), len(parts.validation), len(parts.test)],
        "threads": settings.threads or torch.get_num_threads(),
    }
