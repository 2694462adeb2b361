"""Pins: what may be pinned, where, and how several are laid over each other; everything else is refused."""
# mypy: allow-untyped-calls
# mypy: disable-error-code="arg-type"

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tidegate as tg
from tidegate.errors import InputTypeError, InputValueError
from tidegate.ops.pins import resolve

T, B, H = 5, 3, 4
LIKE = torch.empty(0, dtype=torch.float64)


def laid(*pins, **options):
    """The update gate's pins as a whole (T, B, H), NaN where free."""
    update = resolve(pins, (T, B, H), LIKE, **options).update
    assert update is not None
    return update.expand(T, B, H)


def values(where, number):
    """(T, B, H): a number where `where` is True, NaN elsewhere."""
    return torch.full((T, B, H), torch.nan, dtype=torch.float64).masked_fill(where, number)


def assert_laid(found, expected):
    torch.testing.assert_close(found, expected, atol=0, rtol=0, equal_nan=True)


# Construction.


def test_a_pin_holds_what_it_was_given_and_cannot_be_changed():
    pin = tg.Pins(update=0.5, steps=slice(5, 9), units=[1], sequences=0, layer=1, direction="reverse")
    assert (pin.update, pin.reset, pin.steps, pin.units) == (0.5, None, slice(5, 9), [1])
    assert (pin.sequences, pin.layer, pin.direction) == (0, 1, "reverse")
    with pytest.raises(dataclasses.FrozenInstanceError):
        pin.update = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("gate", ["update", "reset"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.6, 5e-324], ids=repr)
def test_the_ends_of_the_range_and_all_between_are_allowed(gate, value):
    assert getattr(tg.Pins(**{gate: value}), gate) == value


def test_whole_numbers_may_be_ints():
    assert tg.Pins(update=0, reset=1).update == 0
    assert laid(tg.Pins(update=1)).eq(1).all()


@pytest.mark.parametrize("shape", [(H,), (T, B, H)])
def test_a_tensor_of_units_or_of_everything_is_allowed(shape):
    value = torch.rand(shape)
    assert laid(tg.Pins(update=value)).equal(value.double().expand(T, B, H))


# Resolution.


def test_no_pins_leave_both_gates_free():
    assert resolve([], (T, B, H), LIKE) == (None, None)
    found = resolve([tg.Pins(update=0.5)], (T, B, H), LIKE)
    assert found.update is not None
    assert found.reset is None
    found = resolve([tg.Pins(reset=0.5)], (T, B, H), LIKE)
    assert found.update is None
    assert found.reset is not None


def test_a_pin_for_another_layer_or_direction_is_not_laid():
    pin = tg.Pins(update=0.5, layer=1, direction="reverse")
    assert resolve([pin], (T, B, H), LIKE, layer=0, reverse=True).update is None
    assert resolve([pin], (T, B, H), LIKE, layer=1, reverse=False).update is None
    assert laid(pin, layer=1, reverse=True).eq(0.5).all()


def test_a_result_has_the_dtype_of_the_layer_and_an_axis_for_every_selection():
    float32 = torch.empty(0)
    for pin, shape in [
        (tg.Pins(update=0.5, steps=2), (T, 1, 1)),
        (tg.Pins(update=0.5, units=2), (T, 1, H)),
        (tg.Pins(update=0.5, sequences=2), (T, B, 1)),
        (tg.Pins(update=torch.rand(H).double()), (T, 1, H)),
        (tg.Pins(update=torch.rand(T, B, H).double()), (T, B, H)),
    ]:
        update = resolve([pin], (T, B, H), float32).update
        assert update is not None
        assert update.dtype == torch.float32
        assert update.shape == shape


indices = st.lists(st.integers(0, 2), min_size=1, max_size=3)
pin_parts = st.tuples(
    st.floats(0, 1),
    st.none() | st.integers(-T, T - 1) | st.lists(st.integers(0, T - 1), min_size=1, max_size=4),
    st.none() | indices,
    st.none() | indices,
)


@given(st.lists(pin_parts, min_size=1, max_size=4))
def test_later_pins_lie_on_top_and_each_holds_where_all_its_selections_do(parts):
    expected = torch.full((T, B, H), torch.nan, dtype=torch.float64)
    for number, *selections in parts:
        where = torch.ones(T, B, H, dtype=torch.bool)
        for axis, selection in enumerate(selections):
            if selection is not None:
                size = (T, B, H)[axis]
                listed = [i % size for i in ([selection] if isinstance(selection, int) else selection)]
                along = torch.tensor([i in listed for i in range(size)])
                where = where & along.reshape([-1 if other == axis else 1 for other in range(3)])
        expected = torch.where(where, number, expected)
    pins = [tg.Pins(update=number, steps=t, sequences=b, units=h) for number, t, b, h in parts]
    assert_laid(laid(*pins), expected)


def test_a_plane_of_steps_and_sequences_is_combined_with_units():
    plane = torch.rand(T, B) > 0.5
    where = plane.unsqueeze(-1) & (torch.arange(H) == 3)
    assert_laid(laid(tg.Pins(update=0.5, steps=plane, units=3)), values(where, 0.5))


def test_a_value_per_place_is_laid_only_where_the_pin_holds():
    value = torch.rand(T, B, H).double()
    found = laid(tg.Pins(update=value, steps=1))
    assert found[1].equal(value[1])
    assert found[[0, 2, 3, 4]].isnan().all()


# Refusals.

MANY = torch.rand(2, T, B, H)
REFUSED_WHEN_MADE = {
    "nothing": (tg.Pins, InputValueError, r"^pins must force update, reset or both; got neither$"),
    "only-steps": (lambda: tg.Pins(steps=3), InputValueError, r"got neither$"),
    "below-0": (lambda: tg.Pins(update=-0.1), InputValueError, r"^pins update must lie in \[0, 1\]; got -0\.1$"),
    "above-1": (lambda: tg.Pins(reset=1.5), InputValueError, r"^pins reset must lie in \[0, 1\]; got 1\.5$"),
    "nan": (lambda: tg.Pins(update=float("nan")), InputValueError, r"^pins update must lie in .*; got nan$"),
    "infinite": (lambda: tg.Pins(update=float("inf")), InputValueError, r"^pins update must lie in .*; got inf$"),
    "tensor-outside": (lambda: tg.Pins(update=torch.tensor([0.5, 1.25])), InputValueError, r"\[0, 1\]; got 1\.25$"),
    "tensor-nan": (lambda: tg.Pins(reset=torch.tensor([torch.nan])), InputValueError, r"^pins reset .*; got nan$"),
    "tensor-of-ints": (
        lambda: tg.Pins(update=torch.ones(H, dtype=torch.int)),
        InputTypeError,
        r"float.*got torch\.int32$",
    ),
    "tensor-of-bools": (lambda: tg.Pins(update=torch.ones(H) > 0), InputTypeError, r"float.*; got torch\.bool$"),
    "tensor-without-axes": (lambda: tg.Pins(update=torch.tensor(0.5)), InputValueError, r"\(H,\) or \(T, B, H\); got"),
    "tensor-of-2-axes": (
        lambda: tg.Pins(update=torch.rand(B, H)),
        InputValueError,
        r"\(T, B, H\); got shape \(3, 4\)$",
    ),
    "tensor-of-4-axes": (lambda: tg.Pins(update=MANY), InputValueError, r"got shape \(2, 5, 3, 4\)$"),
    "learned": (
        lambda: tg.Pins(update=torch.rand(H).requires_grad_()),
        InputValueError,
        r"^pins update .*gradient; detach",
    ),
    "word": (lambda: tg.Pins(update="open"), InputTypeError, r"^pins update must be a number or a tensor; got str$"),
    "bool": (lambda: tg.Pins(update=True), InputTypeError, r"^pins update must be a number or a tensor; got bool$"),
    "list": (
        lambda: tg.Pins(update=[0.5] * H),
        InputTypeError,
        r"^pins update must be a number or a tensor; got list$",
    ),
    "direction": (
        lambda: tg.Pins(update=0.5, direction="up"),
        InputValueError,
        r"^pins direction must be .*; got \'up\'$",
    ),
}
REFUSED_FOR_A_SHAPE = {
    "step-outside": ({"steps": T}, InputValueError, r"^pins steps must lie in 0\.\.4; got 5$"),
    "step-before": ({"steps": -T - 1}, InputValueError, r"^pins steps must lie in 0\.\.4; got -6$"),
    "one-of-the-steps-outside": ({"steps": [0, 9]}, InputValueError, r"^pins steps must lie in 0\.\.4; got 9$"),
    "slice-outside": ({"steps": slice(2, T + 1)}, InputValueError, r"^pins steps must lie in 0\.\.4; got .*6$"),
    "slice-far-outside": ({"steps": slice(20, 30)}, InputValueError, r"^pins steps must lie in 0\.\.4; got"),
    "slice-of-none": ({"steps": slice(3, 3)}, InputValueError, r"^pins steps must name at least one of 5"),
    "slice-without-a-stride": ({"steps": slice(0, 3, 0)}, InputValueError, r"^pins steps must"),
    "slice-of-floats": ({"steps": slice(0.0, 3.0)}, InputTypeError, r"^pins steps must"),
    "no-steps": ({"steps": []}, InputValueError, r"^pins steps must name at least one of 5"),
    "unit-outside": ({"units": H}, InputValueError, r"^pins units must lie in 0\.\.3; got 4$"),
    "sequence-outside": ({"sequences": [B]}, InputValueError, r"^pins sequences must lie in 0\.\.2; got 3$"),
    "too-many-bools": (
        {"steps": torch.ones(T + 1) > 0},
        InputValueError,
        r"^pins steps must be .*5; got shape \(6,\)$",
    ),
    "one-bool": ({"units": torch.ones(1) > 0}, InputValueError, r"^pins units must be .*4; got shape \(1,\)$"),
    "bool-without-axes": ({"steps": torch.tensor(True)}, InputValueError, r"^pins steps must be .*5; got shape \(\)$"),
    "plane-of-wrong-shape": (
        {"steps": torch.ones(B, T) > 0},
        InputValueError,
        r"^pins steps must be \(T, B\) = \(5, 3\); got \(3, 5\)$",
    ),
    "plane-of-one-sequence": ({"steps": torch.ones(T, 1) > 0}, InputValueError, r"\(T, B\) = \(5, 3\); got \(5, 1\)$"),
    "plane-of-ints": ({"steps": torch.ones(T, B, dtype=torch.int)}, InputTypeError, r"^pins steps must be .*bool"),
    "plane-of-units": (
        {"units": torch.ones(T, B) > 0},
        InputValueError,
        r"^pins units must be .*; got shape \(5, 3\)$",
    ),
    "floats": ({"steps": torch.rand(T)}, InputTypeError, r"^pins steps must be an int, a slice, ints or a bool tensor"),
    "a-float": ({"steps": 1.5}, InputTypeError, r"^pins steps must be an int, .*; got 1\.5$"),
    "a-bool": ({"steps": True}, InputTypeError, r"^pins steps must be an int, .*; got True$"),
    "a-word": ({"units": "all"}, InputTypeError, r"^pins units must be an int, .*; got 'all'$"),
    "list-of-floats": ({"steps": [0.0, 1.0]}, InputTypeError, r"^pins steps must be an int"),
    "wrong-number-of-units": (
        {"update": torch.rand(H + 1)},
        InputValueError,
        r"^pins update must have shape \(4,\) here; got \(5,\)$",
    ),
    "one-unit-for-all": (
        {"update": torch.rand(1)},
        InputValueError,
        r"^pins update must have shape \(4,\) here; got \(1,\)$",
    ),
    "one-step-for-all": ({"update": torch.rand(1, B, H)}, InputValueError, r"shape \(5, 3, 4\) here; got \(1, 3, 4\)$"),
    "one-sequence-for-all": ({"update": torch.rand(T, 1, H)}, InputValueError, r"\(5, 3, 4\) here; got \(5, 1, 4\)$"),
    "batch-first": ({"update": torch.rand(B, T, H)}, InputValueError, r"\(5, 3, 4\) here; got \(3, 5, 4\)$"),
}


def assert_a_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("pins ")
    assert not text.endswith(".")


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(("make", "error", "sentence"), REFUSED_WHEN_MADE.values(), ids=REFUSED_WHEN_MADE.keys())
def test_a_pin_that_makes_no_sense_is_refused_when_it_is_made(make, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        make()
    assert_a_sentence(caught)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(("given", "error", "sentence"), REFUSED_FOR_A_SHAPE.values(), ids=REFUSED_FOR_A_SHAPE.keys())
def test_a_pin_that_does_not_fit_the_sequence_is_refused(given, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        resolve([tg.Pins(**{"update": 0.5, **given})], (T, B, H), LIKE)
    assert_a_sentence(caught)


def test_all_false_bools_are_allowed_for_they_are_often_computed():
    assert laid(tg.Pins(update=0.5, steps=torch.zeros(T) > 0)).isnan().all()
    assert laid(tg.Pins(update=0.5, steps=torch.zeros(T, B) > 0)).isnan().all()
