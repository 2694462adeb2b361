"""`tidegate train` and `tidegate predict` on the terminal: bars while it learns, a table of scores at the end."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tidegate.train.fitting import Moment
from tidegate.train.predict import predict, write_table
from tidegate.train.run import Run, load_run, read_for, train
from tidegate.train.settings import Settings, read_settings

__all__ = ["run_predict", "run_train"]


def run_train(console: Console, out: Path, *, config: Path | None, resume: bool, given: dict[str, Any]) -> None:
    """Train with the settings of the file, where `given` does not say otherwise, and tell how it goes."""
    settings = _settings(out, config, resume=resume, given=given)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}"),
        console=console,
    ) as bars:
        epochs = bars.add_task("epochs", total=settings.epochs, told="")
        batches = bars.add_task("  batches", total=None, told="")
        best = ""

        def show(moment: Moment) -> None:
            nonlocal best
            loss = "" if moment.loss is None else f"loss {moment.loss:.4f}"
            bars.update(batches, completed=moment.batch, total=moment.batches, told=loss)
            if moment.scores is not None:
                told = _in_words(moment.scores)
                best = told if moment.best else best
                bars.update(epochs, completed=moment.epoch + 1, told=f"{told} (best {best})")

        run = train(settings, out, resume=resume, progress=show)
    console.print(_scores(run))
    console.print(f"Written to {out}: model.safetensors, run.json, config.yaml.")


def run_predict(console: Console, folder: Path, data: list[str], out: Path) -> None:
    """Write what the run's model says of the sequences in `data`."""
    run = load_run(folder)
    sequences = read_for(run, tuple(data))
    rows = write_table(predict(run, sequences), out)
    console.print(f"{rows:,} {'row' if rows == 1 else 'rows'} written to {out}.")


def _settings(out: Path, config: Path | None, *, resume: bool, given: dict[str, Any]) -> Settings:
    """What the command line says, over what the file says; a run that is resumed has its own file."""
    file = out / "config.yaml" if resume and config is None and (out / "config.yaml").is_file() else config
    told = {} if file is None else read_settings(file)
    return Settings.from_dict({**told, **given})


def _scores(run: Run) -> Table:
    table = Table(title=f"{run.task.name}: {run.task.label}", title_justify="left", title_style="bold")
    table.add_column("part")
    table.add_column("sequences", justify="right")
    names = list(run.facts["validation"])
    for name in names:
        table.add_column(name, justify="right")
    for part in ("validation", "test"):
        scores = run.facts[part]
        if scores:
            table.add_row(
                part,
                f"{run.facts['data'][part]:,}",
                *("" if scores.get(name) is None else f"{scores[name]:.4f}" for name in names),
            )
    table.caption = f"best after {run.facts['best_epoch'] + 1} of {len(run.facts['history'])} epochs"
    table.caption_justify = "left"
    return table


def _in_words(scores: Any) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
