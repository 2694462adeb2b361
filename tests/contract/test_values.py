"""The contract of the operators: values and every gradient are those of the equations, in float64."""

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests.contract.cases import (
    BATCHES,
    LENGTHS,
    SIZES,
    SMALL,
    WIDE,
    WIDTHS,
    Inputs,
    Size,
    SystemCase,
    draw,
    forward,
    plain_loop,
    with_gradients,
)
from tests.contract.common import (
    DENSE,
    FLOAT64,
    GRU_LAYER_NORM,
    Outputs,
    both_dtypes,
    both_sizes,
    both_ways,
    every_backend,
    every_system,
)
from tests.contract.compare import assert_same
from tidegate import ops
from tidegate.equations import Pinned
from tidegate.errors import BackendError
from tidegate.ops import Pins
from tidegate.ops.pins import resolve


def test_the_sizes_cover_every_pair_of_values():
    for one, other in (
        (("T", LENGTHS), ("B", BATCHES)),
        (("T", LENGTHS), ("H", WIDTHS)),
        (("B", BATCHES), ("H", WIDTHS)),
    ):
        have = {(getattr(size, one[0]), getattr(size, other[0])) for size in SIZES}
        assert have == set(product(one[1], other[1]))
    assert all(size.I != size.H for size in [*SIZES, SMALL, WIDE])


@lru_cache(maxsize=1)  # the tests of one case, one after the other, share their expected answer
def expected_of(case: SystemCase, size: Size, gates: bool) -> Outputs:
    return with_gradients(lambda inputs: plain_loop(inputs, gates=gates), draw(case, size), FLOAT64)


@both_dtypes  # the topmost parameter changes first
@every_backend
@every_system
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_every_gradient_are_those_of_the_equations(case, size, backend, dtype):
    got = with_gradients(lambda inputs: forward(inputs, backend), draw(case, size), dtype)
    expected_names = {"hidden", "h_n", "update", "reset", "candidate", "d_x", "d_h_0", "d_weight_ih", "d_bias_ih"}
    expected_names |= set() if case is DENSE else {"d_weight_hh", "d_bias_hh"}
    expected_names |= {"d_gain_ih", "d_gain_hh"} if case is GRU_LAYER_NORM else set()
    assert got.keys() == expected_names
    assert_same(got, expected_of(case, size, True), dtype=dtype, condition=case.condition)


@both_sizes
@every_system
@every_backend
@both_dtypes
@both_ways
def test_without_gates_the_state_and_its_gradients_are_the_same(case, size, backend, dtype, reverse):
    inputs, options = draw(case, size), {"gates": False, "reverse": reverse}
    steps = ops.run(inputs.call(**options), backend)
    assert (steps.update, steps.reset, steps.candidate) == (None, None, None)
    got = with_gradients(lambda leaves: forward(leaves, backend, **options), inputs, dtype)
    expected = with_gradients(lambda leaves: plain_loop(leaves, **options), inputs, FLOAT64)
    assert_same(got, expected, dtype=dtype, condition=case.condition)


@both_sizes
@every_system
@every_backend
@both_dtypes
def test_without_biases(case, size, backend, dtype):
    inputs = draw(case, size, bias=False)
    got = with_gradients(lambda leaves: forward(leaves, backend), inputs, dtype)
    assert "d_bias_ih" not in got
    assert_same(got, with_gradients(plain_loop, inputs, FLOAT64), dtype=dtype)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "identity", lambda value: 0.5 * torch.sin(value)])
@every_system
@every_backend
def test_the_activation_is_free(case, backend, activation):
    case = SystemCase(case.name, case.system, activation)
    inputs = draw(case, SMALL)
    if callable(activation) and ops.BACKENDS[backend].unsupported(inputs.call()) is not None:
        with pytest.raises(BackendError, match="this one is a function"):
            forward(inputs, backend)
        return
    got = forward(inputs, backend)
    g = {"relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda value: value}.get(activation, activation)
    with_function = Inputs(SystemCase("", case.system, g), inputs.x, inputs.h_0, inputs.weights)
    assert_same(got, forward(with_function, "reference"))
    pins = resolve([Pins(update=1.0, reset=0.0)], (SMALL.T, SMALL.B, SMALL.H), inputs.x)
    candidate = slice(-SMALL.H, None)
    pre = torch.nn.functional.linear(
        inputs.x,
        inputs.weights.weight_ih[candidate],
        None if inputs.weights.bias_ih is None else inputs.weights.bias_ih[candidate],
    )
    if inputs.weights.gain_ih is not None:
        gain, bias_ih = inputs.weights.gain_ih[candidate], inputs.weights.bias_ih
        assert bias_ih is not None
        product = torch.nn.functional.linear(inputs.x, inputs.weights.weight_ih[candidate])
        pre = torch.nn.functional.layer_norm(product, gain.shape, gain, bias_ih[candidate])
    if case.system == "gru-reset-before":
        assert inputs.weights.bias_hh is not None
        pre = pre + inputs.weights.bias_hh[candidate]
    assert_same({"hidden": forward(inputs, backend, pins=pins)["hidden"]}, {"hidden": g(pre)})


@st.composite
def steered(draw_from: st.DrawFn) -> tuple[Size, dict[str, Any]]:
    """A size, and any mask, pins and direction that go with it."""
    T, B, I, H = (draw_from(st.integers(1, most), label=axis) for axis, most in zip("TBIH", (6, 4, 5, 6), strict=True))
    generator = torch.Generator().manual_seed(draw_from(st.integers(0, 2**16), label="seed"))
    mask = torch.rand(T, B, generator=generator) < 0.7 if draw_from(st.booleans(), label="masked") else None

    def pin(gate: str) -> Tensor | None:
        shape = draw_from(st.sampled_from([None, (T, 1, 1), (T, B, 1), (T, 1, H), (T, B, H)]), label=gate)
        if shape is None:
            return None
        choice = torch.randint(0, 4, shape, generator=generator)
        return torch.tensor([0.0, 1.0, 0.6, torch.nan])[choice]

    options = {"mask": mask, "pins": Pinned(pin("update"), pin("reset")), "reverse": draw_from(st.booleans())}
    return Size(T, B, I, H), options


@every_system
@every_backend
@both_dtypes
@settings(max_examples=12)
@given(drawn=steered())
def test_any_size_mask_pins_and_direction_are_those_of_the_equations(case, backend, dtype, drawn):
    size, options = drawn
    inputs = draw(case, size)

    def in_dtype(leaves: Inputs) -> dict[str, Any]:
        return {**options, "pins": Pinned(*(None if pin is None else pin.to(leaves.x) for pin in options["pins"]))}

    got = with_gradients(lambda leaves: forward(leaves, backend, **in_dtype(leaves)), inputs, dtype)
    expected = with_gradients(lambda leaves: plain_loop(leaves, **in_dtype(leaves)), inputs, FLOAT64)
    assert_same(got, expected, dtype=dtype, condition=case.condition)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@every_system
@every_backend
def test_gradients_are_the_limits_of_differences(case, backend, bias):
    check, leaves = checkable(case, backend, Size(3, 2, 2, 3), bias)
    assert gradcheck(check, leaves)


@every_system
def test_the_reference_is_differentiable_twice(case):
    check, leaves = checkable(case, "reference", Size(2, 1, 2, 2), bias=True)
    assert gradgradcheck(check, leaves)


def checkable(case: SystemCase, backend: str, size: Size, bias: bool) -> tuple[Callable[..., Any], list[Tensor]]:
    """The operator as a function of all its tensors, in float64, with a hole in its mask and a pinned unit."""
    inputs = draw(case, size, bias=bias).map(lambda tensor: tensor.double().requires_grad_())
    names = list(inputs.named())
    mask = torch.ones(size.T, size.B, dtype=torch.bool)
    mask[1, 0] = False
    pins = resolve([Pins(update=0.6, steps=0, units=0)], (size.T, size.B, size.H), inputs.x)

    def check(*leaves: Tensor) -> tuple[Tensor, ...]:
        outputs = forward(inputs.but(**dict(zip(names, leaves, strict=True))), backend, mask=mask, pins=pins)
        return tuple(output for output in outputs.values() if output.requires_grad)

    return check, list(inputs.named().values())
