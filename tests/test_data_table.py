"""Tables in long form become sequences: which rows, in which order, and what their cells mean."""

import datetime
import decimal
import gc
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.table_helpers import COLUMNS, assert_same, csv, parquet
from tidegate.data import read_table
from tidegate.data.sequences import Columns, Feature, Label

TABLE = "id,t,x\nb,2,3\na,1,4\nb,1,5\na,0.5,\n"


def test_rows_become_sequences_in_the_order_of_time(tmp_path):
    read = read_table(csv(tmp_path, TABLE), COLUMNS)
    assert read.ids == ["b", "a"]
    assert read.features == (Feature("x"),)
    assert read.values.dtype == np.float64
    np.testing.assert_array_equal(read.offsets, [0, 2, 4])
    np.testing.assert_array_equal(read.times, [1, 2, 0.5, 1])
    np.testing.assert_array_equal(read.values[:, 0], [5, 3, np.nan, 4])
    assert read.label is None
    assert read.files == (str(tmp_path / "table.csv"),)


def test_without_a_time_rows_stay_in_order(tmp_path):
    read = read_table(csv(tmp_path, TABLE), Columns(id="id", ignore=("t",)))
    assert read.times is None
    np.testing.assert_array_equal(read.values[:, 0], [3, 5, 4, np.nan])


def test_without_an_id_a_file_is_a_sequence(tmp_path):
    csv(tmp_path, "t,x\n2,1\n1,2\n", "one.csv")
    csv(tmp_path, "t,x\n1,3\n", "two.csv")
    read = read_table(tmp_path, Columns(time="t"))
    assert read.ids == ["one", "two"]
    np.testing.assert_array_equal(read.values[:, 0], [2, 1, 3])


def test_files_of_one_name_in_two_folders_are_called_by_their_paths(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        csv(tmp_path / folder, "x\n1\n2\n", "run.csv")
    read = read_table(tmp_path / "*" / "run.csv", Columns())
    assert read.ids == [str(tmp_path / folder / "run.csv") for folder in ("a", "b")]


def test_a_sequence_goes_on_from_file_to_file(tmp_path):
    first = csv(tmp_path, "id,t,x\na,3,1\n", "1.csv")
    second = csv(tmp_path, "x,t,id\n2,1,a\n3,1,b\n", "2.csv")
    read = read_table([first, second], COLUMNS)
    assert read.ids == ["a", "b"]
    np.testing.assert_array_equal(read.values[:, 0], [2, 1, 3])


@pytest.mark.parametrize("how", ["folder", "pattern", "list", "text"])
def test_paths_may_be_given_in_several_ways(tmp_path, how):
    csv(tmp_path, "id,x\na,1\n", "b.csv")
    csv(tmp_path, "id,x\nb,2\n", "a.csv")
    csv(tmp_path, "nothing", "notes.txt")
    paths = {
        "folder": tmp_path,
        "pattern": str(tmp_path / "*.csv"),
        "list": [tmp_path / "a.csv", str(tmp_path / "b.csv")],
        "text": f"{tmp_path}{os.sep}",
    }
    assert read_table(paths[how], Columns(id="id")).ids == ["b", "a"]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t"), ("t.CSV.GZ", ","), ("t.tsv.gz", "\t")]
)
def test_text_by_the_ending_of_its_name(tmp_path, name, delimiter):
    text = TABLE.replace(",", delimiter).encode()
    path = csv(tmp_path, gzip.compress(text) if name.lower().endswith("gz") else text, name)
    assert_same(read_table(path, COLUMNS), read_table(csv(tmp_path, TABLE), COLUMNS))


@pytest.mark.parametrize("change", ["bom", "crlf", "cr", "blank lines", "no last newline", "quotes"])
def test_text_as_editors_and_spreadsheets_write_it(tmp_path, change):
    changed = {
        "bom": b"\xef\xbb\xbf" + TABLE.encode(),
        "crlf": TABLE.replace("\n", "\r\n").encode(),
        "cr": TABLE.replace("\n", "\r").encode(),
        "blank lines": TABLE.replace("\n", "\n\n").encode(),
        "no last newline": TABLE[:-1].encode(),
        "quotes": "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in TABLE.split()).encode(),
    }
    assert_same(
        read_table(csv(tmp_path, changed[change]), COLUMNS), read_table(csv(tmp_path, TABLE, "plain.csv"), COLUMNS)
    )


def test_quoted_newlines_and_marks_are_part_of_a_cell(tmp_path):
    read = read_table(csv(tmp_path, 'id,x\n"a\nb",u\n"a\nb","v ""w"""\n'), Columns(id="id"))
    assert read.ids == ["a\nb"]
    assert read.features[0].categories == ("u", 'v "w"')


def test_ids_of_text_keep_their_zeros(tmp_path):
    assert read_table(csv(tmp_path, "id,x\n007,1\n7,2\n"), Columns(id="id")).ids == ["007", "7"]


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (pa.array([3, 1], pa.int8()), ["3", "1"]),
        (pa.array([3.0, 1.0]), ["3", "1"]),
        (pa.array(["x", "é"], pa.large_string()), ["x", "é"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([datetime.date(2024, 1, 2), datetime.date(2024, 1, 1)]), ["2024-01-02", "2024-01-01"]),
    ],
)
def test_ids_of_any_type(tmp_path, ids, names):
    assert read_table(parquet(tmp_path, {"id": ids, "x": [1, 2]}), Columns(id="id")).ids == names


# ---------------------------------------------------------------------------------------------------------------------
# What cells mean


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3], pa.int64()),
        pa.array([1, None, 3], pa.uint8()),
        pa.array([1.0, np.nan, 3.0], pa.float64()),
        pa.array([1.0, None, 3.0], pa.float32()),
        pa.array(np.array([1, np.nan, 3], np.float16)),
        pa.array([decimal.Decimal("1.00"), None, decimal.Decimal("3.00")]),
        pa.array([1, None, 3], pa.int32()).dictionary_encode(),
    ],
)
def test_numbers_of_every_type(tmp_path, column):
    read = read_table(parquet(tmp_path, {"x": column}), Columns())
    assert read.features == (Feature("x", "number"),)
    np.testing.assert_array_equal(read.values[:, 0], [1, np.nan, 3])


def test_whole_numbers_beyond_those_of_float64_are_rounded(tmp_path):
    read = read_table(parquet(tmp_path, {"x": [2**63 - 1, 1]}), Columns())
    np.testing.assert_array_equal(read.values[:, 0], [2.0**63, 1])


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1", "2.5"], [1, 2.5]),
        (["1", "", "NaN"], [1, np.nan, np.nan]),
        ([" 1 ", "NA", "null", "N/A"], [1, np.nan, np.nan, np.nan]),
        (["+1e3", "-.5", "5."], [1000, -0.5, 5]),
        (["0.1", "1e-320", "1.7976931348623157e308"], [0.1, 1e-320, 1.7976931348623157e308]),
    ],
)
def test_numbers_of_text(tmp_path, cells, numbers):
    rows = "".join(f"{cell},0\n" for cell in cells)
    read = read_table(csv(tmp_path, f"x,y\n{rows}"), Columns())
    assert read.features[0] == Feature("x", "number")
    np.testing.assert_array_equal(read.values[:, 0], numbers)


def test_a_column_of_whole_numbers_that_goes_on_with_others_is_one_of_numbers(tmp_path):
    rows = "".join(f"{number},0\n" for number in range(800_000))
    read = read_table(csv(tmp_path, f"x,y\n{rows}1.5,0\n"), Columns())
    assert read.features[0] == Feature("x", "number")
    assert read.values[-1, 0] == 1.5
    np.testing.assert_array_equal(read.values[:-1, 0], np.arange(800_000))


@pytest.mark.parametrize("words", [("true", "false"), ("True", "False"), ("TRUE", "FALSE")])
def test_booleans_of_text(tmp_path, words):
    read = read_table(csv(tmp_path, f"x,y\n{words[0]},0\n{words[1]},0\n,0\n"), Columns())
    assert read.features[0] == Feature("x", "boolean")
    np.testing.assert_array_equal(read.values[:, 0], [1, 0, np.nan])


def test_booleans_of_parquet(tmp_path):
    read = read_table(parquet(tmp_path, {"x": [True, False, None]}), Columns())
    assert read.features == (Feature("x", "boolean"),)
    np.testing.assert_array_equal(read.values[:, 0], [1, 0, np.nan])


@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_words_are_sorted_categories(tmp_path, type):
    words = ["red", "blue", None, "red", "12"]
    read = read_table(parquet(tmp_path, {"x": pa.array(words).cast(type)}), Columns())
    assert read.features == (Feature("x", "category", ("12", "blue", "red")),)
    np.testing.assert_array_equal(read.values[:, 0], [2, 1, np.nan, 2, 0])


def test_words_of_text_and_na_among_them_is_a_word(tmp_path):
    read = read_table(csv(tmp_path, "x,y\nred,0\nNA,0\n,0\n"), Columns())
    assert read.features[0] == Feature("x", "category", ("NA", "red"))
    np.testing.assert_array_equal(read.values[:, 0], [1, 0, np.nan])


def test_numbers_may_be_named_categories_and_are_then_sorted_as_numbers(tmp_path):
    columns = Columns(categorical=("x",))
    expected = (Feature("x", "category", ("2", "10", "33")),)
    for read in (
        read_table(csv(tmp_path, "x\n33\n2\n10\n"), columns),
        read_table(parquet(tmp_path, {"x": [33, 2, 10]}), columns),
        read_table(parquet(tmp_path, {"x": [33.0, 2.0, 10.0]}), columns),
    ):
        assert read.features == expected
        np.testing.assert_array_equal(read.values[:, 0], [2, 0, 1])


def test_numbers_and_words_may_be_named_categories(tmp_path):
    read = read_table(csv(tmp_path, "x\n12\n12A\n12\n"), Columns(categorical=("x",)))
    assert read.features == (Feature("x", "category", ("12", "12A")),)


def test_features_are_read_in_the_order_given(tmp_path):
    path = csv(tmp_path, "a,b,c\n1,2,3\n")
    assert read_table(path, Columns(features=("c", "a"))).values.tolist() == [[3, 1]]
    assert read_table(path, Columns(ignore=("b",))).values.tolist() == [[1, 3]]


# ---------------------------------------------------------------------------------------------------------------------
# Time

NOON = 1704110400.0  # 2024-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (["1", "2.5"], [1, 2.5]),
        (["2024-01-01T12:00:00", "2024-01-01 12:00:01.25"], [NOON, NOON + 1.25]),
        (["2024-01-01T12:00:00Z", "2024-01-01T12:00:01+01:00"], [NOON - 3599, NOON]),
        (["2024-01-01", "2024-01-02"], [NOON - 43200, NOON + 43200]),
        (["2024-01-01T12:00:00.123456789", "2024-01-01T12:00:01"], [1704110400123456789 / 1e9, NOON + 1]),
    ],
)
def test_time_of_text(tmp_path, cells, seconds):
    rows = "".join(f"{cell},{number}\n" for number, cell in enumerate(cells))
    table = {"t": cells, "x": [0, 1]}
    for path in (csv(tmp_path, f"t,x\n{rows}"), parquet(tmp_path, table)):
        np.testing.assert_array_equal(read_table(path, Columns(time="t")).times, seconds)


@pytest.mark.parametrize(
    ("column", "seconds"),
    [
        (pa.array([1, 2], pa.int32()), [1, 2]),
        (pa.array([0.5, 0.75]), [0.5, 0.75]),
        (pa.array([1, 2], pa.timestamp("s")), [1, 2]),
        (pa.array([1500, 2500], pa.timestamp("ms", "Europe/Berlin")), [1.5, 2.5]),
        (pa.array([1704110400123456, 1704110400123457], pa.timestamp("us")), [1704110400.123456, 1704110400.123457]),
        (pa.array([1, 10**9], pa.timestamp("ns")), [1e-9, 1]),
        (pa.array([1, 2], pa.date32()), [86400, 172800]),
        (pa.array([86400000, 2 * 86400000], pa.date64()), [86400, 172800]),
        (pa.array([1, 2], pa.time32("s")), [1, 2]),
        (pa.array([1, 2], pa.time64("us")), [1e-6, 2e-6]),
        (pa.array([1, 2], pa.duration("ms")), [1e-3, 2e-3]),
    ],
)
def test_time_of_every_type(tmp_path, column, seconds):
    read = read_table(parquet(tmp_path, {"t": column, "x": [0, 1]}), Columns(time="t"))
    np.testing.assert_array_equal(read.times, seconds)


# ---------------------------------------------------------------------------------------------------------------------
# Labels


def labels(folder: Path, rows: str, **columns) -> Label:
    read = read_table(csv(folder, f"id,x,y\n{rows}"), Columns(id="id", label="y", **columns))
    assert read.label is not None
    return read.label


def test_a_label_that_is_the_same_all_through_sequences_is_theirs(tmp_path):
    label = labels(tmp_path, "a,1,up\nb,2,down\na,3,up\n")
    assert (label.per_step, label.categories) == (False, ("down", "up"))
    np.testing.assert_array_equal(label.values, [1, 0])


def test_rows_without_a_label_say_nothing_of_a_sequence(tmp_path):
    label = labels(tmp_path, "a,1,\nb,2,down\na,3,up\nc,1,\n")
    assert not label.per_step
    np.testing.assert_array_equal(label.values, [1, 0, np.nan])


def test_a_label_that_changes_is_of_steps(tmp_path):
    label = labels(tmp_path, "a,1,up\nb,2,down\na,3,\na,3,down\n")
    assert label.per_step
    np.testing.assert_array_equal(label.values, [1, np.nan, 0, 0])


def test_numbers_are_labels(tmp_path):
    label = labels(tmp_path, "a,1,0.5\nb,2,1.25\n")
    assert (label.per_step, label.categories) == (False, None)
    np.testing.assert_array_equal(label.values, [0.5, 1.25])


def test_booleans_are_categories(tmp_path):
    for label in (
        labels(tmp_path, "a,1,True\nb,2,False\nc,2,\n"),
        read_table(
            parquet(tmp_path, {"id": ["a", "b", "c"], "x": [1, 2, 2], "y": [True, False, None]}),
            Columns(id="id", label="y"),
        ).label,
    ):
        assert label is not None
        assert label.categories == ("false", "true")
        np.testing.assert_array_equal(label.values, [1, 0, np.nan])


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        ([0, 1, 0, 1], ("0", "1")),
        ([1, 2, 3, 3], ("1", "2", "3")),
        ([-1, 1, 1], ("-1", "1")),
        ([0.0, 1.0, 1.0], ("0", "1")),
        ([3, 7] * 15, ("3", "7")),
        ([3, 7] * 5, None),
        ([0, 1, 2], None),
        ([0, 0.5, 1, 1], None),
        ([*range(20), 0], tuple(map(str, range(20)))),
        ([*range(21), 0], None),
    ],
)
def test_whole_numbers_are_categories_if_they_look_like_classes(tmp_path, values, categories):
    table = {"id": [str(number) for number in range(len(values))], "x": values, "y": values}
    label = read_table(parquet(tmp_path, table), Columns(id="id", label="y")).label
    assert label is not None
    assert label.categories == categories
    names = values if categories is None else [categories.index(str(int(value))) for value in values]
    np.testing.assert_array_equal(label.values, names)


def test_whole_numbers_of_steps_may_be_categories(tmp_path):
    label = labels(tmp_path, "a,1,1\na,2,2\na,3,\na,4,1\n")
    assert (label.per_step, label.categories) == (True, ("1", "2"))
    np.testing.assert_array_equal(label.values, [0, 1, np.nan, 0])


def test_a_label_may_be_named_categorical(tmp_path):
    label = labels(tmp_path, "a,1,17\nb,2,4\n", categorical=("y",))
    assert label.categories == ("4", "17")
    np.testing.assert_array_equal(label.values, [1, 0])


def test_a_label_of_one_long_sequence_among_short_ones(tmp_path):
    """Longer than what is looked at together."""
    lengths = [3, 600_000, 1, 2]
    ids = np.repeat(["a", "b", "c", "d"], lengths)
    label = np.repeat([1.5, 2.5, 3.5, 4.5], lengths)
    table = {"id": ids, "x": np.arange(len(ids)), "y": label}
    for memory in (2**30, 1):
        read = read_table(parquet(tmp_path, table), Columns(id="id", label="y"), memory=memory).label
        assert read is not None
        assert not read.per_step
        np.testing.assert_array_equal(read.values, [1.5, 2.5, 3.5, 4.5])
    label[600_000] = 7
    changed = read_table(parquet(tmp_path, {**table, "y": label}), Columns(id="id", label="y")).label
    assert changed is not None
    assert changed.per_step


# ---------------------------------------------------------------------------------------------------------------------
# What a run already knows

KNOWN = (Feature("c", "category", ("blue", "red")), Feature("x"), Feature("b", "boolean"))


def test_known_features_are_read_in_their_order_with_their_categories(tmp_path):
    path = csv(tmp_path, "more,b,x,c,id\n?,true,1,green,s\n?,,2,red,s\n?,false,,,s\n")
    read = read_table(path, Columns(id="id"), known=KNOWN)
    assert read.features == KNOWN
    np.testing.assert_array_equal(read.values, [[-1, 1, 1], [1, 2, np.nan], [np.nan, np.nan, 0]])


def test_known_features_of_parquet(tmp_path):
    table = {"b": [True, None], "x": [1, 2], "c": ["red", "green"], "more": [[1], [2]]}
    read = read_table(parquet(tmp_path, table), Columns(), known=KNOWN)
    np.testing.assert_array_equal(read.values, [[1, 1, 1], [-1, 2, np.nan]])


def test_a_known_feature_may_be_missing_in_every_row(tmp_path):
    read = read_table(csv(tmp_path, "b,x,c\n,,\n,,\n"), Columns(), known=KNOWN)
    assert read.features == KNOWN
    assert np.isnan(read.values).all()


def test_files_need_to_agree_in_known_columns_only(tmp_path):
    csv(tmp_path, "b,x,c,u\ntrue,1,red,0\n", "1.csv")
    csv(tmp_path, "v,c,x,b\n,red,1,true\n", "2.csv")
    assert len(read_table(tmp_path, Columns(), known=KNOWN)) == 2


def test_categories_that_are_numbers_are_known_however_they_are_written(tmp_path):
    known = (Feature("c", "category", ("2", "10")),)
    expected = [[1], [0], [-1]]
    assert read_table(csv(tmp_path, "c\n10.0\n 2\n3\n"), Columns(), known=known).values.tolist() == expected
    assert read_table(parquet(tmp_path, {"c": [10.0, 2.0, 3.0]}), Columns(), known=known).values.tolist() == expected
    assert read_table(parquet(tmp_path, {"c": [10, 2, 3]}), Columns(), known=known).values.tolist() == expected


def known_label(categories: tuple[str, ...] | None, *, per_step: bool = False) -> Label:
    return Label("y", np.zeros(0), per_step, categories)


def test_a_known_label_keeps_its_categories(tmp_path):
    path = csv(tmp_path, "id,x,y\na,1,up\nb,1,sideways\nc,1,\n")
    read = read_table(path, Columns(id="id", label="y"), known=[Feature("x")], known_label=known_label(("down", "up")))
    assert read.label is not None
    assert read.label.categories == ("down", "up")
    np.testing.assert_array_equal(read.label.values, [1, -1, np.nan])


def test_a_known_label_keeps_its_kind(tmp_path):
    path = csv(tmp_path, "id,x,y\na,1,0\na,1,0\nb,1,1\n")
    options = {"columns": Columns(id="id", label="y"), "known": [Feature("x")]}
    number = read_table(path, **options, known_label=known_label(None)).label
    assert number is not None
    assert (number.categories, number.values.tolist()) == (None, [0, 1])
    steps = read_table(path, **options, known_label=known_label(None, per_step=True)).label
    assert steps is not None
    assert (steps.per_step, steps.values.tolist()) == (True, [0, 0, 1])
    words = read_table(path, **options, known_label=known_label(("1", "0"))).label
    assert words is not None
    assert words.values.tolist() == [1, 0]


def test_a_known_label_need_not_be_there(tmp_path):
    path = csv(tmp_path, "id,x\na,1\n")
    read = read_table(path, Columns(id="id"), known=[Feature("x")], known_label=known_label(("down", "up")))
    assert read.label is None


# ---------------------------------------------------------------------------------------------------------------------
# On disk


def test_what_is_larger_than_the_memory_allowed_lies_in_files_that_go_with_it(tmp_path):
    path = csv(tmp_path, "id,t,x,y\na,2,1,0.5\na,1,2,0.25\n")
    columns = Columns(id="id", time="t", label="y")
    workspace = tmp_path / "work"
    workspace.mkdir()
    read = read_table(path, columns, memory=15, workspace=workspace)
    assert read.label is not None
    for array in (read.values, read.times, read.label.values):
        assert isinstance(array, np.memmap)
        assert Path(str(array.filename)).is_relative_to(workspace)
    assert_same(read, read_table(path, columns))
    values = read.values
    del read, array
    gc.collect()
    assert list(workspace.iterdir()) == []
    assert values.tolist() == [[2], [1]]
    assert not isinstance(read_table(path, columns, memory=16).values, np.memmap)


def test_files_go_when_the_process_ends(tmp_path):
    path = csv(tmp_path, TABLE)
    program = (
        "import sys; from tidegate.data import read_table; from tidegate.data.sequences import Columns; "
        "from pathlib import Path; w = Path(sys.argv[2]); "
        "read = read_table(sys.argv[1], Columns(id='id', time='t'), memory=1, workspace=w); "
        "print(len(list(w.glob('tidegate-*/*'))))"
    )
    workspace = tmp_path / "work"
    workspace.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, path, workspace], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "2"
    assert list(workspace.iterdir()) == []


def test_a_forked_process_leaves_the_files_of_its_parent(tmp_path):
    read = read_table(csv(tmp_path, TABLE), COLUMNS, memory=1, workspace=tmp_path)
    child = os.fork()
    if child == 0:
        del read
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob("tidegate-*/values.f64"))) == 1
    assert read.values[0, 0] == 5


def test_long_sequences_on_disk_are_brought_into_the_order_of_time(tmp_path):
    """Longer than what is moved together, with others around it."""
    steps = 300_000
    order = np.random.default_rng(0).permutation(steps)
    ids = np.concatenate([["a"], np.full(steps, "b"), ["c"]])
    times = np.concatenate([[5], order, [7]])
    table = {"id": ids, "t": times, "x": times * 0.5, "z": -times, "y": times * 2.0}
    columns = Columns(id="id", time="t", label="y")
    path = parquet(tmp_path, table)
    read = read_table(path, columns, memory=1, workspace=tmp_path)
    expected = np.concatenate([[5], np.arange(steps), [7]])
    np.testing.assert_array_equal(read.times, expected)
    np.testing.assert_array_equal(read.values, np.stack([expected * 0.5, -expected], 1))
    assert read.label is not None
    np.testing.assert_array_equal(read.label.values, expected * 2.0)
    assert_same(read, read_table(path, columns))
