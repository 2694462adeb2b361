"""A training run from sequences to a model: parts, first weights, epochs, the best of them, and its score."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError
from tidegate.extras import require
from tidegate.nn.init import chrono_
from tidegate.train.alarms import alarms
from tidegate.train.batches import Batch, Batches
from tidegate.train.encoder import statistics
from tidegate.train.fingerprint import fingerprint
from tidegate.train.keeper import Keeper, Moment
from tidegate.train.lanes import chunk_of, in_lanes
from tidegate.train.learner import Learner
from tidegate.train.loop import fit_quietly, quiet, quiet_trainer
from tidegate.train.model import ModelConfig, SequenceModel
from tidegate.train.processes import ALONE, Processes
from tidegate.train.settings import UNGATED, Settings
from tidegate.train.spans import spans_of
from tidegate.train.split import Parts
from tidegate.train.tasks import Task, is_known

require("lightning", "train")

from lightning.pytorch.loggers import TensorBoardLogger  # noqa: E402

__all__ = ["Fitted", "evaluate", "fit_model", "new_model"]


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
    #: Whether the weights are others, that have learned the validation part too.
    again: bool = False


def new_model(sequences: Sequences, parts: Parts, task: Task, settings: Settings) -> SequenceModel:
    """A model with its first weights, normalised by the training part. The same seed gives the same.

    Raises `InputValueError` for whatever could not be trained on: no part that tells when to stop or none of its labels
    known, a feature that is missing everywhere, options that do not go together.
    """
    if not is_known(sequences, parts.validation):
        raise InputValueError(
            f"label {task.label!r} must be known somewhere in the validation part, which tells when to stop; it is not"
        )
    _check_held(sequences, parts, settings)
    lanes, _ = in_lanes(spans_of(sequences, parts.train), task, settings)
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
        input_dropout=settings.input_dropout,
        candidate_dropout=settings.candidate_dropout,
        weight_dropout=settings.weight_dropout,
        zoneout=settings.zoneout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = SequenceModel(config)
        model.encoder.fit(found)
        steps = _memory_steps(int(lanes.lengths.max()), settings)
        if steps and settings.variant not in UNGATED:
            chrono_(model.layer, steps, spacing="log", share=0.5)
    if settings.recompute:
        model.layer.recompute = True  # type: ignore[assignment]
    return model


def fit_model(
    model: SequenceModel,
    sequences: Sequences,
    parts: Parts,
    task: Task,
    settings: Settings,
    *,
    folder: Path | None = None,
    logs: Path | None = None,
    resume: bool = False,
    progress: Callable[[Moment], None] | None = None,
    processes: Processes = ALONE,
    to_the_end: bool = False,
    again: bool = False,
) -> Fitted:
    """Train a `new_model` in place, or go on where `folder` left off; on the CPU, the same to the bit either way.

    Among several processes each takes its part of every batch; the first one writes and tells. Checkpoints go to
    `folder`, after every epoch: `last.safetensors`, from which to go on, and `best.safetensors`.
    Scores go to the folder `logs` too, as TensorBoard reads them. With `to_the_end` the last epoch counts as the best;
    with `again` every moment says so, and no alarm is looked for, since all were told the first time.

    Raises:
        InputValueError: the data or settings are not those of the run to be resumed, or of another process; or
            training diverged.
        FileError: a checkpoint cannot be written or read.
        KeyboardInterrupt: interrupted; the last checkpoint is there.
    """
    part = processes.part
    lanes, chunk = in_lanes(spans_of(sequences, parts.train), task, settings)
    train = Batches(sequences, lanes, settings.batch_size, chunk=chunk, shuffle=settings.seed, part=part)
    stop = Batches(sequences, parts.validation, settings.batch_size, chunk=chunk_of(task, settings), part=part)
    learner = Learner(model, task, settings, len(train) * settings.epochs, processes)
    with threads(settings.threads or processes.threads()):
        # without a folder nobody asks, and data on disk need not be read once more
        asked = folder is not None or processes.size > 1
        known = fingerprint(sequences, parts, settings, processes.size) if asked else {}
        with processes.agreed():
            if processes.told(known) != known:
                raise InputValueError(
                    f"data and options must be the same for every process; process {processes.rank} got others than 0"
                )
        told = partial(alarms, model, sequences, parts.validation)
        keeper = Keeper(train, folder, known, progress, told, processes, to_the_end=to_the_end, again=again)
        if resume:
            assert folder is not None
            keeper.resume(learner, folder / "last.safetensors")
        if not keeper.over(settings):
            with quiet(), processes.together(), torch.random.fork_rng(devices=[]):
                trainer = quiet_trainer(
                    max_epochs=settings.epochs - keeper.standing.epoch,
                    gradient_clip_val=settings.clip_norm or None,
                    precision="32-true" if settings.precision == "32" else "bf16-mixed",
                    callbacks=[keeper],
                    logger=logs is not None and TensorBoardLogger(logs.parent, name=logs.name, version=""),
                    num_sanity_val_steps=0,
                    **processes.trainer_options(),
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
def evaluate(
    model: SequenceModel, task: Task, batches: Batches, settings: Settings, processes: Processes = ALONE
) -> dict[str, float]:
    """The loss and metrics of a model on sequences that it was not trained on, each process having part of them."""
    learner = Learner(model.eval(), task, settings, 1, processes)
    learner.on_validation_epoch_start()
    with threads(settings.threads or processes.threads()):
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


def _check_held(sequences: Sequences, parts: Parts, settings: Settings) -> None:
    held, spans = sequences.held, spans_of(sequences, parts.train)
    if held is not None and not any((held[spans.asked(sequences, place)] == 1).any() for place in range(len(spans))):
        name = "hold" if settings.hold is not None else "hold_edl"
        raise InputValueError(f"{name} must be true at some step of the training part; it is at none")


class _Uncounted:
    """Batches of which nobody knows how many there are."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


def _memory_steps(longest: int, settings: Settings) -> float:
    """How long a memory the gates start with; 0 for torch's own start."""
    if settings.memory_steps != "auto":
        return float(settings.memory_steps)
    return float(longest) if longest > 2 else 0.0
