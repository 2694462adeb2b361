"""Cells -> numbers: what each type of column holds, and how text is read as numbers, time stamps or categories."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.data.sequences import Kind
from tidegate.extras import require

__all__ = ["Reading", "as_text", "decoded", "held_by", "is_number", "numbers_of_text", "read_time", "sorted_categories"]

#: In columns of numbers these words are missing values; in columns of words only an empty cell is.
MISSING_WORDS = ("", "NA", "N/A", "na", "n/a", "null", "NULL", "None")
TRUE_WORDS, FALSE_WORDS = ("true", "True", "TRUE"), ("false", "False", "FALSE")
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:nan|inf|infinity)$"
#: How text may tell the time, tried in this order: a number, or ISO 8601 without and with a time zone.
TIME_FORMS = ("number", "us", "us UTC", "ns", "ns UTC")

Held = Literal["number", "boolean", "text", "time", "nothing", "other"]


def held_by(arrow_type: Any) -> Held:
    """What a column of an Arrow type holds."""
    pyarrow = require("pyarrow", "train")
    types = pyarrow.types
    if types.is_dictionary(arrow_type):
        return held_by(arrow_type.value_type)
    if types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_decimal(arrow_type):
        return "number"
    if types.is_boolean(arrow_type):
        return "boolean"
    if any(arrow_type.equals(text()) for text in (pyarrow.string, pyarrow.large_string, pyarrow.string_view)):
        return "text"
    if types.is_null(arrow_type):
        return "nothing"
    # lengths of time in months have no length in seconds
    return "time" if types.is_temporal(arrow_type) and not types.is_interval(arrow_type) else "other"


def decoded(array: Any) -> Any:
    """An array without a dictionary."""
    types = require("pyarrow", "train").types
    return array.dictionary_decode() if types.is_dictionary(array.type) else array


def as_text(array: Any) -> Any:
    """Cells as text: whole numbers without a point, whatever their type."""
    pyarrow, compute = require("pyarrow", "train"), require("pyarrow.compute", "train")
    array = decoded(array)
    if pyarrow.types.is_floating(array.type):
        array = compute.if_else(compute.is_nan(array), pyarrow.scalar(None, array.type), array)
        known = array.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
        if ((known == np.trunc(known)) & (np.abs(known) < 2**53)).all():
            array = compute.cast(array, pyarrow.int64())
    return array if array.type.equals(pyarrow.string()) else compute.cast(array, pyarrow.string())


def is_number(text: str) -> bool:
    """Whether a word is one that `numbers_of_text` reads as a number."""
    pyarrow = require("pyarrow", "train")
    try:
        return bool(numbers_of_text(pyarrow.array([text]), "loose").is_valid()[0].as_py())
    except pyarrow.ArrowInvalid:
        return False


def numbers_of_text(text: Any, form: str) -> Any:
    """Text as float64; `plain` is what Arrow's CSV reader reads too, `loose` allows for blanks and words for "missing".

    Raises:
        ArrowInvalid: there is a cell that is no number.
    """
    pyarrow, compute = require("pyarrow", "train"), require("pyarrow.compute", "train")
    if form == "loose":
        text = compute.utf8_trim_whitespace(text)
        text = compute.if_else(
            compute.is_in(text, pyarrow.array(MISSING_WORDS)), pyarrow.scalar(None, pyarrow.string()), text
        )
    return compute.cast(text, pyarrow.float64())


def _booleans_of_text(text: Any) -> Any:
    pyarrow, compute = require("pyarrow", "train"), require("pyarrow.compute", "train")
    text = compute.utf8_trim_whitespace(text)
    yes, no = compute.is_in(text, pyarrow.array(TRUE_WORDS)), compute.is_in(text, pyarrow.array(FALSE_WORDS))
    return compute.if_else(compute.or_(yes, no), yes, pyarrow.scalar(None, pyarrow.bool_()))


def _floats(array: Any) -> NDArray[np.float64]:
    """Arrow numbers or booleans as float64, NaN where one is missing."""
    pyarrow, compute = require("pyarrow", "train"), require("pyarrow.compute", "train")
    if not array.type.equals(pyarrow.float64()):
        array = compute.cast(array, pyarrow.float64(), safe=False)
    made: NDArray[np.float64] = array.to_numpy(zero_copy_only=False)
    return made


def read_time(array: Any, form: str | None) -> NDArray[np.float64]:
    """Numbers as they are, or time stamps, dates, times of day and lengths of time in seconds; NaN if missing.

    `form`, one of `TIME_FORMS`, says how text is read.

    Raises:
        ArrowInvalid: there is text that is not of this form.
    """
    pyarrow, compute = require("pyarrow", "train"), require("pyarrow.compute", "train")
    types, array = pyarrow.types, decoded(array)
    if form is not None and held_by(array.type) == "text":
        array = compute.utf8_trim_whitespace(as_text(array))
        if form == "number":
            return _floats(numbers_of_text(array, "plain"))
        unit, _, zone = form.partition(" ")
        array = compute.cast(array, pyarrow.timestamp(unit, zone or None))
    if not types.is_temporal(array.type):
        return _floats(array)
    if types.is_date32(array.type):
        per_second, factor, whole = 1.0, 86400.0, pyarrow.int32()
    else:
        unit = "ms" if types.is_date64(array.type) else array.type.unit
        per_second, factor = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit], 1.0
        whole = pyarrow.int32() if types.is_time32(array.type) else pyarrow.int64()
    return _floats(compute.cast(array, whole)) / per_second * factor


def sorted_categories(words: Sequence[str]) -> tuple[str, ...]:
    """Categories in order: by number if they all are whole numbers, else by character."""
    if all(word.removeprefix("-").isdecimal() and word.isascii() and len(word) < 16 for word in words):
        return tuple(sorted(words, key=lambda word: (int(word), word)))
    return tuple(sorted(words))


def _spellings(word: str) -> Sequence[str]:
    """The ways in which a category may have been written where it was learned."""
    tight = word.strip()
    ways = [word, tight, tight.lower() if tight in (*TRUE_WORDS, *FALSE_WORDS) else tight]
    if len(tight) < 16 and is_number(tight) and float(tight).is_integer():
        ways.append(str(int(float(tight))))
    return ways


@dataclass(frozen=True)
class Reading:
    """How one column becomes numbers."""

    name: str
    kind: Kind
    #: Typed columns are read as they are, text as `plain` or `loose` numbers, or as `boolean`s.
    form: Literal["typed", "plain", "loose", "boolean"] = "typed"
    categories: tuple[str, ...] = ()

    def read(self, array: Any) -> NDArray[np.float64]:
        """Numbers, 0 or 1, or codes; NaN where a cell is missing, -1 for a category that is not among those known."""
        if self.kind == "category" and self.form != "boolean":
            return self._codes(as_text(array))
        if self.form == "typed" or held_by(array.type) == "number":
            return _floats(decoded(array))
        text = as_text(array)
        return _floats(_booleans_of_text(text) if self.form == "boolean" else numbers_of_text(text, self.form))

    def _codes(self, text: Any) -> NDArray[np.float64]:
        code = {word: number for number, word in enumerate(self.categories)}
        encoded = text.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        codes = [next((code[way] for way in _spellings(word) if way in code), -1) for word in words]
        indices = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
        made: NDArray[np.float64] = np.array([*codes, np.nan], np.float64)[indices]
        return made
