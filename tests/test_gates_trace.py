"""The trace says what every gate did: of every system, layer and direction, of torch.nn's layers too, inside models."""
# mypy: allow-untyped-calls

from typing import Any

import pytest
import torch
from torch import nn

import tidegate as tg
from tests.layer_helpers import SYSTEMS, draw_, everything, layer, loop, torch_gates

T, B, I, H = 5, 3, 4, 6
FIELDS = ("update", "reset", "candidate", "hidden")
TORCH = {
    "gru": lambda **options: nn.GRU(I, H, dtype=torch.float64, **options),
    "rnn-tanh": lambda **options: nn.RNN(I, H, nonlinearity="tanh", dtype=torch.float64, **options),
    "rnn-relu": lambda **options: nn.RNN(I, H, nonlinearity="relu", dtype=torch.float64, **options),
}


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def assert_parts(found, expected):
    for name, value in zip(FIELDS, expected, strict=True):
        torch.testing.assert_close(getattr(found, name), value, atol=1e-13, rtol=0, msg=name)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"num_layers": 3}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("kind", TORCH)
def test_trace_of_torchs_layer_as_it_stands_is_one_minus_its_z_by_hand(kind, options):
    module = draw_(TORCH[kind](**options))
    x, h_0 = random(T, B, I), random(9, B, H)[: module.num_layers * (1 + module.bidirectional)]
    trace: Any = tg.trace(module, x, h_0)
    for one, ways in zip(trace.layers, torch_gates(module, x, h_0), strict=True):
        assert_parts(one, ways[0])
        if module.bidirectional:
            assert_parts(one.reverse, ways[1])
        else:
            assert one.reverse is None
    y, h_n = module(x, h_0)
    torch.testing.assert_close(trace.output, y, atol=1e-13, rtol=0)
    torch.testing.assert_close(trace.h_n, h_n, atol=1e-13, rtol=0)


def test_trace_of_a_deep_two_way_gru_is_right_in_every_layer_and_direction():
    module = draw_(nn.GRU(I, H, 3, bidirectional=True, dtype=torch.float64))
    x, h_0 = random(T, B, I), random(6, B, H)
    trace: Any = tg.trace(module, x, h_0)
    for one, (forward, backward) in zip(trace.layers, torch_gates(module, x, h_0), strict=True):
        assert_parts(one, forward)
        assert_parts(one.reverse, backward)
        assert not one.backward
        assert one.reverse.backward
    assert [one.h_0.equal(h_0[2 * depth]) for depth, one in enumerate(trace.layers)] == [True] * 3
    assert trace.layers[2].reverse.h_0.equal(h_0[5])


@pytest.mark.parametrize("system", SYSTEMS)
def test_trace_of_every_system_is_the_plain_loop(system):
    module, x, h_0 = layer(system, I, H), random(T, B, I), random(1, B, H)
    trace: Any = tg.trace(module, x, h_0)
    assert_parts(trace.layers[0], loop(system, module, x, h_0[0]))
    y, h_n = module(x, h_0)
    assert trace.output.equal(y)
    assert trace.h_n.equal(h_n)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_last_layers_forward_direction_is_at_hand(system):
    trace: Any = tg.trace(layer(system, I, H, 2, bidirectional=True), random(T, B, I))
    for name in FIELDS:
        assert getattr(trace, name) is getattr(trace.layers[-1], name)
        assert getattr(trace, name).shape == (T, B, H)
    assert trace.memory().equal(trace.layers[-1].memory())
    assert trace.half_life().equal(trace.layers[-1].half_life())


def test_an_rnns_gates_are_1_and_a_dense_layers_reset_is_0():
    x = random(T, B, I)
    rnn = tg.trace(layer("rnn", I, H), x)
    assert rnn.update.eq(1).all()
    assert rnn.reset.eq(1).all()
    assert rnn.candidate.equal(rnn.hidden)
    dense = tg.trace(tg.Dense(I, H, dtype=torch.float64), x)
    assert dense.update.eq(1).all()
    assert dense.reset.eq(0).all()
    assert dense.candidate.equal(dense.hidden)
    assert tg.trace(layer("update-only", I, H), x).reset.eq(1).all()


@pytest.mark.parametrize("cell_class", [nn.GRUCell, tg.GRUCell, nn.RNNCell, tg.RNNCell])
def test_a_cell_is_unrolled_over_the_sequence(cell_class):
    cell = draw_(cell_class(I, H, dtype=torch.float64))
    x, h_0 = random(T, B, I), random(B, H)
    trace: Any = tg.trace(cell, x, h_0.unsqueeze(0))
    h, states = h_0, []
    for x_t in x:
        h = cell(x_t, h)
        states.append(h)
    torch.testing.assert_close(trace.hidden, torch.stack(states), atol=1e-13, rtol=0)
    system = "gru" if isinstance(cell, nn.GRUCell) else "rnn"
    assert_parts(trace.layers[0], loop(system, cell, x, h_0, suffix=""))


@pytest.mark.parametrize("form", ["batch-first", "unbatched", "packed", "lengths"])
@pytest.mark.parametrize("make", [nn.GRU, tg.GRU])
def test_gates_are_time_major_in_the_order_given_whatever_the_form(make, form):
    module = draw_(make(I, H, dtype=torch.float64))
    x, lengths = random(T, B, I), [3, 5, 2]
    expected = loop("gru", module, x)[0]
    inside = (torch.arange(T).unsqueeze(1) < torch.tensor(lengths)).unsqueeze(-1)
    if form == "batch-first":
        module.batch_first = True
        update = tg.trace(module, x.transpose(0, 1)).update
    elif form == "unbatched":
        update, expected = tg.trace(module, x[:, 0]).update, expected[:, :1]
    elif form == "packed":
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        update, expected = tg.trace(module, packed).update, expected * inside
    else:
        update, expected = tg.trace(module, x, lengths=lengths).update, expected * inside
    torch.testing.assert_close(update, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("make", [nn.GRU, tg.GRU])
def test_where_a_mask_holds_gates_and_candidate_are_0_and_the_state_stays(make):
    module, x, mask = draw_(make(I, H, dtype=torch.float64)), random(T, B, I), torch.rand(T, B) > 0.4
    x[~mask] = torch.nan
    trace: Any = tg.trace(module, x, mask=mask)
    for name in FIELDS[:3]:
        assert getattr(trace, name)[~mask].eq(0).all()
        assert getattr(trace, name)[mask].ne(0).all()
    before = torch.cat([torch.zeros(1, B, H, dtype=torch.float64), trace.hidden[:-1]])
    assert trace.hidden[~mask].equal(before[~mask])
    assert trace.layers[0].mask.equal(mask)
    assert tg.trace(module, x).layers[0].mask is None


def test_dropout_of_torchs_layer_follows_its_mode():
    module = nn.GRU(I, H, 2, dropout=0.5, dtype=torch.float64)
    x = random(T, B, I)
    torch.manual_seed(4)
    trained = tg.trace(module, x).output
    torch.manual_seed(4)
    torch.testing.assert_close(trained, module(x)[0], atol=1e-13, rtol=0)
    module.eval()
    torch.testing.assert_close(tg.trace(module, x).output, module(x)[0], atol=1e-13, rtol=0)


# Gradients.


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_loss_on_the_trace_gives_the_gradients_of_a_plain_loop(system, field):
    module, x, h_0 = layer(system, I, H), random(T, B, I), random(1, B, H)

    class Traced(nn.Module):
        """The field of the trace as an output."""

        named_parameters = module.named_parameters

        def forward(self, x, h_0):
            values = getattr(tg.trace(module, x, h_0), field)
            return values + 0 * h_0 + 0 * x.sum(), h_0 + 0 * sum(p.sum() for p in module.parameters())

    class Looped(nn.Module):
        """The same from the loop."""

        named_parameters = module.named_parameters

        def forward(self, x, h_0):
            values = loop(system, module, x, h_0[0])[FIELDS.index(field)]
            return values + 0 * h_0 + 0 * x.sum(), h_0 + 0 * sum(p.sum() for p in module.parameters())

    found, expected = everything(Traced(), x, h_0), everything(Looped(), x, h_0)
    module.zero_grad()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-12, rtol=1e-12, msg=name)
    if field == "update" and system != "rnn":
        assert found["d_input"].ne(0).any()


def test_a_loss_on_torchs_update_gate_trains_torchs_own_weights():
    module, x = draw_(nn.GRU(I, H, 2, bidirectional=True, dtype=torch.float64)), random(T, B, I)
    trace: Any = tg.trace(module, x)
    trace.layers[1].reverse.update.square().sum().backward()
    found = {
        name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
    }
    module.zero_grad()
    torch_gates(module, x)[1][1][0].square().sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-12, rtol=1e-12, msg=name)
    assert found["weight_ih_l0"].ne(0).any()


def test_the_memory_map_is_differentiable():
    module, x = layer("gru", I, H), random(T, B, I)
    tg.trace(module, x).memory()[2].sum().backward()
    found = module.weight_ih_l0.grad.clone()
    module.zero_grad()
    update = loop("gru", module, x)[0]
    (update[1] * (1 - update[2]) * (1 - update[3]) * (1 - update[4])).sum().backward()
    torch.testing.assert_close(found, module.weight_ih_l0.grad, atol=1e-13, rtol=0)
