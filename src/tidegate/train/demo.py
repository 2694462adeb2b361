"""The main job: five networks learn from real video what to let into memory while an advert interrupts the film."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tidegate.data.film as films
from tidegate import __version__
from tidegate.data.film import Film, FilmBatch
from tidegate.data.sequences import Sequences
from tidegate.nn.init import chrono_
from tidegate.report.records import DemoRecord, FilmRecord, Span, SystemRecord
from tidegate.train.batches import Batch
from tidegate.train.encoder import Statistics, statistics
from tidegate.train.film_inspection import Inspection, gates, inspect
from tidegate.train.learner import Learner
from tidegate.train.loop import fit_quietly, quiet, quiet_trainer
from tidegate.train.model import ModelConfig, SequenceModel, Variant
from tidegate.train.settings import Settings
from tidegate.train.tasks import Task

__all__ = ["DEMO_SYSTEMS", "TRAINING_STEPS", "Demo", "DemoProgress", "DemoSystem", "metrics", "run_demo"]

TRAINING_STEPS = 250
BATCH = 64
HIDDEN = 128
TEST_SEQUENCES = 1000
CHRONO_STEPS = films.STEPS  # the memory that the gated systems start with: the length of the film

_TINT = 0.3  # of the spread of a tile's colour
_TESTS_SEED = 1_000_003  # the test films are the same whatever the training's seed


@dataclass(frozen=True)
class DemoSystem:
    """One row of the demo's table."""

    key: str
    title: str
    variant: Variant
    chrono: bool


DEMO_SYSTEMS = (
    DemoSystem("dense", "dense layer", "dense", chrono=False),
    DemoSystem("rnn", "RNN", "rnn", chrono=False),
    DemoSystem("update-only", "update-only GRU", "update-only", chrono=True),
    DemoSystem("gru", "GRU", "gru", chrono=True),
    DemoSystem("gru-default-init", "GRU, default init", "gru", chrono=False),
)

#: Called with the system's key, the steps done, the loss and the share of the batch that was right.
DemoProgress = Callable[[str, int, float, float], None]


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo found, and the networks it trained, by their key."""

    record: DemoRecord
    models: dict[str, SequenceModel]
    #: What each of them is asked.
    task: Task


def run_demo(
    film: Film,
    *,
    seed: int = 0,
    steps: int = TRAINING_STEPS,
    test_sequences: int = TEST_SEQUENCES,
    progress: DemoProgress | None = None,
) -> Demo:
    """Train every system on the same films, `steps` batches of 64, and test it on frames it has never seen."""
    features = torch.from_numpy(film.features)
    rng = np.random.default_rng(seed)
    training = [_training_batch(film, rng) for _ in range(steps)]
    tests = film.draw(np.random.default_rng(_TESTS_SEED), "test", test_sequences)
    task = Task("classify", "opening", "cross-entropy", film.shots)
    frames = film.runs("train")
    found = statistics(frames, np.arange(len(frames)))
    models, rows = {}, []
    for system in DEMO_SYSTEMS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _model(system, frames, found, task)
            untrained = gates(model, features, tests)
            start = time.perf_counter()
            settings = Settings(
                variant=system.variant, hidden_size=HIDDEN, batch_size=BATCH, epochs=1, schedule="constant", seed=seed
            )
            report = None if progress is None else partial(progress, system.key)
            learner = _Watched(model.train(), task, settings, steps, report)
            with quiet():
                trainer = quiet_trainer(devices=1, max_epochs=1, gradient_clip_val=settings.clip_norm)
                fit_quietly(trainer, learner, (_batch(features, drawn, tint) for drawn, tint in training))
            seconds = time.perf_counter() - start
        curves = (np.array(learner.losses, np.float32), np.array(learner.accuracies, np.float32))
        rows.append(_row(system, model, untrained, inspect(model, features, tests), seconds, curves, film.shots))
        models[system.key] = model
    record = DemoRecord(
        chance=1 / len(film.shots),
        elimination=by_elimination(tests, len(film.shots)),
        test_sequences=test_sequences,
        seed=seed,
        training_steps=steps,
        batch_size=BATCH,
        hidden_size=HIDDEN,
        chrono_steps=CHRONO_STEPS,
        film=_film_record(film, tests),
        systems=tuple(rows),
        versions={"tidegate": __version__, "torch": torch.__version__, "python": platform.python_version()},
    )
    return Demo(record, models, task)


def metrics(record: DemoRecord) -> dict[str, object]:
    """The record's numbers as JSON can hold them."""
    names = ["system", "parameters", "accuracy", "update_on_advert", "update_on_opening"]
    names += ["untrained_update_on_advert", "untrained_update_on_opening"]
    names += ["memory_opening", "memory_advert", "memory_rest", "gradient", "seconds"]
    return {
        "chance": record.chance,
        "elimination": record.elimination,
        "test_sequences": record.test_sequences,
        "seed": record.seed,
        "training_steps": record.training_steps,
        "systems": [{name: getattr(system, name) for name in names} for system in record.systems],
    }


class _Watched(Learner):
    """A learner that keeps the loss and the share of right answers of every step, and tells of them."""

    def __init__(
        self,
        model: SequenceModel,
        task: Task,
        settings: Settings,
        steps: int,
        progress: Callable[[int, float, float], None] | None,
    ) -> None:
        super().__init__(model, task, settings, steps)
        self.progress = progress
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def forward(self, batch: Batch) -> Tensor:
        """The answers, which are counted."""
        answers = super().forward(batch)
        assert batch.label is not None
        self.accuracies.append(float((answers.argmax(-1) == batch.label).double().mean()))
        return answers

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of one batch, which is kept."""
        loss = super().training_step(batch, batch_index)
        self.losses.append(float(loss.detach()))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Tell how it goes."""
        if self.progress is not None:
            self.progress(len(self.losses), self.losses[-1], self.accuracies[-1])


def _model(system: DemoSystem, frames: Sequences, found: Statistics, task: Task) -> SequenceModel:
    config = ModelConfig(
        features=frames.features,
        flagged=(False,) * len(frames.features),
        outputs=task.outputs,
        per_step=task.per_step,
        variant=system.variant,
        hidden_size=HIDDEN,
    )
    model = SequenceModel(config)
    model.encoder.fit(found)
    if system.chrono:
        chrono_(model.layer, CHRONO_STEPS)
    return model


def by_elimination(tests: FilmBatch, shots: int) -> float:
    """How often one is right who knows every shot of the rest, but not the opening, and guesses among the others.

    The rest never shows the opening's shot, so that forgetting the opening still leaves this much; less than that many
    right answers show no memory of it.
    """
    seen = [len(set(tests.shot[tests.kind[:, film] == films.REST, film])) for film in range(tests.shot.shape[1])]
    return float(np.mean([1 / (shots - count) for count in seen]))


def _training_batch(film: Film, rng: np.random.Generator) -> tuple[FilmBatch, Tensor]:
    """Training films, and the tinted glass (B, I) through which each is seen: one shift of every tile's colours.

    The light of a shot drifts; without this, a network that is sure of every training frame may miss a whole shot's
    later frames.
    """
    batch = film.draw(rng, "train", BATCH, any_advert=True)
    tint = _TINT * film.features.std(0) * rng.standard_normal((BATCH, films.FEATURES), dtype=np.float32)
    return batch, torch.from_numpy(tint)


def _batch(features: Tensor, drawn: FilmBatch, tint: Tensor) -> Batch:
    """Films as a network is trained on them."""
    steps, count = drawn.index.shape
    return Batch(
        numbers=np.arange(count),
        values=features[drawn.index] + tint,
        lengths=torch.full((count,), steps),
        label=torch.from_numpy(drawn.label).double(),
        start=0,
        last=True,
    )


def _row(
    system: DemoSystem,
    model: SequenceModel,
    untrained: tuple[float, ...],
    seen: Inspection,
    seconds: float,
    curves: tuple[np.ndarray, np.ndarray],
    shots: tuple[str, ...],
) -> SystemRecord:
    return SystemRecord(
        system=system.key,
        title=system.title,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        accuracy=seen.accuracy,
        update_on_advert=seen.update[films.ADVERT],
        update_on_opening=seen.update[films.OPENING],
        untrained_update_on_advert=untrained[films.ADVERT],
        untrained_update_on_opening=untrained[films.OPENING],
        memory_opening=seen.memory[films.OPENING],
        memory_advert=seen.memory[films.ADVERT],
        memory_rest=seen.memory[films.REST],
        gradient=float(seen.gradient_norms[5]),
        seconds=seconds,
        losses=curves[0],
        accuracies=curves[1],
        answer=shots[seen.first_answer],
        update=_array(seen.first_update),
        reset=_array(seen.first_reset),
        memory=_array(seen.first_memory),
        gradient_norms=_array(seen.gradient_norms),
    )


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().numpy()
    return array


def _film_record(film: Film, tests: FilmBatch) -> FilmRecord:
    """The first test film, as it is shown."""
    names = (*film.shots, "advert")
    edges = [0, *(np.flatnonzero(np.diff(tests.run[:, 0])) + 1).tolist(), films.STEPS]
    spans = [
        Span(films.KINDS[tests.kind[start, 0]], names[tests.shot[start, 0]], start, stop)
        for start, stop in pairwise(edges)
    ]
    return FilmRecord(film.frames[tests.index[:, 0]], tuple(spans))
