"""The memory map is exact: its rows are shares that sum to 1 and rebuild the state; the half-life follows from it."""
# mypy: allow-untyped-calls

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tidegate as tg
from tests.layer_helpers import SYSTEMS, draw_, layer
from tidegate.errors import InputTypeError

T, B, I, H = 6, 3, 4, 5


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def ways(trace):
    """Every layer's directions."""
    return [way for one in trace.layers for way in (one, one.reverse) if way is not None]


def assert_exact(way):
    """At every t, by position and from the end: shares in [0, 1], summing to 1, rebuilding the state; unseen is 0."""
    steps = len(way.update)
    for t in range(steps):
        memory = way.memory(t)
        assert memory.equal(way.memory(t - steps))
        assert memory.shape == (steps + 1, *way.update.shape[1:])
        assert memory.ge(0).all()
        assert memory.le(1).all()
        torch.testing.assert_close(memory.sum(0), torch.ones_like(memory[0]), atol=1e-14, rtol=0)
        rebuilt = memory[0] * way.h_0 + (memory[1:] * way.candidate).sum(0)
        torch.testing.assert_close(rebuilt, way.hidden[t], atol=1e-13, rtol=1e-13)
        unseen = memory[1 : t + 1] if way.backward else memory[t + 2 :]
        assert unseen.eq(0).all()


@pytest.mark.parametrize("steering", ["free", "mask", "lengths", "pins", "all"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_memory_is_exact_at_every_step_of_every_layer_and_direction(system, steering):
    module, x, h_0 = layer(system, I, H, 2, bidirectional=True), random(T, B, I), random(4, B, H)
    given: dict[str, Any] = {}
    if steering in ("mask", "all"):
        given["mask"] = torch.rand(T, B) > 0.3
    if steering in ("lengths", "all"):
        given["lengths"] = [6, 2, 0]
    if steering in ("pins", "all"):
        given["pins"] = [tg.Pins(update=0.0, steps=slice(1, 3)), tg.Pins(update=1.0, steps=4, units=[0, 2])]
    for way in ways(tg.trace(module, x, h_0, **given)):
        assert_exact(way)


@pytest.mark.parametrize("module", [torch.nn.GRU(I, H, 2, bidirectional=True), torch.nn.RNN(I, H)], ids=["gru", "rnn"])
def test_memory_of_torchs_own_layers_is_exact(module):
    module = draw_(module.double())
    for way in ways(tg.trace(module, random(T, B, I))):
        assert_exact(way)


@settings(max_examples=settings().max_examples // 4)  # each example is many runs
@given(
    steps=st.integers(1, 9), batch=st.integers(1, 3), hidden=st.integers(1, 4), system=st.sampled_from(list(SYSTEMS))
)
def test_memory_is_exact_for_any_shape(steps, batch, hidden, system):
    module = layer(system, 2, hidden, bidirectional=True)
    for way in ways(tg.trace(module, random(steps, batch, 2), random(2, batch, hidden))):
        for t in (0, steps // 2, steps - 1):
            memory = way.memory(t)
            torch.testing.assert_close(memory.sum(0), torch.ones_like(memory[0]), atol=1e-14, rtol=0)
            rebuilt = memory[0] * way.h_0 + (memory[1:] * way.candidate).sum(0)
            torch.testing.assert_close(rebuilt, way.hidden[t], atol=1e-12, rtol=1e-12)


def test_memory_is_the_update_gate_times_what_later_gates_keep():
    trace: Any = tg.trace(layer("gru", I, H), random(T, B, I))
    update, t = trace.update, 4
    for s in range(t + 1):
        expected = update[s] * torch.stack([1 - update[k] for k in range(s + 1, t + 1)] + [torch.ones(B, H)]).prod(0)
        torch.testing.assert_close(trace.memory(t)[s + 1], expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(trace.memory(t)[0], (1 - update[: t + 1]).prod(0), atol=1e-14, rtol=0)


@pytest.mark.parametrize("make", [lambda: layer("rnn", I, H), lambda: tg.Dense(I, H)], ids=["rnn", "dense"])
def test_an_rnn_and_a_dense_layer_hold_the_last_step_and_nothing_else(make):
    trace: Any = tg.trace(make().double(), random(T, B, I))
    for t in range(T):
        expected = torch.zeros(T + 1, B, H, dtype=torch.float64)
        expected[t + 1] = 1
        assert trace.memory(t).equal(expected)


def test_a_backward_directions_memory_counts_steps_in_the_inputs_order():
    module = layer("rnn", I, H, bidirectional=True)
    trace: Any = tg.trace(module, random(T, B, I))
    memory = trace.layers[0].reverse.memory(2)
    assert memory[3].eq(1).all()
    assert memory.sum(0).eq(1).all()


def test_pins_appear_in_the_map_exactly():
    module, x = layer("gru", I, H), random(T, B, I)
    pins = [tg.Pins(update=0.0), tg.Pins(update=1.0, steps=1), tg.Pins(update=0.6, steps=3)]
    memory = tg.trace(module, x, pins=pins).memory()
    expected = torch.zeros(T + 1, dtype=torch.float64)
    expected[2], expected[4] = 0.4, 0.6
    torch.testing.assert_close(memory, expected[:, None, None].expand_as(memory), atol=1e-15, rtol=0)


def test_a_masked_step_holds_nothing_and_changes_nothing_in_the_map():
    module, x = layer("gru", I, H), random(T, 1, I)
    mask = torch.tensor([True, False, True, True, False, True])
    memory = tg.trace(module, x, mask=mask.unsqueeze(1)).memory()
    short = tg.trace(module, x[mask]).memory()
    assert memory[1:][~mask].eq(0).all()
    torch.testing.assert_close(memory[1:][mask], short[1:], atol=1e-14, rtol=0)
    torch.testing.assert_close(memory[0], short[0], atol=1e-14, rtol=0)


@pytest.mark.parametrize("t", [T, -T - 1, 99])
def test_a_step_outside_the_sequence_is_refused(t):
    trace: Any = tg.trace(layer("gru", I, H), random(T, B, I))
    with pytest.raises(ValueError, match=rf"^t must lie in -{T}\.\.{T - 1}; got {t}$"):
        trace.memory(t)
    with pytest.raises(ValueError, match=r"^t must lie in"):
        trace.layers[0].memory(t)


# Half-life.


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("update", "steps"), [(0.5, 1.0), (0.0, math.inf), (1.0, 0.0), (0.1, 6.578813478960585)])
def test_half_life_of_a_constant_gate_is_known(update, steps, reverse):
    module = layer("gru", I, H, bidirectional=True)
    one: Any = tg.trace(module, random(T, B, I), pins=tg.Pins(update=update)).layers[0]
    found = (one.reverse if reverse else one).half_life()
    torch.testing.assert_close(found, torch.full((H,), steps, dtype=torch.float64), atol=0, rtol=1e-12)


def test_half_life_of_an_rnn_is_0():
    assert tg.trace(layer("rnn", I, H), random(T, B, I)).half_life().eq(0).all()
    assert tg.trace(torch.nn.RNN(I, H), torch.randn(T, B, I)).half_life().eq(0).all()


def test_half_life_is_per_unit():
    values = torch.tensor([0.5, 0.75, 0.0, 1.0, 1 - 0.5**0.25], dtype=torch.float64)
    found = tg.trace(layer("gru", I, H), random(T, B, I), pins=tg.Pins(update=values)).half_life()
    expected = torch.tensor([1.0, 0.5, math.inf, 0.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-12)


def test_half_life_does_not_count_masked_steps_nor_steps_after_the_end():
    module, x = layer("gru", I, H), random(T, B, I)
    half = tg.Pins(update=0.5)
    ones = torch.ones(H, dtype=torch.float64)
    assert tg.trace(module, x, mask=torch.rand(T, B) > 0.5, pins=half).half_life().equal(ones)
    assert tg.trace(module, x, lengths=[2, 0, 5], pins=half).half_life().equal(ones)


def test_half_life_of_a_trace_in_which_every_step_is_masked_is_infinite():
    module, x = layer("gru", I, H), random(T, B, I)
    found = tg.trace(module, x, mask=torch.zeros(T, B, dtype=torch.bool)).half_life()
    assert found.eq(math.inf).all(), "nothing was ever overwritten"


def test_one_step_that_writes_in_full_does_not_make_the_half_life_zero():
    gates = torch.full((200, 1, H), 0.05)
    gates[7] = 1.0
    found = tg.trace(tg.GRU(I, H), torch.randn(200, 1, I), pins=tg.Pins(update=gates)).half_life()
    mean = (199 * 0.05 + 1) / 200
    torch.testing.assert_close(found, torch.full((H,), math.log(0.5) / math.log(1 - mean)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_memory_sums_to_1_and_half_lives_are_finite_in_half_precision(dtype):
    module = tg.GRU(I, 32)
    tg.init.chrono_(module, 500)
    seen = tg.trace(module.to(dtype), torch.randn(500, 2, I).to(dtype))
    memory = seen.memory()
    assert memory.dtype == torch.float32
    torch.testing.assert_close(memory.sum(0), torch.ones(2, 32), atol=1e-5, rtol=0)
    assert seen.half_life().isfinite().all()


def test_memory_sums_to_1_under_autocast():
    module = tg.GRU(I, 32)
    tg.init.chrono_(module, 500)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = tg.trace(module, torch.randn(500, 2, I))
        torch.testing.assert_close(seen.memory().sum(0), torch.ones(2, 32), atol=1e-5, rtol=0)


def test_memory_of_a_long_sequence_sums_to_1_and_rebuilds_the_state():
    seen = tg.trace(tg.GRU(I, H), torch.randn(5000, 1, I))
    memory = seen.memory()
    torch.testing.assert_close(memory.sum(0), torch.ones(1, H), atol=1e-5, rtol=0)
    torch.testing.assert_close((memory[1:] * seen.candidate).sum(0), seen.hidden[-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("t", [2.5, "1", None, True])
@pytest.mark.usefixtures("as_users_run_it")
def test_a_step_that_is_no_int_is_refused(t):
    with pytest.raises(InputTypeError, match="t must be an int; got"):
        tg.trace(tg.GRU(I, H), torch.randn(T, B, I)).memory(t)
