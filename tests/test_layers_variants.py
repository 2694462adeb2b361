"""What torch.nn's layers do not have: reset variants, activations, a learned initial state, the dense layer."""
# mypy: allow-untyped-calls

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tidegate as tg
from tests.layer_helpers import EQUATIONS, draw_, everything, layer, loop
from tidegate.equations import ACTIVATIONS
from tidegate.errors import InputValueError
from tidegate.ops.functional import Reset

T, B, I, H = 5, 4, 3, 6
SYSTEMS = ["gru", "gru-reset-before", "update-only", "rnn"]


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("reset", "blocks"), [("after", 3), ("before", 3), (None, 2)])
def test_a_variants_weights_have_a_block_of_rows_for_each_gate_and_the_candidate(reset, blocks):
    for prefix, module in (("", tg.GRUCell(I, H, reset=reset)), ("_l0", tg.GRU(I, H, reset=reset))):
        assert {name: tuple(weight.shape) for name, weight in module.state_dict().items()} == {
            f"weight_ih{prefix}": (blocks * H, I),
            f"weight_hh{prefix}": (blocks * H, H),
            f"bias_ih{prefix}": (blocks * H,),
            f"bias_hh{prefix}": (blocks * H,),
        }
    deep = tg.GRU(I, H, 2, bidirectional=True, bias=False, reset=reset)
    assert deep.weight_ih_l1_reverse.shape == (blocks * H, 2 * H)
    assert all(parameter.requires_grad for parameter in deep.parameters())


def test_update_only_is_torchs_gru_without_the_reset_rows_with_the_same_seed():
    torch.manual_seed(3)
    theirs = torch.nn.GRU(I, H, 2)
    torch.manual_seed(3)
    ours = tg.GRU(I, H, 2, reset=None)
    for name, weight in theirs.state_dict().items():
        assert ours.state_dict()[name].equal(weight[H:])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_layer_is_a_plain_loop_over_its_equation(system, activation):
    module = layer(system, I, H, activation=activation)
    x, h_0 = random(T, B, I), random(1, B, H)
    y, h_n = module(x, h_0)
    expected = loop(system, module, x, h_0[0], ACTIVATIONS[activation])[-1]
    torch.testing.assert_close(y, expected, atol=1e-13, rtol=0)
    assert h_n[0].equal(y[-1])


@pytest.mark.parametrize("reset", ["before", None])
def test_a_variant_without_a_twin_in_torch_is_the_formula_written_by_hand(reset):
    module: Any = draw_(tg.GRU(I, H, reset=reset, dtype=torch.float64))
    x, h = random(T, B, I), random(B, H)
    w_ih, w_hh, b_ih, b_hh = (module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0, module.bias_hh_l0)
    y, _ = module(x, h.unsqueeze(0))
    for t in range(T):
        from_x = x[t] @ w_ih.T + b_ih
        gates = torch.sigmoid(from_x[:, :-H] + h @ w_hh[:-H].T + b_hh[:-H])
        r, z = gates.chunk(2, -1) if reset else (1.0, gates)
        n = torch.tanh(from_x[:, -H:] + (r * h) @ w_hh[-H:].T + b_hh[-H:])
        h = (1 - z) * n + z * h
        torch.testing.assert_close(y[t], h, atol=1e-13, rtol=0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_deep_two_way_layer_is_loops_on_top_of_each_other(system):
    module = layer(system, I, H, 2, bidirectional=True)
    x, h_0 = random(T, B, I), random(4, B, H)
    below, finals = x, []
    for depth in range(2):
        forward = loop(system, module, below, h_0[2 * depth], suffix=f"_l{depth}")[-1]
        backward = loop(system, module, below.flip(0), h_0[2 * depth + 1], suffix=f"_l{depth}_reverse")[-1]
        finals += [forward[-1], backward[-1]]
        below = torch.cat([forward, backward.flip(0)], -1)
    y, h_n = module(x, h_0)
    torch.testing.assert_close(y, below, atol=1e-13, rtol=0)
    torch.testing.assert_close(h_n, torch.stack(finals), atol=1e-13, rtol=0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_gradient_of_a_layer_is_the_plain_loops(system):
    module = layer(system, I, H)
    x, h_0 = random(T, B, I), random(1, B, H)

    class Loop(torch.nn.Module):
        """The same parameters, run by the plain loop."""

        hidden_size = H

        def __init__(self):
            super().__init__()
            for name, parameter in module.named_parameters():
                self.register_parameter(name, parameter)

        def forward(self, x, h_0):
            y = loop(system, self, x, h_0[0])[-1]
            return y, y[-1:]

    found, expected = everything(module, x, h_0), everything(Loop(), x, h_0)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-12, rtol=1e-12, msg=name)


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_activation_given_as_a_function_is_the_one_of_that_name(system):
    named, called = layer(system, I, H, activation="relu"), layer(system, I, H, activation=torch.relu)
    called.load_state_dict(named.state_dict())
    x = random(T, B, I)
    torch.testing.assert_close(called(x)[0], named(x)[0], atol=1e-13, rtol=0)  # two backends: a kernel knows names
    doubled = layer(system, I, H, activation=lambda values: 2 * torch.tanh(values))
    doubled.load_state_dict(named.state_dict())
    expected = loop(system, doubled, x, activation=lambda values: 2 * torch.tanh(values))[-1]
    torch.testing.assert_close(doubled(x)[0], expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_cell_is_one_step_of_its_equation(system, activation):
    resets: dict[str, Reset] = {"gru": "after", "gru-reset-before": "before", "update-only": None}
    options = {"activation": activation, "dtype": torch.float64}
    made = tg.RNNCell(I, H, **options) if system == "rnn" else tg.GRUCell(I, H, reset=resets[system], **options)
    cell = draw_(made)
    x, h_prev = random(B, I), random(B, H)
    expected = loop(system, cell, x[None], h_prev, ACTIVATIONS[activation], suffix="")[-1][0]
    torch.testing.assert_close(cell(x, h_prev), expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(cell(x[0], h_prev[0]), expected[0], atol=1e-14, rtol=0)


def test_an_rnns_activation_outranks_its_nonlinearity():
    module = tg.RNN(I, H, nonlinearity="relu", activation="identity", dtype=torch.float64)
    x = random(T, B, I)
    torch.testing.assert_close(module(x)[0], loop("rnn", module, x, activation=torch.clone)[-1], atol=1e-13, rtol=0)


# The learned initial state.


@pytest.mark.parametrize("make", [tg.GRU, tg.RNN])
def test_a_learned_state_starts_at_zero_and_is_a_parameter_of_every_layer_and_direction(make):
    module = make(I, H, 2, bidirectional=True, learn_h_0=True)
    assert module.h_0.shape == (4, H)
    assert module.h_0.eq(0).all()
    assert "h_0" in dict(module.named_parameters())
    assert "h_0" in module.state_dict()
    assert make(I, H).h_0 is None
    assert "h_0" not in make(I, H).state_dict()


@pytest.mark.parametrize("form", ["batched", "batch-first", "unbatched", "packed"])
@pytest.mark.parametrize("make", [tg.GRU, tg.RNN])
def test_a_learned_state_is_used_where_none_is_given_and_gets_a_gradient(make, form):
    module = make(I, H, 2, bidirectional=True, learn_h_0=True, batch_first=form == "batch-first", dtype=torch.float64)
    with torch.no_grad():
        module.h_0.normal_()
    x = random(T, I) if form == "unbatched" else random(T, B, I)
    batch = T if form == "batch-first" else B
    same = module.h_0 if form == "unbatched" else module.h_0.unsqueeze(1).expand(-1, batch, -1).contiguous()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [2, 5, 3, 1], enforce_sorted=False) if form == "packed" else x
    h_n = module(packed)[1]
    assert h_n.equal(module(packed, same)[1])
    assert not h_n.equal(module(packed, torch.zeros_like(same))[1]), "the learned state was used over the given one"
    h_n.sum().backward()
    assert module.h_0.grad is not None
    assert module.h_0.grad.ne(0).all()


def test_a_learned_state_travels_inside_a_larger_models_state_dict():
    def model():
        return torch.nn.ModuleDict({"inner": torch.nn.Sequential(tg.GRU(I, H, 2, learn_h_0=True))})

    source, target = model(), model()
    with torch.no_grad():
        source["inner"][0].h_0.normal_()
    assert "inner.0.h_0" in source.state_dict()
    target.load_state_dict(source.state_dict(), strict=True)
    assert target["inner"][0].h_0.equal(source["inner"][0].h_0)


def test_a_learned_state_can_be_learned():
    module: Any = tg.GRU(I, H, learn_h_0=True)
    x, goal = torch.zeros(1, 2, I), torch.full((1, 2, H), 0.4)
    optimizer = torch.optim.Adam([module.h_0], lr=0.05)
    losses = []
    for _ in range(60):
        loss = (module(x)[1] - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


# The dense layer.


@given(
    steps=st.integers(1, 6),
    batch=st.integers(1, 4),
    size=st.integers(1, 5),
    hidden=st.integers(1, 5),
    bias=st.booleans(),
    activation=st.sampled_from(list(ACTIVATIONS)),
)
def test_dense_is_a_linear_map_and_an_activation_at_every_step(steps, batch, size, hidden, bias, activation):
    dense: Any = tg.Dense(size, hidden, bias, activation=activation, dtype=torch.float64)
    x = random(steps, batch, size)
    expected = ACTIVATIONS[activation](torch.nn.functional.linear(x, dense.weight_ih_l0, dense.bias_ih_l0))
    y, h_n = dense(x, random(1, batch, hidden))
    torch.testing.assert_close(y, expected, atol=1e-14, rtol=0)
    assert h_n.equal(y[-1:])


def test_dense_has_no_weights_for_a_past_and_torchs_range_of_weights():
    dense = tg.Dense(I, 100)
    assert {name: tuple(weight.shape) for name, weight in dense.state_dict().items()} == {
        "weight_ih_l0": (100, I),
        "bias_ih_l0": (100,),
    }
    assert list(tg.Dense(I, H, bias=False).state_dict()) == ["weight_ih_l0"]
    for parameter in dense.parameters():
        assert parameter.abs().max() <= 0.1
        assert parameter.abs().max() > 0.08


@pytest.mark.parametrize("form", ["batch-first", "unbatched"])
def test_dense_takes_the_forms_of_input_that_a_gru_takes(form):
    dense: Any = tg.Dense(I, H, batch_first=form == "batch-first", dtype=torch.float64)
    x = random(B, T, I) if form == "batch-first" else random(T, I)
    y, h_n = dense(x)
    assert y.shape == (*x.shape[:-1], H)
    assert h_n.shape == ((1, B, H) if form == "batch-first" else (1, H))
    torch.testing.assert_close(y, torch.tanh(torch.nn.functional.linear(x, dense.weight_ih_l0, dense.bias_ih_l0)))


def test_dense_takes_a_packed_sequence_as_a_gru_does():
    dense = tg.Dense(I, H, dtype=torch.float64)
    packed = torch.nn.utils.rnn.pack_padded_sequence(random(T, 3, I), [5, 2, 4], enforce_sorted=False)
    y, h_n = dense(packed)
    torch.testing.assert_close(y.data, dense(packed.data)[0])
    assert h_n.shape == (1, 3, H)


def test_a_masked_dense_layer_keeps_its_last_output_and_first_its_initial_state():
    dense = tg.Dense(I, H, dtype=torch.float64)
    x, h_0 = random(4, 1, I), random(1, 1, H)
    mask = torch.tensor([[False], [True], [False], [True]])
    y, _ = dense(x, h_0, mask=mask)
    free = dense(x)[0]
    assert y[0].equal(h_0[0])
    assert y[1].equal(free[1])
    assert y[2].equal(free[1])
    assert y[3].equal(free[3])


def test_every_system_with_a_layer_is_tested_here():
    assert {"dense", *SYSTEMS} == set(EQUATIONS)
    assert {*EQUATIONS, "gru-layer-norm"} == set(tg.ops.SYSTEMS)  # which test_layers_norm.py has


@pytest.mark.parametrize(
    ("activation", "got"),
    [(torch.sum, r"\(\)"), (lambda value: value[..., :1], r"\(3, 1\)"), (lambda value: None, "NoneType")],
)
def test_an_activation_that_would_be_broadcast_is_refused(activation, got):
    with pytest.raises(InputValueError, match=rf"activation must give a tensor of its argument's shape; got {got}"):
        tg.GRU(2, 4, activation=activation)(torch.randn(5, 3, 2))
