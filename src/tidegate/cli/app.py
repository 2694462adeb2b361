"""The commands of `tidegate`, and how a refusal or an interrupt looks on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tidegate import __version__
from tidegate.cli.loading import NOTHING_WRITTEN, loading
from tidegate.cli.options import with_settings
from tidegate.extras import require

__all__ = ["app"]

#: Asked for before any work is done.
_TRAIN_PACKAGES = ("lightning", "pyarrow", "safetensors", "torchmetrics", "yaml")
_PAGE_PACKAGES = ("jinja2", "PIL", "plotly")
_DEMO_PACKAGES = ("av", "jinja2", "lightning", "PIL", "plotly", "safetensors", "torchmetrics")

#: `train.demo.TRAINING_STEPS`, which only a command that trains imports; a test says that they are one.
_STEPS = 250
#: What both NumPy and torch take.
_LARGEST_SEED = 2**63 - 1

app = typer.Typer(
    name="tidegate",
    help="Gated recurrent networks whose memory can be seen and steered.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # "rich" keeps the line breaks of a docstring
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidegate {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Gated recurrent networks whose memory can be seen and steered."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder for the results: new or empty.")] = Path("demo-run"),
    seed: Annotated[
        int, typer.Option(min=0, max=_LARGEST_SEED, help="Draws the training films and the first weights.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each network.")] = _STEPS,
    clips: Annotated[
        Path | None,
        typer.Option(help="A folder with programme.mp4 and advert.mp4, instead of the two that come with Tidegate."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results in a folder that has some.")
    ] = False,
) -> None:
    """Five networks watch a film that an advert interrupts, and learn what to let into memory.

    Trains a dense layer, an RNN, an update-only GRU and two GRUs on real video, asks each which shot opened the film,
    and writes the networks, metrics.json and report.html, a page of pictures. Takes about two minutes on two cores.
    """
    console = Console()
    with _refusals(console):
        with loading():
            for package in _DEMO_PACKAGES:
                require(package, "demo")
            from tidegate.cli.demo import run  # noqa: PLC0415 - torch and Lightning load only for a command that needs them

        run(console, out, seed=seed, steps=steps, clips=clips, overwrite=overwrite)


@app.command()
def doctor(
    source: Annotated[
        str,
        typer.Argument(
            help="A .pt, .safetensors, .keras or .onnx file, or module:function, which is called and returns a model."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="A .npy or .npz file with an input of the model, to see its gates at work.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Look at the gates of this layer alone.")] = None,
    batch_first: Annotated[
        bool, typer.Option("--batch-first", help="The layers of a state dict take (batch, time, features).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """What a model holds that is recurrent, what runs it, and how healthy its gates are.

    Lists every recurrent layer with its variant, sizes, gate order and biases, the backend that runs it and why not a
    faster one. With data: which gates are saturated, always open or never open, how long memory lasts, and whether
    gradients vanish or explode, each with a line of advice. Files are read without running code from them.
    """
    console = Console()
    with _refusals(console):
        with loading():
            from tidegate.cli.doctor import run  # noqa: PLC0415 - torch loads only for a command that needs it

        run(console, source, data=data, layer=layer, batch_first=batch_first, as_json=as_json)


@app.command()
@with_settings
def train(
    out: Annotated[Path, typer.Option(help="The folder for the run: new or empty.")],
    data: Annotated[list[str] | None, typer.Argument(help="Files, folders or glob patterns with sequences.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file with any of these options; what is typed here goes before it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in this folder.")] = False,
    *,
    given: dict[str, Any],
) -> None:
    """Train a network on your own sequences, and keep the best with its score.

    Reads tables in long form (CSV, Parquet: one row a step), arrays, .ts archives, JSON Lines, text, audio and video.
    The label decides the task: a category or a number, of each sequence or of every step.
    """
    console = Console()
    with _refusals(console, "Interrupted; --resume goes on after the last whole epoch."):
        with loading():
            for package in _TRAIN_PACKAGES:
                require(package, "train")
            from tidegate.cli.train import run_train  # noqa: PLC0415 - Lightning loads only for a command that needs it

        run_train(console, out, config=config, resume=resume, given=given | ({"data": data} if data else {}))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    data: Annotated[list[str], typer.Argument(help="Files, folders or glob patterns with sequences.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The table to write: .csv, .parquet or .jsonl; or, where steps are labelled, an edit decision "
            "list, .edl, or chapters, .ffmetadata."
        ),
    ],
    edl_rate: Annotated[
        float | None,
        typer.Option(help="Frames a second of the list's timecodes [default: the video's, or 25 for sound]."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Answer on a Ray cluster: local (all cores here), auto (this machine's cluster) or host:port."
        ),
    ] = None,
) -> None:
    """What a trained network says of new sequences, as a table, or as cuts or chapters of recordings."""
    console = Console()
    with _refusals(console):
        with loading():
            for package in _TRAIN_PACKAGES:
                require(package, "train")
            from tidegate.cli.train import run_predict  # noqa: PLC0415 - Lightning loads only for a command that needs it

        run_predict(console, run, data, out, edl_rate=edl_rate, ray=ray)


@app.command()
def inspect(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    data: Annotated[list[str], typer.Argument(help="Files, folders or glob patterns with sequences.")],
    out: Annotated[Path, typer.Option(help="The page to write: .html.")],
    sequences: Annotated[int | None, typer.Option(min=1, help="How many sequences are shown. [default: 6]")] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Show this sequence; may be given several times.")
    ] = None,
    layers: Annotated[
        list[int] | None,
        typer.Option("--layer", help="Show this of stacked layers, from 0; may be given several times."),
    ] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="The data do not hold the label.")] = False,
) -> None:
    """A page of what a trained network lets into memory, sequence by sequence, and whether its memory map is honest.

    Shows the answers, inputs, gates, memory map and gradient flow of a few sequences: the longest, some that are
    answered right and some wrong. Holds out what the map calls forgotten, and says whether that leaves the answers
    alone.
    """
    console = Console()
    with _refusals(console):
        with loading():
            for package in (*_TRAIN_PACKAGES, *_PAGE_PACKAGES):
                require(package, "demo")
            from tidegate.cli.runs import run_inspect  # noqa: PLC0415 - Lightning loads only for a command that needs it

        run_inspect(
            console, run, data, out, sequences=sequences, ids=ids or [], layers=layers or [], labelled=not unlabelled
        )


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(help="The folders of finished runs.")]) -> None:
    """Finished runs side by side: scores, sizes, seconds, and which settings differ."""
    console = Console()
    with _refusals(console):
        with loading():
            for package in _TRAIN_PACKAGES:
                require(package, "train")
            from tidegate.cli.runs import run_compare  # noqa: PLC0415 - Lightning loads only for a command that needs it

        run_compare(console, runs)


@app.command()
def card(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    out: Annotated[Path | None, typer.Option(help="A file to write it to, instead of the terminal.")] = None,
) -> None:
    """A model card, made of a run's facts: data, scores, limits."""
    console = Console()
    with _refusals(console):
        with loading():
            for package in _TRAIN_PACKAGES:
                require(package, "train")
            from tidegate.cli.runs import run_card  # noqa: PLC0415 - Lightning loads only for a command that needs it

        run_card(console, run, out)


@contextmanager
def _refusals(console: Console, interrupted: str = NOTHING_WRITTEN) -> Iterator[None]:
    """A refusal as one sentence and exit code 2, a disk that fails or memory that ends as one and 1, an interrupt as
    one and 130.
    """
    try:
        yield
    except KeyboardInterrupt:
        console.print(interrupted)
        raise typer.Exit(130) from None
    except (ValueError, TypeError, ImportError) as error:
        if not type(error).__module__.startswith("tidegate."):
            raise
        _tell(console, error)
        raise typer.Exit(2) from None
    except OSError as error:
        _tell(console, error)
        raise typer.Exit(1) from None
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _tell(console, "there is not enough memory: a smaller hidden_size, batch_size or chunk needs less")
        raise typer.Exit(1) from None


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or torch was refused memory; torch has no class of its own for that on the CPU."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _tell(console: Console, error: Exception | str) -> None:
    """The refusal, unless another process tells it."""
    told = Console(stderr=True, quiet=console.quiet)
    told.print(f"tidegate: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
