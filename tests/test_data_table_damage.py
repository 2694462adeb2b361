"""Damaged files are refused in one sentence or read; nothing else is raised, and nothing is left behind."""

import gzip
import random
import resource
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from tests.refusals import assert_refused
from tests.table_helpers import csv
from tidegate.data import read_table
from tidegate.data.sequences import Columns
from tidegate.errors import FileError, InputValueError

STEPS = 300
COLUMNS = [
    Columns("id", "t", "y"),
    Columns("id", "stamp", "y", ignore=("t",)),
    Columns(None, None, "word", ignore=("stamp", "id")),
    Columns("id", "t", None, ("x", "whole")),
]
PARQUET = {
    "snappy": {},
    "gzip": {"compression": "gzip", "data_page_version": "2.0", "row_group_size": 50},
    "zstd": {"compression": "zstd", "use_dictionary": False},
    "checksums": {"compression": "none", "row_group_size": 100, "write_page_checksum": True},
    "encodings": {
        "compression": "none",
        "use_dictionary": False,
        "column_encoding": {
            "whole": "DELTA_BINARY_PACKED",
            "x": "BYTE_STREAM_SPLIT",
            "word": "DELTA_BYTE_ARRAY",
            "id": "DELTA_LENGTH_BYTE_ARRAY",
        },
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of good files, by what is special about them."""
    folder = tmp_path_factory.mktemp("whole")
    rng = random.Random(0)
    table = pa.table(
        {
            "id": [f"s{row % 7}" for row in range(STEPS)],
            "t": [float(row) for row in range(STEPS)],
            "stamp": pa.array([row * 1000 for row in range(STEPS)], pa.timestamp("ms")),
            "x": [rng.gauss(0, 1) if row % 9 else None for row in range(STEPS)],
            "word": [rng.choice(["red", "bl\nue", 'gr"een', "é"]) for _ in range(STEPS)],
            "truth": [bool(row % 3) for row in range(STEPS)],
            "whole": list(range(STEPS)),
            "y": [row % 7 % 2 for row in range(STEPS)],
        }
    )
    pa.csv.write_csv(table, folder / "a.csv")
    text = (folder / "a.csv").read_bytes()
    files = {"csv": (text, "a.csv"), "packed": (gzip.compress(text, mtime=0), "a.csv.gz")}
    for name, options in PARQUET.items():
        pa.parquet.write_table(table, folder / name, **options)
        files[name] = ((folder / name).read_bytes(), "a.parquet")
    return files


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with bytes changed, cut out or put in, more of them near the end, where Parquet says what is where."""
    changed = bytearray(data)
    how = rng.randrange(6)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        if not changed:
            break
        last = len(changed) - 1
        at = rng.randint(0, last) if rng.random() < 0.6 else last - min(last, int(rng.expovariate(1 / 1500)))
        if how == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            changed[at] = rng.randrange(256)
        elif how == 2:
            changed[at : at + 1] = rng.randbytes(rng.randrange(8))
        elif how == 3:
            del changed[at : at + rng.randrange(1, 50)]
        elif how == 4:
            changed[at : at + 4] = rng.choice([bytes(4), b"\xff" * 4, b"\n" * 4, b'"",,', b"\xff\xff\xff\x7f", b"inf,"])
        else:
            changed = changed[:at] + (b"" if rng.random() < 0.3 else changed[rng.randint(0, last) :])
    return bytes(changed)


@pytest.mark.parametrize("kind", ["csv", "packed", *PARQUET])
def test_damaged_files_are_refused_or_read(whole, kind, tmp_path):
    data, name = whole[kind]
    outcomes = {"read": 0, "refused": 0}
    rng = random.Random(f"tidegate {kind}")
    for _ in range(150):
        path = csv(tmp_path, damaged(data, rng), name)
        try:
            read_table(path, rng.choice(COLUMNS), memory=rng.choice([1, 2**30]), workspace=tmp_path)
            outcomes["read"] += 1
        except (FileError, InputValueError) as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert len(str(error)) < 1000  # noqa: PT017
            outcomes["refused"] += 1
        assert list(tmp_path.glob("tidegate-*")) == []
    assert outcomes["refused"] > 20


@pytest.mark.parametrize("kind", ["csv", "packed", *PARQUET])
@pytest.mark.parametrize("columns", [COLUMNS[0], COLUMNS[1], COLUMNS[3]])
def test_whole_files_are_read(whole, kind, columns, tmp_path):
    data, name = whole[kind]
    columns = Columns(columns.id, columns.time, columns.label, columns.features or ("x", "word", "truth", "whole"))
    read = read_table(csv(tmp_path, data, name), columns)
    assert len(read) == 7
    assert read.values.shape[0] == STEPS
    np.testing.assert_array_equal(read.values[read.rows(1), -1], np.arange(1, STEPS, 7))


# ---------------------------------------------------------------------------------------------------------------------
# Found so


def test_a_ragged_row_in_another_encoding_is_told_once(tmp_path, monkeypatch):
    """Arrow's handler of such rows let Python print an error that nobody could catch."""
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    path = csv(tmp_path, b"w,x\n1,2\n\xdc\n1,2\n")
    assert_refused(lambda: read_table(path, Columns()), FileError, "line 3: every row must have 2 cells")
    assert printed == []


def test_a_page_that_says_it_has_a_gigabyte_costs_nothing(tmp_path):
    """Sixteen seconds and 1.3 GB, read page by page."""
    path = tmp_path / "a.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pa.parquet.write_table(pa.table({"x": np.arange(100.0)}), path, **options)
    data = path.read_bytes()
    size = len(data[4:].partition(b"\x15\x00\x15")[0])  # the header of the page: its kind, then its sizes
    assert size == 0
    after = data[7:]
    first, second = after[:2], after[3:5]
    assert (first, after[2:3], first) == (second, b"\x15", second)
    huge = bytes([0x80, 0x80, 0x80, 0x80, 0x08])  # 2**30, as Parquet writes it
    path.write_bytes(data[:7] + huge + b"\x15" + huge + after[5:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(lambda: read_table(path, Columns()), FileError, r"a\.parquet' cannot be read")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
