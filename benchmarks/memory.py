"""The table `memory`: the peak of one training step, each in a fresh process with the same allocator settings."""

import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.peak import NAMES
from benchmarks.rounds import DisagreementError
from benchmarks.settings import Outcome, Settings, progress
from benchmarks.shapes import MEMORY, Shape
from benchmarks.table import digits, markdown, ratio

__all__ = ["run"]

_QUICK_STEPS = 16
_MEGABYTE = 1e6


def run(settings: Settings) -> Outcome:
    """The table."""
    shapes = settings.shapes or tuple(
        shape.shortened(_QUICK_STEPS) if settings.quick else shape for shape in MEMORY[: 1 if settings.quick else None]
    )
    rows: list[dict[str, Any]] = []
    cells: list[list[str]] = []
    for name in NAMES:  # a kernel that is compiled leaves memory behind that the step would find
        _measure(name, shapes[0].shortened(2), settings.threads, check=True)
    for shape in shapes:
        progress(f"memory {shape}")
        told: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
        for turn in range(settings.rounds):
            for name in NAMES:
                told[name].append(_measure(name, shape, settings.threads, check=turn == 0))
        samples = {name: [(one["peak"] - one["before"]) / _MEGABYTE for one in runs] for name, runs in told.items()}
        errors = {name: runs[0]["error"] for name, runs in told.items()}
        rows.append({"shape": list(shape), "samples_mb": samples, "errors": errors})
        middle = {name: statistics.median(taken) for name, taken in samples.items()}
        least = 1e-3  # a small step may not raise the peak at all
        ratios = [ratio(middle["torch"] / max(middle[name], least)) for name in NAMES[1:]]
        cells.append([str(shape), *(digits(middle[name]) for name in NAMES), *ratios])
    header = ["B, T, I, H", *(f"{name} MB" for name in NAMES), "torch ÷ tidegate", "torch ÷ recompute"]
    return Outcome(f"Peak memory of one training step\n\n{markdown(header, cells)}", {"rows": rows})


def _measure(name: str, shape: Shape, threads: int, *, check: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.peak", name, ",".join(map(str, shape)), str(threads)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        [*command, *(["check"] if check else [])], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise DisagreementError(f"{name} on {shape} gave no measurement: {last}")
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told
