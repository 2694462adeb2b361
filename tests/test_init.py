"""chrono_ and update_bias_ set the update gate's biases, orthogonal_ the recurrent weights, and each nothing else."""
# mypy: allow-untyped-calls

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tidegate as tg
from tests.layer_helpers import directions
from tests.refusals import assert_refused
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


# ---------------------------------------------------------------------------------------------------------------------
# update_bias_


@pytest.mark.parametrize("bias", [-2.0, 0.0, 1.5])
@pytest.mark.parametrize("kind", MAKERS)
def test_every_update_gate_starts_at_sigma_of_the_bias(kind, bias):
    module = MAKERS[kind]()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    assert tg.init.update_bias_(module, bias) is module
    torch.testing.assert_close(
        starting_gates(module), torch.full((1,), bias).sigmoid().expand_as(starting_gates(module))
    )
    rows = update_rows(module)
    for name, weight in module.state_dict().items():
        changed = weight.ne(before[name])
        if name.startswith("bias"):
            changed[rows] = False
        assert not changed.any(), f"{name} was touched"


def test_a_layer_normalised_gru_starts_there_too():
    module = tg.init.update_bias_(tg.GRU(I, H, layer_norm=True), -1.0)
    first = tg.trace(module, torch.zeros(1, 1, I)).update
    torch.testing.assert_close(first, torch.full_like(first, -1.0).sigmoid())


@pytest.mark.parametrize("bias", [math.nan, math.inf, -math.inf])
def test_a_bias_that_is_not_finite_is_refused(bias):
    with pytest.raises(InputValueError, match=r"^bias must be finite; got (nan|inf|-inf)$"):
        tg.init.update_bias_(tg.GRU(I, H), bias)


@pytest.mark.parametrize("module", [tg.RNN(I, H), nn.RNNCell(I, H), tg.Dense(I, H)], ids=str)
def test_no_update_gate_no_bias(module):
    with pytest.raises(InputTypeError, match=rf"^layer must have an update gate; {type(module).__name__} has none$"):
        tg.init.update_bias_(module, 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# orthogonal_

ORTHOGONAL: dict[str, Any] = MAKERS | {"rnn": lambda: tg.RNN(I, H, 2), "torch-rnn-cell": lambda: nn.RNNCell(I, H)}


@pytest.mark.parametrize("gain", [1.0, 0.5])
@pytest.mark.parametrize("kind", ORTHOGONAL)
def test_every_block_of_every_layer_and_direction_is_orthogonal_and_nothing_else_changes(kind, gain):
    module = ORTHOGONAL[kind]()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    assert tg.init.orthogonal_(module, gain) is module
    blocks = 0
    for name, weight in module.state_dict().items():
        if not name.startswith("weight_hh"):
            assert weight.equal(before[name]), f"{name} was touched"
            continue
        for block in weight.split(H):
            torch.testing.assert_close(block @ block.T, gain**2 * torch.eye(H), atol=1e-5, rtol=0)
            blocks += 1
    assert blocks == sum(len(weight) // H for name, weight in before.items() if name.startswith("weight_hh"))
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_linear_rnn_with_orthogonal_weights_keeps_its_length_for_any_number_of_steps():
    module = tg.init.orthogonal_(tg.RNN(I, H, bias=False, activation="identity", dtype=torch.float64))
    h_0 = torch.randn(1, 1, H, dtype=torch.float64)
    y, _ = module(torch.zeros(500, 1, I, dtype=torch.float64), h_0)
    torch.testing.assert_close(y.norm(dim=-1), h_0.norm().expand(500, 1))


def test_a_generator_makes_orthogonal_weights_reproducible():
    modules: list[Any] = [tg.GRU(I, H) for _ in range(3)]
    for module, seed in zip(modules, (1, 1, 2), strict=True):
        tg.init.orthogonal_(module, generator=torch.Generator().manual_seed(seed))
    first, same, other = (module.weight_hh_l0 for module in modules)
    assert first.equal(same)
    assert not first.equal(other)


@pytest.mark.parametrize("gain", [math.nan, math.inf])
def test_a_gain_that_is_not_finite_is_refused(gain):
    with pytest.raises(InputValueError, match=r"^gain must be finite; got (nan|inf)$"):
        tg.init.orthogonal_(tg.GRU(I, H), gain)


def test_a_layer_without_recurrent_weights_is_refused():
    with pytest.raises(InputTypeError, match=r"^layer must have recurrent weights; Dense has none$"):
        tg.init.orthogonal_(tg.Dense(I, H))


def test_recurrent_weights_that_are_computed_are_refused():
    layer = torch.nn.utils.parametrizations.weight_norm(tg.GRU(3, 5), "weight_hh_l0")
    with pytest.raises(
        InputTypeError, match=r"^layer must own its recurrent weights to initialise them; here they are"
    ):
        tg.init.orthogonal_(layer)


# ---------------------------------------------------------------------------------------------------------------------
# Of all three


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("value", ["5", None, [3], 5 + 1j, True, torch.ones(2)], ids=repr)
@pytest.mark.parametrize(
    ("name", "change"), [("steps", tg.init.chrono_), ("bias", tg.init.update_bias_), ("gain", tg.init.orthogonal_)]
)
def test_what_is_no_number_is_refused_and_changes_nothing(name, change, value):
    module = tg.GRU(I, H)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    assert_refused(lambda: change(module, value), InputTypeError, f"^{name} must be a number; got ")
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_initialised_too(dtype):
    module: Any = tg.GRU(I, H, dtype=dtype)
    for change in (tg.init.orthogonal_, partial(tg.init.chrono_, steps=20), partial(tg.init.update_bias_, bias=-1)):
        change(module)
    block = module.weight_hh_l0[:H].double()
    torch.testing.assert_close(block @ block.T, torch.eye(H, dtype=torch.float64), atol=0.05, rtol=0)


def test_chronos_log_spacing_has_as_many_short_memories_as_long_ones():
    module = tg.init.chrono_(tg.GRU(I, H, 30), 257.0, torch.Generator().manual_seed(0), spacing="log")
    steps = 1 / starting_gates(module) - 1  # u
    assert steps.min() >= 1 - 1e-3
    assert steps.max() <= 256 + 0.1
    for octave in range(8):
        share = ((steps >= 2**octave) & (steps < 2 ** (octave + 1))).double().mean()
        assert abs(float(share) - 1 / 8) < 0.03
    wrong: Any = "linear"
    assert_refused(
        lambda: tg.init.chrono_(module, 257.0, spacing=wrong), InputValueError, 'spacing must be "uniform" or'
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("make", [tg.GRU, nn.GRU, tg.GRUCell], ids=["GRU", "torch.nn.GRU", "GRUCell"])
def test_chronos_share_of_the_units_changes_and_the_others_keep_their_biases(make, share):
    module, width = make(I, 40), 40
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    tg.init.chrono_(module, 100.0, torch.Generator().manual_seed(2), share=share)
    changed = torch.zeros(3 * width, dtype=torch.bool)
    for name, parameter in module.named_parameters():
        differs = (parameter != before[name]).reshape(3 * width, -1).any(1)
        if name.startswith("bias"):
            changed |= differs
        else:
            assert not differs.any(), name
    counts = changed.reshape(3, width).sum(1).tolist()
    assert counts == [0, round(share * width), 0]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_chronos_share_must_be_one(share):
    module = tg.GRU(I, H)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    assert_refused(lambda: tg.init.chrono_(module, 50.0, share=share), InputValueError, "share must lie in 0..1; got")
    torch.testing.assert_close(list(module.parameters()), before)
