"""`python -m benchmarks cpu | stream | memory`: argument parsing and terminal output only."""

import argparse
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from benchmarks import machine
from benchmarks.settings import Outcome, Settings
from benchmarks.shapes import Shape, read_shape
from benchmarks.words import Parser, refuse

_TABLES = {
    "cpu": "inference and training of one layer, beside torch, JAX, ONNX Runtime and OpenVINO",
    "stream": "one live step at a time, beside torch, ONNX Runtime and OpenVINO",
    "memory": "the peak memory of one training step, beside torch",
}
_ROUNDS = {"cpu": 9, "stream": 15, "memory": 3}
_QUICK_ROUNDS = {"cpu": 3, "stream": 3, "memory": 1}


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks",
        description="Times Tidegate and its peers in turn, on the same data with the same cores, once their results "
        "agree, and prints a Markdown table with the median of the ratios within each round.",
        epilog="Tables: " + "; ".join(f"{name}: {told}" for name, told in _TABLES.items()) + ".",
    )
    parser.add_argument("table", help=", ".join(_TABLES))
    parser.add_argument("--threads", type=int, metavar="N", help="threads for everyone (default: one for each core)")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how often everyone has a turn (default: {_ROUNDS})")
    parser.add_argument("--shapes", nargs="+", metavar="B,T,I,H", help="other shapes; T and B are 1 in stream")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write every sample, with machine and versions")
    parser.add_argument("--quick", action="store_true", help="few rounds and few steps: whether it runs, not how fast")
    return parser


def _settings(asked: argparse.Namespace, cores: int) -> Settings:
    """The settings of a run; raises `ValueError` with a sentence."""
    if asked.table not in _TABLES:
        raise ValueError(f"table must be one of {', '.join(_TABLES)}; got {asked.table!r}")
    threads = cores if asked.threads is None else asked.threads
    if not 1 <= threads <= cores:
        raise ValueError(f"--threads must be 1 to {cores}, the cores that there are; got {threads}")
    rounds = (_QUICK_ROUNDS if asked.quick else _ROUNDS)[asked.table] if asked.rounds is None else asked.rounds
    if rounds < 1:
        raise ValueError(f"--rounds must be at least 1; got {rounds}")
    shapes: tuple[Shape, ...] = tuple(map(read_shape, asked.shapes or ()))
    if asked.table == "stream" and any(shape[:2] != (1, 1) for shape in shapes):
        raise ValueError("--shapes must begin with 1,1 in stream, which is one step of one sequence")
    if asked.json is not None and not asked.json.absolute().parent.is_dir():
        raise ValueError(f"--json must be in a folder that exists; got {str(asked.json)!r}")
    return Settings(threads, rounds, asked.quick, shapes)


def _interrupted(_signal: int, _frame: object) -> NoReturn:
    """Ends at once: an interrupt that is an exception can be lost in a callback of a library."""
    os.write(2, b"Interrupted; nothing was written.\n")
    os._exit(130)


def main(arguments: list[str] | None = None) -> int:
    """Run the table that was asked for; the exit code."""
    asked = _parser().parse_args(arguments)
    cores = len(machine.cores())
    try:
        settings = _settings(asked, cores)
    except ValueError as error:
        return refuse(error)
    machine.share_out(settings.threads)
    return _run(asked, settings, machine.describe(cores, settings.threads))


def _run(asked: argparse.Namespace, settings: Settings, described: dict[str, object]) -> int:
    from benchmarks.rounds import DisagreementError  # noqa: PLC0415 - NumPy loads once the cores are shared out

    try:
        outcome: Outcome = import_module(f"benchmarks.{asked.table}").run(settings)
    except DisagreementError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    sys.stdout.write(f"{machine.line(described)}\n\n{outcome.text}")
    if asked.json is not None:
        settings_told = {"rounds": settings.rounds, "quick": settings.quick}
        whole = {"table": asked.table, **described, "settings": settings_told, **outcome.record}
        asked.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupted)
    sys.exit(main())
