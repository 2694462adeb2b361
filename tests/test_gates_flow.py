"""Gradient flow is ‖∂a(T)/∂a(t)‖: against automatic differentiation of the whole layer, and where it is known."""
# mypy: allow-untyped-calls

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import jacobian

import tidegate as tg
from tests.layer_helpers import SYSTEMS, draw_, layer

T, B, I, H = 5, 3, 4, 4


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def norms_by_autograd(module, x, h_0, order=2, mask=None, update=None):
    """(T+1, B): the norm of the Jacobian of the final state by every state, one sequence at a time.

    `module` is one layer in one direction; `mask` is (T, B) and `update` a pin (T, B, H) or None.
    """
    states = torch.cat([h_0, module(x, h_0, mask=mask, pins=tg.Pins(update=update) if update is not None else None)[0]])
    rows = [torch.linalg.matrix_norm(torch.eye(module.hidden_size, dtype=x.dtype), order).repeat(x.shape[1])]
    for t in range(len(x) - 1, -1, -1):
        norms = []
        for b in range(x.shape[1]):
            rest = slice(t, None), slice(b, b + 1)
            given = {"mask": None if mask is None else mask[rest]}
            if update is not None:
                given["pins"] = tg.Pins(update=update[rest].contiguous())

            def final(h, rest=rest, given=given):
                return module(x[rest], h.expand(1, 1, -1), **given)[1].flatten()

            found = jacobian(final, states[t, b])
            assert isinstance(found, torch.Tensor)
            norms.append(torch.linalg.matrix_norm(found, order))
        rows.append(torch.stack(norms))
    return torch.stack(rows[::-1]).detach()


def close(found, expected, rtol=1e-10):
    torch.testing.assert_close(found, expected, atol=1e-11, rtol=rtol)


def one_way(system, module, suffix):
    """One layer in one direction of a deep two-way layer, as a layer of its own."""
    size = getattr(module, f"weight_ih{suffix}").shape[1]
    part = SYSTEMS[system](size, module.hidden_size, dtype=torch.float64, activation=module.activation)
    part.load_state_dict(
        {name: getattr(module, name.replace("_l0", suffix)) for name in part.state_dict()}, strict=True
    )
    return part


@pytest.mark.parametrize("norm", ["spectral", "frobenius"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_flow_is_the_norm_of_the_jacobian_of_the_whole_layer(system, norm):
    module, x, h_0 = layer(system, I, H), random(T, B, I), random(1, B, H)
    found = tg.gradient_flow(module, x, h_0, norm=norm).norm
    assert found.shape == (T + 1, B)
    close(found, norms_by_autograd(module, x, h_0, 2 if norm == "spectral" else "fro"))
    if norm == "spectral":
        assert found[-1].eq(1).all()


@pytest.mark.parametrize("activation", ["relu", "identity", "sigmoid"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_flow_follows_the_activation(system, activation):
    module, x, h_0 = layer(system, I, H, activation=activation), random(T, B, I), random(1, B, H)
    close(tg.gradient_flow(module, x, h_0).norm, norms_by_autograd(module, x, h_0))


@settings(max_examples=settings().max_examples // 4)  # each example is many runs
@given(
    steps=st.integers(1, 5),
    batch=st.integers(1, 3),
    hidden=st.integers(1, 4),
    system=st.sampled_from(list(SYSTEMS)),
    masked=st.booleans(),
    pinned=st.booleans(),
)
def test_flow_is_the_jacobians_norm_for_any_shape_mask_and_pins(steps, batch, hidden, system, masked, pinned):
    module, x, h_0 = layer(system, 2, hidden), random(steps, batch, 2), random(1, batch, hidden)
    mask = torch.rand(steps, batch) > 0.4 if masked else None
    update = torch.rand(steps, batch, hidden, dtype=torch.float64).round(decimals=1) if pinned else None
    pins = None if update is None else tg.Pins(update=update)
    found = tg.gradient_flow(module, x, h_0, mask=mask, pins=pins).norm
    close(found, norms_by_autograd(module, x, h_0, mask=mask, update=update))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("depth", [0, 1, -1])
@pytest.mark.parametrize("system", SYSTEMS)
def test_flow_of_a_layer_and_direction_of_a_stack_is_that_of_the_part_alone(system, depth, reverse):
    module, x, h_0 = layer(system, I, H, 2, bidirectional=True), random(T, B, I), random(4, B, H)
    mask, update = torch.rand(T, B) > 0.3, torch.rand(T, B, H, dtype=torch.float64)
    found = tg.gradient_flow(
        module, x, h_0, depth=depth, reverse=reverse, mask=mask, pins=tg.Pins(update=update, units=slice(None))
    ).norm
    trace: Any = tg.trace(module, x, h_0, mask=mask, pins=tg.Pins(update=update))
    index = depth % 2
    below = x if index == 0 else torch.cat([trace.layers[0].hidden, trace.layers[0].reverse.hidden], -1).detach()
    part = one_way(system, module, f"_l{index}" + "_reverse" * reverse)
    ordered = [part.flip(0) if reverse else part for part in (below, mask, update)]
    close(
        found, norms_by_autograd(part, ordered[0], h_0[2 * index + reverse][None], mask=ordered[1], update=ordered[2])
    )


def test_flow_of_torchs_layers_is_that_of_ours():
    for theirs, ours in ((nn.GRU(I, H, 2), tg.GRU(I, H, 2)), (nn.RNN(I, H), tg.RNN(I, H))):
        draw_(theirs)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(T, B, I)
        assert tg.gradient_flow(theirs, x).norm.equal(tg.gradient_flow(ours, x).norm)


def test_flow_is_measured_in_float64_and_needs_no_gradient():
    module, x = tg.GRU(I, H), torch.randn(T, B, I, requires_grad=True)
    flow = tg.gradient_flow(module, x)
    assert flow.norm.dtype == torch.float64
    assert not flow.norm.requires_grad
    assert x.grad is None
    with torch.inference_mode():
        assert tg.gradient_flow(module, x.detach()).norm.equal(flow.norm)


def test_flow_through_steps_held_by_pins_or_mask_is_unchanged_even_over_nan():
    module, x = layer("gru", I, H), random(T, B, I)
    x[1:4] = torch.nan
    mask = torch.tensor([True, False, False, False, True]).unsqueeze(1).expand(T, B)
    held: list[dict[str, Any]] = [{"mask": mask}, {"pins": tg.Pins(update=0.0, steps=slice(1, 4))}]
    for steering in held:
        norm = tg.gradient_flow(module, x, **steering).norm
        assert norm.isfinite().all()
        for t in (1, 2, 3):
            torch.testing.assert_close(norm[t], norm[4], atol=1e-14, rtol=1e-14)
        assert not norm[0].eq(norm[1]).any()


def test_flow_after_a_sequences_end_is_1():
    norm = tg.gradient_flow(layer("gru", I, H), random(T, B, I), lengths=[2, 5, 0]).norm
    assert norm[2:, 0].eq(1).all()
    assert norm[:2, 0].ne(1).all()
    assert norm[:, 2].eq(1).all()


def test_flow_of_a_packed_sequence_is_that_of_its_lengths():
    module, x, lengths = layer("gru", I, H), random(T, B, I), [2, 5, 3]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    assert tg.gradient_flow(module, packed).norm.equal(tg.gradient_flow(module, x, lengths=lengths).norm)


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.5])
def test_an_rnn_of_scaled_weights_vanishes_and_explodes_at_the_known_rate(rate):
    module: Any = tg.RNN(I, H, activation="identity", dtype=torch.float64)
    with torch.no_grad():
        rotation = torch.linalg.qr(random(H, H)).Q
        module.weight_hh_l0.copy_(rate * rotation)
    flow = tg.gradient_flow(module, random(20, B, I))
    expected = rate ** torch.arange(20, -1, -1, dtype=torch.float64)
    close(flow.norm, expected.unsqueeze(1).expand(-1, B))
    close(flow.per_step, torch.full((B,), rate, dtype=torch.float64))


def test_a_tanh_rnn_with_scaled_down_weights_vanishes_and_a_held_gru_does_not():
    x = random(40, B, I)
    rnn = draw_(tg.RNN(I, H, dtype=torch.float64), 0.2)
    assert tg.gradient_flow(rnn, x).norm[0].max() < 1e-8
    held = tg.gradient_flow(layer("gru", I, H), x, pins=tg.Pins(update=0.0)).norm
    assert held.eq(1).all()


def test_a_dense_layer_passes_no_gradient_back_in_time():
    norm = tg.gradient_flow(tg.Dense(I, H), torch.randn(T, B, I)).norm
    assert norm[:-1].eq(0).all()
    assert norm[-1].eq(1).all()


def test_flow_inside_a_model_is_that_of_its_layer():
    model = nn.Sequential(nn.Linear(2, I), nn.GRU(I, H)).double()
    x = random(T, B, 2)
    assert tg.gradient_flow(model, x).norm.equal(tg.gradient_flow(model[1], model[0](x)).norm)
    assert tg.gradient_flow(model, x, layer="1").norm.shape == (T + 1, B)


def test_flow_of_a_long_wide_layer_is_computed_in_parts(monkeypatch):
    module, x = layer("gru", I, H), random(T, B, I)
    whole = tg.gradient_flow(module, x).norm
    monkeypatch.setattr("tidegate.gates.flow._BUDGET", 2 * B * H * H)
    close(tg.gradient_flow(module, x).norm, whole)


def test_a_gradient_that_vanishes_below_float64_is_still_measured():
    module, x = layer("gru", I, H), torch.zeros(9000, 1, I, dtype=torch.float64)
    short, long = tg.gradient_flow(module, x[:500]), tg.gradient_flow(module, x)
    assert long.norm[0] == 0  # beyond float64
    assert -1200 < long.log_norm[0] < -745
    assert 0 < long.per_step < 1
    close(long.per_step, short.per_step, rtol=0.1)


def test_a_gradient_that_explodes_beyond_float64_is_still_measured():
    rnn: Any = tg.RNN(I, H, activation="identity").double()
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(4 * torch.eye(H))
    flow = tg.gradient_flow(rnn, torch.zeros(3000, B, I, dtype=torch.float64))
    assert flow.norm[0].isinf().all()
    close(flow.log_norm[0], torch.full((B,), 3000 * math.log(4), dtype=torch.float64))
    close(flow.per_step, torch.full((B,), 4.0, dtype=torch.float64))


def test_per_step_counts_only_the_steps_of_each_sequence():
    module, x = layer("gru", I, H), random(20, 2, I)
    flow = tg.gradient_flow(module, x, lengths=[20, 6])
    alone = tg.gradient_flow(module, x[:6, 1:])
    assert flow.steps.tolist() == [20, 6]
    close(flow.per_step[1:], alone.per_step)


def test_a_state_that_is_not_finite_gives_nan_and_leaves_the_other_sequences_alone():
    module, x = layer("gru", I, H), random(T, B, I)
    spoilt = x.clone()
    spoilt[2, 1] = torch.nan
    flow, clean = tg.gradient_flow(module, spoilt), tg.gradient_flow(module, x)
    assert flow.norm[0, 1].isnan()
    close(flow.norm[:, [0, 2]], clean.norm[:, [0, 2]])


def test_a_model_in_training_is_measured_without_dropout():
    module = tg.GRU(I, H, num_layers=2, dropout=0.5).train()
    x = torch.randn(T, B, I)
    assert tg.gradient_flow(module, x).norm.equal(tg.gradient_flow(module, x).norm)
    assert module.training


def test_an_activation_with_parameters_is_measured():
    module = tg.RNN(I, H, activation=torch.nn.PReLU())
    assert tg.gradient_flow(module, torch.randn(T, B, I)).norm.isfinite().all()
    assert module(torch.randn(T, B, I))[0].dtype == torch.float32
