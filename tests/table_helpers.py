"""Tables for tests: small files written by hand, and equality of sequences to the bit."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from tidegate.data.sequences import Columns, Sequences

__all__ = ["COLUMNS", "assert_same", "csv", "parquet"]

COLUMNS = Columns(id="id", time="t")


def csv(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def parquet(folder: Path, columns: dict, name: str = "table.parquet", **options) -> Path:
    path = folder / name
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def assert_same(one: Sequences, other: Sequences) -> None:
    """All but the files' names."""
    assert one.features == other.features
    assert list(one.ids) == list(other.ids)
    pairs = [(one.values, other.values), (one.offsets, other.offsets), (one.times, other.times)]
    assert (one.label is None) == (other.label is None)
    if one.label is not None and other.label is not None:
        assert one.label.name == other.label.name
        assert one.label.per_step == other.label.per_step
        assert one.label.categories == other.label.categories
        pairs.append((one.label.values, other.label.values))
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            same = np.asarray(a).view(np.int64) == np.asarray(b).view(np.int64)
            assert (same | (np.isnan(a) & np.isnan(b))).all()
