"""A column of values as JSON and Python have them: which kind it is, and its numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.classes import classes_among
from tidegate.data.sequences import Kind, Label
from tidegate.errors import FileError, InputValueError

__all__ = ["Survey", "label_from_numbers", "label_of", "text_of"]

_KINDS: dict[type, Kind] = {float: "number", int: "number", bool: "boolean", str: "category"}
_TOLD = {"number": "a number", "boolean": "true or false", "category": "a text"}
_NONE = type(None)

BOOLEANS = ("false", "true")

Where = Callable[[int], str]


def text_of(value: float) -> str:
    """A number as the name of a category: 3 for 3.0."""
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)


class Survey:
    """What the values of a column are, told by all that were met; first `look` at all of them, then take `numbers`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind: Kind | None = None
        self._texts: set[str] = set()
        self._codes: dict[str, int] | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """The texts that were met, sorted."""
        return tuple(sorted(self._texts))

    def look(self, values: Sequence[object], where: Where) -> None:
        """Look at some more values; `where(i)` says where value i is, for a refusal.

        Raises:
            FileError: a value is infinite, of another kind than one before it, or of none.
        """
        types = set(map(type, values)) - {_NONE}
        if not types:
            return
        if types <= {int, float}:
            kind: Kind | None = "number"
        else:
            kind = _KINDS.get(next(iter(types))) if len(types) == 1 else None
        if kind is None or (self.kind or kind) != kind:
            self._refuse_kind(values, where)
        self.kind = kind
        if kind == "category":
            self._texts.update(value for value in values if value is not None)  # type: ignore[misc]
        elif kind == "number":
            self._refuse_infinite(values, where)

    def numbers(self, values: Sequence[Any]) -> NDArray[np.float64]:
        """The values as numbers, 0 and 1, or codes of `categories`; NaN for None."""
        if self.kind == "category":
            if self._codes is None:
                self._codes = {text: code for code, text in enumerate(self.categories)}
            codes = self._codes
            return np.array([math.nan if value is None else codes[value] for value in values], np.float64)
        return np.array(values, np.float64)  # None becomes NaN

    def label(self, values: NDArray[np.float64], *, per_step: bool) -> Label:
        """A label of these numbers: classes for texts, for true and false, and as `label_from_numbers` tells."""
        if self.kind == "category":
            return Label(self.name, values, per_step, self.categories)
        if self.kind == "boolean":
            return Label(self.name, values, per_step, BOOLEANS)
        return label_from_numbers(self.name, values, per_step=per_step)

    def _refuse_kind(self, values: Sequence[object], where: Where) -> None:
        met = self.kind
        for number, value in enumerate(values):
            if value is None:
                continue
            kind = _KINDS.get(type(value))
            if kind is None:
                raise FileError(
                    f"{where(number)}: {self.name!r} must be a number, true or false, a text or null; "
                    f"it is {_json_name(value)}"
                )
            if met is not None and kind != met:
                raise FileError(
                    f"{where(number)}: {self.name!r} is {_TOLD[kind]}, and before it is {_TOLD[met]}; "
                    f"all must be of one kind"
                )
            met = kind

    def _refuse_infinite(self, values: Sequence[Any], where: Where) -> None:
        try:
            bad = np.flatnonzero(np.isinf(np.array(values, np.float64)))
            first = int(bad[0]) if len(bad) else None
        except OverflowError:  # a whole number beyond float64
            first = next(number for number, value in enumerate(values) if type(value) is int and abs(value) > 1e308)
        if first is not None:
            raise FileError(f"{where(first)}: {self.name!r} must be finite; it is infinite, or too large for a float64")


def label_from_numbers(name: str, values: NDArray[np.float64], *, per_step: bool) -> Label:
    """A label of numbers (NaN where not known): classes if it looks like that (`classes_among`), else a number."""
    found = classes_among(values)
    if found is None:
        return Label(name, values, per_step)
    codes = np.where(np.isnan(values), np.nan, np.searchsorted(found, values).astype(np.float64))
    return Label(name, codes, per_step, tuple(text_of(value) for value in found))


def label_of(name: str, values: Any, *, per_step: bool) -> Label:
    """A label of an array or list in memory, (S,) or (N,): numbers, booleans or texts, NaN or None where not known.

    Raises:
        InputValueError: a value is infinite, or values are of several kinds.
    """
    array = np.asarray(values)
    if array.dtype.kind in "fiub":
        numbers = array.astype(np.float64)
        if np.isinf(numbers).any():
            raise InputValueError(f"the label {name!r} must be finite; that of {_first_infinite(numbers)} is infinite")
        if array.dtype.kind == "b":
            return Label(name, numbers, per_step, BOOLEANS)
        return label_from_numbers(name, numbers, per_step=per_step)
    plain = [_plain(value) for value in (values if isinstance(values, list | tuple) else array.tolist())]
    survey = Survey(name)
    try:
        survey.look(plain, lambda number: f"label {number}")
    except FileError as error:
        raise InputValueError(str(error)) from None
    return survey.label(survey.numbers(plain), per_step=per_step)


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _first_infinite(numbers: NDArray[np.float64]) -> int:
    return int(np.flatnonzero(np.isinf(numbers))[0])


def _json_name(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list"}
    return names.get(type(value), type(value).__name__)
