"""Tables as text: CSV files in batches, and the line on which a row stands."""

import csv
import gzip
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate.data.table_damage import damage_told, unique_names
from tidegate.errors import FileError
from tidegate.extras import require

__all__ = ["CsvFile"]

#: Bytes of CSV that are parsed at a time; no row may be longer.
BLOCK = 1 << 22
_PARTED = {",": "commas", ";": "semicolons", "\t": "tabs"}


class CsvFile:
    """A file of comma- or tab-separated text, UTF-8, packed by gzip or not; its first row names the columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._packed = path.name.lower().endswith(".gz")
        self._delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
        self._quotes_closed = False
        self._check_encoding()
        with damage_told(path, self._told), self._stream() as stream:
            self.names = unique_names(path, self._reader(stream, {}).schema.names)
        if len(self.names) == 1 and (told := self._parted_otherwise()):
            raise FileError(told)

    def type_of(self, name: str) -> Any:  # noqa: ARG002
        """None: everything is text."""
        return None

    def rows(self) -> int | None:
        """None: text does not say."""
        return None

    def batches(self, names: Collection[str], typed: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
        """The columns asked for, some thousand rows at a time, as text or as the types given."""
        string = require("pyarrow", "train").string()
        types = {name: (typed or {}).get(name, string) for name in names}
        with self._stream() as stream:
            with damage_told(self.path, self._told):
                reader = self._reader(stream, types)
                batch = next(reader, None)
            while batch is not None:
                with damage_told(self.path, self._told):
                    following = next(reader, None)
                if following is None:
                    self._check_quotes(stream.quotes)
                if batch.num_rows:
                    yield {name: batch.column(number) for number, name in enumerate(types)}
                batch = following

    def place(self, row: int) -> str:
        """The file and the line, as an editor counts."""
        line = self._line(row)
        return f"{str(self.path)!r}, {f'row {row + 1}' if line is None else f'line {line}'}"

    def _stream(self) -> "_Counted":
        pyarrow = require("pyarrow", "train")
        with damage_told(self.path):
            if self._packed:
                return _Counted(pyarrow.CompressedInputStream(pyarrow.OSFile(str(self.path)), "gzip"))
            return _Counted(self.path.open("rb", buffering=0))

    def _reader(self, stream: "_Counted", types: Mapping[str, Any]) -> Any:
        arrow = require("pyarrow.csv", "train")
        return arrow.open_csv(
            stream,
            arrow.ReadOptions(block_size=BLOCK),
            arrow.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            arrow.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[""], strings_can_be_null=True
            ),
        )

    def _check_encoding(self) -> None:
        with damage_told(self.path, self._told), self._stream() as stream:
            start = stream.read(4096)
        if not start:
            raise FileError(f"{str(self.path)!r} is empty")
        if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
            raise FileError(self._not_utf8())

    def _not_utf8(self) -> str:
        return f"{str(self.path)!r} must be text in UTF-8; it is in another encoding, or no text"

    def _told(self, error: Exception) -> str | None:
        """What Arrow's error means to a person."""
        told, path = str(error), repr(str(self.path))
        if isinstance(error, UnicodeDecodeError) or "invalid UTF8" in told:
            return self._not_utf8()
        if "straddl" in told:
            return (
                f"{path} must have rows of at most {BLOCK >> 20} MB; one is longer, or a quotation mark is not closed"
            )
        if "CSV parse error: Expected" in told or "CSV parse error: Row" in told:
            return self._ragged()
        if "Empty CSV" in told:
            return f"{path} has no rows"
        return None

    def _ragged(self) -> str | None:
        """The sentence for the first row that is shorter or longer than the first of all; None if all are alike."""
        expected = None
        try:
            for line, cells in self._records():
                expected = expected or len(cells)
                if len(cells) != expected:
                    return (expected == 1 and self._parted_otherwise()) or (
                        f"{str(self.path)!r}, line {line}: every row must have {expected} cells, as the first; "
                        f"this one has {len(cells)}"
                    )
        except (csv.Error, OSError, EOFError):
            return None
        return None

    def _parted_otherwise(self) -> str | None:
        """The sentence for one column of what another separator would part, in its name and in the first row."""
        try:
            first = [self._delimiter.join(cells) for _, (_, cells) in zip(range(2), self._records(), strict=False)]
        except (csv.Error, OSError, EOFError):
            return None
        for other in [one for one in _PARTED if one != self._delimiter]:
            if len(first) == 2 and len({line.count(other) for line in first}) == 1 and other in first[0]:
                return (
                    f"{str(self.path)!r}, line 1: cells must be parted by {_PARTED[self._delimiter]}; they are by "
                    f"{_PARTED[other]}"
                )
        return None

    def _check_quotes(self, quotes: int) -> None:
        """Arrow takes the end of a file for the closing quotation mark, and all rows up to it for one cell."""
        if quotes % 2 == 0 or self._quotes_closed:
            return
        line, last = 1, [""]
        try:
            for line, cells in self._records():  # noqa: B007
                last = cells
        except (csv.Error, OSError, EOFError):
            raise FileError(f"{str(self.path)!r}: after line {line} a quotation mark is not closed") from None
        if "\n" in last[-1] or "\r" in last[-1]:
            raise FileError(f"{str(self.path)!r}, line {line}: a quotation mark in this row is not closed")
        self._quotes_closed = True

    def _line(self, row: int) -> int | None:
        """The line, as an editor counts them, on which a row begins; None if Python finds none there."""
        try:
            return next((line for number, (line, _) in enumerate(self._records(), start=-1) if number == row), None)
        except (csv.Error, OSError, EOFError):
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
