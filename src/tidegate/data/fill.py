"""The second pass over a table: every row to its place, and the steps of each sequence into the order of time."""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data import cells
from tidegate.data.columns import Roles
from tidegate.data.sequences import sequence_at
from tidegate.data.store import Store
from tidegate.data.survey import Survey, sequence_numbers
from tidegate.data.table_files import TableFile
from tidegate.errors import FileError
from tidegate.extras import require

__all__ = ["Filled", "chunks", "fill"]

#: Rows of the finished arrays that are looked at together.
CHUNK = 1 << 18


@dataclass
class Filled:
    """The arrays of a table, rows of a sequence beside each other."""

    offsets: NDArray[np.int64]  # (S+1,)
    values: NDArray[Any]  # (N, F)
    times: NDArray[Any] | None  # (N,)
    label: NDArray[Any] | None  # (N,)
    #: The columns in which some row holds something.
    seen: set[str] = field(default_factory=set)


def fill(files: Sequence[TableFile], roles: Roles, found: Survey, store: Store) -> Filled:
    """Read a table that was surveyed.

    Raises:
        FileError: infinite numbers, a time that is missing or there twice, a file that is no longer the same.
    """
    offsets = np.concatenate([[0], np.cumsum(found.lengths)]).astype(np.int64)
    steps = int(offsets[-1])
    filled = Filled(
        offsets,
        store.array("values", (steps, len(roles.features))),
        store.array("times", (steps,)) if roles.time is not None else None,
        store.array("label", (steps,)) if roles.label is not None else None,
    )
    free = offsets[:-1].copy()
    for position, file in enumerate(files):
        for start, arrays in _second_pass(file, roles, found):
            size = len(next(iter(arrays.values())))
            sequences = _sequences(file, position, start, size, arrays, roles, found)
            rows = _places(sequences, free, offsets, file)
            _write(filled, rows, file, start, arrays, roles, found)
            apart = not isinstance(rows, slice)  # rows that lie apart have a page each
            store.touched(size * max(8 * (len(roles.features) + 2), mmap.PAGESIZE * apart))
    if (free != offsets[1:]).any():
        raise _changed(files[0])
    if filled.times is not None:
        for sequence in _out_of_order(filled.times, offsets):
            _sort(filled, slice(int(offsets[sequence]), int(offsets[sequence + 1])), store)
        _check_times(filled.times, files, roles, found, offsets)
    store.release()
    return filled


def chunks(start: int, stop: int, size: int = CHUNK) -> Iterator[slice]:
    """The rows from `start` to `stop`, some at a time."""
    return (slice(begin, min(begin + size, stop)) for begin in range(start, stop, size))


def _changed(file: TableFile) -> FileError:
    return FileError(f"{str(file.path)!r} is damaged, or changed while it was read: its rows are not those counted")


def _second_pass(file: TableFile, roles: Roles, found: Survey) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The batches of a file with the number of their first rows; numbers that are plainly written come as numbers."""
    double = require("pyarrow", "train").float64()
    readings = [*found.features, *([found.label] if found.label else [])]
    typed = {reading.name: double for reading in readings if reading.form == "plain"}
    start = 0
    for arrays in file.batches(roles.all, typed):
        yield start, arrays
        start += len(next(iter(arrays.values())))


def _sequences(
    file: TableFile,
    position: int,
    start: int,
    size: int,
    arrays: Mapping[str, Any],
    roles: Roles,
    found: Survey,
) -> NDArray[np.int64]:
    if roles.id is None:
        return np.full(size, position, np.int64)

    def number(word: str) -> int:
        known = found.numbers.get(word)
        if known is None:
            raise _changed(file)
        return known

    return sequence_numbers(arrays[roles.id], roles.id, lambda row: file.place(start + row), number)


def _places(
    sequences: NDArray[np.int64], free: NDArray[np.int64], offsets: NDArray[np.int64], file: TableFile
) -> slice | NDArray[np.int64]:
    """Where the rows of a batch go: each to the next free row of its sequence."""
    size = len(sequences)
    order = np.argsort(sequences, kind="stable")
    ranked = sequences[order]
    begins = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    counts = np.diff(np.append(begins, size))
    numbers = ranked[begins]
    rows = np.empty(size, np.int64)
    rows[order] = np.repeat(free[numbers] - begins, counts) + np.arange(size)
    free[numbers] += counts
    if (free[numbers] > offsets[numbers + 1]).any():
        raise _changed(file)
    first = int(rows[0])
    return slice(first, first + size) if (np.diff(rows) == 1).all() else rows


def _write(
    filled: Filled,
    rows: slice | NDArray[np.int64],
    file: TableFile,
    start: int,
    arrays: Mapping[str, Any],
    roles: Roles,
    found: Survey,
) -> None:
    block = np.empty((len(next(iter(arrays.values()))), len(found.features)))
    for column, reading in enumerate(found.features):
        block[:, column] = _numbers(reading, arrays[reading.name], file, start, filled.seen)
    filled.values[rows] = block
    if found.label is not None and filled.label is not None:
        filled.label[rows] = _numbers(found.label, arrays[found.label.name], file, start, filled.seen)
    if roles.time is not None and filled.times is not None:
        with _same_file(file):
            times = cells.read_time(arrays[roles.time], found.time_form)
        unusable = ~np.isfinite(times)
        if unusable.any():
            row = int(np.argmax(unusable))
            what = "missing" if np.isnan(times[row]) else "infinite"
            raise FileError(f"{file.place(start + row)}: every row must have a time; {roles.time!r} is {what}")
        filled.times[rows] = times


def _numbers(reading: cells.Reading, array: Any, file: TableFile, start: int, seen: set[str]) -> NDArray[np.float64]:
    with _same_file(file):
        numbers = reading.read(array)
    if reading.name not in seen and not np.isnan(numbers).all():
        seen.add(reading.name)
    infinite = np.isinf(numbers)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise FileError(
            f"{file.place(start + row)}: column {reading.name!r} must hold finite numbers; got {array[row].as_py()}"
        )
    return numbers


@contextmanager
def _same_file(file: TableFile) -> Iterator[None]:
    """What could be read in the first pass, and now cannot, has changed."""
    try:
        yield
    except require("pyarrow", "train").ArrowException as error:
        raise _changed(file) from error


def _steps(
    times: NDArray[Any], offsets: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """The rows that follow another of their sequence, some at a time, with the time before and theirs."""
    for rows in chunks(1, len(times)):
        begins = offsets[np.searchsorted(offsets, rows.start) : np.searchsorted(offsets, rows.stop)] - rows.start
        inside = np.ones(rows.stop - rows.start, bool)
        inside[begins] = False
        part = np.asarray(times[rows.start - 1 : rows.stop])
        yield np.flatnonzero(inside) + rows.start, part[:-1][inside], part[1:][inside]


def _out_of_order(times: NDArray[Any], offsets: NDArray[np.int64]) -> list[int]:
    """The sequences in which time falls somewhere."""
    found: dict[int, None] = {}
    for rows, before, own in _steps(times, offsets):
        sequences = np.searchsorted(offsets, rows[own < before], side="right") - 1
        found |= dict.fromkeys(np.unique(sequences).tolist())
    return list(found)


def _sort(filled: Filled, rows: slice, store: Store) -> None:
    """Bring one sequence into the order of time; rows of equal times stay in theirs."""
    if filled.times is None:
        return
    order = np.argsort(filled.times[rows], kind="stable")
    for array in (filled.values, filled.times, filled.label):
        if array is None:
            continue
        part = array[rows]
        if len(order) <= CHUNK:
            part[:] = part[order]
        else:
            copy = store.array("sorted", part.shape)
            for piece in chunks(0, len(order)):
                copy[piece] = part[order[piece]]
                store.touched(2 * copy[piece].nbytes)
            for piece in chunks(0, len(order)):
                part[piece] = copy[piece]
                store.touched(2 * copy[piece].nbytes)
            store.drop(copy)
        store.touched(part.nbytes)


def _check_times(
    times: NDArray[Any], files: Sequence[TableFile], roles: Roles, found: Survey, offsets: NDArray[np.int64]
) -> None:
    """No sequence is at two places at once; the row that is told is the second of the two."""
    for rows, before, own in _steps(times, offsets):
        again = before == own
        if not again.any():
            continue
        row = int(rows[np.argmax(again)])
        sequence = sequence_at(offsets, row)
        seconds, name = float(times[row]), cells.shown(list(found.numbers)[sequence])
        file, row = _second_row(files, roles, found, sequence, seconds)
        raise FileError(
            f"{file.place(row)}: a sequence must have one row for each time; {name} has two at {roles.time!r} = "
            f"{seconds:.15g}"
        )


def _second_row(
    files: Sequence[TableFile], roles: Roles, found: Survey, sequence: int, seconds: float
) -> tuple[TableFile, int]:
    met, last = 0, (files[0], 0)
    for position, file in enumerate(files):
        start = 0
        for arrays in file.batches([name for name in (roles.id, roles.time) if name is not None]):
            times = cells.read_time(arrays[str(roles.time)], found.time_form)
            sequences = _sequences(file, position, start, len(times), arrays, roles, found)
            for row in np.flatnonzero((sequences == sequence) & (times == seconds)).tolist():
                met, last = met + 1, (file, start + row)
                if met == 2:
                    return last
            start += len(times)
    return last
