"""The page of a trained run and some of its sequences: one record in, one HTML document out."""

import html
from typing import Any

import numpy as np

from tidegate.errors import InputValueError
from tidegate.extras import require
from tidegate.report.axes import MARGIN_RIGHT, axis, figure_json, layout
from tidegate.report.document import document
from tidegate.report.numbers import count, listed, percent
from tidegate.report.run_records import Check, RunRecord, SequenceRecord
from tidegate.report.run_words import finding_sentences, notes_of, question, rows, summary, verdict
from tidegate.report.timelines import direction_figures, sequence_figures

__all__ = ["run_page"]

#: Of a text, shades of its letters.
_SHADES = 8


def run_page(record: RunRecord) -> str:
    """The page of a run as one HTML document; the same record gives the same document.

    Raises `InputValueError` if the record holds no sequence, or sequences of different layers; `MissingExtraError`
    without the extra "report".
    """
    _check(record)
    scripts = ("edges.js", "plots.js", "run.js")
    return document("run.html", scripts, ("film.css", "run.css"), _figures(record), _words(record))


def _check(record: RunRecord) -> None:
    if not record.sequences:
        raise InputValueError("sequences must hold at least one sequence; got none")
    places = [tuple(one.place for one in sequence.directions) for sequence in record.sequences]
    if len(set(places)) > 1 or not places[0]:
        raise InputValueError(f"sequences must all show the same layers, one at least; got {places}")


def _figures(record: RunRecord) -> dict[str, Any]:
    return {
        "sequences": [
            {
                "own": sequence_figures(sequence),
                "layers": [direction_figures(direction, sequence.axis) for direction in sequence.directions],
            }
            for sequence in record.sequences
        ],
        "check": _check_figure(record.check) if record.check is not None and record.check.sequences else None,
    }


def _words(record: RunRecord) -> dict[str, Any]:
    found = verdict(record.check)
    return {
        "record": record,
        "question": question(record),
        "findings": finding_sentences(record),
        "verdict": found,
        "rows": rows(record),
        "summaries": [summary(sequence) for sequence in record.sequences],
        "notes": [[notes_of(sequence, one) for one in sequence.directions] for sequence in record.sequences],
        "letters": [_letters(sequence) for sequence in record.sequences],
        "places": [direction.place for direction in record.sequences[0].directions],
        "findings_of_gates": [
            (health.place, sentence, advice) for health in record.health for sentence, advice in health.findings
        ],
        "count": count,
        "percent": percent,
        "half_life": lambda value: (
            "never" if not np.isfinite(value) else f"{value:.1f}" if value < 100 else count(round(value))
        ),
        "made_with": listed([f"{name} {version}" for name, version in record.versions.items()] or ["tidegate"]),
    }


def _letters(sequence: SequenceRecord) -> list[tuple[int, str]]:
    """The text in runs of letters of one shade, 0 to 7: the root of what the state holds of each, by the largest."""
    if not sequence.text or sequence.text_shares is None:
        return []
    largest = max(float(sequence.text_shares.max()), 1e-12)
    shades = np.floor(np.sqrt(sequence.text_shares / largest) * (_SHADES - 1e-9)).astype(int)
    runs: list[tuple[int, str]] = []
    for shade, symbol in zip(shades.tolist(), sequence.text, strict=True):
        if symbol == "":
            continue
        if runs and runs[-1][0] == shade:
            runs[-1] = (shade, runs[-1][1] + symbol)
        else:
            runs.append((shade, symbol))
    return runs


def _check_figure(check: Check) -> dict[str, Any]:
    """A dot for each sequence and kind: how far the answer moved without those steps."""
    graph_objects = require("plotly.graph_objects", "report")
    spread = np.random.default_rng(0)
    kinds = (("forgotten", 1, "var(--rest)"), ("remembered", 0, "var(--opening)"))
    traces: list[dict[str, Any]] = []
    for kind, row, color in kinds:
        values = [getattr(one, f"{kind}_change") for one in check.sequences]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": values,
                "y": row + spread.uniform(-0.22, 0.22, len(values)),
                "text": [html.escape(one.name) for one in check.sequences],
                "marker": {"size": 8, "color": color, "opacity": 0.65},
                "hovertemplate": f"%{{text}}: without what is {kind}<br>the answer moves by %{{x:.3f}}<extra></extra>",
            }
        )
        mean = {"symbol": "line-ns-open", "size": 26, "color": "var(--ink)", "line": {"width": 2.5}}
        traces.append(
            {"type": "scatter", "mode": "markers", "x": [float(np.mean(values))], "y": [row], "marker": mean}
            | {"hovertemplate": f"mean without what is {kind}: %{{x:.3f}}<extra></extra>"}
        )
    most = max(
        [1.0 if check.classes else 0.1, *(max(one.forgotten_change, one.remembered_change) for one in check.sequences)]
    )
    title = "probability that moved" if check.classes else f"how far the answer moved, by {check.unit}"
    style = layout(
        xaxis=axis(range=[-0.02 * most, 1.02 * most], title={"text": title, "standoff": 4}, nticks=6)
        | ({"tickformat": ".0~%"} if check.classes else {}),
        yaxis=axis(
            range=[-0.5, 1.5], tickvals=[0, 1], ticktext=["remembered", "forgotten"], showgrid=False, ticks="",
        ),
        margin={"l": 92, "r": MARGIN_RIGHT + 8, "t": 12, "b": 40},
        hovermode="closest",
    )  # fmt: skip
    return figure_json(graph_objects.Figure(data=traces, layout=style))
