"""Pins in a layer: a forced gate, where it was asked for and nowhere else, and what then follows exactly."""
# mypy: allow-untyped-calls

from typing import Any

import pytest
import torch

import tidegate as tg
from tests.layer_helpers import CELLS, SYSTEMS, draw_, layer, loop, twins

T, B, I, H = 6, 4, 3, 5
GATED = [system for system in SYSTEMS if system != "rnn"]


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def pinned_where(module, x, pins):
    """(T, B, H) bools: where the trace's update gate is the pinned 0.25, which no free gate is."""
    return tg.trace(module, x, pins=pins).update == 0.25


def expected_where(steps=..., sequences=..., units=...):
    where = torch.zeros(T, B, H, dtype=torch.bool)
    chosen_steps = torch.zeros(T, dtype=torch.bool)
    chosen_steps[steps] = True
    chosen_sequences = torch.zeros(B, dtype=torch.bool)
    chosen_sequences[sequences] = True
    chosen_units = torch.zeros(H, dtype=torch.bool)
    chosen_units[units] = True
    where |= chosen_steps[:, None, None] & chosen_sequences[:, None] & chosen_units
    return where


def along(axis: str, selection: Any) -> tg.Pins:
    """A pin of 0.25 on a selection along one axis."""
    chosen: dict[str, Any] = {axis: selection}
    return tg.Pins(update=0.25, **chosen)


SELECTIONS = {
    "int": 2,
    "last-int": -1,
    "slice": slice(1, 4),
    "open-slice": slice(2, None),
    "strided-slice": slice(0, None, 2),
    "list": [0, 3],
    "tuple": (1, 2),
    "range": range(1, 3),
    "int-tensor": torch.tensor([0, 2]),
    "scalar-tensor": torch.tensor(1),
}


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS.keys())
@pytest.mark.parametrize("axis", ["steps", "sequences", "units"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_selection_pins_exactly_what_it_names(system, axis, selection: Any):
    module, x = layer(system, I, H), random(T, B, I)
    index = list(selection) if isinstance(selection, range | tuple) else selection
    found = pinned_where(module, x, along(axis, selection))
    assert found.equal(expected_where(**{axis: index}))


@pytest.mark.parametrize(("axis", "size"), [("steps", T), ("sequences", B), ("units", H)])
def test_bools_along_an_axis_pin_where_they_are_true(axis, size):
    module, x, chosen = layer("gru", I, H), random(T, B, I), torch.arange(size) % 2 == 1
    assert pinned_where(module, x, along(axis, chosen)).equal(expected_where(**{axis: chosen}))
    none = torch.zeros(size, dtype=torch.bool)
    assert not pinned_where(module, x, along(axis, none)).any()


def test_bools_of_steps_and_sequences_pin_other_steps_in_each_sequence():
    module, x, plane = layer("gru", I, H), random(T, B, I), torch.rand(T, B) > 0.5
    pins = tg.Pins(update=0.25, steps=plane, units=[0, 2])
    assert pinned_where(module, x, pins).equal(plane.unsqueeze(-1) & expected_where(units=[0, 2]))


def test_selections_of_several_axes_hold_where_all_do():
    module, x = layer("gru", I, H), random(T, B, I)
    pins = tg.Pins(update=0.25, steps=slice(1, 3), sequences=[0, 3], units=4)
    assert pinned_where(module, x, pins).equal(expected_where(slice(1, 3), [0, 3], 4))


@pytest.mark.parametrize("system", SYSTEMS)
def test_steps_are_in_the_inputs_order_for_both_directions_and_time_major_for_batch_first(system):
    module = layer(system, I, H, bidirectional=True, batch_first=True)
    trace: Any = tg.trace(module, random(B, T, I), pins=tg.Pins(update=0.25, steps=1, sequences=2))
    for way in (trace.layers[0], trace.layers[0].reverse):
        assert (way.update == 0.25).equal(expected_where(1, 2))


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_update_gate_pinned_to_0_holds_the_state_to_the_bit_for_any_input(system):
    module = layer(system, I, H)
    x, h_0 = random(T, B, I), random(1, B, H)
    free = module(x, h_0)[0]
    x[2:4] = torch.nan
    y, _ = module(x, h_0, pins=tg.Pins(update=0.0, steps=slice(2, 4)))
    assert y[:2].equal(free[:2])
    assert y[2].equal(free[1])
    assert y[3].equal(free[1])
    assert y.isfinite().all()
    assert module(x * torch.nan, h_0, pins=tg.Pins(update=0.0))[1].equal(h_0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_held_step_gives_finite_gradients_for_an_input_of_nan(system):
    module = layer(system, I, H, 2, bidirectional=True)
    x = random(T, B, I)
    x[2:4] = torch.nan
    x.requires_grad_()
    y, _ = module(x, pins=tg.Pins(update=0.0, steps=slice(2, 4)))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad[2:4].eq(0).all()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_a_pin_on_some_sequences_leaves_the_others_to_the_bit():
    module, x = layer("gru", I, H, 2, bidirectional=True), random(T, B, I)
    y, h_n = module(x, pins=tg.Pins(update=0.0, sequences=[1]))
    free, final = module(x)
    others = [0, 2, 3]
    assert y[:, others].equal(free[:, others])
    assert h_n[:, others].equal(final[:, others])
    assert y[:, 1].eq(0).all()


def test_held_units_keep_their_initial_state_and_the_others_move():
    module, x, h_0 = layer("gru", I, H), random(T, B, I), random(1, B, H)
    y, _ = module(x, h_0, pins=tg.Pins(update=0.0, units=[1, 4]))
    assert y[:, :, [1, 4]].equal(h_0[..., [1, 4]].expand(T, -1, -1))
    assert not y[0, :, [0, 2, 3]].eq(h_0[0, :, [0, 2, 3]]).any()


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", None])
def test_a_pin_concerns_the_layer_and_direction_that_it_names(depth, direction):
    module, x, h_0 = layer("gru", I, H, 2, bidirectional=True), random(T, B, I), random(4, B, H)
    trace: Any = tg.trace(module, x, h_0, pins=tg.Pins(update=0.25, layer=depth, direction=direction))
    for index, one in enumerate(trace.layers):
        for way, part in (("forward", one), ("reverse", one.reverse)):
            named = index == depth and direction in (None, way)
            assert (part.update == 0.25).all() if named else not (part.update == 0.25).any()


def test_a_pin_without_a_layer_concerns_every_layer():
    module, x, h_0 = layer("gru", I, H, 2, bidirectional=True), random(T, B, I), random(4, B, H)
    assert module(x, h_0, pins=tg.Pins(update=0.0))[1].equal(h_0)


@pytest.mark.parametrize("system", GATED)
def test_both_gates_pinned_to_1_make_the_rnn_and_reset_to_0_the_dense_layer(system):
    module, x, h_0 = layer(system, I, H), random(T, B, I), random(1, B, H)
    rows = slice(-H, None)
    rnn = tg.RNN(I, H, dtype=torch.float64)
    rnn.load_state_dict({name: weight[rows] for name, weight in module.state_dict().items()})
    expected = rnn(x, h_0)[0]
    torch.testing.assert_close(module(x, h_0, pins=tg.Pins(update=1.0, reset=1.0))[0], expected, atol=1e-14, rtol=0)
    forgetting = module(x, h_0, pins=tg.Pins(update=1.0, reset=0.0))[0]
    dense: Any = tg.Dense(I, H, dtype=torch.float64)
    dense.load_state_dict({name: module.state_dict()[name][rows] for name in ("weight_ih_l0", "bias_ih_l0")})
    past_bias = module.bias_hh_l0[rows] if system == "gru-reset-before" else 0
    from_x = torch.nn.functional.linear(x, dense.weight_ih_l0, dense.bias_ih_l0)
    torch.testing.assert_close(forgetting, torch.tanh(from_x + past_bias), atol=1e-14, rtol=0)
    if system != "gru-reset-before":  # whose product with the past keeps its bias
        torch.testing.assert_close(forgetting, dense(x)[0], atol=1e-14, rtol=0)


@pytest.mark.parametrize("system", GATED)
def test_an_update_gate_of_0_6_takes_60_percent_of_the_candidate_and_40_of_the_past(system):
    module, x, h_0 = layer(system, I, H), random(T, B, I), random(1, B, H)
    trace: Any = tg.trace(module, x, h_0, pins=tg.Pins(update=0.6))
    before = torch.cat([h_0, trace.hidden[:-1]])
    torch.testing.assert_close(trace.hidden, 0.6 * trace.candidate + 0.4 * before, atol=1e-15, rtol=0)


@pytest.mark.parametrize("system", ["gru", "gru-reset-before"])
def test_a_reset_gate_pinned_to_1_makes_the_update_only_gru(system):
    module, x, h_0 = layer(system, I, H), random(T, B, I), random(1, B, H)
    only = tg.GRU(I, H, reset=None, dtype=torch.float64)
    only.load_state_dict({name: weight[H:] for name, weight in module.state_dict().items()})
    y = module(x, h_0, pins=tg.Pins(reset=1.0))[0]
    torch.testing.assert_close(y, only(x, h_0)[0], atol=1e-14, rtol=0)


def test_a_tensor_of_units_pins_every_step_with_a_value_per_unit():
    module, x, values = layer("gru", I, H), random(T, B, I), torch.rand(H)
    assert tg.trace(module, x, pins=tg.Pins(update=values)).update.equal(values.double().expand(T, B, H))


@pytest.mark.parametrize("system", GATED)
def test_a_traces_gates_can_be_played_back(system):
    module, other, x = layer(system, I, H), layer(system, I, H), random(T, B, I)
    trace: Any = tg.trace(module, x)
    pins = tg.Pins(update=trace.update.detach(), reset=trace.reset.detach())
    assert module(x, pins=pins)[0].equal(trace.hidden)
    elsewhere = tg.trace(other, x, pins=pins)
    assert elsewhere.update.equal(trace.update)
    assert elsewhere.reset.equal(trace.reset)
    one_step = tg.trace(other, x, pins=tg.Pins(update=trace.update.detach(), steps=3))
    assert one_step.update[3].equal(trace.update[3])
    assert not one_step.update[2].eq(trace.update[2]).any()


def test_later_pins_lie_on_top_of_earlier_ones():
    module, x = layer("gru", I, H), random(T, B, I)
    under, over = tg.Pins(update=0.5), tg.Pins(update=0.25, steps=2, units=[1])
    update = tg.trace(module, x, pins=[under, over]).update
    where = expected_where(2, ..., [1])
    assert update[where].eq(0.25).all()
    assert update[~where].eq(0.5).all()
    assert tg.trace(module, x, pins=[over, under]).update.eq(0.5).all()
    assert tg.trace(module, x, pins=iter([over, under])).update.eq(0.5).all()


def test_a_later_pin_on_one_gate_leaves_the_other_gates_pin():
    module, x = layer("gru", I, H), random(T, B, I)
    trace: Any = tg.trace(module, x, pins=[tg.Pins(update=0.5, reset=0.5), tg.Pins(reset=0.25)])
    assert trace.update.eq(0.5).all()
    assert trace.reset.eq(0.25).all()


@pytest.mark.parametrize("none", [None, [], ()], ids=repr)
def test_no_pins_change_nothing(none):
    module, x = layer("gru", I, H), random(T, B, I)
    assert module(x, pins=none)[0].equal(module(x)[0])


def test_a_pinned_gate_passes_no_gradient_and_the_rest_does():
    module, x = layer("gru", I, H), random(T, B, I)
    module(x, pins=tg.Pins(update=0.5))[0].sum().backward()
    for name, parameter in module.named_parameters():
        gate_rows = parameter.grad[H : 2 * H]
        assert gate_rows.eq(0).all(), f"the pinned update gate passed a gradient to {name}"
        assert parameter.grad[2 * H :].ne(0).any()
        assert parameter.grad[:H].ne(0).any()


def test_pins_and_a_mask_together_hold_where_the_mask_does_and_pin_elsewhere():
    module, x, h_0 = layer("gru", I, H), random(T, B, I), random(1, B, H)
    mask = torch.rand(T, B) > 0.4
    trace: Any = tg.trace(module, x, h_0, mask=mask, pins=tg.Pins(update=1.0))
    assert trace.update.equal(mask.double().unsqueeze(-1).expand(T, B, H))
    before = torch.cat([h_0, trace.hidden[:-1]])
    assert trace.hidden.equal(torch.where(mask.unsqueeze(-1), trace.candidate, before))


def test_pins_on_a_packed_sequence_count_sequences_in_the_order_given():
    module = layer("gru", I, H)
    sequences = [random(2, I), random(6, I), random(4, I)]
    packed = torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    h_n = module(packed, pins=tg.Pins(update=0.0, sequences=1))[1]
    assert h_n[0, 1].eq(0).all()
    assert h_n[0, [0, 2]].ne(0).all()


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_is_steered_by_pins_too(kind):
    _, cell = twins(CELLS, kind, I, H, dtype=torch.float64)
    x, h_prev = random(B, I), random(B, H)
    assert cell(x, h_prev, pins=tg.Pins(update=0.0)).equal(h_prev)
    assert cell(x[0], h_prev[0], pins=tg.Pins(update=0.0, steps=0)).equal(h_prev[0])
    free, held = cell(x, h_prev), cell(x, h_prev, pins=[tg.Pins(update=0.0, sequences=[2], units=[1])])
    assert held[2, 1] == h_prev[2, 1]
    expected = free.clone()
    expected[2, 1] = h_prev[2, 1]
    assert held.equal(expected)


def test_a_dense_layer_can_be_held_too():
    dense, x, h_0 = draw_(tg.Dense(I, H, dtype=torch.float64)), random(T, B, I), random(1, B, H)
    y, h_n = dense(x, h_0, pins=tg.Pins(update=0.0, steps=slice(3, None)))
    expected = loop("dense", dense, x)[-1]
    torch.testing.assert_close(y[:3], expected[:3], atol=1e-15, rtol=0)
    assert y[3:].equal(y[2].expand(3, -1, -1))
    assert h_n[0].equal(y[2])
