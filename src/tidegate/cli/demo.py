"""`tidegate demo` on the terminal: progress bars with a live loss, the table, and where the results are."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tidegate.data.film import open_film
from tidegate.report import DemoRecord, film_page
from tidegate.train.demo import DEMO_SYSTEMS, DemoProgress, metrics, run_demo
from tidegate.train.film_inspection import FLOWS
from tidegate.train.folders import check_out, staged
from tidegate.train.model_file import save_model

__all__ = ["run", "table"]


def run(console: Console, out: Path, *, seed: int, steps: int, clips: Path | None, overwrite: bool) -> None:
    """Run the demo and write its folder; see `tidegate demo --help`."""
    check_out(out, overwrite=overwrite)
    film = open_film(clips)
    with staged(out, overwrite=overwrite) as folder:
        with _bars(console) as bars:
            demo = run_demo(film, seed=seed, steps=steps, progress=_progress(bars, steps))
        for key, model in demo.models.items():
            (folder / key).mkdir()
            save_model(model, demo.task, folder / key / "model.safetensors")
        (folder / "report.html").write_text(film_page(demo.record), encoding="utf-8")
        (folder / "metrics.json").write_text(json.dumps(metrics(demo.record), indent=2) + "\n", encoding="utf-8")
    console.print()
    console.print(table(demo.record))
    console.print()
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


def table(record: DemoRecord) -> Table:
    """The result as a terminal of 80 columns can hold it."""
    films = f"{record.test_sequences:,} films of frames never trained on"
    result = Table(title=f"Which shot opened the film? {films}", title_justify="left", title_style="bold")
    result.box, result.pad_edge, result.padding = None, False, (0, 1, 0, 0)
    result.caption_justify = "left"
    before = ", ".join(
        f"{row.title} {row.untrained_update_on_advert:.2f}/{row.untrained_update_on_opening:.2f}"
        for row in record.systems
        if row.untrained_update_on_advert != 1  # 1 by definition, not by training
    )
    result.caption = (
        f"accuracy: {record.chance:.1%} by guessing, {record.elimination:.1%} by ruling out the shots seen later\n"
        "update: mean update gate there (1 writes, 0 holds)\n"
        f"update before training, advert/opening: {before}\n"
        "memory: share of the final state that was written there\n"
        f"‖∂a(T)/∂a(5)‖: how much of a change after the opening reaches the final state; median of {FLOWS} films\n"
        "a dense layer and an RNN always write: their gates and memories are so by definition"
    )
    result.add_column("system", no_wrap=True)
    headings = ["para-\nmeters", "accu-\nracy", "update\nadvert", "update\nopen-\ning", "memory\nopen-\ning"]
    headings += ["memory\nadvert", "memory\nrest", "‖∂a(T)/\n∂a(5)‖", "sec"]
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap=True)
    for row in record.systems:
        result.add_row(
            row.title,
            f"{row.parameters:,}",
            f"{row.accuracy:.1%}",
            f"{row.update_on_advert:.3f}",
            f"{row.update_on_opening:.3f}",
            f"{row.memory_opening:.1%}",
            f"{row.memory_advert:.1%}",
            f"{row.memory_rest:.1%}",
            f"{row.gradient:.1e}",
            f"{row.seconds:.0f}",
        )
    return result
