"""What a table cannot be: one sentence each, with the file and the row where there is one."""

import gzip
import os
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.refusals import assert_refused
from tests.table_helpers import COLUMNS, csv, parquet
from tidegate.data import read_table, table
from tidegate.data.labels import check_label
from tidegate.data.sequences import Columns, Feature, Label
from tidegate.errors import FileError, FileMissingError, InputValueError

ALL = Columns()


def refused(path, sentence, columns=ALL, error=FileError, **options):
    assert_refused(lambda: read_table(path, columns, **options), error, sentence)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def test_no_such_file(tmp_path):
    refused(tmp_path / "no.csv", r"no file or folder '.*no\.csv'", error=FileMissingError)
    refused(str(tmp_path / "*.csv"), "matches it as a pattern", error=FileMissingError)
    refused("a\0b.csv", "there is no file or folder", error=FileMissingError)
    refused(tmp_path, r"holds no table: no file in it ends in \.csv", error=FileMissingError)
    refused([], "got an empty list", error=InputValueError)


def test_other_kinds_of_files(tmp_path):
    refused(csv(tmp_path, "x\n1\n", "table.xlsx"), r"table\.xlsx' must be a table, a file that ends in \.csv")
    csv(tmp_path, "x\n1\n")
    parquet(tmp_path, {"x": [1]})
    refused(tmp_path, r"got both, '.*table\.csv' and '.*table\.parquet'")
    refused(csv(tmp_path, "x\n1\n", "csv.parquet"), r"csv\.parquet' cannot be read")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "id;t;x\n1;0;2.5\n", r"a\.csv', line 1: cells must be parted by commas; they are by semicolons"),
        ("a.csv", '"id";"x"\n"1";2,5\n', "parted by commas; they are by semicolons"),
        ("a.csv", "id\tx\n1\t2\n", "parted by commas; they are by tabs"),
        ("a.tsv", "id,x\n1,2\n", "parted by tabs; they are by commas"),
    ],
)
def test_cells_that_are_parted_otherwise(tmp_path, name, text, sentence):
    refused(csv(tmp_path, text, name), sentence)


def test_one_column_may_have_any_name(tmp_path):
    for name in ("a;b", '"a,b"', '"a;b,c"'):
        assert len(read_table(csv(tmp_path, f"{name}\n1\n2\n"), ALL).features) == 1


def test_a_file_named_twice(tmp_path):
    path = csv(tmp_path, "x\n1\n")
    refused([path, str(tmp_path / "*.csv")], "is named twice", error=InputValueError)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"", r"a\.csv' is empty"),
        ("a.parquet", b"", r"a\.parquet' is empty"),
        ("a.csv.gz", b"", r"a\.csv\.gz' "),
        ("a.csv.gz", gzip.compress(b"", mtime=0), r"a\.csv\.gz' is empty"),
        ("a.csv", b"\n\n", r"a\.csv' has no rows"),
        ("a.csv", b"x,y", r"a\.csv' has no rows"),
        ("a.csv", b"x,y\n", r"a\.csv' has no rows"),
        ("a.csv.gz", b"x,y\n1,2\n", r"a\.csv\.gz' cannot be read"),
        ("a.csv.gz", gzip.compress(b"x,y\n1,2\n" * 50, mtime=0)[:-12], r"a\.csv\.gz' cannot be read"),
        ("a.csv", b"x,x\n1,2\n", r"must name each column once; 'x' is there twice"),
        ("a.csv", "é,x\n1,2\n".encode("latin-1"), r"a\.csv' must be text in UTF-8"),
        ("a.csv", "w,x\né,2\n".encode("latin-1"), r"a\.csv' must be text in UTF-8"),
        ("a.csv", "w,x\n1,2\n".encode("utf-16"), r"a\.csv' must be text in UTF-8"),
        ("a.csv", "w,x\n1,2\n".encode("utf-16-be"), r"a\.csv' must be text in UTF-8"),
        ("a.csv", b"w,x\n1,2\n\n1\n", r"a\.csv', line 4: every row must have 2 cells, as the first; this one has 1"),
        ("a.csv", b"w,x\n1,2\n\xff\n1,2\n", r"a\.csv', line 3: every row must have 2 cells"),
        ("a.csv", b'w,x\n"1\n2",2\n1,2,3\n', r"a\.csv', line 4: every row must have 2 cells"),
        ("a.csv", b'w,x\n1,2\n1,"2\n3,4\n5,6\n', r"a\.csv', line 3: a quotation mark in this row is not closed"),
        ("a.csv", b'w,x\n1,2\n1,"' + b"2\n" * 3_000_000, "after line 2 a quotation mark is not closed"),
        ("a.csv", b"w,x\n" + b"1,1\n" * 2_000_000 + b'1,"' + b"2" * 9_000_000 + b'"\n1,1\n', "rows of at most 4 MB"),
        ("a.csv", b",x\n1,2\n", "column 1 has none"),
    ],
)
def test_text_that_is_no_table(tmp_path, name, content, sentence):
    error = InputValueError if "column 1" in sentence else FileError
    refused(csv(tmp_path, content, name), sentence, error=error)


def test_the_late_row_that_is_ragged_is_told(tmp_path):
    refused(csv(tmp_path, "x,y\n" + "1,2\n" * 1_500_000 + "1,2,3\n"), "line 1500002: every row must have 2 cells")


def test_parquet_without_rows_and_with_a_name_twice(tmp_path):
    refused(parquet(tmp_path, {"x": pa.array([], pa.float64())}), r"table\.parquet' has no rows")
    refused(parquet(tmp_path, {"id": pa.array([], pa.string()), "x": pa.array([], pa.float64())}), "has no rows")
    path = tmp_path / "twice.parquet"
    pa.parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]), path)
    refused(path, "'x' is there twice")


def test_parquet_that_is_truncated(tmp_path):
    path = parquet(tmp_path, {"x": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, r"table\.parquet' cannot be read")


def test_files_that_differ_in_their_columns(tmp_path):
    csv(tmp_path, "id,speed\na,1\n", "1.csv")
    csv(tmp_path, "id,Speed\na,1\n", "2.csv")
    refused(tmp_path, r"2\.csv' has no 'speed', as '.*1\.csv' has \(it has 'Speed'\)")
    csv(tmp_path, "id,speed,more\na,1,2\n", "2.csv")
    refused(tmp_path, r"2\.csv' has 'more', which '.*1\.csv' has not")


def test_files_that_differ_in_types(tmp_path):
    parquet(tmp_path, {"x": [1]}, "1.parquet")
    parquet(tmp_path, {"x": ["a"]}, "2.parquet")
    refused(tmp_path, r"in '.*2\.parquet' 'x' is string, in '.*1\.parquet' int64")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = csv(tmp_path, "x\n1\n")
    path.chmod(0)
    refused(path, "cannot be read")


# ---------------------------------------------------------------------------------------------------------------------
# Columns


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (Columns(id="ID"), r"id must name columns of the table; it has no column 'ID' \(did you mean 'id'\?\)"),
        (Columns(time="tiem"), r"no column 'tiem' \(did you mean 'time'\?\)"),
        (Columns(label="qqq"), r"no column 'qqq' \(it has 'id', 'time', 'x', 'y'\)"),
        (Columns(features=("x", "z")), "features must name columns of the table; it has no column 'z'"),
        (Columns(ignore=("z",)), "ignore must name columns"),
        (Columns(categorical=("z",)), "categorical must name columns"),
        (Columns(categorical=("id",), id="id"), "categorical must name features or the label; 'id' is neither"),
        (Columns(id="x", label="x"), "a column must be one thing; 'x' is named both as id and in label"),
        (Columns(features=("x", "x")), "'x' is named twice in features"),
        (Columns(features=("x",), ignore=("x",)), "'x' is named both as features and in ignore"),
        (Columns(label="x", ignore=("x",)), "both as label and in ignore"),
        (Columns(id="id", time="time", label="x", ignore=("y",)), "no column of the table is left"),
        (Columns(features=()), "no column of the table is left"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, sentence):
    refused(csv(tmp_path, "id,time,x,y\na,1,2,3\n"), sentence, columns, InputValueError)


@pytest.mark.parametrize(
    ("column", "columns", "sentence"),
    [
        (pa.array([[1], [2]]), ALL, r"holds list<.*>, where numbers, booleans or words are needed"),
        (pa.array([{"a": 1}, {"a": 2}]), ALL, "holds struct"),
        (pa.array([b"1", b"2"]), ALL, "holds binary"),
        (pa.array([1, 2], pa.timestamp("s")), ALL, "give it as the time, or leave it out"),
        (pa.array([None, None]), ALL, "'c' of .* holds no values at all"),
        (pa.array([None, None], pa.float64()), ALL, "'c' must hold something in some row; in '.*' all"),
        (pa.array([np.nan, np.nan]), ALL, "'c' must hold something"),
        (pa.array([None, None], pa.string()), ALL, "'c' must hold something"),
        (pa.array([None, None], pa.bool_()), Columns(label="c"), "'c' must hold something"),
        (pa.array([[1], [2]]), Columns(id="c"), "where an id must be words or numbers"),
        (pa.array([[1], [2]]), Columns(label="c"), "where numbers, booleans or words are needed"),
        (pa.array([True, False]), Columns(time="c"), "holds bool, where a time must be numbers or time stamps"),
        (pa.array(["a", None]), Columns(id="c"), "row 2: every row must have an id; 'c' is empty"),
        (pa.array([1.0, np.nan]), Columns(id="c"), "row 2: every row must have an id"),
        (pa.array([1, None]), Columns(time="c"), "row 2: every row must have a time; 'c' is missing"),
        (pa.array([1, np.inf]), Columns(time="c"), "row 2: every row must have a time; 'c' is infinite"),
        (pa.array(["1", None]), Columns(time="c"), "row 2: every row must have a time; 'c' is empty"),
        (pa.array(["1", "soon"]), Columns(time="c"), "row 2: column 'c' must hold numbers, or dates .* got 'soon'"),
        (pa.array([1.0, -np.inf]), ALL, "row 2: column 'c' must hold finite numbers; got -inf"),
        (pa.array([1.0, np.inf]), Columns(label="c"), "row 2: column 'c' must hold finite numbers; got inf"),
    ],
)
def test_columns_that_cannot_be_used(tmp_path, column, columns, sentence):
    refused(parquet(tmp_path, {"x": [1, 2], "c": column}), sentence, columns)


@pytest.mark.parametrize(
    ("text", "columns", "sentence"),
    [
        ("c,x\n,1\n,2\n", ALL, "'c' must hold something in some row"),
        ("c,x\nNA,1\n,2\n", ALL, "'c' must hold something in some row"),
        ("c,x\n1,1\n\ninf,2\n", ALL, r"line 4: column 'c' must hold finite numbers; got inf"),
        ("c,x\n1,1\n1e999,2\n", ALL, r"line 3: column 'c' must hold finite numbers; got inf"),
        ("c,x\na,1\n,2\n", Columns(id="c"), "line 3: every row must have an id"),
        ("c,x\n1,1\n,2\n", Columns(time="c"), "line 3: every row must have a time"),
        ("c,x\nNaN,1\n1,2\n", Columns(time="c"), "line 2: every row must have a time"),
        (
            "c,x\n2024-01-01,1\n2024-01-01T00:00:00Z,2\n",
            Columns(time="c"),
            "line 3: .*all in one form; got '2024-01-01T00:00:00Z'",
        ),
        ("c,x\n1,1\n2024-01-01,2\n", Columns(time="c"), "line 3: .*all in one form; got '2024-01-01'"),
        ("c,x\n1,1\nabc,2\n", ALL, r"line 3: column 'c' holds 'abc', and numbers .* categorical=\('c',\)"),
        ("c,x\nabc,1\n1,2\n", ALL, r"line 2: column 'c' holds 'abc', and numbers .* categorical=\('c',\)"),
        ("c,x\n1,1\n12A,2\n", Columns(label="c"), "line 3: column 'c' holds '12A', and numbers"),
        ("c,x\ntrue,1\n1,2\n", ALL, "line 2: column 'c' holds 'true', and numbers"),
    ],
)
def test_cells_of_text_that_cannot_be_used(tmp_path, text, columns, sentence):
    refused(csv(tmp_path, text), rf"table\.csv'.*{sentence}" if sentence.startswith("line") else sentence, columns)


def test_a_word_in_row_one_million_of_numbers(tmp_path):
    rows = "1.5,2\n" * 999_999
    refused(csv(tmp_path, f"c,x\n{rows}abc,2\n"), r"line 1000001: column 'c' holds 'abc', and numbers")
    refused(csv(tmp_path, f'c,x\n"1.5",2\n"\n",2\n{rows}abc,2\n'), r"line 1000004: column 'c' holds 'abc'")


def test_a_long_cell_is_shown_in_part(tmp_path):
    refused(csv(tmp_path, f"c,x\n{'a' * 1000},1\n1,2\n"), rf"line 2: column 'c' holds '{'a' * 57}\.\.\.', and")


def test_too_many_categories(tmp_path):
    words = [f"w{number}" for number in range(1001)]
    sentence = "'c' has more than 1,000 different words .* give it as the id, or leave it out"
    refused(parquet(tmp_path, {"c": words}), sentence)
    refused(csv(tmp_path, "c,x\n" + "".join(f"{word},1\n" for word in words)), sentence)
    refused(csv(tmp_path, "c,x\n" + "".join(f"{n},1\n" for n in range(1001))), sentence, Columns(categorical=("c",)))
    assert len(read_table(parquet(tmp_path, {"c": words[:1000]}), ALL).features[0].categories) == 1000


@pytest.mark.parametrize("memory", [1, 2**30])
def test_a_time_that_is_there_twice(tmp_path, memory):
    path = csv(tmp_path, "id,t,x\na,1,1\nb,2,1\na,3,1\nb,2,1\na,0,1\na,2,1\n")
    sentence = r"table\.csv', line 5: a sequence must have one row for each time; 'b' has two at 't' = 2"
    refused(path, sentence, COLUMNS, memory=memory, workspace=tmp_path)
    assert list(tmp_path.glob("tidegate-*")) == []
    first, second = csv(tmp_path, "t,x,id\n1,2,a\n", "1.csv"), csv(tmp_path, "t,x,id\n2,2,a\n1,2,a\n", "2.csv")
    refused([first, second], r"2\.csv', line 3: .*'a' has two", COLUMNS, memory=memory)
    refused(parquet(tmp_path, {"t": [1.5, 1.5], "x": [1, 2]}), "row 2: .*'table' has two", Columns(time="t"))


# ---------------------------------------------------------------------------------------------------------------------
# What a run already knows

KNOWN = (Feature("c", "category", ("blue", "red")), Feature("x"), Feature("b", "boolean"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("c,x,b\n1,1,true\n", "column 'c' of '.*' must hold words, as in training; it holds numbers"),
        ("c,x,b\nred,big,true\n", r"'x' of '.*' must hold numbers, as in training; it holds words \(.*line 2.*'big'"),
        ("c,x,b\nred,true,true\n", "'x' of '.*' must hold numbers, as in training; it holds true or false"),
        ("c,x,b\nred,1,1\n", "'b' of '.*' must hold true or false, as in training; it holds numbers"),
        ("c,x,b\nred,1,true\nred,big,true\n", "line 3: column 'x' holds 'big', and numbers"),
    ],
)
def test_known_features_that_hold_something_else(tmp_path, text, sentence):
    refused(csv(tmp_path, text), sentence, known=KNOWN)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ({"c": [1]}, "'c' of '.*' must hold words, as in training; it holds numbers"),
        ({"c": [True]}, "'c' of '.*' must hold words, as in training; it holds true or false"),
        ({"x": ["1"]}, "'x' of '.*' must hold numbers, as in training; it holds words"),
        ({"b": [1.0]}, "'b' of '.*' must hold true or false"),
    ],
)
def test_known_features_of_another_type(tmp_path, column, sentence):
    refused(parquet(tmp_path, {"c": ["red"], "x": [1], "b": [True], **column}), sentence, known=KNOWN)


def test_known_features_that_are_missing(tmp_path):
    refused(
        csv(tmp_path, "c,X,b\nred,1,true\n"), r"no column 'x' \(did you mean 'X'", known=KNOWN, error=InputValueError
    )


def test_a_known_label_that_is_another(tmp_path):
    path = csv(tmp_path, "id,x,y\na,1,1\na,2,2\n")
    options: dict[str, Any] = {"columns": Columns(id="id", label="y"), "known": [Feature("x")]}
    refused(
        path,
        "label 'y' must be the same in every row of a sequence, as in training; it differs in 'a'",
        known_label=Label("y", np.zeros(0), False, None),
        **options,
    )
    refused(path, "'y' of '.*' must hold words", known_label=Label("y", np.zeros(0), True, ("no", "yes")), **options)
    words = csv(tmp_path, "id,x,y\na,1,no\na,2,yes\n")
    refused(words, "'y' of '.*' must hold numbers", known_label=Label("y", np.zeros(0), True, None), **options)


# ---------------------------------------------------------------------------------------------------------------------
# Others


@pytest.mark.parametrize(
    ("values", "categories", "sentence"),
    [
        ([np.nan, np.nan], None, "'y' must have values to learn from; all are missing"),
        ([1.5, np.nan, 1.5], None, "'y' must differ somewhere; it is always '1.5'"),
        ([1, 1], ("no", "yes"), "'y' must differ somewhere; it is always 'yes'"),
    ],
)
def test_a_label_from_which_nothing_can_be_learned(values, categories, sentence):
    label = Label("y", np.array(values, np.float64), False, categories)
    assert_refused(lambda: check_label(label), InputValueError, sentence)
    check_label(Label("y", np.array([*values, 0.0, 1.0]), False, categories))


def test_memory_and_workspace(tmp_path):
    path = csv(tmp_path, "x\n1\n")
    refused(path, "memory must be at least 1 byte; got 0", error=InputValueError, memory=0)
    refused(path, "workspace must be a folder", error=FileMissingError, memory=1, workspace=tmp_path / "no")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="room is reserved where posix_fallocate is")
def test_no_room_on_the_disk(tmp_path, monkeypatch):
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    refused(csv(tmp_path, "x\n1\n"), "has no room for 8 bytes: No space left", memory=1, workspace=tmp_path)
    assert list(tmp_path.glob("tidegate-*")) == []


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    path = csv(tmp_path, "id,x\na,1\nb,2\n")
    real = vars(table)["survey"]

    def changing(text: str):
        def survey(*arguments):
            found = real(*arguments)
            path.write_text(text)
            return found

        return survey

    for text in ("id,x\na,1\n", "id,x\na,1\nb,2\nb,3\n", "id,x\na,1\nc,2\n", "id,x\na,1\nb,y\n"):
        path.write_text("id,x\na,1\nb,2\n")
        monkeypatch.setattr(table, "survey", changing(text))
        refused(path, r"table\.csv'", Columns(id="id"))
