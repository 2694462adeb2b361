"""What a run was asked for, and what it gives back."""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.machine import BUSY, worked
from benchmarks.shapes import Shape

__all__ = ["Crowd", "Outcome", "Settings", "disturbed", "progress"]


class Settings(NamedTuple):
    """One run's settings; no `shapes` are the table's own."""

    threads: int
    rounds: int
    quick: bool
    shapes: tuple[Shape, ...]


class Outcome(NamedTuple):
    """The text under the line of versions, and what goes into the file beside machine and date."""

    text: str
    record: dict[str, Any]


def progress(message: str) -> None:
    """Where the run is, for someone who watches."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


class Crowd:
    """What share of the machine others kept busy while this process was timing."""

    def __init__(self) -> None:
        self._begin = worked()

    @property
    def share(self) -> float:
        """The share since this was made; 0 where it cannot be told."""
        own, working, there_were = (now - then for now, then in zip(worked(), self._begin, strict=True))
        return max(0.0, working - own) / there_were if there_were else 0.0


def disturbed(shares: Mapping[str, float]) -> str:
    """A line to go under the table that names the rows during which others were at work, or ""."""
    rows = [f"{row} ({share:.0%})" for row, share in shares.items() if share > BUSY]
    return f"Others kept the machine busy during {', '.join(rows)}: these times say little.\n" if rows else ""
