"""What a layer leaves out in training: each kind against its formula, and beside masks, pins, traces and streams."""
# mypy: allow-untyped-calls

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import dropout
from torch.nn.utils.rnn import pack_padded_sequence

import tidegate as tg
from tidegate.errors import BackendError, InputTypeError, InputValueError

T, B, I, H = 11, 4, 3, 6
KINDS = ("state", "inputs", "candidate", "zoneout", "weight")
LAYERS = {
    "gru": tg.GRU,
    "reset-before": lambda *sizes, **options: tg.GRU(*sizes, reset="before", **options),
    "update-only": lambda *sizes, **options: tg.GRU(*sizes, reset=None, **options),
    "layer-norm": lambda *sizes, **options: tg.GRU(*sizes, layer_norm=True, **options),
    "rnn": tg.RNN,
}
every_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def layer(make: Any = tg.GRU, *, seed: int = 3, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    torch.manual_seed(seed)
    return make(I, H, dtype=dtype, **options)


def twin_of(module: Any, make: Any = tg.GRU, **options: Any) -> Any:
    """A layer with the same weights, that leaves nothing out."""
    plain = make(I, H, dtype=module.weight_ih_l0.dtype, **options)
    plain.load_state_dict(module.state_dict())
    return plain


def sequences(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(T, B, I, dtype=dtype, generator=torch.Generator().manual_seed(1))


def seeded(call: Any, seed: int = 5) -> Any:
    torch.manual_seed(seed)
    return call()


# ---------------------------------------------------------------------------------------------------------------------
# Each kind is its formula, with numbers from the same seed


def test_the_state_is_dropped_by_one_mask_for_all_steps_in_the_products_alone():
    gru, x = layer(recurrent_dropout=0.5), sequences()
    y, h_n = seeded(lambda: gru(x))
    m = seeded(lambda: dropout(torch.ones(B, H, dtype=torch.float64), 0.5))
    assert 0 < (m == 0).float().mean() < 1
    h, states = torch.zeros(B, H, dtype=torch.float64), []
    for x_t in x:
        own = x_t @ gru.weight_ih_l0.T + gru.bias_ih_l0
        past = (m * h) @ gru.weight_hh_l0.T + gru.bias_hh_l0
        r, z = (torch.sigmoid(own[:, rows] + past[:, rows]) for rows in (slice(0, H), slice(H, 2 * H)))
        new = torch.tanh(own[:, 2 * H :] + r * past[:, 2 * H :])
        h = (1 - z) * new + z * h
        states.append(h)
    torch.testing.assert_close(y, torch.stack(states))
    torch.testing.assert_close(h_n[0], h)


@every_layer
def test_the_inputs_are_dropped_by_one_mask_for_all_steps(make):
    module, x = layer(make, recurrent_dropout=tg.Dropouts(inputs=0.4)), sequences()
    y, _ = seeded(lambda: module(x))
    m = seeded(lambda: dropout(torch.ones(1, B, I, dtype=torch.float64), 0.4))
    torch.testing.assert_close(y, twin_of(module, make)(x * m)[0])


@every_layer
def test_the_recurrent_weights_are_dropped_once_for_the_whole_forward(make):
    module, x = layer(make, recurrent_dropout=tg.Dropouts(weight=0.4)), sequences()
    y, _ = seeded(lambda: module(x))
    (gradient,) = torch.autograd.grad(y.sum(), module.weight_hh_l0)
    plain = twin_of(module, make)
    with torch.no_grad():
        mask = seeded(lambda: dropout(torch.ones_like(plain.weight_hh_l0), 0.4))
        plain.weight_hh_l0.mul_(mask)
    expected, _ = plain(x)
    torch.testing.assert_close(y, expected)
    (of_dropped,) = torch.autograd.grad(expected.sum(), plain.weight_hh_l0)
    torch.testing.assert_close(gradient, of_dropped * mask)


@every_layer
def test_a_unit_that_is_zoned_out_keeps_its_state_to_the_bit_and_the_others_do_not(make):
    module, x = layer(make, recurrent_dropout=tg.Dropouts(zoneout=0.3)), sequences()
    trace = seeded(lambda: tg.trace(module, x))
    held = seeded(lambda: torch.rand(T, B, H)) < 0.3
    before = torch.cat([torch.zeros(1, B, H, dtype=torch.float64), trace.hidden[:-1]])
    assert trace.update.eq(0).equal(held)
    assert trace.hidden[held].equal(before[held])
    assert not trace.hidden[~held].eq(before[~held]).any()


@every_layer
def test_in_evaluation_zoneout_is_its_expectation(make):
    p = 0.3
    module, x = layer(make, recurrent_dropout=tg.Dropouts(zoneout=p)).eval(), sequences()[:1]
    h_0 = torch.randn(1, B, H, dtype=torch.float64)
    plain = twin_of(module, make)(x, h_0)[1]
    torch.testing.assert_close(module(x, h_0)[1], p * h_0 + (1 - p) * plain)


def test_the_mean_of_many_zoned_out_steps_is_what_evaluation_gives():
    module, h_0 = layer(recurrent_dropout=tg.Dropouts(zoneout=0.25)), torch.randn(1, 1, H, dtype=torch.float64)
    x = torch.randn(1, 1, I, dtype=torch.float64)
    many = module(x.expand(1, 20_000, I), h_0.expand(1, 20_000, H))[1].mean(1)
    torch.testing.assert_close(many, module.eval()(x, h_0)[1][0], atol=0.02, rtol=0)


@every_layer
def test_the_candidate_is_dropped_at_every_step(make):
    module, x = layer(make, recurrent_dropout=tg.Dropouts(candidate=0.4)), sequences()
    trace = seeded(lambda: tg.trace(module, x))
    m = seeded(lambda: dropout(torch.ones(T, B, H, dtype=torch.float64), 0.4))
    assert trace.candidate.eq(0).equal(m == 0)
    before = torch.cat([torch.zeros(1, B, H, dtype=torch.float64), trace.hidden[:-1]])
    torch.testing.assert_close(trace.hidden, trace.update * trace.candidate + (1 - trace.update) * before)


# ---------------------------------------------------------------------------------------------------------------------
# All of them


@every_kind
@every_layer
def test_a_seed_reproduces_it_another_differs_and_evaluation_draws_nothing(make, kind):
    module, x = layer(make, recurrent_dropout=tg.Dropouts(**{kind: 0.4})), sequences()
    first, same, other = (seeded(lambda: module(x)[0], seed) for seed in (5, 5, 6))
    assert first.equal(same)
    assert not first.equal(other)
    module.eval()
    state = torch.get_rng_state()
    assert module(x)[0].equal(module(x)[0])
    assert torch.get_rng_state().equal(state)
    if kind != "zoneout":
        torch.testing.assert_close(module(x)[0], twin_of(module, make)(x)[0], rtol=0, atol=1e-14)


@every_kind
@every_layer
def test_every_gradient_is_the_limit_of_differences(make, kind):
    module, x = layer(make, recurrent_dropout=tg.Dropouts(**{kind: 0.4})), sequences()[:3, :2].requires_grad_()
    h_0 = torch.randn(1, 2, H, dtype=torch.float64, requires_grad=True)
    names, weights = zip(*module.named_parameters(), strict=True)

    def check(*leaves):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            given = dict(zip(names, leaves[2:], strict=True))
            return torch.func.functional_call(module, given, leaves[:2])

    assert torch.autograd.gradcheck(check, (x, h_0, *weights), fast_mode=True)


def test_each_layer_and_direction_draws_its_own():
    module = layer(num_layers=2, bidirectional=True, recurrent_dropout=tg.Dropouts(zoneout=0.5))
    trace = tg.trace(module, sequences())
    held = [way.update.eq(0) for each in trace.layers for way in (each, each.reverse) if way is not None]
    assert len(held) == 4
    assert not any(one.equal(other) for i, one in enumerate(held) for other in held[:i])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recompute"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("make", [make for name, make in LAYERS.items() if name != "layer-norm"])
def test_the_way_back_meets_the_same_numbers_on_the_kernels(make, dtype, recompute, training):
    """Most of it runs on the kernels; reference says what the gradients are."""
    dropouts = tg.Dropouts(inputs=0.2, candidate=0.2, zoneout=0.3, weight=0.4)

    def gradients(backend):
        module = layer(make, dtype=dtype, recurrent_dropout=dropouts, recompute=recompute, backend=backend)
        y, h_n = seeded(lambda: module.train(training)(sequences(dtype)))
        return [y, h_n, *torch.autograd.grad(y.square().sum() + h_n.sum(), list(module.parameters()))]

    for got, expected in zip(gradients("cpu"), gradients("reference"), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-5)


@every_kind
def test_masks_lengths_and_packing_go_with_it(kind):
    """What is masked is not seen, and a padded, a packed and a masked run with one seed are the same."""
    module, x = layer(recurrent_dropout=tg.Dropouts(**{kind: 0.4})), sequences()
    lengths = torch.tensor([11, 7, 3, 1])
    mask = torch.arange(T).unsqueeze(-1) < lengths
    _, by_mask = seeded(lambda: module(torch.where(mask.unsqueeze(-1), x, torch.nan), mask=mask))
    y, by_lengths = seeded(lambda: module(x, lengths=lengths))
    packed, by_packing = seeded(lambda: module(pack_padded_sequence(x, lengths)))
    assert by_mask.equal(by_lengths)
    torch.testing.assert_close(by_packing, by_lengths)
    assert packed.data.isfinite().all()
    assert not y[~mask].any()


def test_a_pin_lies_over_zoneout():
    module, x = layer(recurrent_dropout=tg.Dropouts(zoneout=0.9)), sequences()
    trace = tg.trace(module, x, pins=tg.Pins(update=1.0, steps=slice(2, 5)))
    assert trace.update[2:5].eq(1).all()
    assert trace.update[5:].eq(0).float().mean() > 0.8
    trace = tg.trace(module.eval(), x, pins=tg.Pins(update=1.0, steps=slice(2, 5)))
    assert trace.update[2:5].eq(1).all()
    assert trace.update[5:].le(0.1).all()


@every_kind
@every_layer
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_memory_map_stays_exact(make, kind, training):
    module = layer(make, recurrent_dropout=tg.Dropouts(**{kind: 0.4})).train(training)
    resets = torch.rand(T, B) < 0.2
    h_0 = torch.randn(1, B, H, dtype=torch.float64)
    for reset_at in (None, resets):
        trace = tg.trace(module, sequences(), h_0, reset_at=reset_at)
        for t in (0, 4, T - 1):
            memory = trace.memory(t)
            torch.testing.assert_close(memory.sum(0), torch.ones_like(memory[0]))
            assert memory.ge(0).all()
            rebuilt = (memory[1:] * trace.candidate).sum(0) + memory[0] * h_0[0]
            torch.testing.assert_close(rebuilt, trace.hidden[t])


def test_the_gradient_flow_is_that_of_evaluation_with_zoneout():
    module, x = layer(recurrent_dropout=tg.Dropouts(zoneout=0.3, state=0.5, weight=0.2)), sequences()[:4, :1]
    flow = tg.gradient_flow(module, x)
    module.eval()
    h_0 = torch.zeros(1, 1, H, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda h: module(x, h)[1].flatten(), h_0)
    torch.testing.assert_close(flow.norm[0, 0], torch.linalg.matrix_norm(jacobian.reshape(H, H), 2))
    assert not module.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_layer
def test_a_stream_gives_evaluation(make, dtype):
    module = layer(make, dtype=dtype, num_layers=2, recurrent_dropout=tg.Dropouts(zoneout=0.3, state=0.2))
    x = sequences(dtype)
    stream = tg.Stream(module)
    steps = torch.stack([stream(x_t) for x_t in x])
    assert steps.equal(module.eval()(x)[0])
    plain = twin_of(module, make, num_layers=2)(x)[0]
    assert not torch.isclose(steps, plain).all(-1).any()


def test_explain_draws_nothing_and_says_what_keeps_the_kernels_away():
    x = sequences(torch.float32)
    for kind, reason in {
        "state": "drop nothing of the state",
        "candidate": None,
        "inputs": None,
        "weight": None,
        "zoneout": None,
    }.items():
        module = layer(dtype=torch.float32, recurrent_dropout=tg.Dropouts(**{kind: 0.4}))
        state = torch.get_rng_state()
        told = tg.explain(module, x)
        assert torch.get_rng_state().equal(state)
        assert told.startswith("layer 0: cpu" if reason is None else "layer 0: reference")
        assert reason is None or reason in told
        assert tg.explain(module.eval(), x).startswith("layer 0: cpu")
    with pytest.raises(BackendError, match=r"its kernels drop nothing of the state before its products"):
        layer(dtype=torch.float32, recurrent_dropout=0.1, backend="cpu")(x)


def test_copies_and_pickles_keep_it_and_a_state_dict_does_not_hold_it():
    dropouts = tg.Dropouts(state=0.1, zoneout=0.2)
    module = layer(recurrent_dropout=dropouts)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.recurrent_dropout == dropouts
        assert seeded(lambda other=other: other(sequences())[0]).equal(seeded(lambda: module(sequences())[0]))
    assert module.state_dict().keys() == torch.nn.GRU(I, H).state_dict().keys()
    assert "recurrent_dropout=Dropouts(state=0.1, zoneout=0.2)" in repr(module)
    assert "recurrent_dropout" not in repr(tg.GRU(I, H))


@given(p=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(KINDS))
def test_any_probability_below_1_gives_finite_numbers(p, kind):
    module = layer(recurrent_dropout=tg.Dropouts(**{kind: p}))
    assert module(sequences())[0].isfinite().all()


# ---------------------------------------------------------------------------------------------------------------------
# Cells


@pytest.mark.parametrize("make", [tg.GRUCell, tg.RNNCell])
def test_a_cell_zones_out_at_every_step_and_expects_it_in_evaluation(make):
    cell, plain = make(I, H, recurrent_dropout=tg.Dropouts(zoneout=0.5)), make(I, H)
    plain.load_state_dict(cell.state_dict())
    x, h = torch.randn(B, I), torch.randn(B, H)
    after = seeded(lambda: cell(x, h))
    held = seeded(lambda: torch.rand(1, B, H))[0] < 0.5
    assert after[held].equal(h[held])
    torch.testing.assert_close(after[~held], plain(x, h)[~held])
    torch.testing.assert_close(cell.eval()(x, h), 0.5 * h + 0.5 * plain(x, h))


@pytest.mark.parametrize("make", [tg.GRUCell, tg.RNNCell])
@pytest.mark.parametrize("kind", ["state", "inputs", "weight"])
def test_a_cell_refuses_what_is_drawn_once_for_all_steps(make, kind):
    expected = rf"^recurrent_dropout of a cell must be candidate or zoneout, .*; got {kind}$"
    with pytest.raises(InputValueError, match=expected):
        make(I, H, recurrent_dropout=tg.Dropouts(**{kind: 0.1}))


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize("make", [tg.GRU, tg.RNN, tg.GRUCell, tg.RNNCell])
@pytest.mark.parametrize("value", ["0.1", None, True, {"state": 0.1}], ids=repr)
@pytest.mark.usefixtures("as_users_run_it")
def test_what_is_no_number_and_no_dropouts_is_refused(make, value):
    got = type(value).__name__
    with pytest.raises(InputTypeError, match=rf"^recurrent_dropout must be a number or tidegate\.Dropouts; got {got}$"):
        make(I, H, recurrent_dropout=value)


@every_kind
@pytest.mark.parametrize("p", [-0.1, 1.0, 2, float("nan")])
def test_a_probability_outside_0_to_1_is_refused(kind, p):
    with pytest.raises(InputValueError, match=rf"^recurrent_dropout {kind} must lie in \[0, 1\); got {p:g}$"):
        tg.Dropouts(**{kind: p})


@every_kind
@pytest.mark.parametrize("p", ["0.1", None, True], ids=repr)
@pytest.mark.usefixtures("as_users_run_it")
def test_a_probability_that_is_no_number_is_refused(kind, p):
    got = type(p).__name__
    with pytest.raises(InputTypeError, match=rf"^recurrent_dropout {kind} must be a number; got {got}$"):
        tg.Dropouts(**{kind: p})
