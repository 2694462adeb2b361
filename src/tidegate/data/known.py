"""Features as they are asked for: chosen by name, made categories, or those that a network was trained on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.held import held_of
from tidegate.data.objects import text_of
from tidegate.data.rows import Rows, chunks
from tidegate.data.sequences import Columns, Feature, Kind, Label, Sequences
from tidegate.errors import InputValueError

__all__ = ["as_asked", "as_known", "label_as_known", "require_names"]

Numbers = NDArray[Any]
Change = Callable[[Numbers], Numbers] | None  # of a column; None leaves it as it is


def as_asked(sequences: Sequences, columns: Columns, known: Sequence[Feature] | None = None) -> Sequences:
    """The features that `columns` chooses, ignores and makes categories; with `known`, those instead.

    Raises:
        InputValueError: a name is not that of a feature, none is left, or one has no value at any step.
    """
    features = sequences.features
    if sequences.label is not None and sequences.label.name in columns.categorical:
        sequences = replace(sequences, label=_as_classes(sequences.label))
    names = [feature.name for feature in features]
    categorical = [name for name in columns.categorical if sequences.label is None or name != sequences.label.name]
    if known is None:
        hold = (columns.hold,) if columns.hold is not None else ()
        for argument, asked in (("features", columns.features or ()), ("ignore", columns.ignore), ("hold", hold)):
            require_names(argument, asked, names)
        require_names("categorical", categorical, names)
        asked_for = columns.features or ()
        twice = [name for number, name in enumerate(asked_for) if name in asked_for[:number]]
        if twice:
            raise InputValueError(f"features must name each once; {twice[0]!r} is named twice")
    chosen = names if columns.features is None or known is not None else list(columns.features)
    chosen = [name for name in chosen if known is not None or name not in (*columns.ignore, columns.hold)]
    if not chosen:
        raise InputValueError("at least one feature must be left; all are ignored")
    if known is None and columns.hold is not None:
        sequences = replace(sequences, held=held_of(sequences, columns.hold))
    if known is None:
        _require_values(sequences, [names.index(name) for name in chosen])
    made = {
        name: _categories_of(sequences.values[:, names.index(name)])
        for name in categorical
        if known is None and name in chosen and features[names.index(name)].kind != "category"
    }
    wanted = tuple(
        Feature(name, "category", made[name]) if name in made else features[names.index(name)] for name in chosen
    )
    return as_known(sequences, wanted if known is None else known)


def as_known(sequences: Sequences, known: Sequence[Feature]) -> Sequences:
    """The sequences with the features `known`, in their order and with their codes; others are left out.

    A category that is not known becomes -1. Numbers become categories by their text (3 for 3.0), booleans numbers 0
    and 1, and numbers that are 0 and 1 booleans; a feature without any value fits every kind.

    Raises:
        InputValueError: one is missing, or is of a kind that does not fit.
    """
    features = sequences.features
    if tuple(known) == features:
        return sequences
    names = [feature.name for feature in features]
    missing = [feature.name for feature in known if feature.name not in names]
    if missing:
        raise InputValueError(
            f"the data must have the features {_listed(feature.name for feature in known)}; "
            f"{_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing, and they have {_listed(names)}"
        )
    indices = [names.index(feature.name) for feature in known]
    changes = [
        _change(features[index], wanted, sequences.values[:, index])
        for index, wanted in zip(indices, known, strict=True)
    ]
    return replace(sequences, features=tuple(known), values=_changed(sequences.values, indices, changes))


def _require_values(sequences: Sequences, indices: list[int]) -> None:
    """Refuse a feature that is missing at every step; reading stops where all have been met."""
    missing = np.full(len(indices), True)
    for _, piece in chunks(sequences.values):
        if not missing.any() or piece.dtype.kind != "f":
            return
        missing &= np.isnan(piece[:, indices]).all(axis=0)
    if missing.any():
        name = sequences.features[indices[int(np.argmax(missing))]].name
        where = f" of {sequences.files[0]!r}" if sequences.files else ""
        raise InputValueError(f"the feature {name!r}{where} must have a value at some step; all are missing")


def _as_classes(label: Label) -> Label:
    if label.categories is not None:
        return label
    classes = _categories_of(label.values)
    change = _numbers_to_codes("number", Feature(label.name, "category", classes))
    assert change is not None
    return Label(label.name, change(label.values), label.per_step, classes)


def label_as_known(label: Label | None, known: Label) -> Label | None:
    """A label with the codes of the `known` one; -1 for a class that is not known.

    Raises:
        InputValueError: one is of sequences and the other of steps, or one is of classes and the other of numbers.
    """
    if label is None:
        return None
    if label.per_step != known.per_step:
        told = ["one for each sequence", "one for each step"]
        raise InputValueError(
            f"the label {label.name!r} must be {told[known.per_step]}, as in training; it is {told[label.per_step]}"
        )
    if known.categories is None:
        if label.categories is None:
            return label
        try:
            numbers = np.array([float(text) for text in label.categories])
        except ValueError:
            raise InputValueError(
                f"the label {label.name!r} must be a number, as in training; it is {label.categories[0]!r}"
            ) from None
        change: Change = _by_code(numbers)
    elif label.categories is None:
        change = _numbers_to_codes("number", Feature(label.name, "category", known.categories))
    else:
        change = _recoded(label.categories, Feature(label.name, "category", known.categories))
    assert change is not None
    return Label(label.name, change(label.values), label.per_step, known.categories)


def _changed(values: Numbers, indices: list[int], changes: list[Change]) -> Numbers:
    """Some columns of `values`, changed, piece by piece."""
    if not any(changes) and indices == list(range(values.shape[1])):
        return values
    rows = Rows((len(indices),), np.float64 if any(changes) else values.dtype)
    for _, piece in chunks(values):
        if any(changes):
            columns = [
                change(piece[:, i]) if change else piece[:, i] for i, change in zip(indices, changes, strict=True)
            ]
            rows.append(np.stack(columns, axis=1))
        else:
            rows.append(piece[:, indices])
    return rows.finish()


def _change(met: Feature, wanted: Feature, column: Numbers) -> Change:
    if met == wanted or (met.kind, wanted.kind) == ("boolean", "number"):
        return None
    if met.kind == wanted.kind == "category":
        return _recoded(met.categories, wanted)
    if wanted.kind == "category":
        return _numbers_to_codes(met.kind, wanted)
    if met.kind == "category":
        if not met.categories:
            return None
        told: dict[Kind, str] = {"number": "numbers", "boolean": "true or false"}
        raise InputValueError(
            f"the feature {met.name!r} must be {told[wanted.kind]}, as in training; here it is {met.categories[0]!r}"
        )
    for _, piece in chunks(column):  # numbers, where true and false were
        wrong = np.flatnonzero((piece != 0) & (piece != 1) & ~np.isnan(piece.astype(np.float64)))
        if len(wrong):
            raise InputValueError(
                f"the feature {met.name!r} must be true or false, as in training; here it is {text_of(piece[wrong[0]])}"
            )
    return None


def _recoded(met: tuple[str, ...], wanted: Feature) -> Change:
    codes = {text: code for code, text in enumerate(wanted.categories)}
    return _by_code(np.array([codes.get(text, -1) for text in met], np.float64))


def _by_code(table: NDArray[np.float64]) -> Change:
    """For each code its entry of a table; NaN stays NaN, and -1 stays -1."""
    table = np.append(table, -1)

    def change(column: Numbers) -> Numbers:
        numbers = column.astype(np.float64)
        missing = np.isnan(numbers)
        numbers[~missing] = table[numbers[~missing].astype(np.int64)]
        return numbers

    return change


def _numbers_to_codes(kind: Kind, wanted: Feature) -> Change:
    codes = {text: code for code, text in enumerate(wanted.categories)}
    texts = (lambda value: "true" if value else "false") if kind == "boolean" else text_of

    def change(column: Numbers) -> Numbers:
        found, inverse = np.unique(column.astype(np.float64), return_inverse=True)
        new = np.array([np.nan if np.isnan(value) else codes.get(texts(value), -1) for value in found], np.float64)
        return new[inverse.reshape(-1)] if len(found) else column.astype(np.float64)

    return change


def _categories_of(column: Numbers) -> tuple[str, ...]:
    """The texts of a column's numbers, in the order of the numbers."""
    found: NDArray[np.float64] = np.empty(0)
    for _, piece in chunks(column):
        found = np.union1d(found, piece.astype(np.float64))
    return tuple(text_of(value) for value in found[~np.isnan(found)])


def require_names(argument: str, asked: Iterable[str], names: list[str]) -> None:
    """Refuse what an argument asks for and is none of `names`, with the nearest of them."""
    for name in asked:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f", such as {near[0]!r}" if near else ""
            raise InputValueError(
                f"{argument} must name features of the data{hint}; {name!r} is none of {_listed(names)}"
            )


def _listed(names: Iterable[str]) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:8]) + (f" and {len(quoted) - 8} more" if len(quoted) > 8 else "")
