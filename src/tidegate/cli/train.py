"""`tidegate train` and `tidegate predict` on the terminal: bars while it learns, a table of scores at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tidegate.errors import InputValueError
from tidegate.train.card import epochs_in_words
from tidegate.train.cuts import is_cuts, write_cuts
from tidegate.train.keeper import Moment
from tidegate.train.predict import answers, write_table
from tidegate.train.processes import processes_here
from tidegate.train.ray_scoring import answers_of_cluster
from tidegate.train.run import Run, load_run, train
from tidegate.train.settings import Settings, read_settings

__all__ = ["run_predict", "run_train"]


def run_train(console: Console, out: Path, *, config: Path | None, resume: bool, given: dict[str, Any]) -> None:
    """Train with the settings of the file, where `given` does not say otherwise, and tell how it goes.

    Among several processes the first one reads the settings and tells.
    """
    processes = processes_here()
    console.quiet = processes.rank > 0
    settings = processes.first(lambda: _settings(out, config, resume=resume, given=given))
    with _Bars(console, settings.epochs) as bars:
        run = train(settings, out, resume=resume, progress=bars.show)
    console.print(_scores(run))
    console.print(f"Written to {out}: model.safetensors, run.json, config.yaml.")


class _Bars:
    """One line while it learns; it appears with the first batch, when everything that can be refused has been."""

    def __init__(self, console: Console, epochs: int) -> None:
        columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(None), TimeElapsedColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[told]}"), console=console, expand=True)
        self._epochs, self._best = epochs, ""
        self._task: TaskID | None = None

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, moment: Moment) -> None:
        """Tell how the run stands."""
        if self._task is None:
            self._bars.start()
            self._task = self._bars.add_task("", total=self._epochs, epoch="", told="")
        done = moment.epoch + moment.batch / max(moment.batches, 1)
        which = f"{moment.epoch + 1}/{moment.epochs}{', with the validation part' if moment.again else ''}"
        self._bars.update(self._task, completed=done, epoch=which)
        if moment.scores is not None and not moment.again:  # what has been learned says nothing
            told = _in_words(moment.scores)
            self._best = f"{moment.scores['loss']:.3f}" if moment.best else self._best
            self._bars.update(self._task, told=f"{told}; best {self._best}")
        for alarm in moment.alarms:
            self._bars.console.print(Text.assemble((f"after epoch {moment.epoch + 1}: ", "yellow"), alarm))


def run_predict(
    console: Console,
    folder: Path,
    data: list[str],
    out: Path,
    *,
    edl_rate: float | None = None,
    ray: str | None = None,
) -> None:
    """Write what the run's model says of the sequences in `data`; on a Ray cluster, if its address is given."""
    if edl_rate is not None and out.suffix.lower() != ".edl":
        raise InputValueError(f"edl_rate means nothing for {str(out)!r}, which is no .edl file; got {edl_rate:g}")
    if is_cuts(out):
        if ray is not None:
            raise InputValueError(f"ray answers for tables, .csv, .parquet or .jsonl; got {str(out)!r}")
        _write_cuts(console, load_run(folder), data, out, edl_rate)
        return
    run = load_run(folder)
    if ray is None:
        pieces = answers(run.model, run.task, run.settings, run.read(data))
    else:
        pieces = answers_of_cluster(folder, data, ray)
    rows = write_table(pieces, out)
    console.print(f"{rows:,} {'row' if rows == 1 else 'rows'} written to {out}.")


def _write_cuts(console: Console, run: Run, data: list[str], out: Path, rate: float | None) -> None:
    """Write the spans of equal answers, a file for each recording."""
    sequences = run.read(data)
    files = write_cuts(answers(run.model, run.task, run.settings, sequences), run.task, sequences, out, rate)
    told = f"Written to {out}." if len(files) == 1 else f"{len(files):,} files written to {out.with_suffix('')}."
    console.print(told)


def _settings(out: Path, config: Path | None, *, resume: bool, given: dict[str, Any]) -> Settings:
    """What the command line says, over what the file says; a run that is resumed has its own file."""
    file = out / "config.yaml" if resume and config is None and (out / "config.yaml").is_file() else config
    told = {} if file is None else read_settings(file)
    return Settings.from_dict({**told, **given})


def _scores(run: Run) -> Table:
    table = Table(title=f"{run.task.name}: {run.task.label}", title_justify="left", title_style="bold")
    parts = [part for part in ("validation", "test") if run.facts[part]]
    table.add_column("")
    for part in parts:
        table.add_column(part, justify="right")
    for size, suffix in (("sequences", ""), ("steps", "_steps")):
        table.add_row(size, *(f"{run.facts['data'][part + suffix]:,}" for part in parts))
    for name in run.facts["validation"]:
        scores = [run.facts[part].get(name) for part in parts]
        table.add_row(name, *("" if score is None else f"{score:.4f}" for score in scores))
    table.caption = epochs_in_words(run)
    table.caption_justify = "left"
    return table


def _in_words(scores: Mapping[str, float]) -> str:
    """The loss and the first metric; and, where the gates are taught, how far they are open."""
    gates = ("gate_held", "gate_others") if "gate_held" in scores else ("gate",)
    shown = [*list(scores)[:2], *(name for name in gates if name in scores)]
    return ", ".join(f"{name} {scores[name]:.3f}" for name in shown)
