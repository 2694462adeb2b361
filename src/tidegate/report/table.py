"""The result table and the words that belong to single systems, as strings for the template."""

from dataclasses import dataclass

import numpy as np

from tidegate.report.findings import truth
from tidegate.report.looks import LOOKS
from tidegate.report.numbers import count, percent, scientific, seconds
from tidegate.report.records import DemoRecord, SystemRecord

__all__ = ["Row", "Shown", "rows", "shown_systems", "starts_in_memory"]

#: From this mean share of the final state on, the initial state has its own column in the memory map.
INITIAL_SHARE = 0.005


@dataclass(frozen=True)
class Row:
    """One row of the result table; `widths` are the percentages of the small memory bar, `bar` that of the accuracy.

    `defined` says that the system has no update gate: its gate and its memory are so by definition, not by training.
    """

    title: str
    parameters: str
    accuracy: str
    bar: float
    update_on_opening: str
    update_on_advert: str
    shares: tuple[str, str, str]
    widths: tuple[tuple[str, float], ...]
    gradient: str
    seconds: str
    defined: bool
    untrained_on_opening: str
    untrained_on_advert: str


@dataclass(frozen=True)
class Shown:
    """What the page says about one system when the film shows it: its answer, and its gates where it has none."""

    system: str
    title: str
    answer: str
    right: bool
    update_note: str
    reset_note: str
    memory_note: str


def rows(record: DemoRecord) -> list[Row]:
    """The result table, in the record's order."""
    return [_row(system) for system in record.systems]


def _row(system: SystemRecord) -> Row:
    shares = {"opening": system.memory_opening, "advert": system.memory_advert, "rest": system.memory_rest}
    return Row(
        title=system.title,
        parameters=count(system.parameters),
        accuracy=percent(system.accuracy),
        bar=round(100 * system.accuracy, 2),
        update_on_opening=f"{system.update_on_opening:.2f}",
        update_on_advert=f"{system.update_on_advert:.2f}",
        shares=(percent(shares["opening"]), percent(shares["advert"]), percent(shares["rest"])),
        widths=tuple((kind, round(100 * share, 2)) for kind, share in shares.items()),
        gradient=scientific(system.gradient),
        seconds=seconds(system.seconds),
        defined=not LOOKS[system.system].gated,
        untrained_on_opening=f"{system.untrained_update_on_opening:.2f}",
        untrained_on_advert=f"{system.untrained_update_on_advert:.2f}",
    )


def starts_in_memory(record: DemoRecord) -> bool:
    """Whether any system's final state still holds a share of its initial state that is worth a column."""
    return any(float(system.memory[0].mean()) >= INITIAL_SHARE for system in record.systems)


def shown_systems(record: DemoRecord) -> list[Shown]:
    """Every system as the film shows it."""
    return [
        Shown(
            system=system.system,
            title=system.title,
            answer=system.answer,
            right=system.answer == truth(record),
            update_note=_update_note(system),
            reset_note=_reset_note(system),
            memory_note=_memory_note(system, record),
        )
        for system in record.systems
    ]


def _update_note(system: SystemRecord) -> str:
    if LOOKS[system.system].gated:
        return ""
    return (
        f"{system.title} has no update gate: by definition Gu = 1 for every unit at every step, so each frame "
        "overwrites the whole state."
    )


def _reset_note(system: SystemRecord) -> str:
    fixed = LOOKS[system.system].reset
    if fixed is None:
        return ""
    if fixed == 0:
        return f"{system.title} has no reset gate: by definition Gr = 0, so no candidate looks back."
    return f"{system.title} has no reset gate: by definition Gr = 1, so every candidate uses the past in full."


def _memory_note(system: SystemRecord, record: DemoRecord) -> str:
    by_kind = {
        kind: float(np.sum([system.memory[s.start + 1 : s.stop + 1].mean(axis=1).sum() for s in spans]))
        for kind in ("opening", "advert", "rest")
        if (spans := [span for span in record.film.spans if span.kind == kind])
    }
    shares = ", ".join(f"{percent(share)} {kind}" for kind, share in by_kind.items())
    initial = percent(float(system.memory[0].mean()))
    return f"In this film {system.title} ends with {shares}, and {initial} of its initial state."
