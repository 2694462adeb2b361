"""The comparison that every other test relies on rejects what is wrong, and says what that is."""

import pytest
import torch

from tests.contract.cases import BACKENDS, SIZES, SMALL, SYSTEMS, Inputs, draw, forward, plain_loop, with_gradients
from tests.contract.compare import TOLERANCES, assert_same

DTYPES = list(TOLERANCES)
GRU = SYSTEMS[-2]


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    """Values and gradients of a GRU, as the contract compares them."""
    return with_gradients(plain_loop, draw(GRU, SMALL), torch.float64)


def rejected(got, expected, match, **options) -> None:
    with pytest.raises(AssertionError, match=match):
        assert_same(got, expected, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_equal_is_accepted_and_so_is_its_rounding(dtype):
    number = torch.randn(50, dtype=torch.float64)
    assert_same({"a": number.to(dtype)}, {"a": number}, dtype=dtype)
    assert_same({"a": number.to(dtype), "b": None}, {"a": number.to(dtype), "b": None}, exact=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_one_number_off_by_more_than_the_tolerance_is_rejected_wherever_it_stands(dtype, scale):
    right = torch.ones(3, 4, dtype=torch.float64) * scale
    relative, absolute = TOLERANCES[dtype]
    allowed = relative * 2 * scale + absolute
    for place in range(12):
        wrong = right.clone()
        wrong.view(-1)[place] += 2 * allowed + scale * torch.finfo(dtype).eps
        rejected({"a": wrong.to(dtype)}, {"a": right}, "a is off in 1 of 12 numbers", dtype=dtype)


def test_the_table_allows_rounding_and_no_mistake():
    for dtype, (relative, absolute) in TOLERANCES.items():
        assert torch.finfo(dtype).eps <= relative <= 0.03
        assert absolute <= relative


def test_the_report_names_the_tensor_the_place_and_the_error():
    right = {"hidden": torch.zeros(2, 3), "d_x": torch.zeros(2)}
    wrong = {"hidden": torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]]), "d_x": torch.zeros(2)}
    message = r"1 of 2 differ:\n  hidden is off in 1 of 6 numbers, by at most 0.5, at \(1, 2\): got 0.5, expected 0"
    rejected(wrong, right, message)


def test_every_tensor_that_differs_is_reported():
    zero = {name: torch.zeros(2) for name in "abc"}
    with pytest.raises(AssertionError, match="2 of 3 differ") as caught:
        assert_same({"a": torch.ones(2), "b": torch.zeros(2), "c": torch.ones(2)}, zero)
    assert "a is off" in str(caught.value)
    assert "c is off" in str(caught.value)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 2), (6,), (2, 3, 1), (1, 2, 3)])
def test_another_shape_is_rejected_even_where_it_would_broadcast(shape):
    rejected({"a": torch.zeros(shape)}, {"a": torch.zeros(2, 3)}, r"a has shape .*; expected \(2, 3\)")


def test_another_dtype_is_rejected():
    rejected({"a": torch.zeros(2).double()}, {"a": torch.zeros(2)}, "a has dtype torch.float64; expected torch.float32")
    rejected({"a": torch.zeros(2)}, {"a": torch.zeros(2)}, "expected torch.float64", dtype=torch.float64)


def test_a_missing_tensor_one_too_many_and_none_are_rejected():
    one, two = {"a": torch.zeros(2)}, {"a": torch.zeros(2), "b": torch.zeros(2)}
    rejected(one, two, "b is only in what was expected")
    rejected(two, one, "b is only in what was got")
    rejected({"a": None}, one, "a is None; expected a tensor")
    rejected(one, {"a": None}, "a is a tensor of shape .*; expected None")


def test_comparing_nothing_is_refused():
    rejected({}, {}, "nothing to compare")


@pytest.mark.parametrize("exact", [False, True])
def test_nan_equals_nothing_not_even_nan(exact):
    nan, zero = {"a": torch.tensor([0.0, torch.nan])}, {"a": torch.zeros(2)}
    for got, expected in ((nan, nan), (nan, zero), (zero, nan)):
        rejected(got, expected, r"a has 1 of 2 numbers that are not finite.*, first at \(1,\)", exact=exact)


def test_infinity_is_within_no_tolerance_and_equals_itself_to_the_bit():
    infinite = {"a": torch.tensor([torch.inf, -torch.inf])}
    rejected(infinite, infinite, "not finite")
    assert_same(infinite, infinite, exact=True)
    rejected(infinite, {"a": -infinite["a"]}, "off in 2 of 2", exact=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_rejects_the_smallest_difference_and_the_other_zero(dtype):
    one = torch.ones(2, dtype=dtype)
    next_after = one + torch.finfo(dtype).eps
    assert_same({"a": next_after}, {"a": one})
    rejected({"a": next_after}, {"a": one}, "off in 2 of 2", exact=True)
    rejected({"a": -0.0 * one}, {"a": 0.0 * one}, "off in 2 of 2", exact=True)


@pytest.mark.parametrize(("one", "other"), [("update", "reset"), ("update", "candidate"), ("hidden", "candidate")])
def test_swapped_gates_are_rejected(expected, one, other):
    rejected(expected | {one: expected[other], other: expected[one]}, expected, "2 of 11 differ")


def test_the_gate_that_others_store_one_minus_update_is_rejected(expected):
    rejected(expected | {"update": 1 - expected["update"]}, expected, "update is off")


@pytest.mark.parametrize("name", ["hidden", "update", "d_x", "d_h_0", "d_weight_hh", "d_bias_hh"])
def test_a_tensor_shifted_by_one_row_scaled_negated_or_forgotten_is_rejected(expected, name):
    right = expected[name]
    for wrong in (right.roll(1, 0), right * 1.0001, -right, torch.zeros_like(right)):
        got = {key: tensor.float() for key, tensor in (expected | {name: wrong}).items()}
        rejected(got, expected, f"1 of 11 differ:\n  {name} is off", dtype=torch.float32)


@pytest.mark.parametrize("size", [size for size in SIZES if size.T == 1], ids=str)
def test_a_forgotten_gradient_is_rejected_at_every_size(size):
    for case in SYSTEMS:
        right = with_gradients(plain_loop, draw(case, size), torch.float64)
        for name in (name for name in right if name.startswith("d_") and right[name].any()):
            rejected(right | {name: torch.zeros_like(right[name])}, right, f"{name} is off")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight", ["weight_ih", "weight_hh", "bias_ih", "bias_hh"])
def test_weights_with_their_gates_swapped_are_rejected_in_values_and_gradients(weight, backend, expected):
    def swapped(inputs: Inputs) -> dict[str, torch.Tensor]:
        reset, update, candidate = getattr(inputs.weights, weight).chunk(3)
        return forward(inputs.but(**{weight: torch.cat([update, reset, candidate])}), backend)

    got = with_gradients(swapped, draw(GRU, SMALL), torch.float32)
    with pytest.raises(AssertionError) as caught:
        assert_same(got, expected, dtype=torch.float32)
    for name in ("hidden", "h_n", "update", "reset", "d_x", "d_h_0", f"d_{weight}"):
        assert f"{name} is off" in str(caught.value)
