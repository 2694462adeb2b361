"""The parts of the data: they share nothing, leave nothing out, and have the classes in their shares."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tests.train_helpers import sequences_of
from tidegate.errors import InputValueError
from tidegate.train.split import split, split_by_time


def labelled(classes, *, categories=("a", "b", "c")):
    return sequences_of([[[0.0]]] * len(classes), label=classes, categories=categories)


def unlabelled(count):
    return sequences_of([[[0.0]]] * count)


CLASSES = st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), min_size=3, max_size=200)


@given(CLASSES, st.floats(0, 0.45), st.floats(0, 0.45), st.integers(0, 2**63 - 1))
def test_the_parts_share_nothing_and_leave_nothing_out(classes, validation, test, seed):
    for sequences in (labelled(classes), labelled(classes, categories=None), unlabelled(len(classes))):
        parts = split(sequences, validation=validation, test=test, seed=seed)
        every = np.concatenate([parts.train, parts.validation, parts.test])
        assert sorted(every.tolist()) == list(range(len(classes)))
        assert len(parts.train)
        for share, part in ((validation, parts.validation), (test, parts.test)):
            assert len(part) == (max(1, round(share * len(classes))) if share else 0)
            assert (np.diff(part) > 0).all()


@given(st.lists(st.integers(20, 60), min_size=2, max_size=4), st.integers(0, 99))
def test_every_class_has_its_share_of_every_part(counts, seed):
    classes = np.repeat(np.arange(len(counts)), counts).astype(float)
    np.random.default_rng(seed).shuffle(classes)
    names = [str(one) for one in range(len(counts))]
    parts = split(labelled(classes, categories=names), validation=0.2, test=0.1, seed=seed)
    for share, part in ((0.7, parts.train), (0.2, parts.validation), (0.1, parts.test)):
        for one, count in enumerate(counts):
            assert abs((classes[part] == one).sum() - share * count) <= 2


def test_a_class_of_one_is_learned_from():
    classes = [0.0] * 30 + [1.0]
    for seed in range(20):
        assert 30 in split(labelled(classes), validation=0.15, test=0.15, seed=seed).train


def test_unknown_labels_are_shared_out_too():
    classes = np.where(np.arange(100) % 2, 0.0, np.nan)
    parts = split(labelled(classes), validation=0.2, test=0.2, seed=0)
    for part in (parts.train, parts.validation, parts.test):
        assert np.isnan(classes[part]).mean() == pytest.approx(0.5, abs=0.03)


def test_the_seed_draws_the_parts():
    def drawn(seed):
        parts = split(labelled([0.0, 1.0] * 30), validation=0.2, test=0.2, seed=seed)
        return [part.tolist() for part in (parts.train, parts.validation, parts.test)]

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


def test_three_sequences_are_enough_and_two_are_not():
    parts = split(unlabelled(3), validation=0.15, test=0.15, seed=0)
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [1, 1, 1]
    for count in (0, 1, 2):
        sequences = unlabelled(3).only(range(count))
        assert_refused(
            partial(split, sequences, validation=0.15, test=0.15, seed=0),
            InputValueError,
            f"data must hold more sequences to be split into train, validation and test; got {count}",
        )
    assert_refused(
        partial(split, unlabelled(3).only([0]), validation=0.15, test=0.15, seed=0),
        InputValueError,
        r"got 1 \(id names the column of a table that tells them apart\)$",
    )


@pytest.mark.parametrize(
    ("validation", "test", "words"),
    [
        (-0.1, 0.1, "validation must be a share of at least 0 and below 1; got -0.1"),
        (0.1, 1.0, "test must be a share of at least 0 and below 1; got 1.0"),
        (float("nan"), 0.1, "validation must be a share"),
        (0.5, 0.5, r"validation and test must leave something to train on; got 0.5 \+ 0.5"),
    ],
)
def test_shares_that_cannot_be_are_refused(validation, test, words):
    assert_refused(lambda: split(unlabelled(9), validation=validation, test=test, seed=0), InputValueError, words)


# ---------------------------------------------------------------------------------------------------------------------
# in time


def of_lengths(lengths):
    return sequences_of([np.zeros((length, 1)) for length in lengths])


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    st.floats(0, 0.45),
    st.floats(0, 0.45),
    st.integers(1, 2000),
)
def test_every_step_is_asked_in_one_part_and_later_parts_come_later(lengths, validation, test, horizon):
    sequences = of_lengths(lengths)
    try:
        parts = split_by_time(sequences, validation=validation, test=test, horizon=horizon)
    except InputValueError:
        assert max(lengths) < 2 + max(1, round(validation * max(lengths))) + max(1, round(test * max(lengths)))
        return
    for number, length in enumerate(lengths):
        edges = [0]
        for part in (parts.train, parts.validation, parts.test):
            for place in np.flatnonzero(part.numbers == number):
                assert part.low[place] == edges[-1]
                edges.append(int(part.high[place]))
                assert part.stop[place] == part.high[place]
                warm = part.low[place] - part.start[place]
                assert warm == min(part.low[place], max(1024, horizon))
        assert edges[-1] == length
        assert edges == sorted(set(edges))
    assert np.array_equal(parts.train.numbers, np.arange(len(lengths)))
    assert (parts.train.start == 0).all()


def test_the_shares_of_a_long_sequence():
    parts = split_by_time(of_lengths([1000, 3]), validation=0.2, test=0.1, horizon=5)
    assert [part.high.tolist() for part in (parts.train, parts.validation, parts.test)] == [[700, 3], [900], [1000]]
    parts = split_by_time(of_lengths([1000]), validation=0.2, test=0, horizon=5)
    assert len(parts.test) == 0


def test_sequences_too_short_to_be_cut_in_time_are_refused():
    words = "data must hold a sequence of enough steps to be split into train, validation and test; the longest has 3"
    assert_refused(
        lambda: split_by_time(of_lengths([1, 3]), validation=0.1, test=0.1, horizon=1), InputValueError, words
    )
    words = "validation must be a share of at least 0 and below 1; got 1"
    assert_refused(lambda: split_by_time(of_lengths([9]), validation=1, test=0.1, horizon=1), InputValueError, words)
