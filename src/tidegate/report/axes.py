"""What all plots share: margins, fonts, grids, and the spans of the film as shades and marks behind the data."""

import json
from typing import Any

from tidegate.report.looks import SPAN_COLORS
from tidegate.report.records import FilmRecord

__all__ = [
    "FONT",
    "MARGIN_LEFT",
    "MARGIN_RIGHT",
    "axis",
    "figure_json",
    "layout",
    "span_bar",
    "span_edges",
    "span_shades",
]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"

#: Pixels left and right of every plot's columns; the strip of frames is inset by the same, so that they align.
MARGIN_LEFT = 52
MARGIN_RIGHT = 10


def layout(**more: Any) -> dict[str, Any]:
    """A plotly layout in the page's style. Colours are custom properties, read from film.css when the plot is drawn."""
    hover = {"bgcolor": "var(--panel)", "bordercolor": "var(--rule)", "font": {"color": "var(--ink)", "size": 12}}
    common = {
        "template": "none",
        "autosize": True,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": "var(--muted)"},
        "margin": {"l": MARGIN_LEFT, "r": MARGIN_RIGHT, "t": 12, "b": 40},
        "dragmode": False,
        "showlegend": False,
        "hoverlabel": hover,
    }
    return common | more


def axis(**more: Any) -> dict[str, Any]:
    """An axis that neither zooms nor moves the margins, with a quiet grid."""
    common = {
        "fixedrange": True,
        "automargin": False,
        "gridcolor": "var(--grid)",
        "linecolor": "var(--rule)",
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "var(--rule)",
    }
    return common | more


def span_shades(film: FilmRecord) -> list[dict[str, Any]]:
    """A pale band behind each span; x is t, the number of frames seen, so that span [start, stop) reaches to stop."""
    return [
        {
            "type": "rect",
            "layer": "below",
            "xref": "x",
            "yref": "paper",
            "x0": span.start,
            "x1": span.stop,
            "y0": 0,
            "y1": 1,
            "line": {"width": 0},
            "fillcolor": SPAN_COLORS[span.kind],
            "opacity": 0.05 if span.kind == "rest" else 0.2,
        }
        for span in film.spans
    ]


def span_bar(film: FilmRecord) -> list[dict[str, Any]]:
    """A coloured line over each span's columns; x is the step, each column is one wide."""
    return [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": span.start - 0.5,
            "x1": span.stop - 0.5,
            "y0": 1.015,
            "y1": 1.04,
            "line": {"width": 0},
            "fillcolor": SPAN_COLORS[span.kind],
        }
        for span in film.spans
    ]


def span_edges(film: FilmRecord) -> list[dict[str, Any]]:
    """A thin line where one span ends and the next begins."""
    return [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": span.start - 0.5,
            "x1": span.start - 0.5,
            "y0": 0,
            "y1": 1,
            "line": {"width": 1, "color": "var(--edge)"},
        }
        for span in film.spans[1:]
    ]


def figure_json(figure: Any) -> dict[str, Any]:
    """A plotly figure as plain data; arrays are packed as plotly packs them."""
    plain: dict[str, Any] = json.loads(figure.to_json())
    return plain
