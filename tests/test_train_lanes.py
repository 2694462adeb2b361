"""Lanes: long recordings cut so that every step is read once, and asked once."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tests.train_helpers import fitting_settings, in_parts, sequences_of
from tidegate.errors import InputValueError
from tidegate.train.batches import Batches
from tidegate.train.fitting import fit_model, new_model
from tidegate.train.lanes import chunk_of, in_lanes
from tidegate.train.spans import spans_of
from tidegate.train.tasks import Task, task_for

STEPS = Task("regress-steps", "answer", "mse")
ENDS = Task("regress", "answer", "mse")


def numbered(lengths):
    """The label of step t of sequence s is s * 10,000 + t."""
    label = np.concatenate([np.arange(length) + 10_000.0 * s for s, length in enumerate(lengths)])
    return sequences_of([np.zeros((length, 1)) for length in lengths], label=label, per_step=True)


def cut(sequences, task=STEPS, **options):
    settings = fitting_settings(**options)
    lanes, chunk = in_lanes(spans_of(sequences, range(len(sequences))), task, settings)
    return lanes, chunk, settings


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=6),
    st.sampled_from(["auto", "1", "2", "7", "500"]),
    st.none() | st.integers(1, 40),
    st.integers(1, 9),
)
def test_every_step_is_read_and_asked_once(lengths, count, chunk, size):
    sequences = numbered(lengths)
    lanes, together, settings = cut(sequences, lanes=count, chunk=chunk, batch_size=size)
    told = []
    for batch in Batches(sequences, lanes, size, chunk=together, shuffle=settings.seed):
        assert batch.label is not None
        told += batch.label[~batch.label.isnan()].tolist()
        assert int((~batch.label.isnan()).sum()) == int(batch.lengths.sum())
    assert sequences.label is not None
    assert sorted(told) == sequences.label.values.tolist()
    for number, length in enumerate(lengths):
        mine = np.flatnonzero(lanes.numbers == number)
        assert lanes.start[mine].tolist() == [0, *lanes.stop[mine][:-1].tolist()]
        assert lanes.stop[mine][-1] == length
        assert np.ptp(lanes.lengths[mine]) <= 1


@given(st.integers(1, 200_000), st.integers(1, 64), st.integers(1, 300))
def test_a_long_recording_fills_a_batch_with_long_lanes(length, size, chunk):
    lanes, together, _ = cut(numbered([length]), chunk=chunk, batch_size=size)
    assert together == chunk
    assert len(lanes) == max(1, min(size, length // (16 * chunk)))
    assert len(lanes) == 1 or lanes.lengths.min() >= 16 * chunk - 1


def test_many_or_short_sequences_stay_whole():
    for lengths in ([5000] * 8, [2000], [60] * 3):
        lanes, chunk, _ = cut(numbered(lengths), batch_size=8)
        assert (len(lanes), chunk) == (len(lengths), None)
    lanes, chunk, _ = cut(numbered([10000] * 3 + [40]), batch_size=8)
    assert np.bincount(lanes.numbers).tolist() == [3, 3, 3, 1]
    assert chunk == 128


def test_what_reads_both_ways_is_cut_only_when_told_and_has_no_chunks():
    lanes, chunk, _ = cut(numbered([9000]), bidirectional=True)
    assert (len(lanes), chunk) == (1, None)
    lanes, chunk, _ = cut(numbered([9000]), bidirectional=True, lanes="4")
    assert (len(lanes), chunk) == (4, None)


def test_a_sequence_that_is_asked_at_its_end_is_not_cut():
    lanes, chunk, _ = cut(numbered([9000]), ENDS)
    assert (len(lanes), chunk) == (1, None)
    words = "lanes must be auto or 1 for task 'regress', which asks each sequence at its end; got 2"
    assert_refused(partial(cut, numbered([9000]), ENDS, lanes="2"), InputValueError, words)


@pytest.mark.parametrize("lanes", ["0", "-1", "2.5", "all", ""])
def test_lanes_that_cannot_be_are_refused(lanes):
    words = "lanes must be auto or a whole number, at least 1 and below"
    assert_refused(lambda: fitting_settings(lanes=lanes), InputValueError, words)


def test_a_forecast_never_reads_all_at_once():
    assert chunk_of(STEPS, fitting_settings()) is None
    settings = fitting_settings(task="forecast", horizon=3)
    assert chunk_of(Task("forecast", "x0", "pinball"), settings) == 128


def test_the_state_is_carried_inside_a_lane(monkeypatch):
    """The answer counts the steps of its lane: nothing but a carried state could know them."""
    long = sequences_of([np.ones((96, 1)) for _ in range(8)], label=np.tile(np.arange(96.0), 8), per_step=True)
    settings = fitting_settings(chunk=8, lanes="8", epochs=1, batch_size=2)
    parts = in_parts(long)
    task = task_for(long, parts.train)
    seen = []
    from tidegate.train.learner import Learner  # noqa: PLC0415

    real = Learner.training_step

    def watched(self, batch, batch_index):
        before = None if batch.start == 0 else self._carried
        seen.append((batch.numbers.tolist(), batch.start, before is not None, batch.label[0].tolist()))
        return real(self, batch, batch_index)

    monkeypatch.setattr(Learner, "training_step", watched)
    fit_model(new_model(long, parts, task, settings), long, parts, task, settings)
    assert {start for _, start, _, _ in seen} == {0, 8, 16, 24, 32, 40}
    for _, start, carried, labels in seen:
        assert carried == (start > 0)
        assert {label % 48 for label in labels} == {start}, "a lane goes on where its last chunk ended"
