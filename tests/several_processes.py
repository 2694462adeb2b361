"""Train together with other processes, and write what each of them saw; run by torchrun, or as srun runs it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import torch

from tests.train_helpers import first_symbol, fitting_settings, in_parts, sequences_of, sums
from tidegate.data.derived import with_change
from tidegate.data.gaps import with_gaps
from tidegate.data.sequences import Label, Sequences
from tidegate.errors import FileError, InputValueError
from tidegate.train.batches import Batches
from tidegate.train.fitting import Fitted, evaluate, fit_model, new_model
from tidegate.train.forecast import forecast_for, with_target
from tidegate.train.keeper import Moment
from tidegate.train.processes import ALONE, Processes, processes_here
from tidegate.train.settings import Settings
from tidegate.train.split import Parts, split_by_time
from tidegate.train.tasks import Task, task_for

__all__ = ["CASES", "curve", "fitted"]


def _hardly_known(sequences: Sequences) -> Sequences:
    """The same with two labels of three unknown."""
    label = sequences.label
    assert label is not None
    values = np.where(np.arange(len(label.values)) % 3 == 0, label.values, np.nan)
    return replace(sequences, label=Label(label.name, values, label.per_step, label.categories))


def _waves(lengths: tuple[int, ...], horizon: int) -> Sequences:
    """A target with values missing, its change and uneven steps in time, to be forecast."""
    rng = np.random.default_rng(6)
    pieces = [np.sin(np.arange(length)[:, None] / 3) + rng.normal(0, 0.2, (length, 2)) for length in lengths]
    for piece in pieces:
        piece[rng.random(len(piece)) < 0.1, 0] = np.nan
    times = np.concatenate([np.cumsum(rng.uniform(1, 9, length)) for length in lengths])
    return with_gaps(with_change(with_target(sequences_of(pieces, times=times), "x0", horizon), "x0"))


def _with_held(sequences: Sequences) -> Sequences:
    """The same with steps to hold, some of them unknown."""
    held = np.random.default_rng(5).choice([0.0, 1.0, np.nan], len(sequences.values))
    return replace(sequences, held=held)


#: Sequences and options by name: what must be learned alike by one process and by several.
CASES: dict[str, Callable[[], tuple[Sequences, Settings]]] = {
    "classify": lambda: (first_symbol(44, 14), fitting_settings()),
    "classify in chunks": lambda: (first_symbol(44, 14), fitting_settings(chunk=3, batch_size=5)),
    "label steps": lambda: (first_symbol(44, 14, per_step=True), fitting_settings(class_weights="balanced")),
    "label steps in chunks": lambda: (first_symbol(44, 14, per_step=True), fitting_settings(chunk=4, batch_size=7)),
    "regress": lambda: (sums(44, 9), fitting_settings(loss="huber", bidirectional=True)),
    "single sequences, hardly known": lambda: (
        _hardly_known(first_symbol(24, 6)),
        fitting_settings(batch_size=1, chunk=2, weight_decay=0.1, epochs=2),
    ),
    "hardly known steps": lambda: (
        _hardly_known(first_symbol(20, 6, per_step=True)),
        fitting_settings(batch_size=3, chunk=2, variant="gru-layer-norm", epochs=2),
    ),
    "gates taught": lambda: (
        _with_held(first_symbol(44, 14)),
        fitting_settings(hold="held", write_budget=0.2, bidirectional=True, num_layers=2),
    ),
    "forecast": lambda: (
        _waves((60, 90, 41, 12, 77), 4),
        fitting_settings(task="forecast", label="x0", horizon=4, chunk=9, batch_size=3),
    ),
    "forecast in lanes": lambda: (
        _waves((400,), 3),
        fitting_settings(task="forecast", label="x0", horizon=3, lanes="3", chunk=20, epochs=2),
    ),
    "gates taught in chunks": lambda: (
        _with_held(_hardly_known(first_symbol(24, 9))),
        fitting_settings(hold="held", write_budget=0.1, batch_size=1, chunk=3, variant="update-only", epochs=2),
    ),
}


def _asked_of(sequences: Sequences, settings: Settings) -> tuple[Parts, Task]:
    if settings.task == "forecast":
        assert settings.horizon is not None
        stretches = split_by_time(sequences, validation=0.2, test=0.2, horizon=settings.horizon)
        return stretches, forecast_for(sequences, stretches.train, settings)
    parts = in_parts(sequences)
    return parts, task_for(sequences, parts.train, class_weights=settings.class_weights, loss=settings.loss)


def fitted(sequences: Sequences, settings: Settings, processes: Processes = ALONE, **options: Any) -> Fitted:
    """A network that has learned half of the sequences."""
    parts, task = _asked_of(sequences, settings)
    model = new_model(sequences, parts, task, settings)
    return fit_model(model, sequences, parts, task, settings, processes=processes, **options)


def curve(sequences: Sequences, settings: Settings, processes: Processes = ALONE) -> dict[str, Any]:
    """How it was learned: every epoch, which was best, and what it does with the rest."""
    done = fitted(sequences, settings, processes)
    parts, _ = _asked_of(sequences, settings)
    batches = Batches(sequences, parts.test, settings.batch_size, part=processes.part)
    test = evaluate(done.model, done.task, batches, settings, processes)
    return {"history": done.history, "best_epoch": done.best_epoch, "test": test}


def _resumed(processes: Processes, folder: Path, **options: Any) -> dict[str, Any]:
    """Whether a run that goes on after its second epoch ends as one that was never cut off, to the bit."""
    sequences = first_symbol(40, 14)
    settings = fitting_settings(dropout=0.3, recurrent_dropout=0.2, num_layers=2, chunk=5, **options)

    def keep(moment: Moment) -> None:
        if moment.epoch == 1 and moment.scores is not None:
            copytree(folder / "whole", folder / "cut")

    with patch("torch.manual_seed", Mock(wraps=torch.manual_seed)) as seeded:
        whole = fitted(sequences, settings, processes, folder=folder / "whole", progress=keep)
    torch.rand(9)
    resumed = fitted(sequences, settings, processes, folder=folder / "cut", resume=True)
    weights = resumed.model.state_dict()
    same = all(torch.equal(tensor, weights[name]) for name, tensor in whole.model.state_dict().items())
    return {
        "same": same and whole.history == resumed.history,
        "epochs": len(whole.history),
        "weights": whole.model.head.weight.flatten().tolist(),
        "seeds": [call.args[0] for call in seeded.call_args_list],
    }


def _other_data(processes: Processes, folder: Path) -> None:
    sequences = first_symbol(40, 14)
    sequences.values[-1, -1] += processes.rank
    fitted(sequences, fitting_settings(), processes, folder=folder / "other")


def _full_disk(processes: Processes, folder: Path) -> None:
    full = FileError("the disk of the first is full")
    with patch("tidegate.train.keeper.write_checkpoint", Mock(side_effect=full)):
        fitted(first_symbol(40, 14), fitting_settings(), processes, folder=folder / "full")


def _refused_by_the_last(processes: Processes, folder: Path) -> None:
    with processes.agreed():
        if processes.rank == processes.size - 1:
            raise FileError("the last one has no such file")


def _known_to_nobody(processes: Processes, folder: Path) -> None:
    label = first_symbol(40).label
    assert label is not None
    unknown = Label(label.name, np.full(40, np.nan), label.per_step, label.categories)
    done = fitted(first_symbol(40), fitting_settings(epochs=1), processes)
    batches = Batches(replace(first_symbol(40), label=unknown), np.arange(9), 8, part=processes.part)
    assert evaluate(done.model, done.task, batches, fitting_settings(), processes) == {}


def _another_number(processes: Processes, folder: Path) -> None:
    """A run of one process, gone on with by all."""
    sequences = first_symbol(40, 14)
    if processes.rank == 0:
        fitted(sequences, fitting_settings(), folder=folder / "one")
    processes.told(None)
    fitted(sequences, fitting_settings(), processes, folder=folder / "one", resume=True)


def _refusal(call: Callable[[Processes, Path], None], processes: Processes, folder: Path) -> str:
    try:
        call(processes, folder)
    except (FileError, InputValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def main(out: Path, what: str) -> None:
    """Write `<rank>.json` with what was seen."""
    torch.set_num_threads(1)
    processes = processes_here()
    told: dict[str, Any] = {"size": processes.size, "threads": processes.threads()}
    if what == "large":  # so that gradients are summed in several portions
        told["resumed"] = _resumed(processes, out, hidden_size=300, epochs=3)
    elif what == "short":
        told["classify"] = curve(*CASES["classify"](), processes)
    else:
        told |= {name: curve(*make(), processes) for name, make in CASES.items()}
        told["resumed"] = _resumed(processes, out)
        for call in (_other_data, _full_disk, _refused_by_the_last, _another_number, _known_to_nobody):
            told[call.__name__] = _refusal(call, processes, out)
    (out / f"{processes.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
