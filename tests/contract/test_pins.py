"""The contract of the operators: pins are the limiting cases of the equations."""

import pytest
import torch

from tests.contract.cases import (
    SMALL,
    Inputs,
    Size,
    SystemCase,
    draw,
    forward,
    part_of,
    values,
    with_gradients,
)
from tests.contract.common import (
    DENSE,
    FLOAT32,
    GATED,
    GRU,
    GRU_LAYER_NORM,
    GRU_RESET_BEFORE,
    MASKS,
    NOT_FINITE,
    RNN,
    UPDATE_ONLY,
    Outputs,
    both_sizes,
    both_ways,
    every_backend,
    every_system,
    pinned_to,
)
from tests.contract.compare import assert_same
from tidegate import ops
from tidegate.ops import Pins


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
    if case is GRU_LAYER_NORM and bad == 1e30:
        bad = 1e15  # the variance of what is larger is beyond float32
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
