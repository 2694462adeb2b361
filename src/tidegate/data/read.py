"""Anything that holds sequences -> `Sequences`: the reader is chosen by what was given, or by the files' suffix."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from tidegate.data.archive import read_archive
from tidegate.data.arrow_tables import table_of
from tidegate.data.audio import read_audio
from tidegate.data.files import Found, Paths, find_files
from tidegate.data.folders import NO_COLUMNS, FolderLabel
from tidegate.data.frames import read_frames
from tidegate.data.json_lines import read_json_lines
from tidegate.data.known import as_asked, label_as_known
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.data.table import read_table
from tidegate.data.text import Level, Per, read_text
from tidegate.data.wide import of_arrays, read_wide
from tidegate.errors import FileError, InputTypeError, InputValueError

__all__ = ["SUFFIXES", "read"]


@dataclass(frozen=True)
class _Format:
    """A kind of file."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[..., Sequences]
    #: The arguments of `read` that mean something for it.
    options: tuple[str, ...] = ()


def _read_table(files: Sequence[Found], columns: Columns, **options: Any) -> Sequences:
    return read_table([found.path for found in files], columns, **options)


_FORMATS = (
    _Format("tables", (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq"), _read_table),
    _Format("arrays", (".npy", ".npz"), read_wide),
    _Format("archives of time series", (".ts",), read_archive),
    _Format("JSON Lines", (".jsonl", ".ndjson"), read_json_lines),
    _Format("text", (".txt",), read_text, ("level", "per", "encoding", "label")),
    _Format("audio", (".wav", ".flac"), read_audio, ("label",)),
    _Format("video", (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"), read_frames, ("grid", "label")),
)
#: The suffixes of the files that `read` reads, in lower case.
SUFFIXES = tuple(suffix for form in _FORMATS for suffix in form.suffixes)


def read(
    data: Any,
    *,
    columns: Columns = NO_COLUMNS,
    known: Sequence[Feature] | None = None,
    known_label: Label | None = None,
    y: Any = None,
    label: FolderLabel = None,
    level: Level | None = None,
    per: Per | None = None,
    encoding: str | None = None,
    grid: tuple[int, int] | None = None,
) -> Sequences:
    """Read sequences from files, or take them from memory.

    `data` is a file, a folder (all files below it), a pattern (`*`, `**`) or a list of these, of one format; or an
    array (S, T, F) or (S, T), or a list of arrays (T_i, F) or (T_i,); or a table with `__arrow_c_stream__`, as those
    of pyarrow, pandas and polars.

    Formats, by suffix: tables `.csv`, `.tsv` (also `.gz`), `.parquet`, `.pq`; arrays `.npy`, `.npz`; the time series
    archive's `.ts`; JSON Lines `.jsonl`, `.ndjson`; text `.txt`; sound `.wav`, `.flac`; video `.mp4`, `.m4v`, `.mov`,
    `.mkv`, `.webm`, `.avi`.

    Args:
        columns: Which columns or features are what.
        known: The features that a network was trained on; the data are brought into them (see `as_known`).
        known_label: The label that it was trained on; classes that it does not know become -1.
        y: The labels of arrays in memory.
        label: "folder" for text, sound and video: the name of each file's folder is its class.
        level, per, encoding: Of text, see `read_text`.
        grid: Of video, see `read_frames`.

    Raises:
        FileMissingError, FileError: files are not there, of no or of several formats, or cannot be read.
        InputTypeError, InputValueError: `data` is none of these; an argument does not fit it or has a wrong value.
        MissingExtraError: a package that the format needs is not installed.
    """
    given = {"y": y, "label": label, "level": level, "per": per, "encoding": encoding, "grid": grid}
    options = {name: value for name, value in given.items() if value is not None}
    found = _read(data, columns, known, known_label, options)
    return found if known_label is None else replace(found, label=label_as_known(found.label, known_label))


def _read(
    data: Any,
    columns: Columns,
    known: Sequence[Feature] | None,
    known_label: Label | None,
    options: dict[str, Any],
) -> Sequences:
    if isinstance(data, Sequences):
        _require_fitting(options, (), "sequences")
        return as_asked(data, columns, known)
    if hasattr(data, "__arrow_c_stream__"):
        _require_fitting(options, (), "tables")
        return table_of(data, columns, known=known, known_label=known_label)
    if _is_paths(data):
        return _read_files(data, columns, known, known_label, options)
    _require_fitting(options, ("y",), "arrays in memory")
    for name in ("id", "time"):
        if getattr(columns, name) is not None:
            raise InputValueError(f"arrays in memory have no columns; got columns.{name}={getattr(columns, name)!r}")
    if not isinstance(data, np.ndarray) and hasattr(data, "__array__"):
        data = np.asarray(data)
    if not isinstance(data, np.ndarray | list | tuple):
        raise InputTypeError(
            "data must be a path, a folder, a pattern, a list of paths, an array, a list of arrays or a table; "
            f"got {type(data).__name__}"
        )
    return of_arrays(data, options.get("y"), columns, known=known)


def _is_paths(data: Any) -> bool:
    first = data[0] if isinstance(data, list | tuple) and data else data
    return isinstance(first, str | os.PathLike)


def _read_files(
    data: Paths,
    columns: Columns,
    known: Sequence[Feature] | None,
    known_label: Label | None,
    options: dict[str, Any],
) -> Sequences:
    files = find_files(data, SUFFIXES)
    formats = [_format_of(found) for found in files]
    if len({form.name for form in formats}) > 1:
        counts = Counter(found.path.suffix.lower() for found in files)
        told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
        raise FileError(f"files must be of one format; there are {told}: say which with a pattern such as '*.csv'")
    _require_fitting(options, formats[0].options, formats[0].name)
    if formats[0].name == "tables":
        options = {"known_label": known_label}
    return formats[0].read(files, columns, known=known, **options)


def _format_of(found: Found) -> _Format:
    for form in _FORMATS:
        if found.path.name.lower().endswith(form.suffixes):
            return form
    suffix = found.path.suffix.lower()
    near = get_close_matches(suffix, SUFFIXES, n=1)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise FileError(f"{str(found.path)!r} must have one of the suffixes {', '.join(SUFFIXES)}{hint}")


def _require_fitting(options: dict[str, Any], fitting: tuple[str, ...], what: str) -> None:
    for name, value in options.items():
        if name not in fitting:
            told = f"it takes {', '.join(fitting)}" if fitting else "it takes no such argument"
            raise InputValueError(f"{name} means nothing for {what}: {told}; got {name}={value!r}")
