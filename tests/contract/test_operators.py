"""The contract of the operators: what every system promises on every backend.

A backend that writes into buffers of its own has them filled with NaN before it runs, so that a number it forgets to
write is seen: such a backend hooks its allocation in the fixture `poisoned`. The reference allocates nothing by hand.
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests.contract.cases import (
    BACKENDS,
    BATCHES,
    LENGTHS,
    SIZES,
    SMALL,
    SYSTEMS,
    WIDE,
    WIDTHS,
    Inputs,
    Size,
    SystemCase,
    draw,
    forward,
    named_outputs,
    part_of,
    plain_loop,
    values,
    with_gradients,
)
from tests.contract.compare import assert_same
from tidegate import ops
from tidegate.equations import Pinned
from tidegate.errors import BackendError
from tidegate.gates import DirectionTrace
from tidegate.ops import Call, Pins, Steps, backends, reference
from tidegate.ops.functional import Reset
from tidegate.ops.pins import resolve

DENSE, RNN, RNN_RELU, UPDATE_ONLY, GRU, GRU_RESET_BEFORE = SYSTEMS
GATED = [UPDATE_ONLY, GRU, GRU_RESET_BEFORE]
FLOAT32, FLOAT64 = torch.float32, torch.float64
NOT_FINITE = [torch.nan, torch.inf, -torch.inf]
Outputs = dict[str, Tensor]

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_system = pytest.mark.parametrize("case", SYSTEMS, ids=str)
both_sizes = pytest.mark.parametrize("size", [SMALL, WIDE], ids=str)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
both_dtypes = pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=["float32", "float64"])


@pytest.fixture(autouse=True)
def poisoned() -> None:
    """Where a backend's output buffers get filled with NaN; no backend has any yet."""


# ---------------------------------------------------------------------------------------------------------------------
# The equations


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
    assert got.keys() == expected_names | (set() if case is DENSE else {"d_weight_hh", "d_bias_hh"})
    assert_same(got, expected_of(case, size, True), dtype=dtype)


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
    assert_same(got, expected, dtype=dtype)


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
    got = forward(inputs, backend)
    g = {"relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda value: value}.get(activation, activation)
    assert_same(got, forward(Inputs(SystemCase("", case.system, g), inputs.x, inputs.h_0, inputs.weights), backend))
    pins = resolve([Pins(update=1.0, reset=0.0)], (SMALL.T, SMALL.B, SMALL.H), inputs.x)
    candidate = slice(-SMALL.H, None)
    pre = torch.nn.functional.linear(
        inputs.x,
        inputs.weights.weight_ih[candidate],
        None if inputs.weights.bias_ih is None else inputs.weights.bias_ih[candidate],
    )
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
    assert_same(got, expected, dtype=dtype)


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


# ---------------------------------------------------------------------------------------------------------------------
# Sequences


@pytest.mark.parametrize("chunks", [(1,) * 9, (4, 5), (1, 8), (2, 3, 4)], ids=str)
@every_system
@every_backend
@both_ways
def test_a_sequence_is_its_steps_and_its_chunks(case, backend, chunks, reverse):
    def chunk_by_chunk(inputs: Inputs) -> Outputs:
        ran = []
        parts = torch.split(inputs.x, list(chunks))
        for x in reversed(parts) if reverse else parts:
            ran.append(forward(inputs.but(x=x), backend, reverse=reverse))
            inputs = inputs.but(h_0=ran[-1]["h_n"])
        ordered = ran[::-1] if reverse else ran
        return {name: torch.cat([part[name] for part in ordered]) for name in ran[0] if name != "h_n"} | {
            "h_n": ran[-1]["h_n"]
        }

    inputs = draw(case, SMALL)
    whole = with_gradients(lambda leaves: forward(leaves, backend, reverse=reverse), inputs, FLOAT32)
    assert_same(with_gradients(chunk_by_chunk, inputs, FLOAT32), whole)


@both_sizes
@every_system
@every_backend
def test_each_row_of_a_batch_is_what_it_is_alone(case, size, backend):
    def row_by_row(inputs: Inputs) -> Outputs:
        rows = [
            forward(inputs.but(x=inputs.x[:, row : row + 1], h_0=inputs.h_0[row : row + 1]), backend)
            for row in range(size.B)
        ]
        return {name: torch.cat([part[name] for part in rows], dim=-2) for name in rows[0]}

    inputs = draw(case, size)
    assert_same(
        with_gradients(row_by_row, inputs, FLOAT32),
        with_gradients(lambda leaves: forward(leaves, backend), inputs, FLOAT32),
    )


@pytest.mark.parametrize("bad", NOT_FINITE)
@both_sizes
@every_system
@every_backend
def test_a_row_that_is_not_finite_leaves_the_other_rows_as_they_were(case, size, backend, bad):
    def others(inputs: Inputs) -> Outputs:
        return {
            name: torch.cat([value[..., :1, :], value[..., 2:, :]], -2)
            for name, value in forward(inputs, backend).items()
        }

    inputs = draw(case, size)
    spoilt_x, spoilt_h_0 = inputs.x.clone(), inputs.h_0.clone()
    spoilt_x[:, 1], spoilt_h_0[1] = bad, bad
    got, expected = others(inputs.but(x=spoilt_x, h_0=spoilt_h_0)), others(inputs)
    assert_same(got, expected, exact=True)


@every_system
@every_backend
def test_a_row_takes_no_gradient_from_another(case, backend):
    def second_row(inputs: Inputs) -> Outputs:
        return {name: value[..., 1, :] for name, value in forward(inputs, backend).items()}

    got = with_gradients(second_row, draw(case, SMALL), FLOAT32)
    assert got["d_x"][:, 1].all()
    assert not got["d_x"][:, [0, 2]].any()
    assert not got["d_h_0"][[0, 2]].any()


@both_sizes
@every_system
@every_backend
def test_an_output_gives_no_gradient_to_a_later_input(case, size, backend):
    def early(inputs: Inputs) -> Outputs:
        return {name: value[:3] for name, value in forward(inputs, backend).items() if name != "h_n"}

    got = with_gradients(early, draw(case, size), FLOAT32)
    assert got["d_x"][:3].any()
    assert not got["d_x"][3:].any()


@both_sizes
@every_system
@every_backend
def test_reverse_is_forward_on_the_flipped_sequence(case, size, backend):
    mask = torch.rand(size.T, size.B) < 0.7
    pins = Pinned(torch.rand(size.T, 1, size.H), torch.rand(size.T, size.B, 1))

    def flipped(inputs: Inputs) -> Outputs:
        forced = Pinned(*(pin.flip(0) for pin in pins))  # type: ignore[union-attr]
        ran = forward(inputs.but(x=inputs.x.flip(0)), backend, mask=mask.flip(0), pins=forced)
        return {name: value if name == "h_n" else value.flip(0) for name, value in ran.items()}

    inputs = draw(case, size)
    got = with_gradients(lambda leaves: forward(leaves, backend, mask=mask, pins=pins, reverse=True), inputs, FLOAT32)
    assert_same(got, with_gradients(flipped, inputs, FLOAT32))


# ---------------------------------------------------------------------------------------------------------------------
# Masks


def without_masked_steps(inputs: Inputs, mask: Tensor, backend: str, reverse: bool) -> Outputs:
    """Every row run by itself on the steps that its mask leaves, and laid out as the masked run lays it out."""
    T, B = mask.shape
    rows: list[Outputs] = []
    for row in range(B):
        used = mask[:, row].nonzero().flatten().tolist()
        h_0 = inputs.h_0[row : row + 1]
        ran = (
            {}
            if not used
            else forward(inputs.but(x=inputs.x[used][:, row : row + 1], h_0=h_0), backend, reverse=reverse)
        )
        state, parts = h_0, []
        for t in range(T - 1, -1, -1) if reverse else range(T):
            if t in used:
                at = used.index(t)
                state = ran["hidden"][at]
                gates = [ran[name][at] for name in ("update", "reset", "candidate")]
            else:
                gates = [torch.zeros_like(state)] * 3
            parts.append((state, *gates))
        ordered = parts[::-1] if reverse else parts
        names = ("hidden", "update", "reset", "candidate")
        rows.append({name: torch.stack(values) for name, values in zip(names, zip(*ordered, strict=True), strict=True)})
        rows[-1]["h_n"] = state
    return {name: torch.cat([part[name] for part in rows], dim=-2) for name in rows[0]}


def prefix_mask(size: Size) -> Tensor:
    """Lengths from nothing to everything, in no order."""
    lengths = torch.randperm(size.B) % (size.T + 1)
    lengths[0], lengths[-1] = 0, size.T
    return torch.arange(size.T).unsqueeze(-1) < lengths


MASKS: dict[str, Callable[[Size], Tensor]] = {
    "prefix": prefix_mask,
    "suffix": lambda size: prefix_mask(size).flip(0),
    "holes": lambda size: torch.rand(size.T, size.B) < 0.5,
    "one hole for all": lambda size: (torch.arange(size.T) != 2).unsqueeze(-1).expand(-1, size.B),
    "nothing": lambda size: torch.zeros(size.T, size.B, dtype=torch.bool),
    "everything": lambda size: torch.ones(size.T, size.B, dtype=torch.bool),
}


@pytest.mark.parametrize("kind", MASKS)
@every_system
@every_backend
@both_ways
def test_a_masked_sequence_is_the_sequence_without_those_steps(case, backend, kind, reverse):
    inputs, mask = draw(case, SMALL), MASKS[kind](SMALL)
    got = with_gradients(lambda leaves: forward(leaves, backend, mask=mask, reverse=reverse), inputs, FLOAT32)
    expected = with_gradients(lambda leaves: without_masked_steps(leaves, mask, backend, reverse), inputs, FLOAT32)
    assert_same(got, expected)


@pytest.mark.parametrize("bad", NOT_FINITE)
@both_sizes
@every_system
@every_backend
@both_ways
def test_the_input_under_a_mask_may_be_anything_and_gets_a_gradient_of_exactly_zero(case, size, backend, bad, reverse):
    inputs, mask = draw(case, size), MASKS["holes"](size)
    spoilt = inputs.but(x=torch.where(mask.unsqueeze(-1), inputs.x, bad))
    got, expected = (
        with_gradients(lambda leaves: forward(leaves, backend, mask=mask, reverse=reverse), each, FLOAT32)
        for each in (spoilt, inputs)
    )
    assert_same(got, expected, exact=True)
    assert not got["d_x"][~mask].any()
    assert got["d_x"][mask].any()


@every_system
@every_backend
def test_a_mask_holds_the_state_to_the_bit_and_gives_no_gate(case, backend):
    inputs, mask = draw(case, SMALL), MASKS["holes"](SMALL)
    inputs.h_0[:, 0] = -0.0
    ran = forward(inputs, backend, mask=mask)
    before = torch.cat([inputs.h_0.unsqueeze(0), ran["hidden"][:-1]])
    assert_same({"held": ran["hidden"][~mask]}, {"held": before[~mask]}, exact=True)
    for gate in ("update", "reset", "candidate"):
        assert not ran[gate][~mask].any()


@every_system
@every_backend
def test_a_mask_of_all_true_is_no_mask_to_the_bit(case, backend):
    inputs, mask = draw(case, SMALL), MASKS["everything"](SMALL)
    got, expected = forward(inputs, backend, mask=mask), forward(inputs, backend)
    assert_same(got, expected, exact=True)


# ---------------------------------------------------------------------------------------------------------------------
# Pins: the limiting cases of the equations


def pinned_to(inputs: Inputs, *pins: Pins) -> Pinned:
    """The pins, laid out for these inputs."""
    shape = (*inputs.x.shape[:2], inputs.h_0.shape[-1])
    return resolve(pins, shape, inputs.x)


def assert_becomes(
    case: SystemCase, simpler: SystemCase, pin: Pins, size: Size, backend: str, bias: bool = True
) -> None:
    """`case` under `pin` is `simpler` with the weights they share: values to the bit, and every gradient."""
    inputs = draw(case, size, bias=bias)
    got = with_gradients(lambda leaves: forward(leaves, backend, pins=pinned_to(leaves, pin)), inputs, FLOAT32)
    expected = with_gradients(lambda leaves: forward(part_of(leaves, simpler), backend), inputs, FLOAT32)
    assert_same(values(got), values(expected), exact=True)
    assert_same(got, expected)


@pytest.mark.parametrize("case", GATED, ids=str)
@both_sizes
@every_backend
def test_update_1_and_reset_1_are_the_rnn(case, size, backend):
    assert_becomes(case, RNN, Pins(update=1.0, reset=1.0), size, backend)


@pytest.mark.parametrize("case", [RNN, UPDATE_ONLY, GRU], ids=str)
@both_sizes
@every_backend
def test_update_1_and_reset_0_are_the_dense_layer(case, size, backend):
    assert_becomes(case, DENSE, Pins(update=1.0, reset=0.0), size, backend)


@both_sizes
@every_backend
def test_update_1_and_reset_0_are_the_dense_layer_where_reset_is_before_the_product(size, backend):
    """Its second bias is added to the product, which is 0: without one it is the dense layer to the bit."""
    assert_becomes(GRU_RESET_BEFORE, DENSE, Pins(update=1.0, reset=0.0), size, backend, bias=False)

    def both_biases(inputs: Inputs) -> Outputs:
        weights = inputs.weights
        assert weights.bias_ih is not None
        assert weights.bias_hh is not None
        both = weights._replace(bias_ih=weights.bias_ih + weights.bias_hh)
        return forward(part_of(inputs.but(weights=both), DENSE), backend)

    inputs, pin = draw(GRU_RESET_BEFORE, size), Pins(update=1.0, reset=0.0)
    got = with_gradients(lambda leaves: forward(leaves, backend, pins=pinned_to(leaves, pin)), inputs, FLOAT32)
    assert_same(got, with_gradients(both_biases, inputs, FLOAT32))


@pytest.mark.parametrize("case", [GRU, GRU_RESET_BEFORE], ids=str)
@both_sizes
@every_backend
def test_reset_1_is_the_update_only_gru(case, size, backend):
    assert_becomes(case, UPDATE_ONLY, Pins(reset=1.0), size, backend)


@pytest.mark.parametrize("bad", [0.0, 1e30, *NOT_FINITE])
@both_sizes
@every_system
@every_backend
def test_update_0_holds_any_state_to_the_bit_whatever_comes_in_and_gradients_stay_finite(case, size, backend, bad):
    inputs = draw(case, size)
    inputs.h_0.view(-1)[:4] = torch.tensor([-0.0, 0.0, 1e-45, -1.0])
    inputs = inputs.but(x=torch.full_like(inputs.x, bad))
    pin = Pins(update=0.0)
    got = with_gradients(
        lambda leaves: forward(leaves, backend, pins=pinned_to(leaves, pin), gates=False), inputs, FLOAT32
    )
    held = {"hidden": inputs.h_0.expand(size.T, -1, -1), "h_n": inputs.h_0}
    assert_same(values(got), held, exact=True)
    assert all(value.isfinite().all() for value in got.values())
    assert not any(got[name].any() for name in got if name.startswith("d_") and name != "d_h_0")
    expected = with_gradients(
        lambda leaves: {"hidden": leaves.h_0.expand(size.T, -1, -1), "h_n": leaves.h_0}, inputs, FLOAT32
    )
    assert_same({"d_h_0": got["d_h_0"]}, {"d_h_0": expected["d_h_0"]})


@pytest.mark.parametrize("state", [torch.inf, -torch.inf, 3e38])
@every_system
@every_backend
def test_update_0_holds_a_state_that_is_not_finite(case, backend, state):
    inputs = draw(case, SMALL)
    inputs.h_0[1] = state
    ran = forward(inputs, backend, pins=pinned_to(inputs, Pins(update=0.0)))
    assert_same({"h_n": ran["h_n"]}, {"h_n": inputs.h_0}, exact=True)


@pytest.mark.parametrize("bad", NOT_FINITE)
@every_system
@every_backend
@both_ways
def test_steps_pinned_to_hold_are_skipped_whatever_they_bring(case, backend, bad, reverse):
    skipped = slice(3, 6)
    kept = torch.tensor([0, 1, 2, 6, 7, 8])
    inputs = draw(case, SMALL)
    inputs.x[skipped] = bad

    def held(leaves: Inputs) -> Outputs:
        ran = forward(leaves, backend, pins=pinned_to(leaves, Pins(update=0.0, steps=skipped)), reverse=reverse)
        return {name: value if name == "h_n" else value[kept] for name, value in ran.items()}

    got = with_gradients(held, inputs, FLOAT32)
    expected = with_gradients(
        lambda leaves: forward(leaves.but(x=leaves.x[kept]), backend, reverse=reverse), inputs, FLOAT32
    )
    assert_same(got, expected)
    assert not got["d_x"][skipped].any()


@every_system
@every_backend
def test_some_units_and_some_sequences_are_held_while_the_others_run(case, backend):
    inputs = draw(case, SMALL)
    units, sequences = [0, 3], [0, 2]
    ran = forward(inputs, backend, pins=pinned_to(inputs, Pins(update=0.0, units=units, sequences=sequences)))
    held = torch.zeros(SMALL.B, SMALL.H, dtype=torch.bool)
    held[0, units] = held[2, units] = True
    now, before = ran["hidden"], inputs.h_0.expand(SMALL.T, -1, -1)
    assert_same({"held": now[:, held]}, {"held": before[:, held]}, exact=True)
    assert not ran["update"][:, held].any()
    free = forward(inputs, backend)
    assert_same({"row": now[:, 1]}, {"row": free["hidden"][:, 1]})
    assert (now[:, ~held] != before[:, ~held]).any()


@every_backend
@every_system
def test_update_at_six_tenths_takes_60_percent_of_the_candidate_and_40_of_the_past(case, backend):
    inputs = draw(case, SMALL)
    ran = forward(inputs, backend, pins=pinned_to(inputs, Pins(update=0.6)))
    before = torch.cat([inputs.h_0.unsqueeze(0), ran["hidden"][:-1]])
    assert_same(
        {"update": ran["update"], "hidden": ran["hidden"]},
        {"update": torch.full_like(before, 0.6), "hidden": 0.6 * ran["candidate"] + 0.4 * before},
    )


@every_system
@both_sizes
@every_backend
@both_ways
def test_gates_played_back_as_pins_reproduce_the_run(case, size, backend, reverse):
    inputs, mask = draw(case, size), MASKS["holes"](size)
    first = forward(inputs, backend, mask=mask, reverse=reverse)
    pins = pinned_to(inputs, Pins(update=first["update"], reset=first["reset"]))
    again = forward(
        inputs.but(x=torch.where(mask.unsqueeze(-1), inputs.x, torch.nan)), backend, pins=pins, reverse=reverse
    )
    names = ("hidden", "h_n", "update") if case is DENSE else ("hidden", "h_n", "update", "reset")
    assert_same({name: again[name] for name in names}, {name: first[name] for name in names})
    assert_same({"candidate": again["candidate"][mask]}, {"candidate": first["candidate"][mask]})


@pytest.mark.parametrize("gate", ["update", "reset"])
@pytest.mark.parametrize("case", [GRU, GRU_RESET_BEFORE], ids=str)
@every_backend
def test_no_gradient_flows_through_a_gate_that_is_pinned(case, backend, gate):
    inputs = draw(case, SMALL)
    pin = Pins(update=0.3) if gate == "update" else Pins(reset=0.3)
    got = with_gradients(lambda leaves: forward(leaves, backend, pins=pinned_to(leaves, pin)), inputs, FLOAT32)
    rows = ops.SYSTEMS[case.system].convention.rows(gate, SMALL.H)
    for name in ("d_weight_ih", "d_weight_hh", "d_bias_ih", "d_bias_hh"):
        assert not got[name][rows].any()
        assert got[name][-SMALL.H :].any()


# ---------------------------------------------------------------------------------------------------------------------
# The memory map


@pytest.mark.parametrize("size", [SMALL, WIDE, Size(1, 3, 2, 7), Size(63, 3, 5, 7)], ids=str)
@every_system
@every_backend
@both_ways
def test_the_memory_map_sums_to_1_and_rebuilds_every_state(case, size, backend, reverse):
    inputs, mask = draw(case, size), torch.rand(size.T, size.B) < 0.8
    ran = forward(inputs, backend, mask=mask, reverse=reverse)
    seen = DirectionTrace(
        ran["update"], ran["reset"], ran["candidate"], ran["hidden"], inputs.h_0, mask, backward=reverse
    )
    held = torch.cat([inputs.h_0.unsqueeze(0), ran["candidate"]])
    for t in {0, size.T // 2, size.T - 1, -1}:
        memory = seen.memory(t)
        assert memory.shape == (size.T + 1, size.B, size.H)
        assert ((memory >= 0) & (memory <= 1)).all()
        assert not memory[1:][~mask].any()
        unseen = memory[1 : t % size.T + 1] if reverse else memory[t % size.T + 2 :]
        assert not unseen.any()
        got = {"sum": memory.sum(0), "state": (memory * held).sum(0)}
        assert_same(got, {"sum": torch.ones_like(inputs.h_0), "state": ran["hidden"][t]})


@every_system
@every_backend
def test_gates_lie_between_0_and_1_and_a_gate_that_a_system_lacks_is_what_the_system_is_without_it(case, backend):
    ran = forward(draw(case, WIDE), backend)
    for gate in ("update", "reset"):
        assert ((ran[gate] >= 0) & (ran[gate] <= 1)).all()
    assert (ran["update"] == 1).all() == ("update" not in case.blocks)
    assert (ran["reset"] == (0 if case is DENSE else 1)).all() == ("reset" not in case.blocks)


# ---------------------------------------------------------------------------------------------------------------------
# Calls


def transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def strided(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1)[..., 0]


def offset(tensor: Tensor) -> Tensor:
    return torch.cat([tensor.new_full((1,), torch.nan), tensor.flatten()])[1:].view(tensor.shape)


@pytest.mark.parametrize("layout", [transposed, strided, offset])
@both_sizes
@every_system
@every_backend
def test_the_layout_in_memory_changes_nothing(case, size, backend, layout):
    inputs, mask = draw(case, size), MASKS["holes"](size)
    pin = torch.rand(size.T, size.B, size.H)
    got = with_gradients(
        lambda leaves: forward(
            leaves.map(layout), backend, mask=layout(mask.float()) > 0, pins=Pinned(layout(pin), None)
        ),
        inputs,
        FLOAT32,
    )
    expected = with_gradients(
        lambda leaves: forward(leaves, backend, mask=mask, pins=Pinned(pin, None)), inputs, FLOAT32
    )
    assert_same(got, expected)


@every_system
@every_backend
def test_expanded_tensors_are_what_they_repeat(case, backend):
    def expanded(inputs: Inputs, repeat: Callable[[Tensor, Size], Tensor]) -> Outputs:
        one = inputs.but(x=inputs.x[:1, :1], h_0=inputs.h_0[:1])
        return forward(one.but(x=repeat(one.x, SMALL), h_0=repeat(one.h_0, SMALL)), backend)

    def expand(tensor: Tensor, size: Size) -> Tensor:
        return tensor.expand(*([size.T] if tensor.ndim == 3 else []), size.B, -1)

    inputs = draw(case, SMALL)
    got = with_gradients(lambda leaves: expanded(leaves, expand), inputs, FLOAT32)
    copied = with_gradients(lambda leaves: expanded(leaves, lambda *given: expand(*given).clone()), inputs, FLOAT32)
    assert_same(got, copied)


@every_system
@every_backend
def test_a_call_changes_none_of_its_inputs_and_repeats_to_the_bit(case, backend):
    inputs, mask = draw(case, SMALL), MASKS["holes"](SMALL)
    pins = Pinned(torch.rand(SMALL.T, SMALL.B, SMALL.H), None)
    before = inputs.map(torch.clone).named() | {"mask": mask.float(), "pin": pins.update}

    def run_once() -> Outputs:
        return with_gradients(lambda leaves: forward(leaves, backend, mask=mask, pins=pins), inputs, FLOAT32)

    first = run_once()
    assert_same(run_once(), first, exact=True)
    for _ in range(2):  # without gradients, on these very tensors
        assert_same(forward(inputs, backend, mask=mask, pins=pins), values(first), exact=True)
    assert_same(inputs.named() | {"mask": mask.float(), "pin": pins.update}, before, exact=True)


@every_system
@every_backend
def test_writing_into_a_result_leaves_the_input_alone(case, backend):
    inputs = draw(case, SMALL)
    before = inputs.map(torch.clone).named()
    ran = ops.run(inputs.call(mask=MASKS["nothing"](SMALL), gates=True), backend)
    for value in ran:
        assert value is not None
        value.fill_(9)
    assert_same(inputs.named(), before, exact=True)


@every_system
@every_backend
def test_inference_gives_the_values_of_training(case, backend):
    inputs = draw(case, WIDE)
    expected = with_gradients(lambda leaves: forward(leaves, backend), inputs, FLOAT32)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            got = forward(inputs, backend)
        assert not any(value.requires_grad for value in got.values())
        assert_same(got, values(expected), exact=True)


# A dense layer's first state has no influence, so that alone it need not have a gradient at all.
LEAVES = [(case, name) for case in SYSTEMS for name in draw(case, SMALL).named() if (case, name) != (DENSE, "h_0")]


@pytest.mark.parametrize(("case", "name"), LEAVES, ids=str)
@every_backend
def test_a_gradient_that_alone_is_asked_for_is_the_same(case, backend, name):
    inputs = draw(case, SMALL)

    def with_one_leaf(leaves: Inputs) -> Outputs:
        return forward(inputs.but(**{name: leaves.named()[name]}), backend)

    alone = with_gradients(with_one_leaf, inputs, FLOAT32)
    expected = with_gradients(lambda leaves: forward(leaves, backend), inputs, FLOAT32)
    assert_same({name: alone[f"d_{name}"]}, {name: expected[f"d_{name}"]})


@every_system
@every_backend
@both_dtypes
def test_a_state_that_was_saved_and_loaded_carries_on_to_the_bit(case, backend, dtype):
    inputs = draw(case, SMALL).map(lambda tensor: tensor.to(dtype))
    first = forward(inputs.but(x=inputs.x[:4]), backend)["h_n"]
    loaded = load(save({"h_n": first.contiguous(), **{name: t.contiguous() for name, t in inputs.named().items()}}))
    restored = inputs.but(**{name: loaded[name] for name in inputs.named() if name != "h_0"})
    got = forward(restored.but(x=restored.x[4:], h_0=loaded["h_n"]), backend)
    assert_same(got, forward(inputs.but(x=inputs.x[4:], h_0=first), backend), exact=True)
    whole = forward(inputs, backend)
    assert_same({"h_n": got["h_n"]}, {"h_n": whole["h_n"]})


@every_system
@every_backend
def test_two_threads_calling_at_once_get_the_answers_they_get_alone(case, backend):
    rounds = 4
    work = [draw(case, Size(12, 3, 5, 16), seed=seed) for seed in range(2)]

    def compute(inputs: Inputs) -> Outputs:
        return with_gradients(lambda leaves: forward(leaves, backend), inputs, FLOAT32)

    alone = [compute(inputs) for inputs in work]
    together: list[list[Outputs]] = [[], []]
    start = threading.Barrier(2, timeout=60)

    def call(which: int) -> None:
        for _ in range(rounds):
            start.wait()
            together[which].append(compute(work[which]))

    threads = [threading.Thread(target=call, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for which in range(2):
        assert len(together[which]) == rounds
        for got in together[which]:
            assert_same(got, alone[which])


# ---------------------------------------------------------------------------------------------------------------------
# Which backend runs


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Call]]:
    """What each backend was called with."""
    seen: dict[str, list[Call]] = {name: [] for name in BACKENDS}

    def spy(name: str, run: Callable[[Call], Steps]) -> Callable[[Call], Steps]:
        def spied(call: Call) -> Steps:
            seen[name].append(call)
            return run(call)

        return spied

    for name in BACKENDS:
        monkeypatch.setattr(ops.BACKENDS[name], "run", spy(name, ops.BACKENDS[name].run))
    return seen


@every_system
@every_backend
def test_the_backend_that_was_meant_is_the_one_that_ran(case, backend, calls):
    call = draw(case, SMALL).call()
    ops.run(call, backend)
    assert {name: len(ran) for name, ran in calls.items()} == {name: int(name == backend) for name in BACKENDS}
    assert calls[backend][0] is call


@every_system
def test_auto_runs_what_choose_says(case, calls):
    call = draw(case, SMALL).call()
    choice = ops.choose(call)
    ops.run(call)
    assert [name for name, ran in calls.items() if ran] == [choice.backend]
    assert choice.backend in choice.reason


def through(function: Callable[..., Steps], inputs: Inputs, **options: Any) -> Steps:
    """The public function with these inputs, each by its name."""
    return function(**inputs.named(), **options)


RESETS: list[tuple[SystemCase, Reset]] = [(GRU, "after"), (GRU_RESET_BEFORE, "before"), (UPDATE_ONLY, None)]


@pytest.mark.parametrize(("case", "reset"), RESETS, ids=str)
@every_backend
@both_ways
def test_gru_is_the_system_its_reset_names_on_the_backend_it_names(case, reset, backend, reverse, calls):
    inputs, mask, pin = draw(case, SMALL), MASKS["holes"](SMALL), Pins(update=0.6, steps=1)
    options: dict[str, Any] = {"mask": mask, "reverse": reverse}
    got = through(ops.gru, inputs, reset=reset, pins=[pin], gates=True, backend=backend, **options)
    assert [name for name, ran in calls.items() if ran] == [backend]
    expected = plain_loop(inputs.map(Tensor.double), pins=pinned_to(inputs.map(Tensor.double), pin), **options)
    assert_same(named_outputs(got, reverse=reverse), expected, dtype=FLOAT32)


@pytest.mark.parametrize("case", [RNN, RNN_RELU], ids=str)
@every_backend
@both_ways
def test_rnn_is_the_rnn_on_the_backend_it_names(case, backend, reverse, calls):
    inputs, mask, pin = draw(case, SMALL), MASKS["holes"](SMALL), Pins(update=0.6, steps=1)
    options: dict[str, Any] = {"mask": mask, "reverse": reverse}
    g = case.activation
    got = through(ops.rnn, inputs, activation=g, pins=[pin], gates=True, backend=backend, **options)
    assert [name for name, ran in calls.items() if ran] == [backend]
    expected = plain_loop(inputs.map(Tensor.double), pins=pinned_to(inputs.map(Tensor.double), pin), **options)
    assert_same(named_outputs(got, reverse=reverse), expected, dtype=FLOAT32)


@every_backend
def test_gru_and_rnn_work_without_biases_and_give_no_gates_unless_asked(backend):
    for case, function in ((GRU, ops.gru), (RNN, ops.rnn)):
        inputs = draw(case, SMALL, bias=False)
        steps = through(function, inputs, backend=backend)
        assert steps[1:] == (None, None, None)
        assert_same({"hidden": steps.hidden}, {"hidden": forward(inputs, backend)["hidden"]}, exact=True)


@every_system
def test_a_backend_that_does_not_exist_raises_and_nothing_runs(case, calls):
    inputs = draw(case, SMALL)
    with pytest.raises(BackendError, match=r"backend must be one of \"auto\", .*; got 'nonsense'"):
        ops.run(inputs.call(), "nonsense")
    with pytest.raises(BackendError, match="nonsense"):
        through(ops.gru, draw(GRU, SMALL), backend="nonsense")
    with pytest.raises(BackendError, match="nonsense"):
        through(ops.rnn, draw(RNN, SMALL), backend="nonsense")
    assert not any(calls.values())


def stand_in(name: str, refusal: str | None) -> ModuleType:
    """A backend that refuses with a sentence, or runs and says so by a state of nines."""
    module = ModuleType(name)
    module.unsupported = lambda call: refusal  # type: ignore[attr-defined]
    module.run = lambda call: Steps(torch.full((*call.x.shape[:2], call.h_0.shape[1]), 9.0))  # type: ignore[attr-defined]
    return module


def test_a_named_backend_that_cannot_run_raises_with_its_reason_and_auto_goes_on_to_the_next(monkeypatch):
    slow = {"lame": stand_in("lame", "it is lame today"), "reference": reference}
    monkeypatch.setattr(backends, "BACKENDS", slow)
    call = draw(GRU, SMALL).call()
    with pytest.raises(BackendError, match='backend "lame" cannot run this layer: it is lame today'):
        ops.run(call, "lame")
    choice = ops.choose(call)
    assert choice.backend == "reference"
    assert "it is lame today" in choice.reason
    assert_same({"hidden": ops.run(call).hidden}, {"hidden": ops.run(call, "reference").hidden}, exact=True)


def test_auto_takes_the_first_backend_that_can_and_a_name_overrules_it(monkeypatch):
    monkeypatch.setattr(backends, "BACKENDS", {"swift": stand_in("swift", None), "reference": reference})
    call = draw(GRU, SMALL).call()
    assert (ops.run(call).hidden == 9).all()
    assert not (ops.run(call, "reference").hidden == 9).any()


def test_auto_raises_with_every_reason_where_no_backend_can(monkeypatch):
    lame = {"one": stand_in("one", "it rains"), "two": stand_in("two", "it snows")}
    monkeypatch.setattr(backends, "BACKENDS", lame)
    with pytest.raises(BackendError, match="not one: it rains; not two: it snows"):
        ops.run(draw(GRU, SMALL).call())
