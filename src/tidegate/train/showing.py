"""The inputs of one sequence as people look at them: lines, a heat map, pictures or text, over its time axis."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidegate.data.sequences import Feature, Sequences
from tidegate.data.text import is_text
from tidegate.report.run_records import InputMap, Line, Pictures, Series, TimeAxis
from tidegate.train.looking import reduced

__all__ = ["Shown", "axis_of_times", "series", "shown_inputs", "time_axis"]

Numbers = NDArray[np.float64]

#: More numbers than this become a heat map, of at most so many rows; categories stay lines.
_LINES, _ROWS = 8, 64
#: Categories that a line tells apart; the rarer ones become "other".
_CATEGORIES = 12
_PICTURES = 16
#: Characters of a text that are shown: its last.
_TEXT = 2000
#: Numbers that are looked at together.
_AT_ONCE = 2**22
#: Seconds since 1970 from 1985 to 2128; numbers of other sizes are none.
_STAMPS = (5e8, 5e9)
_TILE = re.compile(r"row(\d+)_column(\d+)_(red|green|blue)")


class Shown(NamedTuple):
    """What there is to see of the inputs; all but one may be empty."""

    lines: tuple[Line, ...] = ()
    map: InputMap | None = None
    pictures: Pictures | None = None
    text: tuple[str, ...] = ()
    text_start: int = 0


def shown_inputs(sequences: Sequences, number: int, axis: TimeAxis, mean: Numbers, spread: Numbers) -> Shown:
    """One sequence's inputs; `mean` and `spread` are the training part's, (F,), with 0 for what does not vary."""
    features = sequences.features
    values = sequences.values[sequences.rows(number)]
    if is_text(sequences):
        start = max(0, axis.steps - _TEXT)
        return Shown(text=_symbols(features[0], np.asarray(values[start:, 0])), text_start=start)
    if all(_TILE.fullmatch(feature.name) for feature in features):
        return Shown(pictures=_pictures(features, values, axis))
    categories = [place for place, feature in enumerate(features) if feature.kind == "category"]
    numbers = [place for place, feature in enumerate(features) if feature.kind != "category"]
    shown_categories = categories[:_LINES]
    lines = tuple(_category(features[place], values[:, place], axis) for place in shown_categories)
    if len(numbers) <= _LINES:
        stamps = sequences.times is not None and _is_stamp(float(sequences.times[sequences.rows(number).start]))
        return Shown(lines=(*_number_lines(features, values, numbers, axis, stamps=stamps), *lines))
    return Shown(lines=lines, map=_map(features, values, numbers, axis, mean, spread))


def series(values: NDArray[Any], axis: TimeAxis) -> Series:
    """Values of every step, (T,), over the columns."""
    return Series(*reduced(np.asarray(values, np.float64), axis.bounds))


def time_axis(sequences: Sequences, number: int, bounds: NDArray[np.int64], name: str) -> TimeAxis:
    """The axis of a sequence: its times if they are known, `name` being what they are called; else its steps."""
    if sequences.times is not None:
        times = np.asarray(sequences.times[sequences.rows(number)], np.float64)
        if (found := axis_of_times(times, bounds, name)) is not None:
            return found
    return TimeAxis(bounds, bounds - np.float64(0.5), (bounds[:-1] + bounds[1:] - 1) / np.float64(2), "step")


def axis_of_times(times: Numbers, bounds: NDArray[np.int64], name: str) -> TimeAxis | None:
    """The axis of steps at these times, (T,); None if they are all the same or not all known."""
    if (len(times) > 1 and times[0] == times[-1]) or not np.isfinite(times).all():
        return None
    duration = float(times[-1] - times[0])
    title, offset, unit = name, 0.0, 1.0
    if _is_stamp(float(times[0])):
        offset = float(times[0])
        unit, words = next(
            (size, words)
            for size, words in ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days"))
            if duration <= 300 * size or size == 86400.0
        )
        title = f"{words} from {datetime.fromtimestamp(offset, UTC):%Y-%m-%d %H:%M:%S} UTC"
    elif abs(times[0]) > 1e3 * max(duration, 1e-300):
        offset = float(times[0])
        title = f"{name}, from {offset:.12g}"
    times = (times - offset) / unit
    gaps = np.diff(times)
    usual = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 1.0
    first, last = (gaps[0] or usual, gaps[-1] or usual) if len(gaps) else (usual, usual)
    borders = np.concatenate([[times[0] - first / 2], times[:-1] + gaps / 2, [times[-1] + last / 2]])
    return TimeAxis(bounds, borders[bounds], reduced(times, bounds)[0], title)


def _is_stamp(time: float) -> bool:
    """Whether it is a moment of our days, in seconds since 1970."""
    return _STAMPS[0] <= time <= _STAMPS[1]


def _blockwise(values: NDArray[Any], axis: TimeAxis) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Mean, lowest, highest and share of missing values of (T, F), (n, F) each; in bounded memory."""
    parts = []
    columns = max(1, _AT_ONCE // max(1, values.shape[1] * axis.steps_a_column))
    for start in range(0, axis.columns, columns):
        bounds = axis.bounds[start : start + columns + 1]
        block = np.asarray(values[bounds[0] : bounds[-1]], np.float64)
        missing = reduced(np.isnan(block).astype(float), bounds - bounds[0])[0]
        parts.append((*reduced(block, bounds - bounds[0]), missing))
    mean, low, high, missing = (np.concatenate(part) for part in zip(*parts, strict=True))
    return mean, low, high, missing


def _number_lines(
    features: Sequence[Feature], values: NDArray[Any], places: list[int], axis: TimeAxis, *, stamps: bool
) -> list[Line]:
    numbers = np.asarray(values[:, places], np.float64)
    gaps = [at for at, place in enumerate(places) if features[place].kind == "gap"]
    if gaps:
        numbers[:, gaps] = np.expm1(numbers[:, gaps])  # the time itself, not its logarithm
    mean, low, high, missing = _blockwise(numbers, axis)
    steps = axis.bounds[1] - axis.bounds[0]
    for at, place in enumerate(places):
        if features[place].kind in ("gap", "change") and np.isnan(numbers[0, at]):
            missing[0, at] = round(missing[0, at] * steps - 1) / steps  # before the first step is no step
    return [
        Line(
            f"{features[place].name} (s)" if at in gaps and stamps else features[place].name,
            Series(mean[:, at], low[:, at], high[:, at]),
            missing[:, at],
            boolean=features[place].kind == "boolean",
        )
        for at, place in enumerate(places)
    ]


def _category(feature: Feature, codes: NDArray[Any], axis: TimeAxis) -> Line:
    """The most frequent category of every column, among those that this sequence has most."""
    codes = np.asarray(codes, np.float64)
    known = len(feature.categories)
    there = ~np.isnan(codes)
    plain = np.where(there & (codes >= 0) & (codes < known), np.nan_to_num(codes), known).astype(np.int64)
    counts = np.bincount(plain[there], minlength=known + 1)
    kept = np.sort(np.argsort(-counts, kind="stable")[:_CATEGORIES])
    kept = kept[counts[kept] > 0]
    names = [*feature.categories, "not known"]
    place = np.full(known + 1, len(kept), np.int64)
    place[kept] = np.arange(len(kept))
    shown = np.full(axis.columns, np.nan)
    missing = reduced((~there).astype(float), axis.bounds)[0]
    for column in range(axis.columns):
        here = slice(axis.bounds[column], axis.bounds[column + 1])
        if there[here].any():
            shown[column] = np.bincount(place[plain[here][there[here]]]).argmax()
    rest = ("other",) if (shown == len(kept)).any() else ()
    return Line(feature.name, Series(shown, shown, shown), missing, (*(names[code] for code in kept), *rest))


def _map(
    features: Sequence[Feature],
    values: NDArray[Any],
    places: list[int],
    axis: TimeAxis,
    mean: Numbers,
    spread: Numbers,
) -> InputMap:
    shown = _blockwise(values, axis)[0][:, places].T
    if all(re.fullmatch(r"mel\d+", features[place].name) for place in places):
        low, high = np.fmin.reduce(shown, axis=None), np.fmax.reduce(shown, axis=None)
        names = [features[place].name for place in places][::-1]
        shades = (shown[::-1] - low) / max(float(high - low), 1e-12)
        return InputMap(
            tuple(names), shown[::-1], shades, f"log-mel energy, low bands at the bottom: {low:.1f} to {high:.1f}"
        )
    own, scale = mean[places, None], np.where(spread[places, None] > 0, spread[places, None], 1)
    normal = (shown - own) / scale
    note = "each input by its mean and spread in training: −3 to 3 spreads"
    if len(places) > _ROWS:
        moves = np.nan_to_num(np.fmax.reduce(normal, axis=1) - np.fmin.reduce(normal, axis=1), nan=-1.0)
        kept = np.sort(np.argsort(-moves, kind="stable")[:_ROWS])
        note += f"; the {_ROWS} of {len(places):,} inputs that vary most here"
        shown, normal, places = shown[kept], normal[kept], [places[at] for at in kept]
    for at, place in enumerate(places):
        if features[place].kind == "gap":
            shown[at] = np.expm1(shown[at])  # the time itself, not its logarithm
    return InputMap(tuple(features[place].name for place in places), shown, np.clip((normal + 3) / 6, 0, 1), note)


def _pictures(features: Sequence[Feature], values: NDArray[Any], axis: TimeAxis) -> Pictures:
    """Frames put together from the colours of their tiles; tiles that the network does not see are black."""
    found = [_TILE.fullmatch(feature.name) for feature in features]
    tiles = [(int(one[1]), int(one[2]), ("red", "green", "blue").index(one[3])) for one in found if one]
    high, wide = (max(tile[side] for tile in tiles) + 1 for side in (0, 1))
    count = min(_PICTURES, axis.steps)
    edges = np.linspace(axis.edges[0], axis.edges[-1], count + 1)
    columns = np.clip(np.searchsorted(axis.edges, (edges[:-1] + edges[1:]) / 2, "right") - 1, 0, axis.columns - 1)
    steps = (axis.bounds[columns] + axis.bounds[columns + 1]) // 2
    frames = np.zeros((count, high, wide, 3), np.uint8)
    rows, across, colours = (list(part) for part in zip(*tiles, strict=True))
    colour = np.nan_to_num(np.asarray(values[steps], np.float64))
    frames[:, rows, across, colours] = (255 * np.clip(colour, 0, 1)).round().astype(np.uint8)
    return Pictures(frames, edges, steps)


def _symbols(feature: Feature, codes: NDArray[Any]) -> tuple[str, ...]:
    """A symbol for every step; of UTF-8, a character stands at its first byte, and its other bytes are empty."""
    if feature.name == "character":
        names = feature.categories
        return tuple(_visible(names[int(code)]) if 0 <= code < len(names) else "�" for code in codes)
    data, symbols, at = bytes(codes.astype(np.uint8)), [], 0
    while at < len(data):
        # a byte that begins no character is shown as a dot
        length, symbol = next(
            ((size, text) for size in (1, 2, 3, 4) if (text := _decoded(data[at : at + size])) is not None), (1, "·")
        )
        symbols += [_visible(symbol), *[""] * (length - 1)]
        at += length
    return tuple(symbols[: len(data)])


def _decoded(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def _visible(symbol: str) -> str:
    if symbol == "\n":
        return "\n"
    return symbol if symbol.isprintable() else "·"
