"""What is asked when the future is, against a loop that one would write by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidegate.train.ahead import changes_ahead, last_known

NAN = float("nan")
VALUES = st.lists(st.integers(-99, 99).map(float) | st.just(NAN), max_size=30)


@given(VALUES, st.sampled_from([NAN, 7.0]))
def test_the_last_known_value_is_the_nearest_before(values, before):
    held = [before]
    for value in values:
        held.append(held[-1] if np.isnan(value) else value)
    np.testing.assert_array_equal(last_known(np.array(values, float), before), held[1:])


@given(VALUES.filter(bool), VALUES)
def test_a_cut_changes_nothing(first, second):
    whole = last_known(np.array(first + second, float))
    before = last_known(np.array(first, float))
    after = last_known(np.array(second, float), float(before[-1]))
    np.testing.assert_array_equal(np.concatenate([before, after]), whole)


@given(VALUES, st.integers(1, 6), st.integers(0, 40), st.integers(0, 40))
def test_changes_are_those_to_values_that_count(values, horizon, low, high):
    padded = np.array([*values, *[NAN] * horizon])
    last = last_known(padded[: len(values)])
    places = np.arange(len(padded))
    found = changes_ahead(padded, last, horizon, (places >= low) & (places < high))
    assert found.shape == (len(values), horizon)
    for step in range(len(values)):
        for ahead in range(1, horizon + 1):
            counts = low <= step + ahead < high
            wanted = padded[step + ahead] - last[step] if counts else NAN
            np.testing.assert_equal(found[step, ahead - 1], wanted)
