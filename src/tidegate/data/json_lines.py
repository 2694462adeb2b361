"""JSON Lines -> sequences (the forms of a line are told in `json_blocks`)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.files import Found
from tidegate.data.folders import NO_COLUMNS, offsets_of
from tidegate.data.json_blocks import Block, blocks_of
from tidegate.data.known import as_asked, require_names
from tidegate.data.objects import Survey, Where
from tidegate.data.rows import Rows, chunks
from tidegate.data.sequences import Columns, Feature, Label, Sequences, sequence_at
from tidegate.data.stamps import seconds_of
from tidegate.errors import FileError, InputValueError

__all__ = ["read_json_lines"]


@dataclass
class _Surveyed:
    """What a first reading tells: the kinds of all columns, and the form of the lines."""

    whole: bool  # a line is a sequence
    features: dict[str, Survey] = field(default_factory=dict)
    label: Survey | None = None
    per_step: bool | None = None  # the label
    timed: bool | None = None
    names: dict[str, None] = field(default_factory=dict)  # of all columns of the steps


def read_json_lines(
    files: Sequence[Found], columns: Columns = NO_COLUMNS, *, known: Sequence[Feature] | None = None
) -> Sequences:
    """Sequences of JSON Lines, one a line or one step a line; read twice, so that not all lies in memory.

    Numbers, booleans and texts (categories, sorted) are features, null and NaN are missing. Where a line is a sequence,
    its `id`, `times` and `label` are looked for under the names of `columns`, if those are given: the label and times
    also in the steps. Without ids they are the lines' numbers. Where a line is a step, `columns` is what it is for a
    table. Labels that are texts, booleans or whole numbers are classes.
    What `columns.hold` names may be a list of the line's own, too.

    Raises:
        FileError: with file, line and step: what is not JSON, of another form or of another kind than before it, or
            infinite; times that fall; an id that comes twice.
        FileMissingError, InputValueError: as `find_files` and `as_asked`.
    """
    single = [name for name in (columns.id, columns.time, columns.label, columns.hold) if name is not None]
    if len(set(single)) < len(single):
        raise InputValueError(f"id, time, label and hold must be different columns; got {', '.join(map(repr, single))}")
    wanted = _wanted(columns, known)
    surveyed = _survey(files, columns, wanted)
    if known is None:
        require_names("features", columns.features or (), list(surveyed.names))
        require_names("ignore", columns.ignore, list(surveyed.names))
    if not surveyed.features:
        raise FileError(f"{str(files[0].path)!r} must have at least one feature; its steps have none")
    read = _read_sequences if surveyed.whole else _read_rows
    sequences = read(files, columns, surveyed)
    sequences = replace(sequences, files=tuple(str(found.path) for found in files))
    return as_asked(sequences, replace(columns, ignore=()), known)


def _wanted(columns: Columns, known: Sequence[Feature] | None) -> Callable[[str], bool]:
    """Whether a column is a feature that is asked for."""
    if known is not None:
        names = {feature.name for feature in known}
        return lambda name: name in names
    chosen, apart = columns.features, {columns.id, columns.time, columns.label, *columns.ignore}
    return lambda name: name in (*chosen, columns.hold) if chosen is not None else name not in apart


def _survey(files: Sequence[Found], columns: Columns, wanted: Callable[[str], bool]) -> _Surveyed:
    surveyed: _Surveyed | None = None
    ids = Survey("the id")
    for found in files:
        whole, blocks = blocks_of(found.path, columns)
        surveyed = surveyed or _Surveyed(whole)
        if whole != surveyed.whole:
            raise FileError(
                f"{str(found.path)!r} and {str(files[0].path)!r} must both have a sequence a line, or a step"
            )
        for block in blocks:
            for name, values in block.columns.items():
                surveyed.names[name] = None
                if wanted(name):
                    surveyed.features.setdefault(name, Survey(name)).look(values, block.where)
            if not whole:
                block.label = block.columns.get(columns.label or "")
                ids.look(block.columns.get(columns.id or "", []), block.where)
            _survey_label(surveyed, columns.label or "label", block)
            timed = block.times is not None
            if (surveyed.timed if surveyed.timed is not None else timed) != timed:
                raise FileError(f"{block.where(0)}: all sequences must have times, or none; they are mixed")
            surveyed.timed = timed
    assert surveyed is not None
    label = columns.label
    if not surveyed.whole and label and surveyed.label is None:
        raise FileError(f"{str(files[0].path)!r} must have {label!r}, the label; no line has a value for it")
    return surveyed


def _survey_label(surveyed: _Surveyed, name: str, block: Block) -> None:
    if block.label is None:
        return
    per_step = isinstance(block.label, list)
    if surveyed.per_step is not None and surveyed.per_step != per_step:
        raise FileError(f"{block.where(0)}: all labels must be one value, or all a list of one a step; they are mixed")
    surveyed.label = surveyed.label or Survey(name)
    surveyed.per_step = per_step
    surveyed.label.look(block.label if per_step else [block.label], block.where)


def _encoded(surveyed: _Surveyed, block: Block) -> NDArray[np.float64]:
    """The features of a block, (T, F)."""
    missing = [None] * block.steps
    columns = [survey.numbers(block.columns.get(name, missing)) for name, survey in surveyed.features.items()]
    return np.stack(columns, axis=1)


def _features(surveyed: _Surveyed) -> tuple[Feature, ...]:
    return tuple(
        Feature(name, survey.kind or "number", survey.categories) for name, survey in surveyed.features.items()
    )


def _blocks(files: Sequence[Found], columns: Columns) -> Iterator[tuple[Found, Block]]:
    return ((found, block) for found in files for block in blocks_of(found.path, columns)[1])


def _read_sequences(files: Sequence[Found], columns: Columns, surveyed: _Surveyed) -> Sequences:
    values, times, labels = Rows((len(surveyed.features),), np.float64), Rows((), np.float64), Rows((), np.float64)
    lengths, ids, clock = [], dict[str, None](), Survey("the time")
    for found, block in _blocks(files, columns):
        values.append(_encoded(surveyed, block))
        if block.times is not None:
            times.append(_rising(_seconds(clock, block.times, block.where), block.where))
        if surveyed.label is not None:
            given = block.label if isinstance(block.label, list) else [block.label]
            labels.append(
                surveyed.label.numbers(given * block.steps if surveyed.per_step and len(given) == 1 else given)
            )
        lengths.append(block.steps)
        at = block.where(0).rpartition(", step ")[0]
        line = at.rpartition(" ")[2]
        name = block.id if block.id is not None else line if len(files) == 1 else f"{found.name}:{line}"
        if name in ids:
            raise FileError(f"{at}: an id must come once; {name!r} comes again")
        ids[name] = None
    label = surveyed.label
    return Sequences(
        _features(surveyed),
        values.finish(),
        offsets_of(lengths),
        list(ids),
        times.finish() if surveyed.timed else None,
        None if label is None else label.label(labels.finish(), per_step=bool(surveyed.per_step)),
    )


def _read_rows(files: Sequence[Found], columns: Columns, surveyed: _Surveyed) -> Sequences:
    values, times, labels = Rows((len(surveyed.features),), np.float64), Rows((), np.float64), Rows((), np.float64)
    codes = Rows((), np.int64)
    ids, clock = dict[str, int](), Survey("the time")
    for found, block in _blocks(files, columns):
        values.append(_encoded(surveyed, block))
        names = [found.name] * block.steps if columns.id is None else [*map(str, block.columns[columns.id])]
        codes.append(np.array([ids.setdefault(name, len(ids)) for name in names]))
        if columns.time:
            times.append(_seconds(clock, block.columns[columns.time], block.where))
        if surveyed.label is not None:
            labels.append(surveyed.label.numbers(block.columns.get(surveyed.label.name, [None] * block.steps)))
    code, time = codes.finish(), times.finish() if columns.time else None
    order = np.argsort(code, kind="stable") if time is None else np.lexsort((time, code))
    offsets = offsets_of(np.bincount(code, minlength=len(ids)))
    if time is not None:
        _refuse_same_times(time[order], offsets, order, files, columns, list(ids))
    return Sequences(
        _features(surveyed),
        _ordered(values.finish(), order),
        offsets,
        list(ids),
        None if time is None else time[order],
        None if surveyed.label is None else _table_label(surveyed.label, labels.finish()[order], offsets),
    )


def _refuse_same_times(
    times: NDArray[np.float64],
    offsets: NDArray[np.int64],
    order: NDArray[np.int64],
    files: Sequence[Found],
    columns: Columns,
    ids: Sequence[str],
) -> None:
    """Refuse two lines of one sequence with the same time: none of them comes first."""
    again = np.flatnonzero(np.diff(times) == 0) + 1
    again = again[~np.isin(again, offsets)]
    if not len(again):
        return
    name = ids[sequence_at(offsets, int(again[0]))]
    row = int(order[again[0]])
    for _, block in _blocks(files, columns):
        if row < block.steps:
            raise FileError(
                f"{block.where(row)}: a sequence must have one line for each time; {name!r} has two at "
                f"{columns.time!r} = {times[again[0]]:.15g}"
            )
        row -= block.steps


def _table_label(survey: Survey, values: NDArray[np.float64], offsets: NDArray[np.int64]) -> Label:
    """One a sequence if no sequence has two different values, steps without one aside; else one a step."""
    low, high = np.fmin.reduceat(values, offsets[:-1]), np.fmax.reduceat(values, offsets[:-1])
    per_step = bool((low < high).any())
    return survey.label(values if per_step else low, per_step=per_step)


def _ordered(values: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    if np.array_equal(order, np.arange(len(order))):
        return values
    rows = Rows(values.shape[1:], values.dtype)
    for _, piece in chunks(order):
        rows.append(values[piece])
    return rows.finish()


def _seconds(survey: Survey, values: Sequence[Any], where: Where) -> NDArray[np.float64]:
    """Times that are numbers as they are, those that are texts in seconds."""
    survey.look(values, where)
    if survey.kind == "boolean" or None in values:
        number = next((number for number, value in enumerate(values) if value is None), 0)
        raise FileError(f"{where(number)}: a time must be a number or a date; it is {values[number]}")
    if survey.kind != "category":
        return np.array(values, np.float64)
    seconds = np.empty(len(values))
    for number, value in enumerate(values):
        try:
            seconds[number] = seconds_of(value)
        except (ValueError, OverflowError):
            raise FileError(
                f"{where(number)}: a time must be a number or a date such as 2024-05-01T12:30:00; it is {value[:30]!r}"
            ) from None
    return seconds


def _rising(times: NDArray[np.float64], where: Where) -> NDArray[np.float64]:
    fallen = np.flatnonzero(np.diff(times) < 0)
    if len(fallen):
        raise FileError(f"{where(int(fallen[0]) + 1)}: times must not fall")
    return times
