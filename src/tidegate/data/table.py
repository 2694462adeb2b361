"""Tables in long form, one row a step, from CSV or Parquet files -> Sequences."""

from collections.abc import Sequence
from pathlib import Path

from tidegate.data.columns import Roles, nearest, roles_of
from tidegate.data.fill import fill
from tidegate.data.held import without_last
from tidegate.data.labels import label_of
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.data.store import Store
from tidegate.data.survey import Survey, survey
from tidegate.data.table_files import Paths, TableFile, open_tables
from tidegate.errors import FileError, InputValueError

__all__ = ["read_table", "sequences_of"]


def read_table(
    paths: Paths,
    columns: Columns,
    *,
    known: Sequence[Feature] | None = None,
    known_label: Label | None = None,
    memory: int = 2**30,
    workspace: Path | None = None,
) -> Sequences:
    """Read tables in long form: one row for each step of a sequence, in one file or many.

    A sequence is the rows of one id over all files, in the order of the time; sequences are in the order of their first
    rows. Without an id column each file is a sequence; without a time, rows are in order.

    Numbers stay numbers, booleans are 0 and 1, words are the codes of their sorted categories. Missing cells (null,
    NaN, empty cells of CSV, and in columns of numbers words such as NA) are NaN. Time stamps and dates become seconds
    since 1970, in float64: those less than a quarter of a microsecond apart count as the same.
    A label belongs to sequences if it is the same all through each of them, to steps otherwise; whether a number is a
    class is told at `labels.label_of`, and `columns.categorical` makes it one.

    Args:
        paths: a file (.csv, .csv.gz, .tsv, .tsv.gz, .parquet), a pattern, a folder, or several of these; all CSV or all
            Parquet, with the same columns.
        columns: which column is what.
        known: the features of a trained run: these columns are read, in this order, with these categories; a word that
            is not among them becomes -1. Other columns are not looked at.
        known_label: the label of the run; its values are not looked at.
        memory: bytes that `values` may take in memory. Larger tables lie in files that are mapped into memory and go
            when the sequences do.
        workspace: the folder below which those files lie; the system's for temporary files if not given.

    Raises:
        FileMissingError: there is no such file, folder or workspace.
        FileError: a file is damaged, empty, of another kind or encoding, or a cell cannot be used; with the file and,
            where there is one, the row: the line of a CSV file as an editor counts, the number of a row in Parquet.
        InputValueError: `columns` do not fit the table.
    """
    return sequences_of(
        open_tables(paths), columns, known=known, known_label=known_label, memory=memory, workspace=workspace
    )


def sequences_of(
    files: Sequence[TableFile],
    columns: Columns,
    *,
    known: Sequence[Feature] | None = None,
    known_label: Label | None = None,
    memory: int = 2**30,
    workspace: Path | None = None,
) -> Sequences:
    """`read_table` for files that are open."""
    if memory < 1:
        raise InputValueError(f"memory must be at least 1 byte; got {memory}")
    roles = roles_of(columns, files[0].names, known, known_label)
    _check_same_columns(files, roles, only_used=known is not None)
    found = survey(files, roles, None if known is None else {feature.name: feature for feature in known}, known_label)
    steps = int(found.lengths.sum())
    store = Store(mapped=8 * steps * len(roles.features) > memory, workspace=workspace)
    try:
        sequences = _read(files, roles, found, store, known=known is not None, known_label=known_label)
    except BaseException:
        store.remove()
        raise
    if known is None and columns.hold is not None:
        sequences = without_last(sequences)
    store.kept_by(sequences)
    return sequences


def _read(
    files: Sequence[TableFile], roles: Roles, found: Survey, store: Store, *, known: bool, known_label: Label | None
) -> Sequences:
    filled = fill(files, roles, found, store)
    needed = (*(roles.features if not known else ()), *([roles.label] if roles.label and known_label is None else []))
    for name in needed:
        if name not in filled.seen:
            raise FileError(f"column {name!r} must hold something in some row; in {_all(files)} all cells are missing")
    ids = list(found.numbers)
    label = None
    if found.label is not None and filled.label is not None:
        label = label_of(found.label, filled.label, filled.offsets, ids, known_label, store)
    features = tuple(
        Feature(reading.name, reading.kind, reading.categories if reading.kind == "category" else ())
        for reading in found.features
    )
    names = tuple(str(file.path) for file in files)
    return Sequences(features, filled.values, filled.offsets, ids, filled.times, label, names)


def _all(files: Sequence[TableFile]) -> str:
    return repr(str(files[0].path)) + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _check_same_columns(files: Sequence[TableFile], roles: Roles, *, only_used: bool) -> None:
    """All files have the columns of the first; those of them that are looked at, if there is a run to follow."""
    first = files[0]
    expected = roles.all if only_used else first.names
    for file in files[1:]:
        for name in expected:
            if name not in file.names:
                close = nearest(name, [other for other in file.names if other not in first.names])
                raise FileError(
                    f"all files must have the same columns; {str(file.path)!r} has no {name!r}, "
                    f"as {str(first.path)!r} has" + (f" (it has {close!r})" if close else "")
                )
        for name in () if only_used else file.names:
            if name not in first.names:
                raise FileError(
                    f"all files must have the same columns; {str(file.path)!r} has {name!r}, "
                    f"which {str(first.path)!r} has not"
                )
