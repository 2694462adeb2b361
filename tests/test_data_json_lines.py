"""JSON Lines: both forms read back to the bit, and every refusal says file, line and step."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.data_writers import read, same, survives, write_json_lines
from tests.refusals import assert_refused
from tidegate.data import Columns, Feature
from tidegate.errors import FileError, InputValueError

NAN = np.nan
NUMBERS = st.none() | st.floats(allow_infinity=False, allow_nan=False) | st.integers(-(2**53), 2**53)
VALUES = {"number": NUMBERS, "boolean": st.none() | st.booleans(), "category": st.none() | st.text(max_size=3)}


def expected(values, kind):
    found = sorted({value for value in values if value is not None}) if kind == "category" else None
    return [NAN if value is None else found.index(value) if found is not None else value for value in values]


def put(tmp_path, lines, name="x.jsonl"):
    return write_json_lines(tmp_path / name, lines)


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    kinds=st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3),
    named=st.booleans(),
    data=st.data(),
)
def test_a_sequence_a_line_reads_back_to_the_bit(tmp_path_factory, lengths, kinds, named, data):
    count = sum(lengths)
    columns = [data.draw(st.lists(VALUES[kind], min_size=count, max_size=count)) for kind in kinds]
    for kind, column in zip(kinds, columns, strict=True):  # one value at least, so that the kind is told
        column[0] = {"number": 0.1, "boolean": True, "category": "a"}[kind]
    rows = list(zip(*columns, strict=True))
    steps = [{f"x{i}": value for i, value in enumerate(row)} if named else list(row) for row in rows]
    offsets = np.cumsum([0, *lengths])
    labels = [data.draw(st.sampled_from(["up", "down"])) for _ in lengths]
    lines = [
        {"id": f"s{number}", "steps": steps[start:stop], "label": label, "note": 1}
        for number, (start, stop, label) in enumerate(zip(offsets, offsets[1:], labels, strict=False))
    ]
    sequences = read(put(tmp_path_factory.mktemp("json"), lines))
    assert [feature.kind for feature in sequences.features] == kinds
    for number, (kind, column) in enumerate(zip(kinds, columns, strict=True)):
        np.testing.assert_array_equal(sequences.values[:, number], np.array(expected(column, kind), np.float64))
        texts = {value for value in column if value is not None}
        assert sequences.features[number].categories == (tuple(sorted(texts)) if kind == "category" else ())
    assert sequences.lengths.tolist() == lengths
    assert sequences.ids == [f"s{number}" for number in range(len(lengths))]
    assert [sequences.label.categories[int(code)] for code in sequences.label.values] == labels


@given(rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), NUMBERS), min_size=1), timed=st.booleans())
def test_a_step_a_line_is_gathered_by_id_and_time(tmp_path_factory, rows, timed):
    lines = [{"who": who, "t": time, "x": value} for who, time, value in rows]
    columns = Columns(id="who", time="t" if timed else None, ignore=() if timed else ("t",))
    assume(any(value is not None for _, _, value in rows))
    path = put(tmp_path_factory.mktemp("json"), lines)
    if timed and len({(who, time) for who, time, _ in rows}) < len(rows):
        assert_refused(lambda: read(path, columns=columns), FileError, "line [0-9]+: a sequence must have one line")
        return
    sequences = read(path, columns=columns)
    ids = list(dict.fromkeys(who for who, _, _ in rows))
    assert sequences.ids == ids
    gathered = [[row for row in rows if row[0] == who] for who in ids]
    if timed:
        gathered = [sorted(own, key=lambda row: row[1]) for own in gathered]
        assert sequences.times.tolist() == [time for own in gathered for _, time, _ in own]
    values = [[NAN if value is None else float(value)] for own in gathered for _, _, value in own]
    np.testing.assert_array_equal(sequences.values, values)


def test_all_is_the_same_beyond_memory_and_beyond_a_batch(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    lines = [{"id": int(rng.integers(7)), "x": float(value), "k": "ab"[number % 2]} for number, value in
             enumerate(rng.normal(size=10_000))]  # fmt: skip
    path = put(tmp_path, lines)
    whole = read(path, columns=Columns(id="id"))
    monkeypatch.setattr("tidegate.data.rows.IN_MEMORY", 1000)
    mapped = read(path, columns=Columns(id="id"))
    assert isinstance(mapped.values, np.memmap)
    np.testing.assert_array_equal(whole.values, mapped.values)
    assert whole.ids == mapped.ids
    assert [feature.categories for feature in mapped.features] == [(), ("a", "b")]


def test_a_label_for_each_step_and_times(tmp_path):
    lines = [
        {"steps": [1, 2], "label": ["a", None], "times": ["2024-05-01", "2024-05-01T00:00:10"]},
        {"steps": [None], "label": ["b"], "times": ["2024-05-02T00:00:00+02:00"]},
        {"steps": [4.5], "times": ["2024-05-02"]},
    ]
    sequences = read(put(tmp_path, lines))
    assert sequences.label.per_step
    np.testing.assert_array_equal(sequences.label.values, [0, NAN, 1, NAN])
    assert (sequences.times - sequences.times[0]).tolist() == [0, 10, 22 * 3600, 24 * 3600]
    assert sequences.ids == ["1", "2", "3"]
    same(sequences, [[[1], [2]], [[NAN]], [[4.5]]])


def test_two_lines_at_one_time_are_one_sentence(tmp_path):
    path = put(tmp_path, [{"id": who, "t": t, "x": 1} for who, t in [("a", 1), ("b", 2), ("a", 2), ("b", 1), ("b", 2)]])
    assert_refused(
        lambda: read(path, columns=Columns(id="id", time="t")),
        FileError,
        "line 5: a sequence must have one line for each time; 'b' has two at 't' = 2",
    )


def test_names_of_columns_are_looked_for_in_lines_and_steps(tmp_path):
    lines = [{"name": "s", "steps": [{"t": 1, "x": 2, "kind": "a"}, {"t": 2, "x": 3, "kind": "b"}]}]
    sequences = read(put(tmp_path, lines), columns=Columns(id="name", time="t", label="kind"))
    assert [feature.name for feature in sequences.features] == ["x"]
    assert sequences.times.tolist() == [1, 2]
    assert sequences.label.values.tolist() == [0, 1]
    assert sequences.ids == ["s"]


def test_a_name_that_a_step_lacks_is_missing(tmp_path):
    sequences = read(put(tmp_path, [{"steps": [{"a": 1}, {"b": True}]}, {"steps": [{}, {"c": "x"}]}]))
    assert [feature.name for feature in sequences.features] == ["a", "b", "c"]
    same(sequences, [[[1, NAN, NAN], [NAN, 1, NAN]], [[NAN, NAN, NAN], [NAN, NAN, 0]]])


def test_a_label_in_rows_is_of_sequences_unless_it_changes_within_one(tmp_path):
    cells = [(1, 0, "a"), (1, 1, None), (2, 1, "b")]
    rows: list[dict[str, object]] = [{"id": who, "x": x, "y": y} for who, x, y in cells]
    label = read(put(tmp_path, rows), columns=Columns(id="id", label="y")).label
    assert not label.per_step
    assert label.values.tolist() == [0, 1]
    rows[1]["y"] = "b"
    assert read(put(tmp_path, rows), columns=Columns(id="id", label="y")).label.per_step


def test_without_an_id_each_file_is_a_sequence(tmp_path):
    put(tmp_path, [{"x": 1}, {"x": 2}], "a.jsonl")
    put(tmp_path, [{"x": 3}], "b.ndjson")
    sequences = read(tmp_path)
    assert sequences.ids == ["a.jsonl", "b.ndjson"]
    same(sequences, [[[1], [2]], [[3]]])


def test_known_features_and_chosen_ones(tmp_path):
    path = put(tmp_path, [{"steps": [{"a": 1, "b": "x", "c": [1]}, {"a": 2, "b": "y", "c": "odd"}]}])
    known = (Feature("b", "category", ("y", "z")), Feature("a"))
    same(read(path, known=known), [[[-1, 1], [0, 2]]])
    same(read(path, columns=Columns(features=("a",))), [[[1], [2]]])
    same(read(path, columns=Columns(ignore=("c",), categorical=("a",))), [[[0, 0], [1, 1]]])
    assert_refused(
        lambda: read(path, columns=Columns(ignore=("c", "d"))), InputValueError, "ignore must name .*'d' is none"
    )


def test_blank_lines_and_nan(tmp_path):
    (tmp_path / "x.jsonl").write_text('\n{"steps": [1, NaN]}\n\n')
    same(read(tmp_path / "x.jsonl"), [[[1], [NAN]]])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n \n", "must have a line with a JSON object; all are blank"),
        ('{"steps": [1]}\n{"steps": [2', "line 2 must be JSON: "),
        ("[1]", r"line 1 must be a JSON object; it is \[1\]"),
        ('{"steps": []}', "line 1 must have steps, a list of one or more"),
        ('{"steps": 3}', "line 1 must have steps, a list of one or more, as the first line; it has 3"),
        ('{"steps": [1]}\n{"x": 1}', "line 2 must have steps"),
        ('{"x": 1}\n{"steps": [1]}', "line 2 has steps, and the first line has none"),
        ('{"steps": [1, [2]]}', "line 1: all steps must be lists, or all objects, or all values; they are mixed"),
        ('{"steps": [[1, 2], [3]]}', "line 1, step 2 must have 2 values, as step 1; it has 1"),
        ('{"steps": [[1, 2]]}\n{"steps": [[1]]}', "line 2: a step must have 2 values, as before; it has 1"),
        ('{"steps": [1, "a"]}', "line 1, step 2: 'x0' is a text, and before it is a number; all must be of one kind"),
        ('{"steps": [1]}\n{"steps": [null, true]}', "line 2, step 2: 'x0' is true or false, and before it is a number"),
        ('{"steps": [{"a": {}}]}', "line 1, step 1: 'a' must be a number, .* it is an object"),
        ('{"steps": [1, Infinity]}', "line 1, step 2: 'x0' must be finite"),
        ('{"steps": [1, -1e999]}', "line 1, step 2: 'x0' must be finite"),
        ('{"steps": [1, 1' + "0" * 400 + "]}", "line 1, step 2: 'x0' must be finite"),
        ('{"steps": [1, 1' + "0" * 5000 + "]}", "line 1 must be JSON: "),
        ('{"steps": ' + "[" * 100_000, "line 1 must be JSON: "),
        ('{"x": 1, "x": 2}', "line 1 must have each key once; it has 'x' twice"),
        ('{"id": 1, "steps": [1]}\n{"id": 1, "steps": [1]}', "line 2: an id must come once; '1' comes again"),
        ('{"id": [1], "steps": [1]}', r"line 1: an id must be a text or a number; it is \[1\]"),
        ('{"steps": [1], "label": [1, 2]}', "line 1: 'label' must be a list of 1, one a step; it has 2"),
        ('{"steps": [1], "times": 2}', "line 1: 'times' must be a list of 1, one a step; it is 2"),
        ('{"steps": [1], "times": ["x"]}', "line 1, step 1: a time must be a number or a date such as .*; it is 'x'"),
        ('{"steps": [1], "times": [null]}', "line 1, step 1: a time must be a number or a date"),
        ('{"steps": [1, 2], "times": [2, 1]}', "line 1, step 2: times must not fall"),
        ('{"steps": [1], "times": [2]}\n{"steps": [1]}', "line 2, step 1: all sequences must have times, or none"),
        (
            '{"steps": [1], "label": 2}\n{"steps": [1], "label": [1]}',
            "line 2, step 1: all labels must be one value, or",
        ),
        ('{"steps": [{}]}', "must have at least one feature; its steps have none"),
        ("{}", "must have at least one feature"),
    ],
)
def test_what_is_not_of_the_format_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "x.jsonl").write_text(text)
    assert_refused(lambda: read(tmp_path / "x.jsonl"), FileError, rf"x\.jsonl'.*{sentence}")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (Columns(id="who"), "line 1 must have 'who'; it has"),
        (Columns(time="t"), "line 1 must have 't'; it has"),
        (Columns(label="y"), "must have 'y', the label; no line has a value for it"),
    ],
)
def test_columns_that_are_not_there_are_one_sentence(tmp_path, columns, sentence):
    path = put(tmp_path, [{"x": 1}])
    assert_refused(lambda: read(path, columns=columns), FileError, sentence)
    path = put(tmp_path, [{"steps": [1]}])
    assert_refused(lambda: read(path, columns=columns), FileError, "line 1 must have '(who|t|y)'")


def test_a_column_is_one_thing(tmp_path):
    path = put(tmp_path, [{"x": 1, "y": 2}])
    assert_refused(lambda: read(path, columns=Columns(id="x", label="x")), InputValueError, "must be different columns")


def test_a_wrong_encoding_is_one_sentence(tmp_path):
    (tmp_path / "x.jsonl").write_bytes('{"x": "ä"}'.encode("latin-1"))
    assert_refused(lambda: read(tmp_path / "x.jsonl"), FileError, "line 1 must be UTF-8; byte 8 of it is 0xe4")


def test_damaged_files_are_read_or_refused(tmp_path):
    whole = put(tmp_path, [{"id": 1, "steps": [[1, "a"], [None, "b"]], "label": 3, "times": [0, 1]}] * 1)
    rows = put(tmp_path, [{"x": number, "y": "a", "z": True} for number in range(5)], "rows.jsonl")
    for path in (whole, rows):
        counts = survives(read, path.read_bytes(), tmp_path / "damaged.jsonl", 0.5)
        assert counts["FileError"] > 20
        assert counts["read"] > 0
