"""`tidegate demo` on the terminal: progress bars with a live loss, the table, and where the results are."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tidegate.data.film import open_film
from tidegate.report import DemoRecord, film_page
from tidegate.train.demo import DEMO_SYSTEMS, TRAINING_STEPS, DemoProgress, metrics, run_demo
from tidegate.train.folders import check_out, save_classifier, staged

__all__ = ["run"]


def run(console: Console, out: Path, *, seed: int, steps: int | None, clips: Path | None, overwrite: bool) -> None:
    """Run the demo and write its folder; see `tidegate demo --help`."""
    check_out(out, overwrite=overwrite)
    film = open_film(clips)
    steps = TRAINING_STEPS if steps is None else steps
    with staged(out, overwrite=overwrite) as folder:
        with _bars(console) as bars:
            demo = run_demo(film, seed=seed, steps=steps, progress=_progress(bars, steps))
        for key, model in demo.models.items():
            save_classifier(model, folder / key)
        (folder / "report.html").write_text(film_page(demo.record), encoding="utf-8")
        (folder / "metrics.json").write_text(json.dumps(metrics(demo.record), indent=2) + "\n", encoding="utf-8")
    console.print(_table(demo.record))
    console.print(f"The page of pictures: {(out / 'report.html').resolve()}", soft_wrap=True, highlight=False)


def _bars(console: Console) -> Progress:
    columns = (BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.fields[live]}"), TimeElapsedColumn())
    return Progress(TextColumn("{task.description:<18}"), *columns, console=console)


def _progress(bars: Progress, steps: int) -> DemoProgress:
    """One bar for each system, which starts when the system does."""
    tasks = {
        system.key: bars.add_task(system.title, total=steps, start=False, live="waiting") for system in DEMO_SYSTEMS
    }

    def progress(key: str, step: int, loss: float, accuracy: float) -> None:
        if step == 1:
            bars.start_task(tasks[key])
        bars.update(tasks[key], completed=step, live=f"loss {loss:5.3f}  right {accuracy:4.0%}")

    return progress


def _table(record: DemoRecord) -> Table:
    chance = f"chance {record.chance:.0%}, {record.test_sequences:,} test films of frames never trained on"
    table = Table(title=f"Which shot opened the film?  ({chance})", title_justify="left", caption_justify="left")
    table.caption = "update gate: 1 writes, 0 holds. memory: share of the final state that was written there."
    table.add_column("system", no_wrap=True)
    for column in (
        "parameters", "accuracy", "update gate\non advert", "update gate\non opening", "memory of\nopening",
        "memory of\nadvert", "memory of\nrest", "‖∂a(T)/∂a(5)‖", "seconds",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for row in record.systems:
        table.add_row(
            row.title,
            f"{row.parameters:,}",
            f"{row.accuracy:.1%}",
            f"{row.update_on_advert:.3f}",
            f"{row.update_on_opening:.3f}",
            f"{row.memory_opening:.1%}",
            f"{row.memory_advert:.1%}",
            f"{row.memory_rest:.1%}",
            f"{row.gradient:.1e}",
            f"{row.seconds:.1f}",
        )
    return table
