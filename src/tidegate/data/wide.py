"""Arrays (S, T) or (S, T, F), in `.npy` and `.npz` files and in memory -> sequences."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidegate.data.arrays import read_array, read_arrays
from tidegate.data.files import Found, opened
from tidegate.data.folders import NO_COLUMNS, offsets_of
from tidegate.data.known import as_asked
from tidegate.data.objects import label_of
from tidegate.data.rows import CHUNK, Rows
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.errors import FileError, InputTypeError, InputValueError

__all__ = ["of_arrays", "read_wide", "unnamed"]

Array = NDArray[Any]


class _Wide(NamedTuple):
    """The arrays of a file."""

    x: Array  # (S, T, F)
    y: Array | None
    lengths: NDArray[np.int64] | None
    times: Array | None  # (S, T)
    hold: Array | None = None  # (S, T)


def unnamed(width: int, array: Array | None = None) -> tuple[Feature, ...]:
    """Features that have no names: x0, x1, ..."""
    boolean = array is not None and array.dtype.kind == "b"
    return tuple(Feature(f"x{number}", "boolean" if boolean else "number") for number in range(width))


def read_wide(
    files: Sequence[Found], columns: Columns = NO_COLUMNS, *, known: Sequence[Feature] | None = None
) -> Sequences:
    """Sequences of one length, S of T steps with F features x0, x1, ...: (S, T, F), or (S, T) for one feature.

    A `.npy` file holds that array; if it is the only file, it is a memory map, not read whole. A `.npz` file holds it
    as `x`, with labels `y`, (S,) or one per step (S, T), if it has any: whole numbers and booleans are classes,
    other numbers are numbers. `lengths`, (S,), says how many steps of each sequence count; without it all do, and NaN
    is a missing value wherever it stands. `columns.label` and `columns.time` name the arrays of labels and of times,
    (S, T) or (T,), in a `.npz` file, and `columns.hold` one of (S, T).

    Raises:
        FileError: a file is empty, damaged, of another kind, holds an infinite number, or shapes do not fit together.
        FileMissingError, InputValueError: as `find_files` and `as_asked`.
    """
    parts = [_opened(found.path, columns) for found in files]
    first = parts[0]
    for found, part in zip(files, parts, strict=True):
        _check(repr(str(found.path)), part)
        if part.x.shape[2] != first.x.shape[2]:
            raise FileError(
                f"files of one data set must have the same features; {str(files[0].path)!r} has {first.x.shape[2]} "
                f"and {str(found.path)!r} has {part.x.shape[2]}"
            )
        if (part.y is None) != (first.y is None) or (part.times is None) != (first.times is None):
            raise FileError(
                f"{str(files[0].path)!r} and {str(found.path)!r} must both have labels, or neither; so with times"
            )
        if (part.hold is None) != (first.hold is None):
            raise FileError(
                f"{str(files[0].path)!r} and {str(found.path)!r} must both have {columns.hold!r}, or neither"
            )
    single = len(files) == 1
    ids = [
        str(number) if single else f"{found.name}:{number}"
        for found, part in zip(files, parts, strict=True)
        for number in range(len(part.x))
    ]
    boolean = all(part.x.dtype.kind == "b" for part in parts)
    features = unnamed(first.x.shape[2], first.x if boolean else None)
    if columns.hold is not None and first.hold is not None:
        parts = [
            part._replace(x=np.concatenate([part.x, _three(part.hold, "")], -1))
            for part in parts
            if part.hold is not None
        ]
        features += (Feature(columns.hold),)
    sequences = Sequences(
        features,
        _rows([part.x for part in parts], parts),
        offsets_of(np.concatenate([_lengths(part) for part in parts])),
        ids,
        None if first.times is None else _rows([part.times for part in parts], parts).astype(np.float64),
        _label(columns, parts),
        tuple(str(found.path) for found in files),
    )
    return as_asked(sequences, columns, known)


def of_arrays(
    x: Array | Sequence[Any],
    y: Any = None,
    columns: Columns = NO_COLUMNS,
    *,
    known: Sequence[Feature] | None = None,
) -> Sequences:
    """Sequences in memory: (S, T, F), (S, T), or a list of (T_i, F) or (T_i,) arrays of any lengths.

    `y` has a label for each sequence, (S,), or for each step: (S, T), or a list of (T_i,). Whole numbers, booleans
    and texts are classes.

    Raises:
        InputTypeError: `x` holds something else than real numbers.
        InputValueError: shapes do not fit together, a sequence has no step, or a number is infinite.
    """
    if columns.label is not None and y is None:
        raise InputValueError(
            f"labels (y) must be given beside arrays, which have no column {columns.label!r}; got none"
        )
    if isinstance(x, np.ndarray) and x.dtype != object:
        _require_numbers(x, "x")
        part = _Wide(_three(x, "x"), None, None, None)
        _check("x", part, InputValueError)
        values, lengths = part.x.reshape(-1, part.x.shape[2]), _lengths(part)
        boolean = x.dtype.kind == "b"
    else:
        pieces = [_two(piece, f"x[{number}]") for number, piece in enumerate(x)]
        if not pieces:
            raise InputValueError("x must hold at least one sequence; it is empty")
        for number, piece in enumerate(pieces):
            if piece.shape[1] != pieces[0].shape[1]:
                raise InputValueError(
                    f"the sequences of x must have the same number of features; x[0] has {pieces[0].shape[1]} "
                    f"and x[{number}] has {piece.shape[1]}"
                )
            _check(f"x[{number}]", _Wide(piece[None], None, None, None), InputValueError)
        values, lengths = np.concatenate(pieces), np.array([len(piece) for piece in pieces])
        boolean = all(piece.dtype.kind == "b" for piece in pieces)
    sequences = Sequences(
        unnamed(values.shape[1], values if boolean else None),
        values,
        offsets_of(lengths),
        [str(number) for number in range(len(lengths))],
        label=None if y is None else _label_in_memory(columns.label or "y", y, lengths),
    )
    return as_asked(sequences, columns, known)


def _opened(path: Path, columns: Columns) -> _Wide:
    where = repr(str(path))
    if path.suffix.lower() == ".npz":
        opened(path)
        arrays = read_arrays(path)
        label, time = columns.label or "y", columns.time
        wanted = ["x", *([columns.label] if columns.label else []), *([time] if time else [])]
        for name in wanted:
            if name not in arrays:
                raise FileError(
                    f"{where} must hold an array {name!r}; it holds {', '.join(map(repr, arrays)) or 'none'}"
                )
        x = _three(arrays["x"], f"'x' of {where}", FileError)
        lengths = arrays.get("lengths")
        if lengths is not None and (lengths.dtype.kind not in "iu" or lengths.shape != x.shape[:1]):
            raise FileError(
                f"'lengths' of {where} must be ({len(x)},) whole numbers; it is {lengths.shape} of {lengths.dtype}"
            )
        times = arrays[time] if time else None
        if times is not None and times.shape not in (x.shape[1:2], x.shape[:2]):
            raise FileError(
                f"{time!r} of {where} must be {x.shape[:2]} or {x.shape[1:2]}, as 'x' has steps; it is {times.shape}"
            )
        y = arrays.get(label)
        if y is not None and y.shape not in (x.shape[:1], x.shape[:2]):
            raise FileError(
                f"{label!r} of {where} must be {x.shape[:1]}, a label a sequence, or {x.shape[:2]}, one a step; "
                f"it is {y.shape}"
            )
        hold = None if columns.hold is None else arrays.get(columns.hold)
        if hold is not None and (hold.shape != x.shape[:2] or hold.dtype.kind not in "fiub"):
            raise FileError(
                f"{columns.hold!r} of {where} must be {x.shape[:2]} of numbers or booleans, as 'x' has steps; "
                f"it is {hold.shape} of {hold.dtype}"
            )
        return _Wide(
            x,
            y,
            None if lengths is None else lengths.astype(np.int64),
            None if times is None else np.broadcast_to(times, x.shape[:2]),
            hold,
        )
    for name in ("label", "time"):
        if asked := getattr(columns, name):
            raise InputValueError(
                f"a .npy file holds one array, without labels or times, which an .npz file may hold; got {name} "
                f"{asked!r} for {where}"
            )
    return _Wide(_three(_mapped(path), where, FileError), None, None, None)


def _mapped(path: Path) -> Array:
    """The array of a `.npy` file as a memory map."""
    opened(path)
    with path.open("rb") as file:
        mappable = file.read(6) == b"\x93NUMPY"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in read_arrays
            array = np.load(path, mmap_mode="r", allow_pickle=False) if mappable else None
    except Exception:  # noqa: BLE001 - read_array says what is wrong with it
        array = None
    if array is None or array.dtype.kind not in "fiub":
        return read_array(path)
    found: Array = array
    return found


def _check(where: str, part: _Wide, error: type[ValueError] = FileError) -> None:
    x = part.x
    if part.lengths is not None:
        wrong = np.flatnonzero((part.lengths < 1) | (part.lengths > x.shape[1]))
        if len(wrong):
            raise error(
                f"'lengths' of {where} must be from 1 to {x.shape[1]}; that of sequence {wrong[0]} is "
                f"{part.lengths[wrong[0]]}"
            )
    for name, array in (("x", x), ("the label", part.y), ("the time", part.times)):
        place = _first_infinite(array, part) if array is not None and array.dtype.kind == "f" else None
        if place is not None:
            told = ", ".join(f"{axis} {at}" for axis, at in zip(("sequence", "step", "feature"), place, strict=False))
            raise error(f"{name} of {where} must be finite; it is {array[place]} at {told}")  # type: ignore[index]
    if part.times is not None:
        for number, length in enumerate(_lengths(part)):
            times = part.times[number, :length]
            if not (np.diff(times) >= 0).all() or np.isnan(times).any():
                raise error(f"the times of {where} must be numbers that never fall; those of sequence {number} do not")


def _first_infinite(array: Array, part: _Wide) -> tuple[int, ...] | None:
    """The place of the first infinite number that is not padding; a memory map is read piece by piece."""
    lengths = part.lengths
    step = max(1, CHUNK // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), step):
        bad = np.isinf(array[start : start + step])
        if lengths is not None and array.ndim > 1:
            kept = np.arange(array.shape[1]) < lengths[start : start + step, None]
            bad &= kept if array.ndim == 2 else kept[:, :, None]
        if bad.any():
            first = tuple(int(axis[0]) for axis in np.nonzero(bad))
            return (start + first[0], *first[1:])
    return None


def _lengths(part: _Wide) -> NDArray[np.int64]:
    return np.full(len(part.x), part.x.shape[1], np.int64) if part.lengths is None else part.lengths


def _rows(arrays: Sequence[Array | None], parts: Sequence[_Wide]) -> Array:
    """(S, T, ...) of each file as rows, one after the other, without what is padding."""
    held = [array for array in arrays if array is not None]
    if len(parts) == 1 and parts[0].lengths is None and held[0].flags.c_contiguous:
        return held[0].reshape(-1, *held[0].shape[2:])
    rows = Rows(held[0].shape[2:], np.result_type(*{array.dtype for array in held}))
    for array, part in zip(held, parts, strict=True):
        if part.lengths is None:
            block = max(1, CHUNK // array.shape[1])
            for start in range(0, len(array), block):
                rows.append(array[start : start + block].reshape(-1, *array.shape[2:]))
        else:
            for sequence, length in zip(array, part.lengths, strict=True):
                rows.append(sequence[:length])
    return rows.finish()


def _label(columns: Columns, parts: Sequence[_Wide]) -> Label | None:
    held = [part.y for part in parts if part.y is not None]
    if not held:
        return None
    per_step = {y.ndim == 2 for y in held}
    if len(per_step) > 1:
        raise FileError("the labels of all files must be one for each sequence, or one for each step; they are mixed")
    name = columns.label or "y"
    if per_step == {True}:
        return label_of(name, _rows(held, parts), per_step=True)
    return label_of(name, np.concatenate(held), per_step=False)


def _label_in_memory(name: str, y: Any, lengths: NDArray[np.int64]) -> Label:
    count = len(lengths)
    if not hasattr(y, "__len__") or getattr(y, "shape", None) == ():
        raise InputTypeError(f"y must be a list or array of labels; got {type(y).__name__}")
    if len(y) != count:
        raise InputValueError(f"y must have a label for each of the {count} sequences; it has {len(y)}")
    if count and np.ndim(y[0]) == 0:
        return label_of(name, y, per_step=False)
    pieces = [np.asarray(piece) for piece in y]
    for number, (piece, length) in enumerate(zip(pieces, lengths, strict=True)):
        if piece.shape != (length,):
            raise InputValueError(
                f"y[{number}] must be ({length},), a label for each step of its sequence; it is {piece.shape}"
            )
    return label_of(name, np.concatenate(pieces), per_step=True)


def _three(array: Array, where: str, error: type[ValueError] = InputValueError) -> Array:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise error(f"{where} must be (S, T) or (S, T, F), and none of them 0; it is {array.shape}")
    array = array.astype(np.float64) if array.dtype.char == "g" else array
    return array if array.ndim == 3 else array[:, :, None]


def _two(piece: Any, where: str) -> Array:
    array = np.asarray(piece)
    _require_numbers(array, where)
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise InputValueError(f"{where} must be (T,) or (T, F), and none of them 0; it is {array.shape}")
    return array if array.ndim == 2 else array[:, None]


def _require_numbers(array: Array, where: str) -> None:
    if array.dtype.kind not in "fiub":
        raise InputTypeError(f"{where} must hold real numbers; it holds {array.dtype}")
