"""The film report: one record in, one HTML page out that needs no network, no server and no other file."""

from typing import Any

from tidegate.report.axes import MARGIN_LEFT, MARGIN_RIGHT
from tidegate.report.check import check_record
from tidegate.report.curves import gradient_figures, smoothing_window, training_figures, zero_notes
from tidegate.report.document import document
from tidegate.report.findings import (
    GRADIENT_STEP,
    best,
    even_shares,
    findings,
    shown_first,
    span_of,
    truth,
    worst,
)
from tidegate.report.looks import LOOKS
from tidegate.report.maps import memory_top, system_figures
from tidegate.report.numbers import count, listed, percent, spelled
from tidegate.report.pictures import frame_uris, span_pictures
from tidegate.report.records import DemoRecord
from tidegate.report.table import rows, shown_systems, starts_in_memory

__all__ = ["film_page"]


def film_page(record: DemoRecord) -> str:
    """The report of the interrupted film as one HTML document; the same record gives the same document.

    Raises `InputValueError` if the record is not whole, `MissingExtraError` without the extra "report".
    """
    check_record(record)
    scripts = ("edges.js", "plots.js", "film.js")
    return document("film.html", scripts, ("film.css",), _figures(record), {**_words(record), **_film(record)})


def _words(record: DemoRecord) -> dict[str, Any]:
    """Everything that is read: figures, findings, the table, notes and the footer."""
    return {
        "record": record,
        "best": best(record),
        "worst": worst(record),
        "findings": findings(record),
        "rows": rows(record),
        "gradient_step": GRADIENT_STEP,
        "even": {kind: percent(share, 0) for kind, share in even_shares(record.film).items()},
        "zero_notes": zero_notes(record),
        "window": smoothing_window(record.training_steps),
        "looks": LOOKS,
        "gated": [system for system, look in LOOKS.items() if look.gated],
        "percent": percent,
        "count": count,
        "spelled": spelled,
        "made_with": listed([f"{name} {version}" for name, version in record.versions.items()] or ["tidegate"]),
    }


def _film(record: DemoRecord) -> dict[str, Any]:
    """The strip of frames and what each system made of it."""
    uris = frame_uris(record.film)
    initial = starts_in_memory(record)
    return {
        "frames": uris,
        "strip": span_pictures(record.film, uris),
        "opening": span_of(record.film, "opening"),
        "advert": span_of(record.film, "advert"),
        "truth": truth(record),
        "shown": shown_systems(record),
        "first": shown_first(record).system,
        "initial": int(initial),
        "top": memory_top(record),
        "margin_left": MARGIN_LEFT,
        "margin_right": MARGIN_RIGHT,
    }


def _figures(record: DemoRecord) -> dict[str, Any]:
    """Every plot: by system and panel those under the film, by name the others."""
    initial, top = starts_in_memory(record), memory_top(record)
    by_system = {system.system: system_figures(system, record.film, initial, top) for system in record.systems}
    return {"film": by_system, "curves": gradient_figures(record) | training_figures(record)}
