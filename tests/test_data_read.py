"""One entry for everything: the reader by suffix or by what is in memory."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_writers import read, same, write_json_lines
from tests.refusals import assert_refused
from tidegate.data import Columns, Feature, Label
from tidegate.data.read import SUFFIXES
from tidegate.errors import FileError, FileMissingError, InputValueError

NAN = np.nan


def test_a_suffix_that_is_none_is_one_sentence_with_those_that_are(tmp_path):
    (tmp_path / "x.jsnl").write_text("{}")
    known = ", ".join(SUFFIXES).replace(".", r"\.")
    assert_refused(
        lambda: read(tmp_path / "x.jsnl"), FileError, rf"x\.jsnl' must have one of the suffixes {known}; .*jsonl"
    )
    assert_refused(lambda: read(tmp_path), FileError, "must give files of .csv, .* it gives 1 files, of .jsnl")
    assert_refused(lambda: read(tmp_path / "no.npy"), FileMissingError, "there is no file")


def test_suffixes_in_capitals(tmp_path):
    (tmp_path / "X.TXT").write_text("abc")
    assert len(read(tmp_path / "X.TXT").values) == 3


def test_files_of_several_formats_are_one_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    write_json_lines(tmp_path / "b.jsonl", [{"x": 1}])
    assert_refused(lambda: read(tmp_path), FileError, r"must be of one format; there are 1 \.jsonl, 1 \.txt: say which")
    assert len(read(str(tmp_path / "*.txt"))) == 1


def test_an_argument_that_means_nothing_is_one_sentence(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    assert_refused(lambda: read(tmp_path / "x.npy", level="bytes"), InputValueError, "level means nothing for arrays")
    assert_refused(lambda: read(np.zeros((2, 3)), label="folder"), InputValueError, "it takes y; got label='folder'")
    assert_refused(
        lambda: read(np.zeros((2, 3)), columns=Columns(id="a")), InputValueError, "arrays in memory have no columns"
    )


def test_sequences_are_taken_as_they_are():
    sequences = read(np.zeros((2, 3)), y=["a", "b"])
    assert read(sequences) is sequences
    known = Label("y", np.zeros(1), False, ("b",))
    assert read(sequences, known_label=known).label.values.tolist() == [-1, 0]


ROWS = {"id": ["s", "s", "t"], "t": [1.0, 0.0, 5.0], "gear": ["b", None, "a"], "y": [True, True, False]}
COLUMNS = Columns(id="id", time="t", label="y")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".parquet", ".pq"])
def test_table_files_go_to_the_reader_of_tables(tmp_path, suffix):
    table, path = pa.table(ROWS), tmp_path / f"x{suffix}"
    if suffix.startswith(".p"):
        pq.write_table(table, path)
    else:
        rows = [list(ROWS), *zip(*ROWS.values(), strict=True)]
        line = "\t" if suffix == ".tsv" else ","
        text = "\n".join(line.join("" if cell is None else str(cell) for cell in row) for row in rows)
        content = (text + "\n").encode()
        path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    sequences = read(path, columns=COLUMNS)
    same(sequences, [[[NAN], [1]], [[0]]])
    assert sequences.ids == ["s", "t"]
    known = (Feature("gear", "category", ("b",)),)
    known_label = Label("y", np.zeros(1), False, ("true",))
    again = read(path, columns=COLUMNS, known=known, known_label=known_label)
    same(again, [[[NAN], [0]], [[-1]]])
    assert again.label.categories == ("true",)


class Stream:
    """What has Arrow's protocol, and nothing else."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("made", [pa.table, lambda rows: Stream(pa.table(rows))])
def test_tables_in_memory(made):
    sequences = read(made(ROWS), columns=COLUMNS)
    same(sequences, [[[NAN], [1]], [[0]]])
    assert sequences.times.tolist() == [0, 1, 5]
    assert sequences.label.categories == ("false", "true")
    same(read(made(ROWS), columns=COLUMNS, known=(Feature("gear", "category", ("b",)),)), [[[NAN], [0]], [[-1]]])


@given(values=st.lists(st.none() | st.floats(allow_infinity=False), min_size=1), chunk=st.integers(1, 4))
def test_tables_in_memory_read_back_to_the_bit(values, chunk):
    values[0] = 0.5
    pieces = [values[start : start + chunk] for start in range(0, len(values), chunk)]
    table = pa.table({"x": pa.chunked_array(pieces, pa.float64()), "__index_level_0__": values})
    same(read(table), [np.array(values, np.float64)[:, None]])


def test_tables_that_cannot_be_used_are_one_sentence():
    duplicate = pa.Table.from_arrays([pa.array([1.0])] * 2, ["x", "x"])
    assert_refused(lambda: read(duplicate), InputValueError, "table must name each column once; 'x' is there twice")
    assert_refused(lambda: read(pa.table({"x": pa.array([], "float64")})), FileError, "has no rows")
    infinite = pa.table({"x": [1.0, np.inf]})
    assert_refused(lambda: read(infinite), FileError, "'table in memory', row 2: column 'x' must hold finite numbers")
    assert_refused(lambda: read(pa.table(ROWS), columns=Columns(id="di")), InputValueError, "it has no column 'di'")
    assert_refused(lambda: read(pa.table(ROWS), y=[1]), InputValueError, "y means nothing for tables")
