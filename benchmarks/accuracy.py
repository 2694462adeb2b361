"""`python -m benchmarks.accuracy FOLDER`: what the defaults of training reach on public sets, beside a plain loop."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

import tidegate as tg
from benchmarks.plain_loop import Scores, Signals, plain_classifier, plain_language
from benchmarks.sets import ARCHIVE, CLIPS, TEXT, Material, material
from benchmarks.table import digits, markdown
from benchmarks.words import Parser, refuse
from tidegate.data.sequences import Sequences

__all__ = ["main"]

_SETS = (*ARCHIVE, CLIPS, TEXT)
_VARIANTS = ("gru", "update-only", "gru-reset-before", "gru-layer-norm", "rnn", "dense")
_PLAIN = "torch.nn.GRU, plain loop"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.accuracy",
        description="Trains every variant with default settings on sets of the time series archive, on films cut from "
        "the clips of the demo and on the bytes of a text, and torch.nn.GRU in a plain loop, on the same files; prints "
        "the accuracy and loss on their test parts and the seconds of training, means over the seeds.",
    )
    parser.add_argument("folder", type=Path, help="where NAME/NAME_TRAIN.ts and NAME/NAME_TEST.ts are, for each set")
    parser.add_argument("--sets", nargs="+", default=_SETS, metavar="NAME", help=f"default: {' '.join(_SETS)}")
    parser.add_argument("--variants", nargs="+", default=_VARIANTS, choices=_VARIANTS, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=8, metavar="N", help="how many seeds (default: 8)")
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
            with TemporaryDirectory() as scratch:
                chosen = material(name, asked.folder, Path(scratch))
                _print_set(name, chosen, asked.variants, asked.seeds, asked.threads)
    except (tg.errors.FileError, OSError) as error:
        return refuse(error)
    return 0


def _print_set(name: str, chosen: Material, variants: list[str], seeds: int, threads: int) -> None:
    train, test = chosen.read()
    rows = []
    for variant in variants:

        def ours(seed: int, variant: str = variant) -> Scores:
            run = tg.fit(
                str(chosen.train), chosen.label, test_data=str(chosen.test), variant=variant, seed=seed, threads=threads
            )
            scores = run.facts["test"]
            return scores["accuracy"], scores["loss"]

        rows.append(_row(f"tidegate, {variant}", ours, seeds))
    rows.append(_row(_PLAIN, _plain(train, test), seeds))
    assert test.label is not None
    known = np.count_nonzero(~np.isnan(test.label.values))
    asked = f"{known} {'steps ' if test.label.per_step else ''}to test"
    print(f"{name}: {len(train)} sequences of up to {train.lengths.max()} steps, {asked}")
    print(markdown(["network", "accuracy", "±", "loss", "seconds"], rows), flush=True)


def _plain(train: Sequences, test: Sequences) -> Callable[[int], Scores]:
    """What the plain loop reaches with a seed."""
    assert train.label is not None
    if train.label.per_step:
        texts = [[np.asarray(one, np.int64)[:, 0] for one in part] for part in (train, test)]
        return lambda seed: plain_language(*texts, seed=seed)
    parts = _signals(train), _signals(test)
    return lambda seed: plain_classifier(*parts, seed=seed)


def _row(name: str, scores: Callable[[int], Scores], seeds: int) -> list[str]:
    """Means over the seeds, and the standard error of the accuracy's."""
    found, started = [], time.perf_counter()
    for seed in range(seeds):
        found.append(scores(seed))
        print(f"{name}, seed {seed}: accuracy {found[-1][0]:.3f}, loss {found[-1][1]:.3f}", file=sys.stderr, flush=True)
    seconds = (time.perf_counter() - started) / seeds
    accuracy, loss = np.array(found).T
    error = f"{accuracy.std(ddof=1) / seeds**0.5:.3f}" if seeds > 1 else "?"
    return [name, f"{accuracy.mean():.3f}", error, f"{loss.mean():.3f}", digits(seconds)]


def _signals(sequences: Sequences) -> tuple[Signals, NDArray[np.int64]]:
    assert sequences.label is not None
    return [np.asarray(one, np.float64) for one in sequences], sequences.label.values.astype(np.int64)


if __name__ == "__main__":
    raise SystemExit(main())
