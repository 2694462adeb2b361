"""Table files: which ones are meant, what columns they have, and their rows in batches."""

import glob
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tidegate.data.table_csv import CsvFile
from tidegate.data.table_parquet import ParquetFile
from tidegate.errors import FileError, FileMissingError, InputValueError

__all__ = ["Paths", "TableFile", "open_tables"]

Paths = str | Path | Sequence[str | Path]

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")


@runtime_checkable
class TableFile(Protocol):
    """One file of a table; its rows are counted from 0."""

    path: Path
    names: tuple[str, ...]

    def type_of(self, name: str) -> Any:
        """The Arrow type of a column; None where everything is text."""

    def rows(self) -> int | None:
        """How many rows the file says it has; None where it does not say."""

    def batches(self, names: Collection[str], typed: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
        """The Arrow arrays of the columns asked for, some thousand rows at a time."""

    def place(self, row: int) -> str:
        """Where a row stands, for a person who looks for it."""


def open_tables(paths: Paths) -> list[TableFile]:
    """The files of a table: one path, a pattern, a folder (its table files, sorted), or several of these.

    Raises:
        FileMissingError: nothing is there.
        FileError: a file is of another kind, or cannot be read; CSV and Parquet files are mixed.
    """
    named = [paths] if isinstance(paths, str | Path) else list(paths)
    if not named:
        raise InputValueError("paths must name a file, a folder or a pattern; got an empty list")
    files = [file for path in named for file in _expanded(path)]
    for number, file in enumerate(files):
        if file in files[:number]:
            raise InputValueError(f"paths must name each file once; {str(file)!r} is named twice")
    kinds = {_is_parquet(file): file for file in files}
    if len(kinds) == 2:
        raise FileError(
            f"paths must name CSV files or Parquet files; got both, {str(kinds[False])!r} and {str(kinds[True])!r}"
        )
    return [ParquetFile(file) if _is_parquet(file) else CsvFile(file) for file in files]


def _expanded(path: str | Path) -> list[Path]:
    endings = (*CSV_ENDINGS, *PARQUET_ENDINGS)
    place = Path(path)
    try:
        is_folder, is_there = place.is_dir(), place.exists()
    except (OSError, ValueError) as error:
        raise FileMissingError(f"there is no file or folder {str(path)!r}") from error
    if is_folder:
        found = sorted(entry for entry in place.iterdir() if entry.is_file() and entry.name.lower().endswith(endings))
        found = [entry for entry in found if not entry.name.startswith(".")]
        if not found:
            raise FileMissingError(f"the folder {str(path)!r} holds no table: no file in it ends in {_listed(endings)}")
        return found
    if is_there:
        found = [place]
    else:
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 - also absolute
        if not found:
            raise FileMissingError(f"there is no file or folder {str(path)!r}, nor one that matches it as a pattern")
    for entry in found:
        if not entry.is_file() or not entry.name.lower().endswith(endings):
            raise FileError(f"{str(entry)!r} must be a table, a file that ends in {_listed(endings)}")
    return found


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(PARQUET_ENDINGS)
