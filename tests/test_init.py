"""chrono_ sets the update gate's biases, and nothing else: memories of 2 to `steps` steps are where it starts."""
# mypy: allow-untyped-calls

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tidegate as tg
from tests.layer_helpers import directions
from tidegate.errors import InputTypeError, InputValueError

I, H = 3, 64
MAKERS = {
    "tidegate-gru": lambda: tg.GRU(I, H),
    "torch-gru": lambda: nn.GRU(I, H),
    "tidegate-two-way-stack": lambda: tg.GRU(I, H, 3, bidirectional=True),
    "torch-two-way-stack": lambda: nn.GRU(I, H, 3, bidirectional=True),
    "reset-before": lambda: tg.GRU(I, H, reset="before"),
    "update-only": lambda: tg.GRU(I, H, 2, bidirectional=True, reset=None),
    "learned-state": lambda: tg.GRU(I, H, learn_h_0=True),
    "tidegate-cell": lambda: tg.GRUCell(I, H),
    "torch-cell": lambda: nn.GRUCell(I, H),
    "update-only-cell": lambda: tg.GRUCell(I, H, reset=None),
}


def suffixes(module):
    if isinstance(module, nn.GRUCell):
        return [""]
    return [suffix for ways in directions(module) for suffix in ways]


def update_rows(module):
    """torch.nn's order is reset, z, candidate; without the reset rows z comes first."""
    return slice(0, H) if getattr(module, "reset", "after") is None else slice(H, 2 * H)


def starting_gates(module):
    """Every direction's update gate at zero input and state, from the trace of the first step; (layers*D, H)."""
    zeros = torch.zeros(1, 1, I)
    if isinstance(module, nn.GRUCell):
        return tg.trace(module, zeros).update[0]
    rows = []
    for suffix in suffixes(module):
        biases = getattr(module, f"bias_ih{suffix}") + getattr(module, f"bias_hh{suffix}")
        rows.append(torch.sigmoid(-biases[update_rows(module)]))
    by_hand = torch.stack(rows)
    first = tg.trace(module, zeros).layers[0]
    torch.testing.assert_close(first.update[0, 0], by_hand[0])  # deeper layers see the states of this one
    return by_hand


@pytest.mark.parametrize("steps", [2.0, 3.0, 50.0, 1000.5])
@pytest.mark.parametrize("kind", MAKERS)
def test_every_update_gate_starts_between_1_over_steps_and_a_half(kind, steps):
    module = MAKERS[kind]()
    tg.init.chrono_(module, steps)
    gates = starting_gates(module)
    assert gates.min() >= 1 / steps - 1e-6
    assert gates.max() <= 0.5 + 1e-6
    if steps == 50:
        assert (1 / gates).min() < 5, "no unit forgets fast"
        assert (1 / gates).max() > 45, "no unit remembers long"


@pytest.mark.parametrize("kind", MAKERS)
def test_the_gate_is_1_over_1_plus_u_with_u_uniform_in_1_to_steps_minus_1(kind):
    module, steps = MAKERS[kind](), 41.0
    drawn = []
    for seed in range(20):
        tg.init.chrono_(module, steps, torch.Generator().manual_seed(seed))
        drawn.append((1 / starting_gates(module) - 1).double())
    values = torch.cat(drawn).flatten()
    assert values.min() >= 1 - 1e-4
    assert values.max() <= steps - 1 + 1e-3
    spread = (steps - 2) / math.sqrt(12)
    assert abs(values.mean() - steps / 2) < 4 * spread / math.sqrt(len(values))
    assert abs(values.std() - spread) < 0.1 * spread


@pytest.mark.parametrize("kind", MAKERS)
def test_all_other_weights_stay_to_the_bit(kind):
    module = MAKERS[kind]()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    tg.init.chrono_(module, 50.0)
    rows = update_rows(module)
    for name, weight in module.state_dict().items():
        changed = weight.ne(before[name])
        if name.startswith("bias"):
            assert changed[rows].all()
            changed[rows] = False
        assert not changed.any(), f"{name} was touched"
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("kind", MAKERS)
def test_the_layer_itself_is_returned(kind):
    module = MAKERS[kind]()
    assert tg.init.chrono_(module, 9.0) is module


@pytest.mark.parametrize("kind", MAKERS)
def test_a_generator_makes_it_reproducible_and_leaves_the_global_one(kind):
    modules = [MAKERS[kind]() for _ in range(3)]
    state = torch.get_rng_state()
    for module, seed in zip(modules, (1, 1, 2), strict=True):
        tg.init.chrono_(module, 50.0, torch.Generator().manual_seed(seed))
    assert torch.get_rng_state().equal(state)
    first, same, other = (starting_gates(module) for module in modules)
    assert first.equal(same)
    assert not first.equal(other)


def test_a_whole_number_of_steps_may_be_an_int():
    floating, whole = (tg.init.chrono_(tg.GRU(I, H), n, torch.Generator().manual_seed(1)) for n in (50.0, 50))
    assert starting_gates(floating).equal(starting_gates(whole))


def test_without_a_generator_the_global_seed_rules():
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(starting_gates(tg.init.chrono_(nn.GRU(I, H), 50.0)))
    assert found[0].equal(found[1])


def test_layers_and_directions_get_numbers_of_their_own():
    gates = starting_gates(tg.init.chrono_(tg.GRU(I, H, 2, bidirectional=True), 50.0))
    assert gates.flatten().unique().numel() == 4 * H


@given(steps=st.floats(2, 1e6), hidden=st.integers(1, 9))
def test_any_number_of_steps_from_2_gives_finite_biases(steps, hidden):
    module = tg.init.chrono_(tg.GRU(2, hidden, reset=None), steps)
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("module", [tg.RNN(I, H), nn.RNN(I, H), tg.RNNCell(I, H), tg.Dense(I, H)], ids=str)
def test_a_layer_without_an_update_gate_is_refused(module):
    with pytest.raises(InputTypeError, match=rf"^layer must have an update gate; {type(module).__name__} has none$"):
        tg.init.chrono_(module, 50.0)


@pytest.mark.parametrize("module", [tg.GRU(I, H, bias=False), nn.GRU(I, H, bias=False), nn.GRUCell(I, H, bias=False)])
def test_a_layer_without_biases_is_refused(module):
    with pytest.raises(InputTypeError, match=r"^layer must have biases \(bias=True\)"):
        tg.init.chrono_(module, 50.0)


@pytest.mark.parametrize(
    "module", [nn.LSTM(I, H), nn.Linear(I, H), nn.Sequential(nn.GRU(I, H))], ids=lambda m: type(m).__name__
)
def test_anything_but_a_recurrent_layer_is_refused(module):
    with pytest.raises(InputTypeError, match=rf"layer must be a GRU, .*; got {type(module).__name__}$"):
        tg.init.chrono_(module, 50.0)


@pytest.mark.parametrize("steps", [1.9, 1.0, 0.0, -5.0, math.nan, math.inf])
def test_a_number_of_steps_that_is_no_memory_is_refused_and_changes_nothing(steps):
    module: Any = tg.GRU(I, H)
    before = module.bias_ih_l0.clone()
    with pytest.raises(InputValueError, match=r"^steps must be .*2.*; got "):
        tg.init.chrono_(module, steps)
    assert module.bias_ih_l0.equal(before)


def test_biases_that_are_computed_are_refused_rather_than_left_as_they_are():
    layer = torch.nn.utils.parametrizations.weight_norm(tg.GRU(3, 5), "bias_ih_l0")
    with pytest.raises(InputTypeError, match=r"layer must own its biases to initialise them"):
        tg.init.chrono_(layer, 10)
