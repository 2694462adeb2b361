"""Features that are made of others as rows are read."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tests.train_helpers import sequences_of
from tidegate.data.derived import read_features, with_change
from tidegate.data.gaps import GAP, with_gaps
from tidegate.data.sequences import Feature
from tidegate.errors import InputValueError


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_any_rows_have_the_change_since_the_step_before(lengths, data):
    rng = np.random.default_rng(sum(lengths))
    pieces = [np.where(rng.random((length, 2)) < 0.2, np.nan, rng.normal(size=(length, 2))) for length in lengths]
    wide = with_change(sequences_of(pieces), "x1")
    wanted = np.concatenate([np.diff(piece[:, 1], prepend=np.nan) for piece in pieces])
    start = data.draw(st.integers(0, sum(lengths)))
    stop = data.draw(st.integers(start, sum(lengths)))
    rows = wide.values[start:stop]
    np.testing.assert_array_equal(rows[:, 2], wanted[start:stop])
    np.testing.assert_array_equal(rows[:, :2], np.concatenate(pieces)[start:stop])


def test_small_whole_numbers_do_not_wrap():
    wide = with_change(sequences_of([np.array([[3], [1], [250]], np.uint8)]), "x0")
    np.testing.assert_array_equal(wide.values[0:3][:, 1], [np.nan, -2, 249])


def test_several_lie_beside_each_other_and_no_reader_looks_for_them():
    sequences = sequences_of([[[1.0], [3.0], [2.0]]], times=np.array([0.0, 1.0, 4.0]))
    wide = with_gaps(with_change(sequences, "x0"))
    assert wide.features == (Feature("x0"), Feature("change of x0", "change"), GAP)
    np.testing.assert_allclose(wide.values[1:3], [[3, 2, np.log(2)], [2, -1, np.log(4)]])
    assert read_features(wide.features) == sequences.features


def test_a_name_that_is_taken_is_refused():
    sequences = sequences_of([[[1.0, 2.0]]], features=[Feature("a"), Feature("change of a")])
    words = "features must not be named 'change of a', which is made of others; one is"
    assert_refused(lambda: with_change(sequences, "a"), InputValueError, words)
