"""Where a call's time goes: the phases of its kernels, by the processor's own clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidegate.ops.cpu.record import BEGAN, ENDED

__all__ = ["Phase", "profile", "tell"]

_listeners: list[list["Phase"]] = []


class Phase(NamedTuple):
    """One phase of one kernel: what was shared out, and from when to when, in cycles of the processor's clock."""

    name: str
    begin: int
    end: int


@contextmanager
def profile() -> Iterator[list[Phase]]:
    """Collect the phases of every kernel that runs meanwhile, in any thread, in the order in which kernels ended.

    with profile() as phases:
        gru(x)
    """
    phases: list[Phase] = []
    _listeners.append(phases)
    try:
        yield phases
    finally:
        _listeners[:] = [one for one in _listeners if one is not phases]


def tell(names: list[str], counters: NDArray[np.int64]) -> None:
    """Tell those who listen of a kernel that has run."""
    if _listeners:
        found = [Phase(name, int(line[BEGAN]), int(line[ENDED])) for name, line in zip(names, counters, strict=True)]
        for phases in _listeners:
            phases.extend(found)
