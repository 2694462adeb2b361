"""Features chosen, made categories, and brought into those of a trained network."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tidegate.data import Columns, Feature, Label, Sequences
from tidegate.data import known as functions
from tidegate.errors import InputValueError

NAN = np.nan
as_asked: Any = functions.as_asked
as_known: Any = functions.as_known
label_as_known: Any = functions.label_as_known


@pytest.fixture
def sequences():
    values = np.array([[1.0, 0, 2], [NAN, 1, NAN], [3.0, NAN, 0], [2.5, 1, -1]])
    features = (Feature("speed"), Feature("on", "boolean"), Feature("gear", "category", ("a", "b", "c")))
    return Sequences(features, values, np.array([0, 1, 4]), ["s", "t"], np.arange(4.0))


def test_what_is_known_already_is_the_same_object(sequences):
    assert as_known(sequences, sequences.features) is sequences


def test_order_and_unseen_categories(sequences):
    known = (Feature("gear", "category", ("c", "a")), Feature("speed"))
    found = as_known(sequences, known)
    assert found.features == known
    np.testing.assert_array_equal(found.values, [[0, 1], [NAN, NAN], [1, 3], [-1, 2.5]])
    np.testing.assert_array_equal(found.times, sequences.times)
    assert found.ids == sequences.ids


def test_kinds_that_fit(sequences):
    known = (Feature("speed", "category", ("1", "2.5")), Feature("on"))
    np.testing.assert_array_equal(as_known(sequences, known).values, [[0, 0], [NAN, 1], [-1, NAN], [1, 1]])
    as_category = (Feature("on", "category", ("true",)),)
    np.testing.assert_array_equal(as_known(sequences, as_category).values[:, 0], [-1, 0, NAN, 0])
    zeros = as_known(sequences, (Feature("on"),))
    np.testing.assert_array_equal(as_known(zeros, (Feature("on", "boolean"),)).values, zeros.values)


def test_a_feature_without_any_value_fits_every_kind():
    empty = Sequences((Feature("x"),), np.full((2, 1), NAN), np.array([0, 2]), ["s"])
    for known in (Feature("x", "boolean"), Feature("x", "category", ("a",)), Feature("x")):
        assert np.isnan(as_known(empty, (known,)).values).all()


def test_a_feature_without_any_value_cannot_be_learned_from(sequences):
    empty = Sequences((Feature("x"), Feature("y")), np.array([[1, NAN]] * 3), np.array([0, 3]), ["s"])
    assert_refused(
        lambda: as_asked(empty, Columns()),
        InputValueError,
        "the feature 'y' must have a value at some step; all are missing",
    )
    assert as_asked(empty, Columns(ignore=("y",))).features == (Feature("x"),)
    assert as_asked(empty, Columns(), empty.features) is empty


def test_what_does_not_fit_is_one_sentence(sequences):
    for known, sentence in [
        ((Feature("speed"), Feature("mass")), "must have the features 'speed', 'mass'; 'mass' is missing"),
        ((Feature("gear"),), "'gear' must be numbers, as in training; here it is 'a'"),
        ((Feature("gear", "boolean"),), "'gear' must be true or false, as in training; here it is 'a'"),
        ((Feature("speed", "boolean"),), "'speed' must be true or false, as in training; here it is 3"),
    ]:
        assert_refused(partial(as_known, sequences, known), InputValueError, sentence)


def test_columns_choose_ignore_and_make_categories(sequences):
    found = as_asked(sequences, Columns(features=("gear", "speed"), categorical=("speed",)))
    assert found.features == (sequences.features[2], Feature("speed", "category", ("1", "2.5", "3")))
    np.testing.assert_array_equal(found.values, [[2, 0], [NAN, NAN], [0, 2], [-1, 1]])
    assert [feature.name for feature in as_asked(sequences, Columns(ignore=("on",))).features] == ["speed", "gear"]


def test_names_that_are_none_are_one_sentence(sequences):
    for columns, sentence in [
        (Columns(features=("sped",)), "features must name features of the data, such as 'speed'; 'sped' is none of"),
        (Columns(ignore=("no",)), "ignore must name"),
        (Columns(features=("on", "on")), "features must name each once; 'on' is named twice"),
        (Columns(categorical=("no",)), "categorical must name"),
        (Columns(ignore=("on", "speed", "gear")), "at least one feature must be left"),
    ]:
        assert_refused(partial(as_asked, sequences, columns), InputValueError, sentence)


def test_labels_get_the_codes_of_training():
    known = Label("kind", np.zeros(1), False, ("b", "a"))
    found = label_as_known(Label("kind", np.array([0, 1, NAN, 2]), False, ("a", "b", "c")), known)
    np.testing.assert_array_equal(found.values, [1, 0, NAN, -1])
    assert found.categories == ("b", "a")
    numbers = label_as_known(Label("kind", np.array([7.0, 8]), False), Label("kind", np.zeros(1), False, ("8", "9")))
    np.testing.assert_array_equal(numbers.values, [-1, 0])
    back = label_as_known(Label("y", np.array([1.0, 0]), False, ("3", "5")), Label("y", np.zeros(1), False))
    np.testing.assert_array_equal(back.values, [5, 3])
    assert back.categories is None


def test_labels_that_do_not_fit_are_one_sentence():
    number, kind = Label("y", np.zeros(1), False), Label("y", np.zeros(1), False, ("a",))
    step = Label("y", np.zeros(1), True)
    assert_refused(lambda: label_as_known(kind, number), InputValueError, "must be a number, as in training; it is 'a'")
    assert_refused(lambda: label_as_known(number, step), InputValueError, "must be one for each step, as in training")


@given(
    codes=st.lists(st.one_of(st.just(NAN), st.integers(-1, 4)), min_size=1),
    order=st.permutations(["a", "b", "c", "d", "e"]),
)
def test_there_and_back_is_the_same(codes, order):
    values = np.array(codes, np.float64)[:, None]
    first = Feature("x", "category", ("a", "b", "c", "d", "e"))
    sequences = Sequences((first,), values, np.array([0, len(codes)]), ["s"])
    there = as_known(sequences, (Feature("x", "category", tuple(order)),))
    np.testing.assert_array_equal(as_known(there, (first,)).values, values)
