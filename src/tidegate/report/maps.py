"""What one system did on the film that is shown: both gates and the memory map, units by steps, under the frames."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.extras import require
from tidegate.report.axes import MARGIN_LEFT, MARGIN_RIGHT, axis, figure_json, layout, span_bar, span_edges
from tidegate.report.looks import LOOKS, SPAN_COLORS
from tidegate.report.records import DemoRecord, FilmRecord, SystemRecord

__all__ = ["memory_top", "system_figures", "unit_order"]

#: The largest share that the memory map tells apart is one of these.
TOPS = (0.1, 0.2, 0.3, 0.5, 1.0)


def system_figures(system: SystemRecord, film: FilmRecord, with_initial: bool, top: float) -> dict[str, dict[str, Any]]:
    """The panels of one system: "update" and "reset" unless it lacks that gate, "memory" and "share".

    With the initial state, all panels have one more column, left of step 0. Shares of memory from `top` on look alike.
    """
    look = LOOKS[system.system]
    order = unit_order(system, film)
    labels = [f"unit {unit}" for unit in order]
    panels: dict[str, dict[str, Any]] = {}
    if look.update is None:
        root = np.sqrt(system.update[:, order])
        panels["update"] = _figure([_gate(root, system.update[:, order], labels, "Gu")], film, with_initial)
    if look.reset is None:
        gate = system.reset[:, order]
        panels["reset"] = _figure([_gate(gate, gate, labels, "Gr")], film, with_initial)
    shares = np.clip(system.memory[:, order], 0, 1)
    panels["memory"] = _figure(_memory(shares, film, labels, with_initial, top), film, with_initial)
    panels["share"] = _shares(shares.mean(axis=1), film, with_initial)
    return panels


def memory_top(record: DemoRecord) -> float:
    """The share of memory with the full colour, for all systems alike: all but the largest of the gated systems fit.

    A system that always writes has one share of 1 per unit, which says nothing about the scale of the others.
    """
    gated = [system.memory for system in record.systems if LOOKS[system.system].gated]
    if not gated:
        return 1.0
    large = float(np.quantile(np.concatenate(gated), 0.995))
    return next((top for top in TOPS if large <= top), 1.0)


def unit_order(system: SystemRecord, film: FilmRecord) -> NDArray[np.intp]:
    """(H,) units by how much of the opening they hold in the end, most first."""
    opening = next(span for span in film.spans if span.kind == "opening")
    held = system.memory[opening.start + 1 : opening.stop + 1].sum(axis=0)
    return np.argsort(-held, kind="stable")


def _gate(shade: NDArray[np.float32], gate: NDArray[np.float32], labels: list[str], symbol: str) -> dict[str, Any]:
    """A heat map of one gate; `shade` and `gate` are (T, H), the shade is 0..1."""
    return {
        "type": "heatmap",
        "z": shade.T,
        "customdata": gate.T,
        "y": labels,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "var(--cell)"], [0.5, "var(--gate-half)"], [1, "var(--gate)"]],
        "showscale": False,
        "hovertemplate": f"step %{{x}} · %{{y}}<br>{symbol} = %{{customdata:.3f}}<extra></extra>",
    }


def _memory(
    shares: NDArray[np.float32], film: FilmRecord, labels: list[str], with_initial: bool, top: float
) -> list[dict[str, Any]]:
    """One heat map per kind of span, each in its colour and over its own columns; `shares` is (T+1, H)."""
    kinds = np.array(["initial", *(span.kind for span in film.spans for _ in range(span.start, span.stop))])
    traces = []
    for kind in ("opening", "advert", "rest", "initial"):
        columns = np.where((kinds == kind)[:, None], np.sqrt(shares), np.float32(np.nan))
        if not (kinds == kind).any() or (kind == "initial" and not with_initial):
            continue
        start = 0 if with_initial else 1
        where = "initial state" if kind == "initial" else f"step %{{x}} · {kind}"
        traces.append(
            {
                "type": "heatmap",
                "z": columns[start:].T,
                "customdata": shares[start:].T,
                "x0": start - 1,
                "dx": 1,
                "y": labels,
                "zmin": 0,
                "zmax": float(np.sqrt(top)),
                "colorscale": [[0, "var(--cell)"], [1, SPAN_COLORS.get(kind, "var(--ink)")]],
                "showscale": False,
                "hoverongaps": False,
                "hovertemplate": f"{where} · %{{y}}<br>%{{customdata:.2%}} of the state<extra></extra>",
            }
        )
    return traces


def _figure(traces: list[dict[str, Any]], film: FilmRecord, with_initial: bool) -> dict[str, Any]:
    graph_objects = require("plotly.graph_objects", "report")
    units = axis(autorange="reversed", showticklabels=False, ticks="", showgrid=False, type="category")
    style = layout(
        xaxis=_steps(film, with_initial),
        yaxis=units,
        shapes=[*span_bar(film), *span_edges(film)],
        margin={"l": MARGIN_LEFT, "r": MARGIN_RIGHT, "t": 12, "b": 24},
    )
    return figure_json(graph_objects.Figure(data=traces, layout=style))


def _shares(mean: NDArray[np.float32], film: FilmRecord, with_initial: bool) -> dict[str, Any]:
    """A bar per step: the mean share over the units, (T+1,), in the colour of its span."""
    graph_objects = require("plotly.graph_objects", "report")
    bars = [
        {
            "type": "bar",
            "x": list(range(span.start, span.stop)),
            "y": mean[span.start + 1 : span.stop + 1],
            "marker": {"color": SPAN_COLORS[span.kind], "line": {"width": 0}},
            "hovertemplate": f"step %{{x}} · {span.kind}<br>%{{y:.2%}} of the state<extra></extra>",
        }
        for span in film.spans
    ]
    if with_initial:
        hollow = {"color": "var(--panel)", "line": {"color": "var(--ink)", "width": 1.5}}
        label = "initial state<br>%{y:.2%} of the state<extra></extra>"
        bars.append({"type": "bar", "x": [-1], "y": mean[:1], "marker": hollow, "hovertemplate": label})
    style = layout(
        xaxis=_steps(film, with_initial) | {"title": {"text": "step", "standoff": 4}},
        yaxis=axis(tickformat=".0~%", rangemode="tozero", nticks=5),
        bargap=0.15,
        barmode="overlay",
    )
    return figure_json(graph_objects.Figure(data=bars, layout=style))


def _steps(film: FilmRecord, with_initial: bool) -> dict[str, Any]:
    """The step axis: one column per frame, from 0, and one for the initial state if it is shown."""
    steps = len(film.frames)
    every = next((size for size in (1, 2, 5, 10, 20, 50, 100) if steps <= 12 * size), steps)
    ticks = list(range(0, steps, every))
    labels = [str(step) for step in ticks]
    if with_initial:
        ticks, labels = [-1, *ticks], ["a(0)", *labels]
    return axis(
        range=[-1.5 if with_initial else -0.5, steps - 0.5],
        tickvals=ticks,
        ticktext=labels,
        tickangle=0,
        showgrid=False,
    )
