"""`.ts` files, the format of the time series classification archive -> sequences.

After comments (`#`) and a header (`@name value`) comes a line `@data`; then each line is a sequence: its dimensions one
after the other, separated by `:`, a dimension's values separated by `,`, and last the label, if there is one. A missing
value is `?` or `NaN`. With `@timeStamps true` each value is `(time,value)`.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidegate.data.files import Found, lines_of
from tidegate.data.folders import NO_COLUMNS, offsets_of
from tidegate.data.known import as_asked
from tidegate.data.rows import Rows
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.data.stamps import seconds_of
from tidegate.data.wide import unnamed
from tidegate.errors import FileError, InputValueError

__all__ = ["read_archive"]

Floats = NDArray[np.float64]

_FLAGS = ("timestamps", "missing", "univariate", "equallength", "targetlabel")
_NUMBERS = ("dimension", "dimensions", "serieslength")
_TAGS = ("problemname", "classlabel", "data", *_FLAGS, *_NUMBERS)
_TUPLE = re.compile(r"(\([^()]*\))")


@dataclass
class _Header:
    """What the lines before `@data` say."""

    flags: dict[str, bool] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None

    @property
    def width(self) -> int | None:
        """The dimensions, if the header says how many."""
        if self.flags.get("univariate"):
            return 1
        return self.numbers.get("dimensions", self.numbers.get("dimension"))

    @property
    def labelled(self) -> bool:
        return self.classes is not None or self.flags.get("targetlabel", False)

    @property
    def length(self) -> int | None:
        """The steps of every sequence, if they are of equal length and the header says how many."""
        return self.numbers.get("serieslength") if self.flags.get("equallength") else None


@dataclass
class _Case:
    """A line after `@data`."""

    values: Floats  # (T, F)
    times: Floats | None
    label: float


def read_archive(
    files: Sequence[Found], columns: Columns = NO_COLUMNS, *, known: Sequence[Feature] | None = None
) -> Sequences:
    """Sequences of `.ts` files, with features x0, x1, ... for their dimensions.

    A `@classLabel` gives classes in the header's order, a `@targetLabel` numbers; `?` is a label that is not known.
    Times are numbers, or dates of ISO 8601, which become seconds; dimensions with different times are joined at all of
    them, with values missing where a dimension has none.

    Raises:
        FileError: with file and line: what is not of the format, does not fit the header, or is infinite.
        FileMissingError, InputValueError: as `find_files` and `as_asked`.
    """
    for name in ("id", "time"):
        if asked := getattr(columns, name):
            raise InputValueError(f".ts files have no columns; got {name} {asked!r}")
    rows: Rows | None = None
    times: Rows | None = None
    lengths, labels, ids = [], [], []
    first: _Header | None = None
    for found in files:
        for number, (header, where, case) in enumerate(_cases(found.path)):
            if first is None or rows is None:
                first, rows = header, Rows((case.values.shape[1],), np.float64)
                times = Rows((), np.float64) if case.times is not None else None
                width = case.values.shape[1]
            if number == 0:
                _require_alike(first, header, files[0].path, found.path)
            if case.values.shape[1] != width:
                raise FileError(
                    f"{where} must have {width} dimensions, as the first has; it has {case.values.shape[1]}"
                )
            rows.append(case.values)
            if times is not None and case.times is not None:
                times.append(case.times)
            lengths.append(len(case.values))
            labels.append(case.label)
            ids.append(str(number) if len(files) == 1 else f"{found.name}:{number}")
    assert rows is not None  # a file without a sequence was refused
    assert first is not None
    if columns.label and not first.labelled:
        raise FileError(f"{str(files[0].path)!r} must have a label, with @classLabel or @targetLabel; it has none")
    name = columns.label or "label"
    sequences = Sequences(
        unnamed(width),
        rows.finish(),
        offsets_of(lengths),
        ids,
        None if times is None else times.finish(),
        Label(name, np.array(labels), False, first.classes) if first.labelled else None,
        tuple(str(found.path) for found in files),
    )
    return as_asked(sequences, columns, known)


def _require_alike(first: _Header, header: _Header, path: Path, other: Path) -> None:
    for what in ("classes", "labelled"):
        if getattr(first, what) != getattr(header, what):
            raise FileError(f"{str(path)!r} and {str(other)!r} must have the same labels in their headers")
    if first.flags.get("timestamps", False) != header.flags.get("timestamps", False):
        raise FileError(f"{str(path)!r} and {str(other)!r} must both have time stamps, or neither")


def _cases(path: Path) -> Iterator[tuple[_Header, str, _Case]]:
    """The sequences of a file, each with the header and the place of its line."""
    header, begun, length, count = _Header(), False, None, 0
    for number, line in lines_of(path):
        where = f"{str(path)!r}, line {number}"
        text = line.strip()
        if not text or text.startswith("#") or (not begun and text.startswith("%")):
            continue
        if not begun:
            begun = _read_header(header, text, where)
            length = header.length
            continue
        case = _case(header, text, where)
        if header.flags.get("equallength"):
            length = len(case.values) if length is None else length
            if len(case.values) != length:
                raise FileError(f"{where} must have {length} steps, as @equalLength says; it has {len(case.values)}")
        count += 1
        yield header, where, case
    if not begun:
        raise FileError(f"{str(path)!r} must have a line @data; it ends without one")
    if not count:
        raise FileError(f"{str(path)!r} must have a sequence after @data; it has none")


def _read_header(header: _Header, text: str, where: str) -> bool:
    """Take a line of the header; whether it is `@data`."""
    if not text.startswith("@"):
        raise FileError(f"{where} must begin with @ or #, as all lines before @data; it is {_short(text)}")
    tag, *words = text[1:].split() if text[1:].split() else [""]
    name = tag.lower()
    if name == "data":
        return True
    if name in _FLAGS:
        header.flags[name] = _flag(words, where, tag)
    elif name in _NUMBERS:
        header.numbers[name] = _number(words, where, tag)
    elif name == "classlabel":
        header.classes = _classes(words, where, tag)
    elif name != "problemname":
        near = get_close_matches(name, _TAGS, n=1, cutoff=0.8)
        if near:  # others are not the format's, and say nothing of the data
            raise FileError(f"{where}: @{tag} is not known; @{near[0]} is")
    if header.classes is not None and header.flags.get("targetlabel"):
        raise FileError(f"{where}: a file must have @classLabel or @targetLabel; it has both")
    return False


def _flag(words: list[str], where: str, tag: str) -> bool:
    if not words or words[0].lower() not in ("true", "false"):
        raise FileError(f"{where}: @{tag} must be followed by true or false; it is {_short(' '.join(words))}")
    return words[0].lower() == "true"


def _number(words: list[str], where: str, tag: str) -> int:
    if len(words) != 1 or not words[0].isdecimal() or not 0 < int(words[0][:19]) < 2**60:
        raise FileError(f"{where}: @{tag} must be followed by a whole number from 1; it is {_short(' '.join(words))}")
    return int(words[0])


def _classes(words: list[str], where: str, tag: str) -> tuple[str, ...] | None:
    if not _flag(words, where, tag):
        return None
    if len(words) == 1 or len(set(words)) != len(words):
        raise FileError(
            f"{where}: @{tag} true must be followed by the classes, each once; it is {_short(' '.join(words))}"
        )
    return tuple(words[1:])


def _case(header: _Header, text: str, where: str) -> _Case:
    if header.flags.get("timestamps", False):
        pairs, label = _stamped_parts(header, text, where)
        _require_width(header, len(pairs), where)
        times, values = _joined([_stamped(part, number, where) for number, part in enumerate(pairs)])
        return _Case(values, times, _label(header, label, where))
    parts, label = _plain_parts(header, text, where)
    _require_width(header, len(parts), where)
    series = [_numbers(part.split(","), number, where) for number, part in enumerate(parts)]
    for number, one in enumerate(series):
        if len(one) != len(series[0]):
            raise FileError(
                f"{where}: all dimensions must have the same number of steps; x0 has {len(series[0])} and "
                f"x{number} has {len(one)}"
            )
    return _Case(np.stack(series, axis=1), None, _label(header, label, where))


def _require_width(header: _Header, count: int, where: str) -> None:
    if header.width is not None and count != header.width:
        raise FileError(
            f"{where} must have {header.width} dimension{'s' * (header.width != 1)}{' and a label' * header.labelled}; "
            f"it has {count}"
        )


def _plain_parts(header: _Header, text: str, where: str) -> tuple[list[str], str | None]:
    parts = text.split(":")
    if not header.labelled:
        return parts, None
    if len(parts) < 2:
        raise FileError(f"{where} must end with ':' and a label; it ends with {_short(text[-20:])}")
    return parts[:-1], parts[-1].strip()


def _stamped_parts(header: _Header, text: str, where: str) -> tuple[list[list[str]], str | None]:
    """The `(time,value)` of each dimension, and the label."""
    pieces = _TUPLE.split(text)
    between, tuples = [piece.strip() for piece in pieces[::2]], [piece[1:-1] for piece in pieces[1::2]]
    label: str | None = None
    if header.labelled:
        colon, label = between[-1][:1], between[-1][1:].strip()
        if colon != ":":
            raise FileError(f"{where} must end with ':' and a label; it ends with {_short(text[-20:])}")
        between[-1] = ""
    wrong = [piece for piece in between[1:-1] if piece not in (",", ":")]
    wrong += [piece for piece in (between[0], between[-1]) if piece]
    if wrong or not tuples:
        raise FileError(
            f"{where} must hold (time,value), separated by ',' and, between dimensions, by ':'; "
            f"it holds {_short(wrong[0] if wrong else text)}"
        )
    dimensions = [[tuples[0]]]
    for separator, piece in zip(between[1:-1], tuples[1:], strict=True):
        if separator == ":":
            dimensions.append([])
        dimensions[-1].append(piece)
    return dimensions, label


def _label(header: _Header, label: str | None, where: str) -> float:
    if label is None or label == "?":
        return math.nan
    if header.classes is not None:
        if label not in header.classes:
            told = ", ".join(header.classes[:8]) + ", ..." * (len(header.classes) > 8)
            raise FileError(f"{where}: the class must be one of {told}; it is {_short(label)}")
        return float(header.classes.index(label))
    return float(_numbers([label], None, where)[0])


def _stamped(pairs: list[str], dimension: int, where: str) -> tuple[Floats, Floats]:
    """The times and values of one dimension."""
    times, values = [], []
    for pair in pairs:
        time, comma, value = pair.rpartition(",")
        if not comma:
            raise FileError(f"{where}: x{dimension} must hold (time,value); it holds {_short(f'({pair})')}")
        times.append(_time(time.strip(), where))
        values.append(value)
    if any(later < earlier for earlier, later in pairwise(times)):
        raise FileError(f"{where}: the times of x{dimension} must not fall")
    return np.array(times), _numbers(values, dimension, where)


def _time(text: str, where: str) -> float:
    try:
        time = float(text) if "_" not in text else math.nan
    except ValueError:
        try:
            time = seconds_of(text)
        except (ValueError, OverflowError):
            time = math.nan
    if not math.isfinite(time):
        raise FileError(f"{where}: a time must be a number or a date such as 2024-05-01 12:30:00; it is {_short(text)}")
    return time


def _joined(series: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """All dimensions at all times, with NaN where one has no value."""
    first = series[0][0]
    if all(np.array_equal(times, first) for times, _ in series):
        return first, np.stack([values for _, values in series], axis=1)
    # A time that a dimension has k times is k steps.
    keys = [_counted(times) for times, _ in series]
    union = sorted(set().union(*keys))
    place = {key: number for number, key in enumerate(union)}
    joined = np.full((len(union), len(series)), np.nan)
    for dimension, (key, (_, values)) in enumerate(zip(keys, series, strict=True)):
        joined[[place[one] for one in key], dimension] = values
    return np.array([time for time, _ in union]), joined


def _counted(times: Floats) -> list[tuple[float, int]]:
    """Each time, and how often it was there before."""
    keys: list[tuple[float, int]] = []
    for time in times.tolist():
        again = keys[-1][1] + 1 if keys and keys[-1][0] == time else 0
        keys.append((time, again))
    return keys


def _numbers(texts: Sequence[str], dimension: int | None, where: str) -> Floats:
    values = []
    for number, text in enumerate(texts):
        try:
            value = math.nan if text.strip() == "?" else float(text)
        except ValueError:
            value = math.inf
        if math.isinf(value) or "_" in text:
            what = "the label" if dimension is None else f"x{dimension} at step {number}"
            raise FileError(f"{where}: {what} must be a finite number or ?; it is {_short(text)}")
        values.append(value)
    return np.array(values, np.float64)


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else f"{text[:30]}...")
