"""Any table, its rows in any order and in any number of files, gives the sequences that it was made from."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.table_helpers import assert_same
from tidegate.data import read_table
from tidegate.data.cells import NUMBER
from tidegate.data.sequences import Columns, Feature, Label, Sequences

FLOATS = st.floats(allow_infinity=False, allow_nan=False)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)


def is_a_word(word: str) -> bool:
    """Neither number nor boolean, as CSV tells them."""
    tight = word.strip()
    no_words = ("true", "True", "TRUE", "false", "False", "FALSE", "", "NA", "N/A", "na", "n/a", "null", "NULL", "None")
    return tight not in no_words and not pa.compute.match_substring_regex(pa.array([tight]), NUMBER)[0].as_py()


@dataclass
class Drawn:
    """A table, and what it must give."""

    table: pa.Table  # its rows in the order of the files
    cuts: list[int]
    features: list[tuple]
    arrays: tuple  # values, offsets, ids, times
    label_parts: tuple | None
    column_parts: tuple

    # records are made outside the strategy: checking their types draws random numbers

    @property
    def columns(self) -> Columns:
        return Columns(*self.column_parts)

    @property
    def sequences(self) -> Sequences:
        label = None if self.label_parts is None else Label(*self.label_parts)
        values, offsets, ids, times = self.arrays
        features = tuple(Feature(*parts) for parts in self.features)
        return Sequences(features, values, offsets, ids, times, label)


@st.composite
def tables(draw: st.DrawFn) -> Drawn:
    kinds = draw(st.lists(st.sampled_from(["number", "whole", "boolean", "category"]), min_size=1, max_size=4))
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    steps = sum(lengths)
    ids = draw(st.lists(WORDS, min_size=len(lengths), max_size=len(lengths), unique=True))
    has_times = draw(st.booleans())
    times = draw(st.lists(FLOATS.map(lambda time: time + 0.0), min_size=steps, max_size=steps, unique=True))
    cells, numbers, features = {}, [], []
    for number, kind in enumerate(kinds):
        column, coded, feature = draw_column(draw, f"x{number}", kind, steps)
        cells[feature[0]] = column
        numbers.append(coded)
        features.append(feature)
    label_kind = draw(st.sampled_from([None, "sequence", "step"]))
    order = np.array(draw(st.permutations(range(steps))))
    number_of = np.repeat(np.arange(len(lengths)), lengths)
    if not has_times:  # the order of a sequence's rows is then that of its steps
        for number in range(len(lengths)):
            order[number_of[order] == number] = np.flatnonzero(number_of == number)
    table: dict[str, object] = {"id": [ids[number] for number in number_of], **cells}
    table |= {"t": times} if has_times else {}
    label = None
    if label_kind is not None:
        values = np.array(draw(st.lists(FLOATS, min_size=steps, max_size=steps))) / 2 + 0.1
        values = values[number_of] if label_kind == "sequence" else values
        label = values
        table["y"] = values
    shuffled = pa.table(table).take(pa.array(order))
    met = list(dict.fromkeys(number_of[order].tolist()))
    own = [np.flatnonzero(number_of == number) for number in met]
    rows = np.concatenate([part[np.argsort(np.array(times)[part])] if has_times else part for part in own])
    given_label = None
    if label is not None:
        per_step = any(len(set(label[number_of == number].tolist())) > 1 for number in met)
        shown = label[rows] if per_step else np.array([label[number_of == number][0] for number in met])
        given_label = ("y", shown, per_step, None)
    arrays = (
        np.stack(numbers, 1)[rows],
        np.concatenate([[0], np.cumsum([lengths[number] for number in met])]),
        [ids[number] for number in met],
        np.array(times)[rows] if has_times else None,
    )
    columns = ("id", "t" if has_times else None, "y" if label is not None else None, tuple(cells))
    cuts = draw(st.lists(st.integers(1, max(1, steps - 1)), max_size=3, unique=True).map(sorted))
    return Drawn(shuffled, [cut for cut in cuts if cut < steps], features, arrays, given_label, columns)


def draw_column(draw: st.DrawFn, name: str, kind: str, steps: int) -> tuple[pa.Array, np.ndarray, tuple]:
    values: list
    if kind == "category":
        words = draw(st.lists(WORDS.filter(is_a_word), min_size=1, max_size=4, unique=True))
        values = draw(st.lists(st.sampled_from([None, *words]), min_size=steps - 1, max_size=steps - 1))
        values.insert(draw(st.integers(0, steps - 1)), words[0])
        known = sorted({value for value in values if value is not None})
        coded = [np.nan if value is None else known.index(value) for value in values]
        column = pa.array(values, pa.string())
        column = column.dictionary_encode() if draw(st.booleans()) else column
        return column, np.array(coded, np.float64), (name, "category", tuple(known))
    element, type = {
        "number": (FLOATS, pa.float64()),
        "whole": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
        "boolean": (st.booleans(), pa.bool_()),
    }[kind]
    values = draw(st.lists(st.none() | element, min_size=steps - 1, max_size=steps - 1))
    values.insert(draw(st.integers(0, steps - 1)), draw(element))
    coded = [np.nan if value is None else float(value) for value in values]
    return pa.array(values, type), np.array(coded), (name, "boolean" if kind == "boolean" else "number")


def written(drawn: Drawn, folder: Path, kind: str) -> list[Path]:
    """The files of a table; they are named so that their order is not that of the alphabet."""
    paths = []
    for number, (start, stop) in enumerate(zip([0, *drawn.cuts], [*drawn.cuts, drawn.table.num_rows], strict=True)):
        path = folder / f"{9 - number}.{kind}"
        part = drawn.table.slice(start, stop - start)
        if kind == "csv":
            plain = pa.table({name: as_plain(part.column(name)) for name in part.column_names})
            pa.csv.write_csv(plain, path)
        else:
            pa.parquet.write_table(part, path, row_group_size=3)
        paths.append(path)
    return paths


def as_plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


@pytest.mark.parametrize("memory", [1, 2**30])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
@given(drawn=tables())
def test_a_table_gives_the_sequences_that_it_was_made_from(drawn, kind, memory):
    with tempfile.TemporaryDirectory() as folder:
        paths = written(drawn, Path(folder), kind)
        read = read_table(paths, drawn.columns, memory=memory, workspace=Path(folder))
        assert isinstance(read.values, np.memmap) == (memory == 1)
        assert read.files == tuple(map(str, paths))
        assert_same(read, drawn.sequences)


@given(drawn=tables(), kind=st.sampled_from(["csv", "parquet"]))
def test_what_a_run_knows_reads_the_same(drawn, kind):
    with tempfile.TemporaryDirectory() as folder:
        paths = written(drawn, Path(folder), kind)
        first = read_table(paths, drawn.columns)
        columns = replace(drawn.columns, features=None)
        again = read_table(paths, columns, known=first.features, known_label=first.label)
        assert_same(again, first)
        backwards = read_table(paths, columns, known=first.features[::-1], known_label=first.label)
        assert_same(replace(backwards, features=first.features, values=backwards.values[:, ::-1].copy()), first)
