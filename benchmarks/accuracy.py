"""`python -m benchmarks.accuracy FOLDER`: what the defaults of training reach on public sets, beside a plain loop."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import tidegate as tg
from benchmarks.plain_loop import Signals, plain_accuracy
from benchmarks.table import digits, markdown
from benchmarks.words import Parser, refuse
from tidegate.data.read import read
from tidegate.data.sequences import Columns, Sequences

__all__ = ["main"]

_SETS = ("BasicMotions", "JapaneseVowels", "GunPoint", "ArrowHead", "ItalyPowerDemand")
_VARIANTS = ("gru", "update-only", "gru-reset-before", "gru-layer-norm", "rnn", "dense")
_PLAIN = "torch.nn.GRU, plain loop"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.accuracy",
        description="Trains every variant with default settings on sets of the time series archive, and torch.nn.GRU "
        "in a plain loop, on the same files; prints the accuracy on the sets' own test parts and the seconds of "
        "training, means over the seeds.",
    )
    parser.add_argument("folder", type=Path, help="where NAME/NAME_TRAIN.ts and NAME/NAME_TEST.ts are, for each set")
    parser.add_argument("--sets", nargs="+", default=_SETS, metavar="NAME", help=f"default: {' '.join(_SETS)}")
    parser.add_argument("--variants", nargs="+", default=_VARIANTS, choices=_VARIANTS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds (default: 3)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads for everyone (default: 1)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit code."""
    asked = _parser().parse_args(arguments)
    if asked.seeds < 1 or asked.threads < 1:
        return refuse("--seeds and --threads must be at least 1")
    torch.set_num_threads(asked.threads)
    try:
        for name in asked.sets:
            _print_set(asked.folder / name / name, name, asked.variants, asked.seeds, asked.threads)
    except (tg.errors.FileError, OSError) as error:
        return refuse(error)
    return 0


def _print_set(files: Path, name: str, variants: list[str], seeds: int, threads: int) -> None:
    train, test = (f"{files}_{part}.ts" for part in ("TRAIN", "TEST"))
    sequences = read(train, columns=Columns(label="class"))
    rows = []
    for variant in variants:

        def ours(seed: int, variant: str = variant) -> float:
            run = tg.fit(train, "class", test_data=test, variant=variant, seed=seed, threads=threads)
            accuracy: float = run.facts["test"]["accuracy"]
            return accuracy

        rows.append(_row(f"tidegate, {variant}", ours, seeds))
    parts = _signals(sequences), _signals(read(test, columns=Columns(label="class"), known_label=sequences.label))
    rows.append(_row(_PLAIN, lambda seed: plain_accuracy(*parts, seed=seed), seeds))
    print(f"{name}: {len(sequences)} sequences of up to {sequences.lengths.max()} steps, {len(parts[1][1])} to test")
    print(markdown(["network", "accuracy", "worst", "best", "seconds"], rows), flush=True)


def _row(name: str, accuracy: Callable[[int], float], seeds: int) -> list[str]:
    found, started = [], time.perf_counter()
    for seed in range(seeds):
        found.append(accuracy(seed))
        print(f"{name}, seed {seed}: {found[-1]:.3f}", file=sys.stderr, flush=True)
    seconds = (time.perf_counter() - started) / seeds
    return [name, f"{np.mean(found):.3f}", f"{min(found):.3f}", f"{max(found):.3f}", digits(seconds)]


def _signals(sequences: Sequences) -> tuple[Signals, NDArray[np.int64]]:
    assert sequences.label is not None
    return [np.asarray(one, np.float64) for one in sequences], sequences.label.values.astype(np.int64)


if __name__ == "__main__":
    raise SystemExit(main())
