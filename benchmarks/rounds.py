"""Competitors in turn: first each must give the expected numbers, then every round times each of them once.

A ratio is taken within a round, where the machine was in one mood for all, and the median of the rounds' ratios is
told: what slows the whole machine for a while cancels.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "TOLERANCE",
    "Competitor",
    "DisagreementError",
    "Results",
    "agreement",
    "geometric_mean",
    "paired_ratio",
    "take_turns",
]

#: Arrays in the layout of torch, by name.
Results = Mapping[str, NDArray[Any]]

#: How far float32 may be from float64, as a share of the largest number of a result, or of 1 where that is larger.
TOLERANCE = 2e-5
#: A sample takes at least so many seconds, by as many calls as that needs.
SAMPLE_SECONDS = 0.02
#: Between competitors, for the threads of the last one to stop waiting for work.
PAUSE_SECONDS = 0.02


class DisagreementError(Exception):
    """A competitor gives other numbers than the reference, so that its time says nothing."""


@dataclass(frozen=True)
class Competitor:
    """Something to be timed.

    `call` is what is timed, from inputs in the library's own form to results that are there; `results` turns what it
    gives into arrays in torch's layout, and is not timed.
    """

    name: str
    call: Callable[[], Any]
    results: Callable[[Any], Results]


def agreement(competitor: Competitor, expected: Results, tolerance: float = TOLERANCE) -> float:
    """The largest error of a competitor's results; raises `DisagreementError` where it is above the tolerance."""
    given = competitor.results(competitor.call())
    worst = 0.0
    for name, right in expected.items():
        if name not in given or given[name].shape != right.shape:
            shape = given[name].shape if name in given else "nothing"
            raise DisagreementError(f"{competitor.name} gives {name} as {shape}, where {right.shape} was expected")
        error = float(np.max(np.abs(given[name] - right))) / max(1.0, float(np.max(np.abs(right))))
        if not error <= tolerance:  # NaN is an error, too
            raise DisagreementError(
                f"{competitor.name} disagrees with torch in float64: {name} is off by {error:.1e} of its largest "
                f"number, and {tolerance:.0e} is allowed"
            )
        worst = max(worst, error)
    return worst


def take_turns(competitors: Sequence[Competitor], rounds: int) -> dict[str, list[float]]:
    """Seconds of one call, for each competitor and round; another competitor goes first in each round."""
    calls = {one.name: _calls_in_a_sample(one) for one in competitors}
    samples: dict[str, list[float]] = {one.name: [] for one in competitors}
    for turn in range(rounds):
        first = turn % len(competitors)
        for one in (*competitors[first:], *competitors[:first]):
            samples[one.name].append(_sample(one.call, calls[one.name]))
    return samples


def _calls_in_a_sample(competitor: Competitor) -> int:
    competitor.call()
    begin = time.perf_counter()
    competitor.call()
    return max(1, math.ceil(SAMPLE_SECONDS / max(time.perf_counter() - begin, 1e-9)))


def _sample(call: Callable[[], Any], calls: int) -> float:
    time.sleep(PAUSE_SECONDS)
    gc.collect()
    gc.disable()
    try:
        if calls > 1:  # a long call warms the caches for itself
            call()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - begin) / calls
    finally:
        gc.enable()


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of `theirs/ours`: above 1, ours is faster."""
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean of ratios in which 2 and 1/2 cancel."""
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
