"""The column of steps of which nothing is to be remembered: out of the features, whatever holds it."""

import numpy as np
import pyarrow as pa
import pytest

from tests.data_writers import read, write_archive, write_json_lines
from tests.refusals import assert_refused
from tests.table_helpers import csv
from tidegate.data import Columns
from tidegate.data.table import read_table
from tidegate.errors import FileError, InputValueError

HELD = [0.0, 1.0, np.nan, 1.0]
TABLE = "id,advert,v,w\na,0,1.5,2\na,1,2.5,3\nb,,3.5,4\nb,1,4.5,5\n"
VALUES = [[1.5, 2], [2.5, 3], [3.5, 4], [4.5, 5]]


def check(sequences, features=("v", "w"), values=VALUES):
    np.testing.assert_array_equal(sequences.held, HELD)
    assert [feature.name for feature in sequences.features] == list(features)
    np.testing.assert_array_equal(sequences.values, values)
    part = sequences.only([1, 0])
    np.testing.assert_array_equal(part.held, [HELD[2], HELD[3], HELD[0], HELD[1]])


COLUMNS = Columns(id="id", hold="advert")


def test_tables(tmp_path):
    path = csv(tmp_path, TABLE)
    check(read(path, columns=COLUMNS))
    check(read(path, columns=Columns(id="id", hold="advert", features=("w", "v"))), ("w", "v"), np.flip(VALUES, 1))
    check(read_table(path, COLUMNS, memory=1))  # from the disk
    check(read(csv(tmp_path, TABLE.replace(",1,", ",true,").replace(",0,", ",false,")), columns=COLUMNS))
    words = {"id": list("aabb"), "v": [1.5, 2.5, 3.5, 4.5], "advert": [False, True, None, True], "w": [2, 3, 4, 5]}
    check(read(pa.table(words), columns=COLUMNS))


def test_what_a_network_is_asked_later_needs_no_such_column(tmp_path):
    known = read(csv(tmp_path, TABLE), columns=COLUMNS).features
    for text in (TABLE, TABLE.replace("advert", "other")):
        later = read(csv(tmp_path, text), columns=COLUMNS, known=known)
        assert later.held is None
        np.testing.assert_array_equal(later.values, VALUES)


def test_json_lines(tmp_path):
    rows = [
        {"id": "a", "v": 1.5, "w": 2, "advert": False},
        {"id": "a", "v": 2.5, "w": 3, "advert": True},
        {"id": "b", "v": 3.5, "w": 4},
        {"id": "b", "v": 4.5, "w": 5, "advert": True},
    ]
    check(read(write_json_lines(tmp_path / "rows.jsonl", rows), columns=COLUMNS))
    check(read(tmp_path / "rows.jsonl", columns=Columns(id="id", hold="advert", features=("v", "w"))))
    steps = [{name: value for name, value in row.items() if name != "id"} for row in rows]
    lines = [{"id": "a", "steps": steps[:2]}, {"id": "b", "steps": steps[2:]}]
    check(read(write_json_lines(tmp_path / "lines.jsonl", lines), columns=COLUMNS))
    own = [
        {"steps": [[1.5, 2], [2.5, 3]], "advert": [0, 1]},
        {"steps": [[3.5, 4], [4.5, 5]], "advert": [None, 1]},
    ]
    check(read(write_json_lines(tmp_path / "own.jsonl", own), columns=Columns(hold="advert")), ("x0", "x1"))


def test_arrays(tmp_path):
    x, held = np.reshape(VALUES, (2, 2, 2)), np.reshape(HELD, (2, 2))
    check(read(np.concatenate([x, held[..., None]], -1), columns=Columns(hold="x2")), ("x0", "x1"))
    np.savez(tmp_path / "x.npz", x=x, advert=held)
    check(read(tmp_path / "x.npz", columns=Columns(hold="advert")), ("x0", "x1"))
    longer = np.pad(x, ((0, 0), (0, 3), (0, 0))), np.pad(held, ((0, 0), (0, 3)), constant_values=7)
    np.savez(tmp_path / "padded.npz", x=longer[0], advert=longer[1], lengths=np.array([2, 2]))
    check(read(tmp_path / "padded.npz", columns=Columns(hold="advert")), ("x0", "x1"))
    archive = write_archive(tmp_path / "x.ts", list(np.concatenate([held[..., None], x], -1)), labels=[1, 2])
    check(read(archive, columns=Columns(hold="x0")), ("x1", "x2"))


@pytest.mark.parametrize(
    ("text", "columns", "error", "words"),
    [
        (
            TABLE.replace(",1,4", ",2,4"),
            COLUMNS,
            InputValueError,
            "true and false, or 0 and 1; 'advert' holds 2 at sequ",
        ),
        (TABLE.replace(",1,", ",x,").replace(",0,", ",y,"), COLUMNS, InputValueError, "'advert' holds 'x'"),
        (TABLE, Columns(id="id", hold="adverts"), InputValueError, "hold must name columns .* mean 'advert'"),
        (TABLE, Columns(id="id", hold="id"), InputValueError, "a column must be one thing; 'id' is named both as id"),
        (TABLE, Columns(hold="v", features=("v",)), InputValueError, "both as hold and in features"),
        ("id,h\na,1\na,0\n", Columns(id="id", hold="h"), InputValueError, "no column of the table is left"),
        ("v,h\n1,\n2,\n", Columns(hold="h"), FileError, "column 'h' must hold something"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, text, columns, error, words):
    assert_refused(lambda: read(csv(tmp_path, text), columns=columns), error, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"steps": [1, 2], "h": [1]}, "line 1: 'h' must be a list of 2, one a step; it has 1"),
        ({"steps": [1, 2], "h": 1}, "line 1: 'h' must be a list of 2, one a step; it is 1"),
        ({"steps": [1, 2], "h": [0, 3]}, "'h' holds 3 at sequence '1', step 2"),
        ({"steps": [1, 2]}, "hold must name features of the data"),
    ],
)
def test_lines_that_do_not_fit(tmp_path, line, words):
    path = write_json_lines(tmp_path / "x.jsonl", [line])
    assert_refused(lambda: read(path, columns=Columns(hold="h")), ValueError, words)


def test_arrays_that_do_not_fit(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3)), h=np.zeros(2))
    assert_refused(lambda: read(tmp_path / "x.npz", columns=Columns(hold="h")), FileError, r"'h' .* must be \(2, 3\)")
    assert_refused(lambda: read(np.zeros((2, 3)), columns=Columns(hold="x0")), InputValueError, "at least one feature")
    assert_refused(
        lambda: read(np.zeros((2, 3)), columns=Columns(hold="x7")), InputValueError, "hold must name features"
    )
