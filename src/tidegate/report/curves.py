"""Curves over steps: how much gradient reaches back to every step, and how training went."""

import html
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.extras import require
from tidegate.report.axes import axis, figure_json, layout, span_shades
from tidegate.report.looks import LOOKS
from tidegate.report.numbers import listed
from tidegate.report.records import DemoRecord, SystemRecord

__all__ = ["gradient_figures", "smooth", "smoothing_window", "training_figures", "zero_notes"]

#: The lines that a panel is about; the others of its family are thinner.
FOCUS = ("rnn", "gru")


def gradient_figures(record: DemoRecord) -> dict[str, dict[str, Any]]:
    """Two panels over the same logarithmic axis: systems that always write, and systems with an update gate."""
    positive = np.concatenate([system.gradient_norms[system.gradient_norms > 0] for system in record.systems])
    low, high = (float(np.log10(bound)) for bound in (positive.min(), positive.max())) if len(positive) else (0.0, 0.0)
    room = 0.04 * max(1.0, high - low)
    bounds = (low - room, max(high, 0.0) + room)
    families = {
        "gradient-ungated": [system for system in record.systems if not LOOKS[system.system].gated],
        "gradient-gated": [system for system in record.systems if LOOKS[system.system].gated],
    }
    return {name: _gradient(systems, record, bounds) for name, systems in families.items() if systems}


def _gradient(systems: list[SystemRecord], record: DemoRecord, bounds: tuple[float, float]) -> dict[str, Any]:
    graph_objects = require("plotly.graph_objects", "report")
    lines = []
    for system in sorted(systems, key=lambda system: system.system in FOCUS):
        norms = system.gradient_norms
        drawn = np.where(norms > 0, norms, np.float32(np.nan))  # a logarithmic axis has no zero: the page says so
        width = 3.0 if system.system in FOCUS else 1.5
        lines.append(_line(system, drawn, width) | {"hovertemplate": "%{y:.1e}"})
        lonely = np.isfinite(drawn).sum() == 1  # a line through one point would not be seen
        lines[-1] |= {"mode": "markers" if lonely else "lines", "marker": {"size": 7}}
    one = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    one |= {"line": {"width": 1, "color": "var(--muted)", "dash": "2px,3px"}}
    decades = max(1, math.ceil((bounds[1] - bounds[0]) / 6))
    style = layout(
        xaxis=axis(range=[0, len(record.film.frames)], title={"text": "t", "standoff": 4}, showgrid=False, nticks=8),
        yaxis=axis(type="log", range=list(bounds), dtick=decades, exponentformat="power", tickfont={"size": 10}),
        shapes=[*span_shades(record.film), one],
        hovermode="x unified",
        margin={"l": 58, "r": 12, "t": 12, "b": 40},
    )
    return figure_json(graph_objects.Figure(data=lines, layout=style))


def zero_notes(record: DemoRecord) -> list[str]:
    """A sentence per system whose gradient is exactly zero somewhere, since a logarithmic axis cannot show it."""
    notes = []
    for system in record.systems:
        zeros = np.flatnonzero(system.gradient_norms == 0)
        if not len(zeros):
            continue
        runs = np.split(zeros, np.flatnonzero(np.diff(zeros) > 1) + 1)
        at = listed([str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs])
        why = ", for it never looks back" if LOOKS[system.system].reset == 0 else ", or too small for the numbers used"
        notes.append(
            f"The {system.title} is exactly 0 at t = {at}{why}: a logarithmic axis has no 0, so nothing is drawn."
        )
    return notes


def training_figures(record: DemoRecord) -> dict[str, dict[str, Any]]:
    """Loss and batch accuracy of all systems over the training steps, smoothed, with the raw values behind."""
    window = smoothing_window(record.training_steps)
    chance = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": record.chance, "y1": record.chance}
    chance |= {"line": {"width": 1.5, "color": "var(--ink)", "dash": "9px,3px,2px,3px"}}
    loss = {system.system: system.losses for system in record.systems}
    accuracy = {system.system: system.accuracies for system in record.systems}
    shares = axis(tickformat=".0%", range=[0, 1.02], nticks=6)
    return {
        "loss": _training(record, loss, window, axis(rangemode="tozero", nticks=6), [], "%{y:.3f}"),
        "accuracy": _training(record, accuracy, window, shares, [chance], "%{y:.1%}"),
    }


def _training(
    record: DemoRecord,
    values: dict[str, NDArray[np.float32]],
    window: int,
    y: dict[str, Any],
    shapes: list[dict[str, Any]],
    hover: str,
) -> dict[str, Any]:
    graph_objects = require("plotly.graph_objects", "report")
    raw = [
        _line(system, values[system.system], 1.0, first=1) | {"opacity": 0.16, "hoverinfo": "skip"}
        for system in record.systems
        if window > 1
    ]
    smoothed = [
        _line(system, smooth(values[system.system], window), 2.5 if system.system in FOCUS else 1.75, first=1)
        | {"hovertemplate": hover}
        for system in record.systems
    ]
    for line in raw:
        line["line"] |= {"dash": "solid"}
    style = layout(
        xaxis=axis(range=[1, max(2, record.training_steps)], title={"text": "training step", "standoff": 4}, nticks=6),
        yaxis=y,
        shapes=shapes,
        hovermode="x unified",
        margin={"l": 58, "r": 12, "t": 12, "b": 40},
    )
    return figure_json(graph_objects.Figure(data=[*raw, *smoothed], layout=style))


def smoothing_window(steps: int) -> int:
    """How many steps the smoothed training curves average over: a fortieth of the training."""
    return max(1, round(steps / 40))


def smooth(values: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """The mean of the last `window` values at every step, (N,) to (N,); of as many as there are at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: NDArray[np.float32] = ((sums[ends] - sums[starts]) / (ends - starts)).astype(np.float32)
    return means


def _line(system: SystemRecord, values: NDArray[np.float32], width: float, first: int = 0) -> dict[str, Any]:
    look = LOOKS[system.system]
    dash = look.dash.replace(" ", ",") or "solid"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": html.escape(system.title),
        "x0": first,
        "dx": 1,
        "y": values,
        "line": {"color": look.color, "width": width, "dash": dash},
        "connectgaps": False,
    }
