"""Answers as tables: the same rows from every kind of file, sequence after sequence, whole or not at all."""

import csv
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tests.train_helpers import first_symbol, fitting_settings, in_parts, sequences_of, sums
from tidegate.errors import FileError, InputValueError
from tidegate.train import predict as prediction
from tidegate.train.fitting import new_model
from tidegate.train.predict import answers, write_table
from tidegate.train.run import Run
from tidegate.train.tasks import task_for


def run_on(sequences, **changed):
    settings = fitting_settings(batch_size=5, **changed)
    parts = in_parts(sequences)
    task = task_for(sequences, parts.train)
    return Run(new_model(sequences, parts, task, settings).eval(), task, settings, {})


def joined(pieces):
    pieces = list(pieces)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def alone(run, sequences):
    """What the model says of each sequence on its own, (T, C) or (C,)."""
    with torch.no_grad():
        for values in sequences:
            answers, _ = run.model(torch.from_numpy(np.ascontiguousarray(values))[:, None])
            yield run.task.told(answers).double().numpy()


@pytest.mark.parametrize("steps", [7, 40, 10_000])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_rows_come_sequence_after_sequence(monkeypatch, per_step, bidirectional, steps):
    """However they were put together: alone in chunks, a few at once, or a whole batch."""
    monkeypatch.setattr(prediction, "_STEPS", steps)
    sequences = first_symbol(23, 30, per_step=per_step)
    run = run_on(sequences, bidirectional=bidirectional)
    table = joined(answers(run.model, run.task, run.settings, sequences))
    wanted = [told.reshape(-1, 2) for told in alone(run, sequences)]
    if per_step:
        assert table["id"].tolist() == np.repeat(sequences.ids, sequences.lengths).tolist()
        assert table["step"].tolist() == [step for length in sequences.lengths for step in range(length)]
        wanted = [told[:, 0] for told in alone(run, sequences)] if wanted[0].ndim == 3 else wanted
    else:
        assert table["id"].tolist() == list(sequences.ids)
    probabilities = np.stack([table["probability_a"], table["probability_b"]], -1)
    np.testing.assert_allclose(probabilities, np.concatenate(wanted), rtol=1e-5, atol=1e-6)
    said = np.where(probabilities[:, 1] > probabilities[:, 0], "b", "a")
    assert table["prediction"].tolist() == said.tolist()


def test_time_goes_with_its_step():
    sequences = sums(9, 8, per_step=True)
    times = np.random.default_rng(0).normal(size=int(sequences.offsets[-1])).cumsum()
    object.__setattr__(sequences, "times", times)
    run = run_on(sequences)
    table = joined(answers(run.model, run.task, run.settings, sequences))
    assert list(table) == ["id", "step", "time", "prediction"]
    assert np.array_equal(table["time"], times)
    np.testing.assert_allclose(
        table["prediction"], np.concatenate([one.ravel() for one in alone(run, sequences)]), rtol=1e-6
    )


def test_long_sequences_are_not_held_whole(monkeypatch):
    monkeypatch.setattr(prediction, "_STEPS", 16)
    sequences = sequences_of([np.ones((100, 1)), np.arange(3.0)[:, None]], label=np.arange(103.0), per_step=True)
    settings = fitting_settings()
    every = np.arange(2)
    task = task_for(sequences, every)
    run = Run(
        new_model(sequences, type(in_parts(sequences))(every, every, every), task, settings).eval(), task, settings, {}
    )
    assert [len(piece["id"]) for piece in answers(run.model, run.task, run.settings, sequences)] == [16] * 6 + [4, 3]


# ---------------------------------------------------------------------------------------------------------------------
# files

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)
ROWS = st.lists(st.tuples(TEXT, st.integers(0, 2**62), NUMBERS), min_size=1, max_size=12)


def pieces_of(rows, cut=3):
    for start in range(0, len(rows), cut):
        ids, steps, values = zip(*rows[start : start + cut], strict=True)
        yield {"id": np.array(ids, object), "step": np.array(steps), "prediction": np.array(values)}


def read_back(path):
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["id"], int(row["step"]), float(row["prediction"])) for row in csv.DictReader(file)]
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return [(row["id"], row["step"], row["prediction"]) for row in parquet.read_table(path).to_pylist()]
    with path.open(encoding="utf-8", newline="\n") as file:
        return [tuple(json.loads(line).values()) for line in file]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@given(rows=ROWS)
def test_what_is_written_is_read_back(tmp_path_factory, suffix, rows):
    path = tmp_path_factory.getbasetemp() / f"table{suffix}"
    assert write_table(pieces_of(rows), path) == len(rows)
    assert read_back(path) == rows


def test_every_kind_of_file_holds_the_same_rows(tmp_path):
    sequences = first_symbol(12)
    run = run_on(sequences)
    tables = []
    for suffix in (".csv", ".parquet", ".JSONL"):
        path = tmp_path / f"table{suffix}"
        assert write_table(answers(run.model, run.task, run.settings, sequences), path) == 12
    pa_csv, parquet = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
    tables = [
        pa_csv.read_csv(tmp_path / "table.csv").to_pylist(),
        parquet.read_table(tmp_path / "table.parquet").to_pylist(),
    ]
    tables.append([json.loads(line) for line in (tmp_path / "table.JSONL").read_text().splitlines()])
    assert tables[0] == tables[1] == tables[2]
    assert list(tables[0][0]) == ["id", "prediction", "probability_a", "probability_b"]


def test_numbers_that_are_not_finite(tmp_path):
    rows = [("a", 0, math.nan), ("b", 1, math.inf)]
    write_table(pieces_of(rows), tmp_path / "table.jsonl")
    assert read_back(tmp_path / "table.jsonl") == [("a", 0, None), ("b", 1, None)]
    for name in ("table.csv", "table.parquet"):
        write_table(pieces_of(rows), tmp_path / name)
        assert math.isnan(read_back(tmp_path / name)[0][2])
        assert read_back(tmp_path / name)[1][2] == math.inf


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_failure_leaves_no_file_and_the_old_one(tmp_path, suffix, stop, at):
    path = tmp_path / f"table{suffix}"

    def failing():
        for number, piece in enumerate(pieces_of([("a", 0, 1.0)] * 9)):
            if number == at:
                raise stop
            yield piece

    with pytest.raises(stop):
        write_table(failing(), path)
    assert list(tmp_path.iterdir()) == []
    write_table(pieces_of([("old", 1, 2.0)]), path)
    with pytest.raises(stop):
        write_table(failing(), path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_back(path) == [("old", 1, 2.0)]


def test_what_cannot_be_written_is_refused(tmp_path):
    for name in ("table.xlsx", "table", "table.csv.gz"):
        words = r"out must end in .csv, .parquet, .jsonl, .edl, .ffmetadata, .ffmeta; got '.*table"
        assert_refused(partial(write_table, iter([]), tmp_path / name), InputValueError, words)
    for suffix in (".csv", ".parquet", ".jsonl"):
        words = "data must hold sequences to answer for; got none"
        assert_refused(partial(write_table, iter([]), tmp_path / f"a{suffix}"), InputValueError, words)
        (tmp_path / f"folder{suffix}").mkdir()
        path = tmp_path / f"folder{suffix}"
        assert_refused(partial(write_table, pieces_of([("a", 0, 1.0)]), path), FileError, "cannot be written: ")
    assert len(list(tmp_path.iterdir())) == 3
