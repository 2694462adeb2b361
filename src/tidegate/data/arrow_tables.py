"""Tables in memory, as pyarrow, pandas and polars have them -> sequences."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.data.folders import NO_COLUMNS
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.data.table import sequences_of
from tidegate.data.table_parquet import ROWS
from tidegate.errors import InputTypeError, InputValueError
from tidegate.extras import require

__all__ = ["table_of"]

#: What pandas calls an index that has no name.
_INDEX = re.compile(r"__index_level_\d+__")


def table_of(
    table: Any,
    columns: Columns = NO_COLUMNS,
    *,
    known: Sequence[Feature] | None = None,
    known_label: Label | None = None,
) -> Sequences:
    """The sequences of a table in long form, anything with `__arrow_c_stream__`: one row for each step.

    All is as `read_table` has it for Parquet; an index of pandas that has no name is left out.

    Raises:
        InputTypeError: it is no table.
        InputValueError, FileError: as `read_table`, with the number of a row in "table in memory".
        MissingExtraError: pyarrow is not installed.
    """
    if not hasattr(table, "__arrow_c_stream__"):
        raise InputTypeError(f"table must have __arrow_c_stream__, as tables of pyarrow do; got {type(table).__name__}")
    pyarrow = require("pyarrow", "train")
    try:
        arrow = pyarrow.table(table)
        arrow.validate(full=True)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        told = str(error).partition("\n")[0]
        raise InputValueError(f"table must be columns of one length and of types that Arrow has: {told}") from error
    return sequences_of([_ArrowTable(arrow)], columns, known=known, known_label=known_label)


class _ArrowTable:
    """A table of pyarrow as if it was a file."""

    def __init__(self, table: Any) -> None:
        self.path = Path("table in memory")
        names = tuple(table.column_names)
        twice = [name for number, name in enumerate(names) if name in names[:number]]
        if twice:
            raise InputValueError(f"table must name each column once; {twice[0]!r} is there twice")
        self.names = tuple(name for name in names if not _INDEX.fullmatch(name))
        self._table = table

    def type_of(self, name: str) -> Any:
        return self._table.schema.field(name).type

    def rows(self) -> int | None:
        return int(self._table.num_rows)

    def batches(self, names: Collection[str], typed: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:  # noqa: ARG002
        wanted = list(names)
        for batch in self._table.select(wanted).to_batches(max_chunksize=ROWS):
            if batch.num_rows:
                yield {name: batch.column(number) for number, name in enumerate(wanted)}

    def place(self, row: int) -> str:
        return f"{str(self.path)!r}, row {row + 1}"
