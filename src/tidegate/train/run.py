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
from tidegate.data.derived import read_features, with_change
from tidegate.data.gaps import GAP, gaps_in, with_gaps
from tidegate.data.known import label_as_known
from tidegate.data.read import read
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.data.text import is_text
from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.report.run_page import run_page
from tidegate.report.run_records import RunRecord
from tidegate.train.batches import Batches
from tidegate.train.checkpoint import clear_unfinished, write_whole
from tidegate.train.fingerprint import PLACES
from tidegate.train.fitting import Fitted, evaluate, new_model, threads
from tidegate.train.folders import check_out
from tidegate.train.forecast import Forecast, forecast_for, with_target
from tidegate.train.inspection import Asked, inspect
from tidegate.train.keeper import Moment
from tidegate.train.lanes import chunk_of
from tidegate.train.marks import EDL, with_edl_label, with_held
from tidegate.train.model import SequenceModel
from tidegate.train.model_file import load_model, save_model
from tidegate.train.predict import answers
from tidegate.train.processes import ALONE, Processes, processes_here
from tidegate.train.refit import fit_all
from tidegate.train.settings import Settings, read_settings
from tidegate.train.spans import Which, spans_of
from tidegate.train.split import Parts, split, split_by_time
from tidegate.train.tasks import Task, task_for

__all__ = ["Run", "Score", "fit", "load_run", "run_files", "train"]

_CONFIG, _RUN, _MODEL, _CHECKPOINTS, _LOGS = "config.yaml", "run.json", "model.safetensors", "checkpoints", "logs"
_FORMAT = "tidegate.run/1"
#: Labels that are read from where files lie, from what lies beside them, and from what follows in them.
_IN_NO_COLUMN = ("folder", EDL, "next")


@dataclass(frozen=True)
class Score:
    """How well a model does on one part of the data."""

    sequences: int
    #: The steps of theirs that are asked about.
    steps: int
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

    def read(self, data: Any, *, label: bool = False, **options: Any) -> Sequences:
        """Sequences in anything that `tidegate.data.read` reads, with the features that the model takes.

        With `label`, the label must be there, of the classes that the model knows.
        """
        known_label = self.task.known_label() if label else None
        found = _read(self.settings, data, self.model.config.features, known_label, options, label=label)
        if label:
            self.task.check(found)
        return found

    def predict(self, data: Any) -> dict[str, np.ndarray]:
        """What the model says of new sequences, as the columns of a table; see `answers`."""
        pieces = list(answers(self.model, self.task, self.settings, self.read(data)))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else {}

    def inspect(
        self,
        data: Any,
        out: str | Path | None = None,
        *,
        sequences: int | None = None,
        ids: Sequence[str] = (),
        layers: Sequence[int] = (),
        labelled: bool = True,
        name: str = "run",
        **options: Any,
    ) -> RunRecord:
        """Look inside the network while it reads some sequences; with `out`, write it as one HTML page.

        Args:
            data: as for `read`; `options` are `read`'s, such as `y`, the labels of arrays in memory.
            out: the page, written whole or not at all; what was there is replaced.
            sequences: how many are shown: the longest, some answered right, some wrong. 6 if not given.
            ids: those that are shown instead, by their names.
            layers: which of stacked layers, from 0; all if empty.
            labelled: whether the data hold the label that was trained on. Arrays in memory do if `y` is given; what is
                forecast is an input, and always there. A label that lies in no column ("folder", "edl", "next") is
                looked for, and may be missing.
            name: what the page calls the run.

        Raises:
            InputValueError: `out` does not end in .html; there is no such sequence or layer; the data do not fit.
            FileError: a file of the data is damaged, or `out` cannot be written.
            MissingExtraError: with `out`, a package of the extra "report" is not installed.
        """
        if out is not None and Path(out).suffix.lower() != ".html":
            raise InputValueError(f"out must end in .html; got {str(out)!r}")
        asked = Asked(sequences, tuple(ids), tuple(layers))
        found = self._with_what_is_known(data, options, labelled=labelled)
        with threads(self.settings.threads):
            record = inspect(self.model, self.task, self.facts, found, asked, name=name, time=self.settings.time)
        if out is not None:
            write_whole(Path(out), run_page(record).encode())
        return record

    def _with_what_is_known(self, data: Any, options: Mapping[str, Any], *, labelled: bool) -> Sequences:
        """Sequences with their label as far as it can be had."""
        if isinstance(self.task, Forecast):
            return self.read(data, label=True, **options)
        named = isinstance(data, Sequences) or hasattr(data, "__arrow_c_stream__") or _paths(data) is not None
        if not labelled or not (named or "y" in options):
            return self.read(data, **options)
        features, known = self.model.config.features, self.task.known_label()
        found = _read(self.settings, data, features, known, options, label=True, needed=False)
        if self.settings.label in _IN_NO_COLUMN and not _has_columns(found):
            if found.label is None:
                return found
            # a folder, span or symbol that is no class of the network's says nothing of what is right
            values = np.where(found.label.values < 0, np.nan, found.label.values)
            found = replace(found, label=replace(found.label, values=values))
        self.task.check(found)
        return found

    def score(self, data: Any, **options: Any) -> dict[str, float]:
        """The loss and the metrics on sequences whose label is known; `options` are `read`'s, such as `y`."""
        sequences = self.read(data, label=True, **options)
        return dict(score(self.model, self.task, sequences, np.arange(len(sequences)), self.settings).scores)


def fit(
    data: Any,
    label: Any = None,
    *,
    test_data: Any = None,
    test_label: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Moment], None] | None = None,
    **options: Any,
) -> Run:
    """Train a network on sequences, and keep the weights of its best epoch.

    Args:
        data: files, a folder, a pattern; or an array (S, T, F), a list of arrays (T, F), or a data frame.
        label: the name of the column that is to be told; for arrays in memory the labels themselves, (S,) or, per step,
            (S, T) or a list. For a forecast the name of a feature.
        test_data, test_label: sequences that are asked about only at the end; a share of `data` if not given.
        out: a folder for the run, as `tidegate train` leaves it; nothing is written if not given.
        resume: go on with the run in `out`.
        progress: told after every batch and every epoch how the run stands.
        options: the settings of `tidegate train`: `id`, `time`, `hidden_size`, `epochs`, `seed` and so on.

    Raises:
        InputValueError, InputTypeError, FileError: something does not fit; nothing is then written.
        KeyboardInterrupt: interrupted; with `out`, `resume` goes on.
    """
    named, forecast = isinstance(label, str), options.get("task") == "forecast"
    if forecast and not named:
        raise InputValueError("label must name the feature that is to be forecast; got labels of their own or None")
    paths, tests = _paths(data), _paths(test_data)
    _check_tests(test_data, test_label, options, forecast=forecast)
    settings = Settings.from_dict(
        {**options, "data": paths or (), "test_data": tests or (), "label": label if named or forecast else "label"}
    )
    given = {} if named or label is None else {"y": label}
    sequences = None if paths else _read(settings, data, None, None, given, label=named)
    task_tests = None
    if test_data is not None and not tests:
        given = {} if test_label is None else {"y": test_label}
        task_tests = (test_data, given)
    return _train(settings, out, sequences, task_tests, resume=resume, progress=progress)


def _check_tests(data: Any, label: Any, options: Mapping[str, Any], *, forecast: bool) -> None:
    """Refuse what would be said of a test part and not be heard; `Settings` knows of files alone."""
    if label is not None and (data is None or forecast):
        got = "no test_data" if data is None else "a forecast, whose label is a feature"
        raise InputValueError(f"test_label must be given with test_data that have no label of their own; got {got}")
    if data is not None and options.get("test"):
        raise InputValueError(f"test must not be given with test_data; got {options['test']}")


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
    refused is refused before `out` is made. Where torchrun or srun started several processes, each must call this; they
    train together, and the first one writes `out`.

    Raises:
        FileError: a file of the data is missing or damaged, or `out` cannot be written.
        InputValueError: the data do not fit the settings, or `out` holds files and `resume` is False, or the run to be
            resumed was another one.
        KeyboardInterrupt: interrupted; `resume` goes on.
    """
    if not settings.data:
        raise InputValueError("data must name files to learn from; got none")
    return _train(settings, out, None, None, resume=resume, progress=progress)


def _train(
    settings: Settings,
    out: str | Path | None,
    sequences: Sequences | None,
    tests: tuple[Any, dict[str, Any]] | None,
    *,
    resume: bool,
    progress: Callable[[Moment], None] | None,
) -> Run:
    folder = None if out is None else Path(out)
    processes = processes_here()
    begun = processes.first(lambda: _begun(folder, settings, resume=resume))
    started = time.perf_counter()
    with processes.agreed():
        if sequences is None:
            sequences = _read(settings, list(settings.data), None, None, {}, label=True)
        apart = bool(settings.test_data) or tests is not None
        parts, task = _parts_and_task(sequences, settings, test=0 if apart else settings.test)
        if _takes_gaps(sequences, parts, settings):
            sequences = with_gaps(sequences)
        asked = _tests(settings, sequences, parts, task, tests)
        model = new_model(sequences, parts, task, settings)
    if folder is not None:
        processes.first(lambda: write_whole(folder / _CONFIG, settings.to_yaml().encode()))
    fitted = fit_all(
        model,
        sequences,
        parts,
        task,
        settings,
        folder=None if folder is None else folder / _CHECKPOINTS,
        logs=None if folder is None else folder / _LOGS,
        resume=begun,
        progress=progress,
        processes=processes,
    )
    test = Score(0, 0, {}) if asked is None else score(fitted.model, task, *asked, settings, processes)
    facts = _facts(settings, sequences, parts, task, fitted, test, time.perf_counter() - started, processes.size)
    run = Run(fitted.model, task, settings, facts)
    if folder is not None:
        processes.first(lambda: _write(run, folder))
    return run


def _begun(folder: Path | None, settings: Settings, *, resume: bool) -> bool:
    """Whether there is a run in the folder to go on with, of which a first epoch was finished."""
    if folder is not None:
        clear_unfinished(folder)
    if resume:
        if folder is None:
            raise InputValueError("out must be the folder of the run to resume; got None")
        _check_resumable(folder, settings)
    elif folder is not None:
        check_out(folder, overwrite=False, remedy="--resume goes on with a run that was cut off")
    return folder is not None and (folder / _CHECKPOINTS / "last.safetensors").is_file()


def _write(run: Run, folder: Path) -> None:
    save_model(run.model, run.task, folder / _MODEL)
    text = json.dumps(_finite(run.facts), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / _RUN, (text + "\n").encode())


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
    model, task = load_model(folder / _MODEL)
    settings = Settings.from_dict(read_settings(folder / _CONFIG))
    return Run(model, task, settings, _read_facts(folder / _RUN))


def run_files(folder: str | Path) -> dict[str, bytes]:
    """The files that `load_run` needs, by their names; for a machine that does not have the folder."""
    return {name: (Path(folder) / name).read_bytes() for name in (_CONFIG, _RUN, _MODEL)}


def _read(
    settings: Settings,
    data: Any,
    known: Sequence[Feature] | None,
    known_label: Label | None,
    options: Mapping[str, Any],
    *,
    label: bool,
    needed: bool = True,
) -> Sequences:
    """Read as the settings say; unless it is `needed`, a label of edit decision lists may lack all of them."""
    asked = label or "y" in options
    if asked and known_label is None and settings.task.startswith("regress"):  # or whole numbers might pass for classes
        known_label = Label(settings.label or "label", np.empty(0), settings.task.endswith("-steps"))
    forecast = settings.task == "forecast"
    named = settings.label if label and not forecast and "y" not in options else None
    columns = Columns(
        id=settings.id,
        time=settings.time,
        label=named,
        features=_features(settings),
        categorical=settings.categorical,
        ignore=settings.ignore,
        hold=settings.hold,
    )
    data = list(data) if isinstance(data, tuple) else data
    own = None if known is None else read_features(tuple(known))
    options = {**settings.reader_options, **options}
    found: Sequences = read(data, columns=columns, known=own, known_label=known_label, **options)
    if named == EDL and found.recorded is not None:
        found = with_edl_label(found, settings.edl_rate, needed=needed)
        found = found if known_label is None else replace(found, label=label_as_known(found.label, known_label))
    if settings.hold_edl is not None and known is None:
        found = with_held(found, settings.hold_edl, settings.edl_rate)
    if forecast:
        assert settings.horizon is not None
        target = with_target(found, settings.label, settings.horizon)
        assert target.label is not None
        found = with_change(target if label else found, target.label.name)
    return with_gaps(found) if known is not None and GAP in known else found


def _has_columns(sequences: Sequences) -> bool:
    """Whether they are no recordings and no text."""
    return sequences.recorded is None and not is_text(sequences)


def _features(settings: Settings) -> tuple[str, ...] | None:
    """The inputs that are named; what is forecast is one of them."""
    named = settings.features
    if named is None or settings.task != "forecast" or settings.label is None or settings.label in named:
        return named
    return (*named, settings.label)


def _parts_and_task(sequences: Sequences, settings: Settings, *, test: float) -> tuple[Parts, Task]:
    """What is learned from and asked about, and the question."""
    if settings.task == "forecast":
        assert settings.horizon is not None
        stretches = split_by_time(sequences, validation=settings.validation, test=test, horizon=settings.horizon)
        return stretches, forecast_for(sequences, stretches.train, settings)
    parts = split(sequences, validation=settings.validation, test=test, seed=settings.seed)
    return parts, task_for(
        sequences, parts.train, name=settings.task, loss=settings.loss, class_weights=settings.class_weights
    )


def _takes_gaps(sequences: Sequences, parts: Parts, settings: Settings) -> bool:
    """Whether the time between steps is an input."""
    if settings.gaps != "auto" or sequences.times is None:
        return settings.gaps == "on"
    spans = spans_of(sequences, parts.train)
    return gaps_in(sequences.times, (spans.rows(sequences, place) for place in range(len(spans)))).vary


def _paths(data: Any) -> tuple[str, ...] | None:
    """What was given, if it is one path or several."""
    several = data if isinstance(data, list | tuple) and data else [data]
    return tuple(map(str, several)) if all(isinstance(one, str | Path) for one in several) else None


def score(
    model: SequenceModel,
    task: Task,
    sequences: Sequences,
    which: Which,
    settings: Settings,
    processes: Processes = ALONE,
) -> Score:
    """The loss and metrics of a model on some sequences."""
    batches = Batches(sequences, which, settings.batch_size, chunk=chunk_of(task, settings), part=processes.part)
    return Score(len(which), _asked(sequences, which), evaluate(model, task, batches, settings, processes))


def _tests(
    settings: Settings,
    sequences: Sequences,
    parts: Parts,
    task: Task,
    given: tuple[Any, dict[str, Any]] | None,
) -> tuple[Sequences, Which] | None:
    """The sequences that are asked about only at the end, and which of them."""
    if given is None and settings.test_data:
        given = list(settings.test_data), {}
    if given is None:
        return (sequences, parts.test) if len(parts.test) else None
    data, options = given
    tests = _read(settings, data, sequences.features, task.known_label(), options, label=True)
    task.check(tests)
    return tests, np.arange(len(tests))


def _asked(sequences: Sequences, which: Which) -> int:
    """How many steps are asked about."""
    spans = spans_of(sequences, which)
    return int((spans.high - spans.low).sum())


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
    parts: Parts,
    task: Task,
    fitted: Fitted,
    test: Score,
    seconds: float,
    processes: int,
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
            "train_steps": _asked(sequences, parts.train),
            "validation_steps": _asked(sequences, parts.validation),
            "test_steps": test.steps,
        },
        "parameters": sum(parameter.numel() for parameter in fitted.model.parameters()),
        "best_epoch": fitted.best_epoch,
        "again": fitted.again,
        "validation": dict(fitted.validation),
        "test": dict(test.scores),
        "history": [dict(record) for record in fitted.history],
        "seconds": seconds,
        "processes": processes,
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
