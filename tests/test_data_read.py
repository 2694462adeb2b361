"""One entry for everything: the reader by suffix or by what is in memory."""

import sys
from types import ModuleType

import numpy as np
import pytest

from tests.data_writers import read, write_json_lines
from tests.refusals import assert_refused
from tidegate.data import Columns, Feature, Label
from tidegate.data.read import SUFFIXES
from tidegate.errors import FileError, FileMissingError, InputValueError


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


class Table:
    """What has Arrow's protocol."""

    def __arrow_c_stream__(self, requested_schema=None):
        pyarrow = pytest.importorskip("pyarrow")
        return pyarrow.table({"x": [1.0, 2.0]}).__arrow_c_stream__(requested_schema)


@pytest.fixture
def tables(monkeypatch):
    """A module of tables that notes how it is called."""
    module = ModuleType("tidegate.data.table")
    calls = []
    answer = read(np.zeros((1, 2)))

    def called(*given, **named):
        calls.append((given, named))
        return answer

    vars(module).update(read_table=called, table_of=called)
    monkeypatch.setitem(sys.modules, "tidegate.data.table", module)
    return calls


def test_table_files_and_tables_go_to_the_readers_of_tables(tmp_path, tables):
    for suffix in (".csv", ".csv.gz", ".tsv", ".parquet", ".pq"):
        path = tmp_path / f"x{suffix}"
        path.write_text("x\n1\n")
        columns, known = Columns(id="x"), (Feature("x0"),)
        read(path, columns=columns, known=known)
        assert tables.pop() == (([path], columns), {"known": known, "known_label": None})
    read(Table())
    (table, columns), named = tables.pop()
    assert table.column_names == ["x"]
    assert columns == Columns()
    assert named == {"known": None, "known_label": None}
