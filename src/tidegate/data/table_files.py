"""Table files: which ones are meant, what columns they have, and their rows in batches."""

import csv
import glob
import gzip
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.extras import require

__all__ = ["Paths", "TableFile", "open_tables"]

Paths = str | Path | Sequence[str | Path]

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET_ENDINGS = (".parquet", ".pq")
#: Bytes of CSV that are parsed at a time; no row may be longer.
BLOCK = 1 << 22
#: Cells of Parquet that are decoded at a time, and the rows that this is at most.
CELLS, ROWS = 1 << 20, 1 << 16


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


@contextmanager
def _damage_told(path: Path, told: Callable[[Exception], str | None] = lambda _: None) -> Iterator[None]:
    """Whatever Arrow says of a file becomes one sentence that names it."""
    pyarrow = require("pyarrow", "train")
    damage = (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError, LookupError, EOFError, TypeError)
    try:
        yield
    except FileError:
        raise
    except damage as error:
        sentence = told(error)
        if sentence is None:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            sentence = f"{str(path)!r} cannot be read: {first}"
        raise FileError(sentence) from error


def _check_names(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise FileError(f"{str(path)!r} must name each column once; {name!r} is there twice")
    return tuple(names)


class CsvFile:
    """A file of comma- or tab-separated text, UTF-8, packed by gzip or not; its first row names the columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._packed = path.name.lower().endswith(".gz")
        self._delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
        self._quotes_closed = False
        self._check_encoding()
        with _damage_told(path, self._told), self._stream() as stream:
            self.names = _check_names(path, self._reader(stream, {}).schema.names)

    def type_of(self, name: str) -> Any:  # noqa: ARG002
        return None

    def rows(self) -> int | None:
        return None

    def batches(self, names: Collection[str], typed: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
        string = require("pyarrow", "train").string()
        types = {name: (typed or {}).get(name, string) for name in names}
        with self._stream() as stream:
            with _damage_told(self.path, self._told):
                reader = self._reader(stream, types)
            while True:
                with _damage_told(self.path, self._told):
                    batch = next(reader, None)
                if batch is None:
                    break
                if batch.num_rows:
                    yield {name: batch.column(number) for number, name in enumerate(types)}
            self._check_quotes(stream.quotes)

    def place(self, row: int) -> str:
        line = self._line(lambda number, _: number == row)
        return f"{str(self.path)!r}, {f'row {row + 1}' if line is None else f'line {line}'}"

    def _stream(self) -> "_Counted":
        pyarrow = require("pyarrow", "train")
        with _damage_told(self.path):
            if self._packed:
                return _Counted(pyarrow.CompressedInputStream(pyarrow.OSFile(str(self.path)), "gzip"))
            return _Counted(self.path.open("rb", buffering=0))

    def _reader(self, stream: "_Counted", types: Mapping[str, Any]) -> Any:
        arrow = require("pyarrow.csv", "train")
        return arrow.open_csv(
            stream,
            arrow.ReadOptions(block_size=BLOCK),
            arrow.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=self._refuse_ragged
            ),
            arrow.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=True
            ),
        )

    def _check_encoding(self) -> None:
        with _damage_told(self.path, self._told), self._stream() as stream:
            start = stream.read(4096)
        if not start:
            raise FileError(f"{str(self.path)!r} is empty")
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
            raise FileError(self._not_utf8())

    def _not_utf8(self) -> str:
        return f"{str(self.path)!r} must be text in UTF-8; it is in another encoding, or no text"

    @staticmethod
    def _refuse_ragged(row: Any) -> str:
        raise _RaggedError(row.expected_columns, row.actual_columns)

    def _told(self, error: Exception) -> str | None:
        """What Arrow's error means to a person."""
        told, path = str(error), repr(str(self.path))
        if isinstance(error, _RaggedError):
            line = self._line(lambda _, cells: len(cells) != error.expected)
            where = path if line is None else f"{path}, line {line}"
            return f"{where}: every row must have {error.expected} cells, as the first; this one has {error.actual}"
        if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in told:
            return self._not_utf8()
        if "straddl" in told:
            return (
                f"{path} must have rows of at most {BLOCK >> 20} MB; one is longer, or a quotation mark is not closed"
            )
        if "Empty CSV" in told:
            return f"{path} has no rows"
        return None

    def _check_quotes(self, quotes: int) -> None:
        """Arrow takes the end of a file for the closing quotation mark, and all rows up to it for one cell."""
        if quotes % 2 == 0 or self._quotes_closed:
            return
        number, last = -1, [""]
        for number, (_, cells) in enumerate(self._records()):  # noqa: B007
            last = cells
        if "\n" in last[-1] or "\r" in last[-1]:
            raise FileError(f"{self.place(number - 1)}: a quotation mark in this row is not closed")
        self._quotes_closed = True

    def _line(self, wanted: Callable[[int, list[str]], bool]) -> int | None:
        """The line, as an editor counts them, on which the first row begins that is wanted; None if there is none."""
        try:
            for number, (line, cells) in enumerate(self._records(), start=-1):
                if wanted(number, cells):
                    return line
        except (csv.Error, OSError, EOFError):
            return None
        return None

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Every row, the first too, with the line on which it begins. Empty lines are none, as for Arrow."""
        opened = gzip.open if self._packed else open
        with opened(self.path, "rt", encoding="utf-8-sig", errors="replace", newline="") as text:
            reader = csv.reader(text, delimiter=self._delimiter)
            begins = 1
            for cells in reader:
                if cells:
                    yield begins, cells
                begins = reader.line_num + 1


class _RaggedError(ValueError):
    def __init__(self, expected: int, actual: int) -> None:
        super().__init__("ragged")
        self.expected, self.actual = expected, actual


class _Counted:
    """A stream of bytes that counts the quotation marks in what was read."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.quotes = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._raw.read(size)
        self.quotes += data.count(b'"')
        return data

    @property
    def closed(self) -> bool:
        return bool(self._raw.closed)

    def close(self) -> None:
        self._raw.close()

    def __enter__(self) -> "_Counted":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ParquetFile:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.stat().st_size == 0:
            raise FileError(f"{str(path)!r} is empty")
        with _damage_told(path), self._opened(1) as file:
            self._schema = file.schema_arrow
            self._rows = int(file.metadata.num_rows)
            names = _check_names(path, self._schema.names)
        self.names = names

    def type_of(self, name: str) -> Any:
        return self._schema.field(name).type

    def rows(self) -> int | None:
        return self._rows

    def batches(self, names: Collection[str], typed: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:  # noqa: ARG002
        wanted = list(names)
        width = max(1, len(wanted))
        with _damage_told(self.path):
            file = self._opened(width)
        with file:
            rows = file.iter_batches(batch_size=max(1, min(ROWS, CELLS // width)), columns=wanted)
            while True:
                with _damage_told(self.path):
                    batch = next(rows, None)
                    if batch is None:
                        return
                    arrays = {name: batch.column(batch.schema.get_field_index(name)) for name in wanted}
                    for array in arrays.values():
                        array.validate(full=True)
                if batch.num_rows:
                    yield arrays

    def place(self, row: int) -> str:
        return f"{str(self.path)!r}, row {row + 1}"

    def _opened(self, width: int) -> Any:
        """Pages are read as they are needed: a row group may be larger than the memory."""
        buffer = max(1 << 13, min(1 << 20, (1 << 26) // width))
        parquet = require("pyarrow.parquet", "train")
        return parquet.ParquetFile(str(self.path), buffer_size=buffer, page_checksum_verification=True)
