"""A training run from sequences to a model: parts, first weights, epochs, the best of them, and its score."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.data.sequences import Sequences
from tidegate.errors import FileError, InputValueError
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
from tidegate.train.fingerprint import difference, fingerprint
from tidegate.train.learner import Learner
from tidegate.train.loop import fit_quietly, quiet
from tidegate.train.model import ModelConfig, SequenceModel
from tidegate.train.settings import Settings
from tidegate.train.split import Split
from tidegate.train.tasks import Task, known_values

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
    #: One record an epoch: epoch, train_loss, and the validation's loss and metrics; None for a number not finite.
    history: tuple[Mapping[str, float | None], ...]
    best_epoch: int
    #: The validation's loss and metrics with the best weights.
    validation: Mapping[str, float]


@dataclass(eq=False)
class _Standing:
    """What the keeper knows of the run so far; all of it goes into the checkpoint."""

    epoch: int = 0
    done: int = 0
    best_epoch: int = -1
    #: None before an epoch has a finite loss.
    best_loss: float | None = None
    #: Whether a weight is NaN or infinite, from where no step leads back.
    diverged: bool = False
    history: list[dict[str, float | None]] = field(default_factory=list)


def new_model(sequences: Sequences, parts: Split, task: Task, settings: Settings) -> SequenceModel:
    """A model with its first weights, normalised by the training part. The same seed gives the same.

    Raises `InputValueError` for whatever could not be trained on: no part that tells when to stop or none of its labels
    known, a feature that is missing everywhere, options that do not go together.
    """
    if not len(known_values(sequences, parts.validation)):
        raise InputValueError(
            f"label {task.label!r} must be known somewhere in the validation part, which tells when to stop; it is not"
        )
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
            chrono_(model.layer, steps, spacing="log")
    if settings.recompute:
        model.layer.recompute = True  # type: ignore[assignment]
    return model


def fit_model(
    model: SequenceModel,
    sequences: Sequences,
    parts: Split,
    task: Task,
    settings: Settings,
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Callable[[Moment], None] | None = None,
) -> Fitted:
    """Train a `new_model` in place, or go on where `folder` left off; on the CPU, the same to the bit either way.

    Checkpoints go to `folder`, after every epoch: `last.safetensors`, from which to go on, and `best.safetensors`.

    Raises:
        InputValueError: the data or settings are not those of the run to be resumed, or training diverged.
        FileError: a checkpoint cannot be written or read.
        KeyboardInterrupt: interrupted; the last checkpoint is there.
    """
    train = Batches(sequences, parts.train, settings.batch_size, chunk=settings.chunk, shuffle=settings.seed)
    stop = Batches(sequences, parts.validation, settings.batch_size, chunk=settings.chunk)
    learner = Learner(model, task, settings, len(train) * settings.epochs)
    with threads(settings.threads):
        # without a folder nobody asks, and data on disk need not be read once more
        keeper = _Keeper(train, folder, {} if folder is None else fingerprint(sequences, parts, settings), progress)
        if resume:
            assert folder is not None
            keeper.resume(learner, folder / "last.safetensors")
        if not keeper.over(settings):
            with quiet(), torch.random.fork_rng(devices=[]):
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
                # an iterable without a length: epochs of chunks have different ones, and Lightning asks only once
                fit_quietly(trainer, learner, _Uncounted(train), stop)
    best = keeper.best()
    if best is None:
        raise InputValueError("the validation loss must become finite in some epoch; it never did: lower learning_rate")
    model.load_state_dict(best)
    standing = keeper.standing
    validation = {
        name.removeprefix("validation_"): value
        for name, value in standing.history[standing.best_epoch].items()
        if name.startswith("validation_") and value is not None
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


class _Uncounted:
    """Batches of which nobody knows how many there are."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


class _Keeper(lightning.Callback):
    """Draws every epoch's random numbers from seed and epoch, keeps the best weights, writes checkpoints."""

    def __init__(
        self,
        batches: Batches,
        folder: Path | None,
        fingerprint: dict[str, Any],
        progress: Callable[[Moment], None] | None,
    ) -> None:
        self.batches, self.folder, self.fingerprint, self.progress = batches, folder, fingerprint, progress
        assert batches.shuffle is not None
        self.seed = batches.shuffle
        self.standing = _Standing()
        self._best: dict[str, Tensor] | None = None
        self._optimizer: dict[str, Tensor] = {}
        self._losses: list[float] = []
        self._count = 0

    # ------------------------------------------------------------------------------------------ checkpoints

    def resume(self, learner: Learner, path: Path) -> None:
        """Take up what a checkpoint says."""
        found = read_checkpoint(path)
        with _as_damage(path):
            state = dict(found.state)
            differs = difference(state.pop("run"), self.fingerprint)
        if differs is not None:
            raise InputValueError(differs)
        with _as_damage(path):
            self.standing = _Standing(**state)
            learner.model.load_state_dict(_part(found, "model/"))
            self._optimizer = _part(found, "optimizer/")
            known = dict(learner.model.named_parameters())
            _demand({name.rpartition("/")[0] for name in self._optimizer}, among=known)
        learner.done = self.standing.done
        if self.standing.best_epoch >= 0:
            path = path.with_name("best.safetensors")
            best = dict(read_checkpoint(path).tensors)
            with _as_damage(path):
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
        if best:
            # first the best: a crash between the two leaves a last one that repeats this epoch, with the same result
            write_checkpoint(Checkpoint(weights, {"epoch": self.standing.best_epoch}), self.folder / "best.safetensors")
        names = {id(parameter): name for name, parameter in learner.model.named_parameters()}
        tensors = {f"model/{name}": tensor for name, tensor in weights.items()}
        tensors |= {f"optimizer/{name}": held for name, held in optimizer_state(optimizer, names).items()}
        state = {"run": self.fingerprint, **vars(self.standing)}
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
        if outputs:  # nothing where no label was known
            self._losses.append(float(outputs["loss"]))
        self._tell(pl_module, batch_idx + 1)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """An epoch is over: keep what it brought, and stop if it was not better for long."""
        assert isinstance(pl_module, Learner)
        scores = pl_module.validated()
        standing = self.standing
        standing.diverged = not all(bool(parameter.isfinite().all()) for parameter in pl_module.model.parameters())
        better = math.isfinite(scores["loss"]) and not standing.diverged
        better = better and (standing.best_loss is None or scores["loss"] < standing.best_loss)
        if better:
            standing.best_epoch, standing.best_loss = standing.epoch, scores["loss"]
        train_loss = float(np.mean(self._losses)) if self._losses else float("nan")
        validated = {f"validation_{name}": value for name, value in scores.items()}
        told = {"train_loss": train_loss, **validated}
        finite = {name: value if math.isfinite(value) else None for name, value in told.items()}
        standing.history.append({"epoch": standing.epoch, **finite})
        standing.epoch += 1
        standing.done = pl_module.done
        self._keep(pl_module, trainer.optimizers[0], best=better)
        self._tell(pl_module, self._count, scores, best=better)
        if self._stops(pl_module.settings):
            trainer.should_stop = True
        self._begin()  # Lightning asks for the next epoch's batches before it says that the epoch begins

    # ------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.batches.epoch = self.standing.epoch
        self._count = len(self.batches)
        self._losses = []
        torch.manual_seed(_mixed(self.seed, self.standing.epoch))

    def _stops(self, settings: Settings) -> bool:
        """Whether nothing better is to be expected."""
        standing = self.standing
        return standing.diverged or standing.epoch - 1 - standing.best_epoch >= settings.patience

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
        self.progress(Moment(epoch, learner.settings.epochs, batch, self._count, loss, scores, best))


def _mixed(seed: int, epoch: int) -> int:
    """One seed of two."""
    return int(np.random.default_rng([seed, epoch, 3]).integers(2**63))


def _memory_steps(sequences: Sequences, parts: Split, settings: Settings) -> float:
    """How long a memory the gates start with; 0 for torch's own start."""
    if settings.memory_steps != "auto":
        return float(settings.memory_steps)
    longest = int(sequences.lengths[parts.train].max())
    return float(longest) if longest > 2 else 0.0


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
