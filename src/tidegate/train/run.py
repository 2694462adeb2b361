"""A run: from files to a folder with the model, its score and everything needed to go on or to use it."""

import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tidegate import __version__
from tidegate.data.read import read
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.train.batches import Batches
from tidegate.train.checkpoint import Checkpoint, clear_unfinished, read_checkpoint, write_checkpoint, write_whole
from tidegate.train.fingerprint import PLACES
from tidegate.train.fitting import Fitted, Moment, evaluate, fit_model, new_model
from tidegate.train.folders import check_out
from tidegate.train.model import ModelConfig, SequenceModel
from tidegate.train.settings import Settings, read_settings
from tidegate.train.split import Split, split
from tidegate.train.tasks import Task, task_for

__all__ = ["Run", "Score", "load_run", "train"]

_CONFIG, _RUN, _MODEL, _CHECKPOINTS = "config.yaml", "run.json", "model.safetensors", "checkpoints"
_FORMAT = "tidegate.run/1"


@dataclass(frozen=True)
class Score:
    """How well a model does on one part of the data."""

    sequences: int
    #: The loss and the metrics by name; empty for a part of no sequences, or of no known label.
    scores: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model, with what it was trained for and how well it does."""

    model: SequenceModel
    task: Task
    settings: Settings
    #: As they stand in `run.json`: parts, scores, history, versions, seconds.
    facts: Mapping[str, Any]


def train(
    settings: Settings,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Callable[[Moment], None] | None = None,
) -> Run:
    """Train on the files that `settings` name, and leave everything in the folder `out`.

    `out` gets `config.yaml`, the settings with every default; `model.safetensors`, the weights of the best epoch with
    the model's configuration; `run.json`, the facts and scores; and `checkpoints`, from which `resume` goes on as if
    nothing had happened: on the CPU, with as many threads, the weights are the same to the bit. Everything that can be
    refused is refused before `out` is made.

    Raises:
        FileError: a file of the data is missing or damaged, or `out` cannot be written.
        InputValueError: the data do not fit the settings, or `out` holds files and `resume` is False, or the run to be
            resumed was another one.
        KeyboardInterrupt: interrupted; `resume` goes on.
    """
    out = Path(out)
    if not settings.data:
        raise InputValueError("data must name files to learn from; got none")
    clear_unfinished(out)
    if resume:
        _check_resumable(out, settings)
    else:
        check_out(out, overwrite=False)
    started = time.perf_counter()
    sequences = _read(settings, settings.data)
    parts = split(sequences, validation=settings.validation, test=0 if settings.test_data else settings.test,
                  seed=settings.seed)  # fmt: skip
    task = task_for(
        sequences, parts.train, name=settings.task, loss=settings.loss, class_weights=settings.class_weights
    )
    tests = _tests(settings, sequences, parts, task)
    model = new_model(sequences, parts, task, settings)
    write_whole(out / _CONFIG, settings.to_yaml().encode())
    resume = (out / _CHECKPOINTS / "last.safetensors").is_file()  # whether a first epoch was finished
    fitted = fit_model(
        model, sequences, parts, task, settings, folder=out / _CHECKPOINTS, resume=resume, progress=progress
    )
    test = Score(0, {}) if tests is None else score(fitted.model, task, *tests, settings)
    facts = _facts(settings, sequences, parts, task, fitted, test, time.perf_counter() - started)
    state = {"config": fitted.model.config.to_dict(), "task": task.to_dict()}
    write_checkpoint(Checkpoint(fitted.model.state_dict(), state), out / _MODEL)
    write_whole(out / _RUN, (json.dumps(_finite(facts), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return Run(fitted.model, task, settings, facts)


def load_run(folder: str | Path) -> Run:
    """The run that `train` left in a folder, ready to answer; no code from the files is run.

    Raises:
        FileMissingError: the folder or one of its files is not there; a run that was cut off has no model yet.
        FileError: a file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileMissingError(f"there is no folder {str(folder)!r}")
    if (folder / _CONFIG).is_file() and not (folder / _MODEL).is_file():
        raise FileMissingError(f"{str(folder)!r} holds a run that was cut off: go on with it first (--resume)")
    found = read_checkpoint(folder / _MODEL)
    path = str(folder / _MODEL)
    try:
        model = SequenceModel(ModelConfig.from_dict(found.state["config"]))
        task = Task.from_dict(found.state["task"])
        model.load_state_dict(found.tensors)
    except (InputValueError, KeyError, TypeError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise FileError(f"{path!r} does not hold a model of this version of Tidegate: {told}") from error
    settings = Settings.from_dict(read_settings(folder / _CONFIG))
    return Run(model.eval(), task, settings, _read_facts(folder / _RUN))


def read_for(run: Run, data: tuple[str, ...]) -> Sequences:
    """The sequences in files, with the features of a run and without a label."""
    settings = replace(run.settings, label=None)
    return _read(settings, data, known=run.model.config.features, known_label=None)


def _read(
    settings: Settings,
    data: tuple[str, ...],
    *,
    known: Sequence[Feature] | None = None,
    known_label: Label | None = None,
) -> Sequences:
    columns = Columns(
        id=settings.id,
        time=settings.time,
        label=settings.label,
        features=settings.features,
        categorical=settings.categorical,
        ignore=settings.ignore,
    )
    found: Sequences = read(list(data), columns=columns, known=known, known_label=known_label)
    return found


def score(model: SequenceModel, task: Task, sequences: Sequences, numbers: np.ndarray, settings: Settings) -> Score:
    """The loss and metrics of a model on some sequences."""
    batches = Batches(sequences, numbers, settings.batch_size, chunk=settings.chunk)
    return Score(len(numbers), evaluate(model, task, batches, settings))


def _tests(settings: Settings, sequences: Sequences, parts: Split, task: Task) -> tuple[Sequences, np.ndarray] | None:
    """The sequences that are asked about only at the end, with the label in the classes of the task."""
    if not settings.test_data:
        return (sequences, parts.test) if len(parts.test) else None
    tests = _read(settings, settings.test_data, known=sequences.features, known_label=task.known_label())
    task.check(tests)
    return tests, np.arange(len(tests))


def _check_resumable(out: Path, settings: Settings) -> None:
    if not (out / _CONFIG).is_file():
        raise FileMissingError(f"there is no run to resume in {str(out)!r}")
    if (out / _MODEL).is_file() and (out / _RUN).is_file():
        raise InputValueError(f"{str(out)!r} holds a run that is finished; there is nothing to resume")
    before = Settings.from_dict(read_settings(out / _CONFIG)).to_dict()
    for name, value in settings.to_dict().items():
        if name not in PLACES and before[name] != value:
            raise InputValueError(f"{name} must be that of the run that is resumed, {before[name]!r}; got {value!r}")


def _facts(
    settings: Settings,
    sequences: Sequences,
    parts: Split,
    task: Task,
    fitted: Fitted,
    test: Score,
    seconds: float,
) -> dict[str, Any]:
    lengths = sequences.lengths
    return {
        "format": _FORMAT,
        "task": task.to_dict(),
        "data": {
            "files": list(sequences.files),
            "sequences": len(sequences),
            "steps": int(sequences.offsets[-1]),
            "shortest": int(lengths.min()),
            "longest": int(lengths.max()),
            "features": [feature.name for feature in sequences.features],
            "train": len(parts.train),
            "validation": len(parts.validation),
            "test": test.sequences,
        },
        "parameters": sum(parameter.numel() for parameter in fitted.model.parameters()),
        "best_epoch": fitted.best_epoch,
        "validation": dict(fitted.validation),
        "test": dict(test.scores),
        "history": [dict(record) for record in fitted.history],
        "seconds": seconds,
        "seed": settings.seed,
        "versions": {"tidegate": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _finite(facts: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(facts, float):
        return facts if math.isfinite(facts) else None
    if isinstance(facts, dict):
        return {name: _finite(value) for name, value in facts.items()}
    return [_finite(value) for value in facts] if isinstance(facts, list) else facts


def _read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileMissingError(f"there is no file {str(path)!r}")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{str(path)!r} is not JSON: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise FileError(f"{str(path)!r} is not a record of the format {_FORMAT!r}")
    return facts
