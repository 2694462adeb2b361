"""`.ts` files: what the format allows is read back to the bit, and every refusal says file and line."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.data_writers import read, same, survives, write_archive
from tests.refusals import assert_refused
from tidegate.data import Columns, Label
from tidegate.errors import FileError, InputValueError

NAN = np.nan
FLOATS = st.floats(allow_infinity=False)
HEAD = "@problemName p\n@timeStamps false\n@univariate true\n@classLabel true a b\n@data\n"


def cases(width):
    return st.lists(
        st.integers(1, 6).flatmap(lambda steps: hnp.arrays(np.float64, (steps, width), elements=FLOATS)), min_size=1
    )


@given(
    cases=st.integers(1, 3).flatmap(cases),
    data=st.data(),
    header=st.sampled_from([(), ("@missing true",), ("@equalLength false", "", "@SeriesNumber 3")]),
)
def test_classes_read_back_to_the_bit(tmp_path_factory, cases, data, header):
    assume(not np.isnan(np.concatenate(cases)).all(axis=0).any())
    labels = data.draw(st.lists(st.sampled_from(["walk", "run", "?"]), min_size=len(cases), max_size=len(cases)))
    path = tmp_path_factory.mktemp("ts") / "x.ts"
    width = cases[0].shape[1]
    header = (*header, "@univariate true") if width == 1 else (*header, "@univariate false", f"@dimensions {width}")
    sequences = read(write_archive(path, cases, labels=labels, classes=("walk", "run"), header=header))
    same(sequences, cases)
    assert sequences.label.categories == ("walk", "run")
    assert not sequences.label.per_step
    expected = [NAN if label == "?" else ("walk", "run").index(label) for label in labels]
    np.testing.assert_array_equal(sequences.label.values, expected)
    assert sequences.ids == [str(number) for number in range(len(cases))]
    assert sequences.times is None


@given(cases=cases(2), data=st.data())
def test_numbers_and_times_read_back_to_the_bit(tmp_path_factory, cases, data):
    assume(not np.isnan(np.concatenate(cases)).all(axis=0).any())
    finite = st.floats(allow_infinity=False, allow_nan=False)
    labels = [data.draw(finite) for _ in cases]
    times = [sorted(data.draw(st.lists(finite, min_size=len(case), max_size=len(case)))) for case in cases]
    path = tmp_path_factory.mktemp("ts") / "x.ts"
    sequences = read(write_archive(path, cases, labels=labels, times=times))
    same(sequences, cases)
    assert sequences.label.categories is None
    np.testing.assert_array_equal(sequences.label.values, labels)
    np.testing.assert_array_equal(sequences.times, np.concatenate(times))


def write(tmp_path, text, name="x.ts"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_dates_become_seconds(tmp_path):
    stamped = "(2024-05-01 00:00:00,1.5),(2024-05-01 00:00:10,?):(2024-05-01 00:00:00,2),(2024-05-01 00:00:10,3):a"
    sequences = read(write(tmp_path, f"@timeStamps true\n@classLabel true a b\n@data\n{stamped}\n"))
    assert np.diff(sequences.times).tolist() == [10]
    assert sequences.times[0] == np.datetime64("2024-05-01").astype("datetime64[s]").astype(float)
    same(sequences, [[[1.5, 2], [NAN, 3]]])


def test_dimensions_with_other_times_are_joined(tmp_path):
    sequences = read(write(tmp_path, "@timeStamps true\n@data\n(0,1),(1,2),(1,3):(0.5,4),(1,5)\n"))
    assert sequences.times.tolist() == [0, 0.5, 1, 1]
    same(sequences, [[[1, NAN], [NAN, 4], [2, 5], [3, NAN]]])
    assert sequences.label is None


def test_a_file_as_the_archive_has_them(tmp_path):
    text = "#A comment\n#\n@problemName Motions\n@timestamps FALSE\n@missing false\n@univariate false\n@dimension 2\n"
    text += "@equallength true\n@serieslength 3\n@classlabel true Standing Walking\n@data\n"
    sequences = read(write(tmp_path, text + "1,2, 3:4,5,6:Standing\n\n-1e-3,NaN,?:7,8,9:Walking"))
    same(sequences, [[[1, 4], [2, 5], [3, 6]], [[-1e-3, 7], [NAN, 8], [NAN, 9]]])
    assert [feature.name for feature in sequences.features] == ["x0", "x1"]


def test_several_files_are_one_set(tmp_path):
    write(tmp_path, HEAD + "1,2:a\n", "TRAIN.ts")
    write(tmp_path, HEAD + "3:b\n4:a\n", "TEST.ts")
    sequences = read(tmp_path / "*.ts", columns=Columns(label="motion"))
    same(sequences, [[[3]], [[4]], [[1], [2]]])
    assert sequences.ids == ["TEST.ts:0", "TEST.ts:1", "TRAIN.ts:0"]
    assert sequences.label.name == "motion"
    write(tmp_path, HEAD.replace("a b", "a c") + "1:a\n", "other.ts")
    assert_refused(lambda: read(tmp_path), FileError, "'.*TEST.ts' and '.*other.ts' must have the same labels")
    write(tmp_path, HEAD.replace("@univariate true\n", "") + "1:2:a\n", "other.ts")
    assert_refused(lambda: read(tmp_path), FileError, "'.*other.ts', line 5 must have 1 dimensions")


def test_classes_not_seen_in_training(tmp_path):
    known = Label("label", np.zeros(1), False, ("b",))
    assert read(write(tmp_path, HEAD + "1:a\n1:b\n"), known_label=known).label.values.tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n# nothing\n", "must have a line @data; it ends without one"),
        ("@data\n", "must have a sequence after @data; it has none"),
        ("1,2,3\n", "line 1 must begin with @ or #, as all lines before @data; it is '1,2,3'"),
        ("@timeStamps yes\n@data\n1", "line 1: @timeStamps must be followed by true or false; it is 'yes'"),
        ("@clasLabel true a\n@data\n1:a", "line 1: @clasLabel is not known; @classlabel is"),
        ("@classLabel true\n@data\n1:a", "line 1: @classLabel true must be followed by the classes"),
        ("@classLabel true a a\n@data\n1:a", "line 1: @classLabel true must be followed by the classes, each once"),
        ("@classLabel true a\n@targetLabel true\n@data\n1:a", "line 2: a file must have .* it has both"),
        ("@dimensions two\n@data\n1:1", "line 1: @dimensions must be followed by a whole number from 1; it is 'two'"),
        ("@dimensions 0\n@data\n1:1", "line 1: @dimensions must be followed by a whole number from 1"),
        (HEAD + "1,2:c", "line 6: the class must be one of a, b; it is 'c'"),
        (HEAD + "1,2", "line 6 must end with ':' and a label; it ends with '1,2'"),
        (HEAD + "1,2:3,4:a", "line 6 must have 1 dimension and a label; it has 2"),
        (HEAD + "1,2:a\n1,x:a", "line 7: x0 at step 1 must be a finite number or [?]; it is 'x'"),
        (HEAD + "1,inf:a", "line 6: x0 at step 1 must be a finite number or [?]; it is 'inf'"),
        (HEAD + "1,1e999:a", "line 6: x0 at step 1 must be a finite"),
        (HEAD + "1,1_0:a", "line 6: x0 at step 1 must be a finite number or [?]; it is '1_0'"),
        (HEAD + "1,,2:a", "line 6: x0 at step 1 must be a finite number or [?]; it is ''"),
        (HEAD + ":a", "line 6: x0 at step 0 must be"),
        ("@targetLabel true\n@data\n1:x", "line 3: the label must be a finite number"),
        ("@data\n1,2:3", "line 2: all dimensions must have the same number of steps; x0 has 2 and x1 has 1"),
        ("@data\n1:2\n1", "line 3 must have 2 dimensions, as the first has; it has 1"),
        ("@equalLength true\n@data\n1,2\n1", "line 4 must have 2 steps, as @equalLength says; it has 1"),
        ("@equalLength true\n@seriesLength 3\n@data\n1,2", "line 4 must have 3 steps"),
        ("@timeStamps true\n@data\n1,2", r"line 3 must hold \(time,value\), .* it holds '1,2'"),
        ("@timeStamps true\n@data\n(1,2)(2,3)", r"line 3 must hold \(time,value\), .*; it holds ''"),
        ("@timeStamps true\n@data\n(1,2),(2,3", r"line 3 must hold \(time,value\), .*; it holds ',\(2,3'"),
        ("@timeStamps true\n@data\n(1)", r"line 3: x0 must hold \(time,value\); it holds '\(1\)'"),
        ("@timeStamps true\n@data\n(x,1)", "line 3: a time must be a number or a date such as .*; it is 'x'"),
        ("@timeStamps true\n@data\n(1,2,3)", "line 3: a time must be a number or a date such as .*; it is '1,2'"),
        ("@timeStamps true\n@data\n(2,0),(1,0)", "line 3: the times of x0 must not fall"),
        ("@timeStamps true\n@classLabel true a\n@data\n(2,0)", "line 4 must end with ':' and a label"),
    ],
)
def test_what_is_not_of_the_format_is_one_sentence(tmp_path, text, sentence):
    path = write(tmp_path, text)
    assert_refused(lambda: read(path), FileError, rf"x\.ts'.*{sentence}")


def test_a_wrong_encoding_is_one_sentence(tmp_path):
    (tmp_path / "x.ts").write_bytes((HEAD + "1:ä\n").encode("latin-1"))
    assert_refused(lambda: read(tmp_path / "x.ts"), FileError, "line 6 must be UTF-8; byte 3 of it is 0xe4")
    (tmp_path / "x.ts").write_bytes(HEAD.encode("utf-16"))
    assert_refused(lambda: read(tmp_path / "x.ts"), FileError, "line 1 must be UTF-8")


def test_there_are_no_columns(tmp_path):
    path = write(tmp_path, HEAD + "1:a\n")
    plain = write(tmp_path, "@data\n1,2\n", "plain.ts")
    assert_refused(lambda: read(plain, columns=Columns(label="y")), FileError, "plain.ts' must have a label, with")
    assert_refused(lambda: read(path, columns=Columns(id="id")), InputValueError, "got id 'id'")


def test_damaged_files_are_read_or_refused(tmp_path):
    plain = write_archive(tmp_path / "a.ts", [np.ones((3, 2)), np.zeros((1, 2))], labels="ab", classes="ab")
    stamped = write_archive(tmp_path / "b.ts", [np.ones((3, 2))], labels=[0.5], times=[["2024-01-01", 1, 2]])
    stamped.write_text(stamped.read_text().replace("2024-01-01", "0"))
    for whole in (plain, stamped):
        counts = survives(read, whole.read_bytes(), tmp_path / "damaged.ts", 0.5)
        assert counts["FileError"] > 20
        assert counts["read"] > 0
