"""`tidegate inspect`, `compare` and `card`: what finished runs say of themselves."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tidegate.errors import InputValueError
from tidegate.report.run_words import verdict
from tidegate.train.card import model_card
from tidegate.train.checkpoint import write_whole
from tidegate.train.run import Run, load_run

__all__ = ["run_card", "run_compare", "run_inspect"]


def run_compare(console: Console, folders: list[Path]) -> None:
    """A row a run, the best test score first, and what they were told differently."""
    runs = {str(folder): load_run(folder) for folder in folders}
    questions = {(run.task.name, run.task.label) for run in runs.values()}
    if len(questions) > 1:
        told = ", ".join(f"{folder}: {run.task.name} {run.task.label!r}" for folder, run in runs.items())
        raise InputValueError(f"runs must answer one question to be compared; got {told}")
    console.print(_table(runs))
    for note in _notes(runs):
        console.print(note, markup=False, highlight=False)


def run_card(console: Console, folder: Path, out: Path | None) -> None:
    """The model card, on the terminal or in a file."""
    card = model_card(load_run(folder), folder.resolve().name)
    if out is None:
        console.print(card, markup=False, highlight=False, soft_wrap=True)
        return
    write_whole(out, card.encode())
    console.print(f"Written to {out}.")


def run_inspect(
    console: Console,
    folder: Path,
    data: list[str],
    out: Path,
    *,
    sequences: int | None,
    ids: list[str],
    layers: list[int],
    labelled: bool,
) -> None:
    """The page of some sequences, and on the terminal what it says in short."""
    run = load_run(folder)
    record = run.inspect(
        data, out, sequences=sequences, ids=ids, layers=layers, labelled=labelled, name=folder.resolve().name
    )
    console.print(verdict(record.check).sentence, markup=False, highlight=False)
    console.print(f"Written to {out}.")


def _part(run: Run) -> str:
    """The part that a run is judged by."""
    return "test" if run.facts["test"] else "validation"


def _scored(run: Run) -> tuple[str, int, int]:
    """That part, with its sequences and their steps that were asked about."""
    part = _part(run)
    return part, run.facts["data"][part], run.facts["data"][f"{part}_steps"]


def _table(runs: dict[str, Run]) -> Table:
    first = next(iter(runs.values()))
    names = list(dict.fromkeys(name for run in runs.values() for name in run.facts["validation"]))
    judged = [name for name in names if name != "loss"][:1] or names[:1]
    lower = first.task.categories is None
    ordered = sorted(runs.items(), key=lambda one: _rank(_score(one[1], judged[0]), lower=lower))
    table = Table(title=f"{first.task.name}: {first.task.label}", title_justify="left", title_style="bold")
    table.add_column("run")
    table.add_column("network")
    table.add_column("parameters", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("seconds", justify="right")
    for folder, run in ordered:
        config = run.model.config
        layers = f"{config.num_layers}x{config.hidden_size}" if config.num_layers > 1 else str(config.hidden_size)
        scores = [f"{_score(run, name):.4f}" if name in run.facts[_part(run)] else "" for name in names]
        table.add_row(
            folder, f"{config.variant} {layers}", f"{run.facts['parameters']:,}", *scores, f"{run.facts['seconds']:.0f}"
        )
    table.caption, table.caption_justify = (
        f"scores of the {' or '.join(sorted(set(map(_part, runs.values()))))} part",
        "left",
    )
    return table


def _score(run: Run, name: str) -> float:
    value = run.facts[_part(run)].get(name)  # None for a number that JSON does not have
    return float("nan") if value is None else float(value)


def _rank(score: float, *, lower: bool) -> tuple[bool, float]:
    """Sorts the better score first, and one that is no number last."""
    return math.isnan(score), score if lower else -score


def _notes(runs: dict[str, Run]) -> list[str]:
    """What makes the comparison less than fair, and the settings that differ."""
    told = {folder: run.settings.to_dict() for folder, run in runs.items()}
    differing = [name for name in next(iter(told.values())) if len({repr(one[name]) for one in told.values()}) > 1]
    notes = [f"{name}: {', '.join(f'{folder} {one[name]!r}' for folder, one in told.items())}" for name in differing]
    parts = {_scored(run) for run in runs.values()}
    if len(parts) > 1:
        notes.append("The runs were not scored on the same steps: their scores do not compare exactly.")
    return notes
