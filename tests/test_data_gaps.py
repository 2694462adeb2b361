"""The time between steps: even or not, and as a feature that is made when it is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tests.train_helpers import sequences_of, watched
from tidegate.data.gaps import GAP, gaps_in, with_gaps
from tidegate.data.sequences import Feature
from tidegate.errors import InputValueError

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def timed(lengths, seed=0, **options):
    rng = np.random.default_rng(seed)
    times = np.concatenate([1e9 + rng.exponential(60, length).cumsum() for length in lengths])
    return sequences_of([rng.normal(size=(length, 2)) for length in lengths], times=times, **options)


@given(LENGTHS, st.integers(0, 9), st.data())
def test_any_rows_have_the_gap_to_the_step_before(lengths, seed, data):
    sequences = timed(lengths, seed)
    wide = with_gaps(sequences)
    assert sequences.times is not None
    wanted = np.concatenate([np.log1p(np.diff(sequences.times[sequences.rows(s)], prepend=np.nan))
                             for s in range(len(sequences))])  # fmt: skip
    start = data.draw(st.integers(0, sum(lengths)))
    stop = data.draw(st.integers(start, sum(lengths)))
    rows = wide.values[start:stop]
    np.testing.assert_array_equal(rows[:, :2], sequences.values[start:stop])
    np.testing.assert_array_equal(rows[:, 2], wanted[start:stop])
    np.testing.assert_array_equal(np.asarray(wide.values)[:, 2], wanted)
    assert wide.features[-1] == GAP
    assert wide.only([len(lengths) - 1]).values.shape == (lengths[-1], 3)


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    sequences = timed([50, 30])
    read: list[int] = []
    for name in ("values", "times"):
        object.__setattr__(sequences, name, watched(getattr(sequences, name), tmp_path / f"{name}.npy", read))
    wide = with_gaps(sequences)
    assert not read
    assert wide.values[10:14].shape == (4, 3)
    assert sorted(read) == [4, 5]


@pytest.mark.parametrize(
    ("times", "vary"),
    [
        (np.arange(50.0) * 3600, False),
        (np.round(np.arange(500) / 30, 3), False),  # 30 frames a second in milliseconds
        (np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]).cumsum() * 86400.0, False),
        (np.delete(np.arange(50.0), 20), True),  # a step is missing
        (np.arange(50.0) ** 1.1, True),
        (np.zeros(5), False),
        (np.array([3.0]), False),
        (np.array([]), False),
    ],
)
def test_gaps_vary_beyond_rounding(times, vary):
    found = gaps_in(times, [slice(0, len(times))])
    assert found.vary == vary
    if len(times) > 1:
        assert found.mean == pytest.approx((times[-1] - times[0]) / (len(times) - 1))


@given(LENGTHS, st.integers(1, 5))
def test_gaps_are_those_of_each_stretch(lengths, together):
    sequences = timed(lengths)
    assert sequences.times is not None
    every = [np.diff(sequences.times[sequences.rows(s)]) for s in range(len(lengths))]
    joined = np.concatenate(every)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidegate.data.gaps.CHUNK", together)
        found = gaps_in(sequences.times, map(sequences.rows, range(len(lengths))))
    assert found.count == len(joined)
    if len(joined):
        assert (found.least, found.most) == (joined.min(), joined.max())
        assert found.mean == pytest.approx(joined.mean())


def test_what_cannot_have_gaps_is_refused():
    words = "data must have times .* since the time between steps is an input; they have none"
    assert_refused(lambda: with_gaps(sequences_of([[[1.0]]])), InputValueError, words)
    named = timed([3], features=[Feature("a"), Feature("time gap")])
    assert_refused(lambda: with_gaps(named), InputValueError, "features must not be named 'time gap'")
    assert_refused(lambda: with_gaps(timed([3])).values[::2], InputValueError, "rows must be asked for one after")
