"""The plots of one sequence, all over the same axis: inputs, answers, gates, memory and gradient."""

import base64
import html
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.extras import require
from tidegate.report.axes import MARGIN_RIGHT, axis, figure_json, layout
from tidegate.report.maps import TOPS
from tidegate.report.pictures import png_uri
from tidegate.report.run_records import (
    Beyond,
    DirectionRecord,
    ForecastRecord,
    Gate,
    Line,
    SequenceRecord,
    Series,
    TimeAxis,
)

__all__ = ["direction_figures", "full_colour", "sequence_figures"]

Numbers = NDArray[np.float64]
Figure = dict[str, Any]

#: Pixels left of every plot's columns, for the names of inputs and classes.
_LEFT = 118
#: Pixels of a line's own plot, and of what stands around all of them.
_LINE, _AROUND = 84, 52
#: Characters of a text that stand along the axis one by one.
_LETTERS = 110
#: Forecasts of the farthest step, beside those of the next.
_FAR = "var(--opening)"
#: Points that are marked one by one.
_MARKED = 40


def sequence_figures(sequence: SequenceRecord) -> dict[str, Figure]:
    """The plots of a sequence: of "lines", "map", "pictures", "text", "answer" and "ahead" those that there are."""
    figures: dict[str, Figure] = {}
    if sequence.lines:
        figures["lines"] = _lines(sequence)
    if sequence.map is not None:
        figures["map"] = _input_map(sequence)
    if sequence.pictures is not None:
        figures["pictures"] = _pictures(sequence)
    if sequence.text and sequence.axis.steps <= _LETTERS:
        figures["text"] = _letters(sequence)
    if sequence.answer.shares is not None:
        figures["answer"] = _classes(sequence)
    elif sequence.answer.numbers is not None:
        figures["answer"] = _number(sequence)
    elif sequence.answer.forecast is not None:
        figures["ahead"] = _beyond(sequence.answer.forecast.beyond)
        figures["answer"] = _forecast(sequence.answer.forecast, sequence.answer.truth, sequence.axis)
    return figures


def direction_figures(direction: DirectionRecord, time: TimeAxis) -> dict[str, Figure]:
    """The plots of one layer and direction: of "gates", "update", "reset", "memory", "share", "held" and "flow"."""
    figures: dict[str, Figure] = {}
    if direction.update is not None:
        gates = [("update gate Gu", direction.update, "var(--gru)")]
        if direction.reset is not None:
            gates.append(("reset gate Gr", direction.reset, "var(--advert)"))
        figures["gates"] = _gates(gates, time)
        root = _heat(
            direction.update.units.T, _units(direction), time, "var(--gate)", "Gu = %{customdata:.3f}", root=True
        )
        figures["update"] = _map_figure([root], time)
        top = full_colour(direction.memory)
        memory = _heat(
            direction.memory.T, _units(direction), time, "var(--opening)", "%{customdata:.2%} of it", top=top, root=True
        )
        figures["memory"] = _map_figure([memory], time)
        figures["share"] = _share(direction, time)
        if direction.tail is not None:
            figures["tail"] = _tail(direction, time)
        if direction.held is not None and time.columns > 1:
            figures["held"] = _held(direction, time)
    if direction.reset is not None:
        heat = _heat(direction.reset.units.T, _units(direction), time, "var(--gate)", "Gr = %{customdata:.3f}")
        figures["reset"] = _map_figure([heat], time)
    if direction.flow is not None and np.isfinite(direction.flow.log10.mean).any():
        figures["flow"] = _flow(direction, time)
    return figures


def full_colour(shares: Numbers) -> float:
    """The share of memory with the full colour: all but the largest shares of a map are below."""
    large = float(np.quantile(shares, 0.995))
    return next((top for top in (0.01, 0.02, 0.05, *TOPS) if large <= top), 1.0)


def _time(time: TimeAxis, *, titled: bool = False, **more: Any) -> dict[str, Any]:
    """The axis of time; what it is stands under some of the plots, since all have the same."""
    low, high = float(time.edges[0]), float(time.edges[-1])
    common = {"range": [low, high], "nticks": 9}
    common |= {"title": {"text": html.escape(time.title), "standoff": 4}} if titled else {}
    # columns of single steps have no halves
    whole = (
        {"tickformat": ",d", "dtick": max(1, _nice(int(time.bounds[-1] - time.bounds[0]) / 9))}
        if time.title.startswith("step")
        else {}
    )
    return axis(showgrid=False, **(common | whole | more))


def _nice(size: float) -> int:
    """The least of 1, 2, 5, 10, ... that is not below a size."""
    power = 10 ** math.floor(math.log10(max(size, 1)))
    return next(int(step * power) for step in (1, 2, 5, 10) if step * power >= size)


def _figure(traces: list[dict[str, Any]], **style: Any) -> Figure:
    graph_objects = require("plotly.graph_objects", "report")
    titled = "title" in style.get("xaxis", {})
    margin = {"l": _LEFT, "r": MARGIN_RIGHT, "t": 8, "b": 40 if titled else 24}
    return figure_json(graph_objects.Figure(data=traces, layout=layout(**({"margin": margin} | style))))


def _map_figure(traces: list[dict[str, Any]], time: TimeAxis, **style: Any) -> Figure:
    """A figure of heat maps, whose numbers plots.js unpacks: they are no data that plotly's checks would know."""
    y = axis(autorange="reversed", showticklabels=False, ticks="", showgrid=False, type="category")
    empty = _figure([], **({"xaxis": _time(time), "yaxis": y} | style))
    return empty | {"data": traces}


def _packed(values: Numbers, top: float) -> dict[str, Any]:
    """Numbers in 0..top as 16 bits each; 65535 is one that is missing."""
    codes = np.round(np.clip(np.nan_to_num(values / top), 0, 1) * 65534)
    codes = np.where(np.isnan(values), 65535, codes).astype("<u2")
    return {"packed": base64.b64encode(codes.tobytes()).decode("ascii"), "rows": len(values), "top": top}


def _heat(
    values: Numbers, names: list[str], time: TimeAxis, color: str, told: str, *, top: float = 1.0, root: bool = False
) -> dict[str, Any]:
    """A heat map of (rows, n); what is shaded is the number's share of `top`, or its root."""
    largest = max(float(np.nan_to_num(values).max()), top, 1e-9)
    half = [[0.5, "var(--gate-half)"]] if color == "var(--gate)" else []
    return {
        "type": "heatmap",
        "z": _packed(values, largest),
        "root": root,
        "x": time.edges.tolist(),
        "y": names,
        "zmin": 0,
        "zmax": math.sqrt(top) if root else top,
        "colorscale": [[0, "var(--cell)"], *half, [1, color]],
        "showscale": False,
        "hoverongaps": False,
        "customdata": "z",
        "hovertemplate": f"{_at(time)} · %{{y}}<br>{told}<extra></extra>",
    }


def _at(time: TimeAxis) -> str:
    return "step %{x:.0f}" if time.title.startswith("step") else f"{html.escape(time.title)}: %{{x:.6~g}}"


def _units(direction: DirectionRecord) -> list[str]:
    """The names of the rows: they are sorted, so that a row's number is its rank."""
    rows = direction.memory.shape[1]
    if direction.units_a_row == 1:
        return [f"rank {row + 1}" for row in range(rows)]
    starts = range(1, direction.units + 1, direction.units_a_row)
    return [f"ranks {first} to {min(first + direction.units_a_row - 1, direction.units)}" for first in starts]


def _band(time: TimeAxis, low: Numbers, high: Numbers, color: str, axes: dict[str, Any]) -> list[dict[str, Any]]:
    """A pale band from `low` to `high`, cut where there is none."""
    traces = []
    there = np.isfinite(low) & np.isfinite(high)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]])))
    for start, stop in edges.reshape(-1, 2):
        x = time.middles[start:stop]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": np.concatenate([x, x[::-1]]),
                "y": np.concatenate([high[start:stop], low[start:stop][::-1]]),
                "fill": "toself",
                "fillcolor": color,
                "opacity": 0.22,
                "line": {"width": 0},
                "hoverinfo": "skip",
                **axes,
            }
        )
    return traces


def _line(time: TimeAxis, y: Numbers, name: str, color: str, **more: Any) -> dict[str, Any]:
    few = time.columns <= _MARKED or np.isfinite(y).sum() <= 2
    return {
        "type": "scatter",
        "mode": "lines+markers" if few else "lines",
        "marker": {"size": 5, "color": color},
        "name": html.escape(name),
        "x": time.middles,
        "y": y,
        "line": {"color": color, "width": 1.75},
        "connectgaps": False,
        **more,
    }


def _lines(sequence: SequenceRecord) -> Figure:
    """The inputs one under the other, each with its own axis; what is missing is marked below its line."""
    time, count = sequence.axis, len(sequence.lines)
    room = 0.0 if count == 1 else 0.18 / count
    height = (1 - room * (count - 1)) / count
    traces: list[dict[str, Any]] = []
    style: dict[str, Any] = {"xaxis": _time(time, titled=True, anchor=f"y{count}" if count > 1 else "y")}
    for place, line in enumerate(sequence.lines):
        name = f"y{place + 1}" if place else "y"
        top = 1 - place * (height + room)
        style[f"yaxis{place + 1}" if place else "yaxis"] = _values_axis(line, [max(0.0, top - height), top])
        axes: dict[str, Any] = {"yaxis": name}
        stepped = line.categories or line.boolean
        shape = {"line": {"color": "var(--opening)", "width": 1.75, "shape": "hvh"}} if stepped else {}
        if (line.values.low < line.values.high).any():
            traces += _band(time, line.values.low, line.values.high, "var(--opening)", axes)
        y = line.values.mean
        told: dict[str, Any] = {"hovertemplate": f"{_at(time)}<br>{html.escape(line.name)} %{{y:.5~g}}<extra></extra>"}
        if line.categories:
            told |= {
                "customdata": [line.categories[int(code)] if code == code else "" for code in y],  # noqa: PLR0124 - NaN
                "hovertemplate": f"{_at(time)}<br>{html.escape(line.name)} %{{customdata}}<extra></extra>",
            }
        traces.append(_line(time, y, line.name, "var(--opening)", **axes, **shape, **told))
        gone = line.missing > 0
        if gone.any():
            traces.append(_missing(time, gone, line, axes))
    return _figure(traces, **style, height=_LINE * len(sequence.lines) + _AROUND, hovermode="closest")


def _values_axis(line: Line, domain: list[float]) -> dict[str, Any]:
    title = {"text": html.escape(_short(line.name)), "standoff": 4, "font": {"size": 11}}
    if line.categories:
        ticks = list(range(len(line.categories)))
        shown = ticks if len(ticks) <= 5 else ticks[:: -(-len(ticks) // 5)]
        labels = [html.escape(_short(line.categories[code], 9)) for code in shown]
        low, high = -0.6, len(ticks) - 0.4
        return axis(
            domain=domain, title=title, range=[low, high], tickvals=shown, ticktext=labels, tickfont={"size": 10}
        )
    if line.boolean:
        return axis(
            domain=domain, title=title, range=[-0.3, 1.15], tickvals=[0, 1], ticktext=["no", "yes"],
            tickfont={"size": 10},
        )  # fmt: skip
    there = np.concatenate([line.values.low, line.values.high])
    there = there[np.isfinite(there)]
    bottom, top = (float(there.min()), float(there.max())) if len(there) else (0.0, 1.0)
    room = 0.08 * (top - bottom) or max(abs(top) * 0.1, 0.5)
    return axis(
        domain=domain, title=title, range=[bottom - 2 * room, top + room], nticks=4, tickfont={"size": 10},
        exponentformat="power", tickformat="~g" if 1e-3 <= max(abs(bottom), abs(top)) < 1e5 else ".2~e",
    )  # fmt: skip


def _missing(time: TimeAxis, gone: NDArray[np.bool_], line: Line, axes: dict[str, Any]) -> dict[str, Any]:
    there = np.concatenate([line.values.low, line.values.high])
    there = there[np.isfinite(there)]
    low, high = (float(there.min()), float(there.max())) if len(there) else (0.0, 1.0)
    below = -0.5 if line.categories else low - (0.13 * (high - low) or max(abs(low) * 0.15, 0.75))
    return {
        "type": "scatter",
        "mode": "markers",
        "x": time.middles[gone],
        "y": np.full(int(gone.sum()), below),
        "marker": {"symbol": "line-ns-open", "size": 7, "color": "var(--wrong-mark)", "line": {"width": 1.5}},
        "customdata": line.missing[gone],
        "hovertemplate": f"{_at(time)}<br>{html.escape(line.name)} missing in %{{customdata:.0%}}<extra></extra>",
        **axes,
    }


def _input_map(sequence: SequenceRecord) -> Figure:
    shown = sequence.map
    assert shown is not None
    rows = len(shown.names)
    every = -(-rows // 14)
    labels = [html.escape(_short(name)) for name in shown.names]
    own = np.where(np.isfinite(shown.values), shown.values, 0.0)
    heat = {
        "type": "heatmap",
        "z": _packed(shown.shades, 1.0),
        "x": sequence.axis.edges.tolist(),
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "var(--low)"], [0.5, "var(--cell)"], [1, "var(--opening)"]]
        if "spreads" in shown.note
        else [[0, "var(--cell)"], [0.5, "var(--gate-half)"], [1, "var(--gate)"]],
        "showscale": False,
        "hoverongaps": False,
        "text": [[float(f"{value:.4g}") for value in row] for row in own],
        "hovertemplate": f"{_at(sequence.axis)}<br>%{{text}}<extra></extra>",
    }
    y = axis(
        autorange="reversed", tickvals=list(range(0, rows, every)), ticktext=labels[::every], tickfont={"size": 10},
        showgrid=False,
    )  # fmt: skip
    return _map_figure([heat], sequence.axis, xaxis=_time(sequence.axis, titled=True), yaxis=y)


def _pictures(sequence: SequenceRecord) -> Figure:
    shown = sequence.pictures
    assert shown is not None
    images = [
        {
            "source": png_uri(frame),
            "xref": "x",
            "yref": "paper",
            "x": float(left),
            "y": 1,
            "sizex": float(right - left) * 0.94,
            "sizey": 1,
            "sizing": "stretch",
            "layer": "above",
        }
        for frame, left, right in zip(shown.frames, shown.edges[:-1], shown.edges[1:], strict=True)
    ]
    hidden = axis(visible=False, range=[0, 1])
    return _figure([], xaxis=_time(sequence.axis, titled=True), yaxis=hidden, images=images)


def _letters(sequence: SequenceRecord) -> Figure:
    letters = [html.escape({"\n": "↵", " ": "␣"}.get(symbol, symbol)) for symbol in sequence.text]
    text = {
        "type": "scatter",
        "mode": "text",
        "x": sequence.axis.middles,
        "y": np.zeros(len(letters)),
        "text": letters,
        "textfont": {
            "family": "ui-monospace, monospace",
            "size": 12 if len(letters) < 75 else 10,
            "color": "var(--ink)",
        },
        "hoverinfo": "skip",
    }
    return _figure([text], xaxis=_time(sequence.axis), yaxis=axis(visible=False, range=[-1, 1]))


def _classes(sequence: SequenceRecord) -> Figure:
    """A row for each class, shaded by its probability, with the label as a line over them."""
    answer, time = sequence.answer, sequence.axis
    assert answer.shares is not None
    rows = len(answer.classes)
    heat = _heat(answer.shares, [], time, "var(--gate)", "%{customdata:.1%}")
    del heat["y"]
    heat["hovertemplate"] = f"{_at(time)}<br>%{{customdata:.1%}}<extra></extra>"
    traces: list[dict[str, Any]] = [heat]
    if answer.truth is not None:
        codes = np.where(answer.truth.mean >= 0, answer.truth.mean, np.nan)
        traces += [
            _truth_line(time, codes, "var(--panel)", 5.0),
            _truth_line(time, codes, "var(--advert)", 2.5),
        ]
    y = axis(
        range=[rows - 0.5, -0.5], tickvals=list(range(rows)), showgrid=False, tickfont={"size": 11},
        ticktext=[html.escape(_short(name)) for name in answer.classes],
    )  # fmt: skip
    return _map_figure(traces, time, yaxis=y, height=46 + max(60, 26 * rows))


def _truth_line(time: TimeAxis, codes: Numbers, color: str, width: float) -> dict[str, Any]:
    """The label as steps as wide as their columns."""
    x = np.stack([time.edges[:-1], time.edges[1:]], 1).reshape(-1)
    y = [None if code != code else code for code in np.repeat(codes, 2).tolist()]  # noqa: PLR0124 - NaN
    return {
        "type": "scatter", "mode": "lines", "x": x.tolist(), "y": y, "hoverinfo": "skip", "connectgaps": False,
        "line": {"color": color, "width": width},
    }  # fmt: skip


def _number(sequence: SequenceRecord) -> Figure:
    answer, time = sequence.answer, sequence.axis
    assert answer.numbers is not None
    values = answer.numbers.values
    traces = _band(time, values.low, values.high, "var(--gru)", {}) if time.steps_a_column > 1 else []
    if answer.truth is not None:
        if time.steps_a_column > 1:
            traces += _band(time, answer.truth.low, answer.truth.high, "var(--advert)", {})
        traces.append(
            _line(time, answer.truth.mean, "label", "var(--advert)", hovertemplate="label %{y:.5~g}<extra></extra>")
        )
        traces[-1]["line"] |= {"dash": "6px,3px"}
    traces.append(_line(time, values.mean, "answer", "var(--gru)", hovertemplate="answer %{y:.5~g}<extra></extra>"))
    y = axis(nticks=5, exponentformat="power", tickfont={"size": 10})
    return _figure(traces, xaxis=_time(time), yaxis=y, hovermode="x", height=210)


def _beyond(beyond: Beyond) -> Figure:
    """The last steps, and a fan of quantiles that begins at the last value."""
    time, quantiles, median = beyond.axis, beyond.quantiles.copy(), beyond.median.copy()
    end = int(np.flatnonzero(np.append(np.isfinite(median), True))[0])
    if end:
        quantiles[end - 1] = median[end - 1] = beyond.came[end - 1]
    few = quantiles.shape[1]
    traces: list[dict[str, Any]] = []
    for place in range(few // 2):
        traces += _band(time, quantiles[:, place], quantiles[:, few - 1 - place], "var(--gru)", {})
    traces.append(_came(time, beyond.came))
    told = "forecast %{y:.5~g}<extra></extra>"
    traces.append(_line(time, median, "forecast", "var(--gru)", hovertemplate=told))
    edge = float(time.edges[end])
    line = {"type": "line", "yref": "paper", "x0": edge, "x1": edge, "y0": 0, "y1": 1}
    line |= {"line": {"width": 1, "color": "var(--muted)", "dash": "2px,3px"}}
    y = axis(nticks=5, exponentformat="power", tickfont={"size": 10})
    return _figure(traces, xaxis=_time(time, titled=True), yaxis=y, shapes=[line], hovermode="x", height=230)


def _forecast(forecast: ForecastRecord, came: Series | None, time: TimeAxis) -> Figure:
    """What was forecast of every step, some steps before it, beside what came."""
    traces: list[dict[str, Any]] = []
    far = forecast.aheads[-1]
    if len(forecast.quantiles) > 1:
        traces += _band(time, far.low, far.high, _FAR if len(forecast.aheads) > 1 else "var(--gru)", {})
    if came is not None:
        if time.steps_a_column > 1:
            traces += _band(time, came.low, came.high, "var(--advert)", {})
        traces.append(_came(time, came.mean))
    for ahead, color in zip(reversed(forecast.aheads), (_FAR, "var(--gru)")[-len(forecast.aheads) :], strict=True):
        told = f"{ahead.steps} ahead %{{y:.5~g}}<extra></extra>"
        traces.append(_line(time, ahead.median.mean, f"{ahead.steps} ahead", color, hovertemplate=told))
    y = axis(nticks=5, exponentformat="power", tickfont={"size": 10})
    return _figure(traces, xaxis=_time(time), yaxis=y, hovermode="x", height=230)


def _came(time: TimeAxis, values: Numbers) -> dict[str, Any]:
    return _line(time, values, "came", "var(--advert)", hovertemplate="came %{y:.5~g}<extra></extra>")


def _gates(gates: list[tuple[str, Gate, str]], time: TimeAxis) -> Figure:
    traces: list[dict[str, Any]] = []
    for _, gate, color in gates:
        traces += _band(time, gate.low, gate.high, color, {})
    for name, gate, color in gates:
        traces.append(_line(time, gate.mean, name, color, hovertemplate=f"{name}: %{{y:.3f}}<extra></extra>"))
    y = axis(range=[-0.02, 1.02], tickvals=[0, 0.5, 1], ticktext=["0", "0.5", "1"])
    return _figure(traces, xaxis=_time(time), yaxis=y, hovermode="x")


def _share(direction: DirectionRecord, time: TimeAxis) -> Figure:
    bars = {
        "type": "bar",
        "x": time.middles if time.title.startswith("step") else (time.edges[:-1] + time.edges[1:]) / 2,
        "y": direction.share,
        "width": np.diff(time.edges) * (0.88 if time.columns < 120 else 1.0),
        "marker": {"color": "var(--opening)", "line": {"width": 0}},
        "hovertemplate": f"{_at(time)}<br>%{{y:.2%}} of the state<extra></extra>",
    }
    return _figure([bars], xaxis=_time(time, titled=True), yaxis=axis(tickformat=".0~%", rangemode="tozero", nticks=4))


def _tail(direction: DirectionRecord, time: TimeAxis) -> Figure:
    """The mean share of each of the steps that were read last."""
    assert direction.tail is not None
    first = 0 if direction.backward else time.steps - len(direction.tail)
    bars = {
        "type": "bar",
        "x0": first,
        "dx": 1,
        "y": direction.tail,
        "marker": {"color": "var(--opening)", "line": {"width": 0}},
        "hovertemplate": "step %{x}<br>%{y:.2%} of the state<extra></extra>",
    }
    steps = axis(
        range=[first - 0.5, first + len(direction.tail) - 0.5], title={"text": "step", "standoff": 4}, tickformat=",d",
        nticks=9, showgrid=False,
    )  # fmt: skip
    values = axis(tickformat=".0~%", rangemode="tozero", nticks=4)
    return _figure([bars], xaxis=steps, yaxis=values, bargap=0.1)


def _held(direction: DirectionRecord, time: TimeAxis) -> Figure:
    """Down: the step whose state it is; across: the step of which it holds a share."""
    assert direction.held is not None
    held = direction.held
    top = full_colour(held)
    heat = _heat(held, [], time, "var(--opening)", "", top=top, root=True)
    heat["y"] = time.edges.tolist()
    heat["hovertemplate"] = "the state at %{y:.6~g} holds %{customdata:.2%}<br>of what came at %{x:.6~g}<extra></extra>"
    y = axis(
        range=[float(time.edges[-1]), float(time.edges[0])],
        nticks=6,
        showgrid=False,
        title={"text": "state at", "standoff": 4},
    )
    return _map_figure([heat], time, xaxis=_time(time, titled=True), yaxis=y)


def _flow(direction: DirectionRecord, time: TimeAxis) -> Figure:
    flow = direction.flow
    assert flow is not None
    places = TimeAxis(np.arange(len(flow.places) + 1), np.empty(0), flow.places, time.title)
    curve = flow.log10
    traces = _band(places, 10.0**curve.low, 10.0**curve.high, "var(--gru)", {}) if _wide(curve) else []
    y = np.maximum(10.0**curve.mean, 1e-300)
    line = _line(places, np.where(np.isfinite(curve.mean), y, np.nan), "gradient", "var(--gru)")
    line["hovertemplate"] = f"{_at(time)}<br>%{{y:.2e}}<extra></extra>"
    there = curve.mean[np.isfinite(curve.mean)]
    low, high = max(float(there.min()), -300.0), max(float(there.max()), 0.0)
    room = 0.06 * max(high - low, 1.0)
    one = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1}
    one |= {"line": {"width": 1, "color": "var(--muted)", "dash": "2px,3px"}}
    values = axis(
        type="log", range=[low - room, high + room], exponentformat="power", tickfont={"size": 10},
        **_decades(low - room, high + room),
    )  # fmt: skip
    return _figure([*traces, line], xaxis=_time(time, titled=True), yaxis=values, shapes=[one], hovermode="closest")


def _decades(low: float, high: float) -> dict[str, Any]:
    """Ticks of a logarithmic axis from 10^low to 10^high."""
    if high - low >= 2:
        return {"dtick": max(1, math.ceil((high - low) / 5))}
    sizes = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in (1, 2, 5)]
    if high - low < 0.3:
        return {"nticks": 4}
    shown = [size for size in sizes if low <= math.log10(size) <= high]
    return {"tickvals": shown, "ticktext": [f"{size:g}" for size in shown]}


def _wide(curve: Series) -> bool:
    return bool(((curve.high - curve.low) > 0.02).any())


def _short(name: str, most: int = 15) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
