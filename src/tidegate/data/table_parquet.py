"""Tables as Parquet files, in batches."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate.data.table_damage import damage_told, unique_names
from tidegate.errors import FileError
from tidegate.extras import require

__all__ = ["ParquetFile"]

#: Cells of Parquet that are decoded at a time, and the rows that this is at most.
CELLS, ROWS = 1 << 20, 1 << 16
#: Bytes of a row group of Parquet that is read whole.
WHOLE = 1 << 26


class ParquetFile:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_large = False
        if path.stat().st_size == 0:
            raise FileError(f"{str(path)!r} is empty")
        with damage_told(path), self._opened(1) as file:
            self._schema = file.schema_arrow
            self._rows = int(file.metadata.num_rows)
            groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
            self._is_large = any(group.total_byte_size > WHOLE for group in groups)
            names = unique_names(path, self._schema.names)
        self.names = names

    def type_of(self, name: str) -> Any:
        """The Arrow type of a column."""
        return self._schema.field(name).type

    def rows(self) -> int | None:
        """How many rows the file says it has."""
        return self._rows

    def batches(self, names: Collection[str], typed: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:  # noqa: ARG002
        """The columns asked for, some thousand rows at a time."""
        wanted = list(names)
        width = max(1, len(wanted))
        with damage_told(self.path):
            file = self._opened(width)
        with file:
            # with threads, Arrow reads whole row groups ahead
            rows = file.iter_batches(batch_size=max(1, min(ROWS, CELLS // width)), columns=wanted, use_threads=False)
            while True:
                with damage_told(self.path):
                    batch = next(rows, None)
                    if batch is None:
                        return
                    arrays = {name: batch.column(batch.schema.get_field_index(name)) for name in wanted}
                    for array in arrays.values():
                        array.validate(full=True)
                if batch.num_rows:
                    yield arrays

    def place(self, row: int) -> str:
        """The file and the number of the row."""
        return f"{str(self.path)!r}, row {row + 1}"

    def _opened(self, width: int) -> Any:
        """Row groups that may not fit into memory are read page by page.

        Others are read whole: where a damaged page says that it has a gigabyte, Arrow sees at once that it has not.
        """
        buffer = max(1 << 13, min(1 << 20, WHOLE // width)) if self._is_large else 0
        parquet = require("pyarrow.parquet", "train")
        return parquet.ParquetFile(
            str(self.path), buffer_size=buffer, pre_buffer=False, page_checksum_verification=True
        )
