"""The health of gates: counts against a trace counted by hand, layers whose state is known, what each finding says."""
# mypy: allow-untyped-calls

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tidegate as tg
from tests.layer_helpers import SYSTEMS, draw_, layer
from tests.refusals import assert_refused
from tidegate.errors import InputTypeError, InputValueError
from tidegate.gates import GateHealth, health

T, B, I, H = 30, 3, 4, 5


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def kinds(found: GateHealth) -> set[str]:
    return {finding.kind for finding in found.findings}


def looked_at(*given: Any, **said: Any) -> tuple[Any, ...]:
    """What `gate_health` tells; as Any, for a gate's use is None only where a system lacks the gate."""
    return tg.gate_health(*given, **said)


def the(found: GateHealth, kind: str) -> Any:
    """The one finding of a kind."""
    (finding,) = [finding for finding in found.findings if finding.kind == kind]
    return finding


def biased(gates: dict[str, float], hidden: int = H, **options: Any) -> Any:
    """A GRU whose gates have the sigmoids of these biases and, but for those named "input", see nothing else."""
    module: Any = tg.GRU(I, hidden, dtype=torch.float64, **options)
    rows = {"reset": slice(0, hidden), "update": slice(hidden, 2 * hidden), "candidate": slice(2 * hidden, None)}
    with torch.no_grad():
        module.bias_hh_l0.zero_()
        for gate, bias in gates.items():
            for weight in (module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0):
                weight[rows[gate]] = 0
            module.bias_ih_l0[rows[gate]] = -bias if gate == "update" else bias  # torch keeps z = 1 - update
    return module


# ----------------------------------------------------------------------------------------------------------------------
# Counts


def counted(direction: Any, gate: torch.Tensor, *, writes: bool) -> tuple[float, int, int, int]:
    """The mean and the units that are always open, never open and saturated, one number at a time."""
    steps, batch, units = gate.shape
    always = never = saturated = 0
    numbers = []
    for unit in range(units):
        seen, kept = [], []
        for b in range(batch):
            held = 1.0
            for t in range(steps):
                if direction.mask is None or direction.mask[t, b]:
                    seen.append(float(gate[t, b, unit]))
                    held *= 1 - seen[-1]
            kept.append(held)
        numbers += seen
        is_always = all(value > 0.95 for value in seen)
        is_never = all(held > 0.95 for held in kept) if writes else all(value < 0.05 for value in seen)
        near = sum(value < 0.01 or value > 0.99 for value in seen) / len(seen) >= 0.95
        if writes and not any(value > 0.99 for value in seen):
            near = False
        always, never = always + is_always, never + is_never
        saturated += near and not is_always and not is_never
    return sum(numbers) / len(numbers), always, never, saturated


@settings(max_examples=40)
@given(
    system=st.sampled_from(list(SYSTEMS)),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 6)),
    shape=st.tuples(st.integers(1, 2), st.booleans()),
    scales=st.tuples(st.sampled_from([0.1, 3.0, 30.0]), st.sampled_from([0.0, 2.0, 8.0])),
    masked=st.sampled_from([None, "lengths", "mask"]),
    seed=st.integers(0, 1000),
)
def test_the_counts_are_those_of_a_trace_counted_by_hand(system, sizes, shape, scales, masked, seed):
    torch.manual_seed(seed)
    (steps, batch, units), (depth, both) = sizes, shape
    module = layer(system, I, units, num_layers=depth, bidirectional=both)
    draw_(module, scales[0])
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "bias" in name:
                weight.add_(scales[1] * torch.randn_like(weight))
    x = random(steps, batch, I)
    given: dict[str, Any] = {}
    if masked == "lengths":
        given["lengths"] = torch.randint(1, steps + 1, (batch,))
    elif masked == "mask":
        given["mask"] = torch.rand(steps, batch) < 0.7
        given["mask"][0] = True
    found = iter(looked_at(module, x, **given))
    with torch.no_grad():
        layers = tg.trace(module, x, **given).layers
    for number, traced in enumerate(layers):
        for direction in [traced] if traced.reverse is None else [traced, traced.reverse]:
            one = next(found)
            assert (one.depth, one.reverse, one.system) == (number, direction.backward, system)
            assert (one.sequences, one.units) == (batch, units)
            for use, gate in ((one.update, direction.update), (one.reset, direction.reset)):
                has = system != "rnn" and (gate is direction.update or system != "update-only")
                assert (use is not None) is has
                if use is not None:
                    mean, *counts = counted(direction, gate, writes=gate is direction.update)
                    assert use.mean == pytest.approx(mean, rel=1e-9)
                    assert [use.always_open, use.never_open, use.saturated] == counts
            seen = direction.candidate if direction.mask is None else direction.candidate[direction.mask]
            near = (seen.reshape(-1, units).abs() > 0.99).double().mean(0) >= 0.95
            assert one.candidate_saturated == int(near.sum())
            torch.testing.assert_close(one.half_life, direction.half_life(), equal_nan=True)
    assert next(found, None) is None


# ----------------------------------------------------------------------------------------------------------------------
# Layers whose gates are known


def test_an_update_gate_that_is_always_open():
    (found,) = looked_at(biased({"update": 9.0}), random(T, B, I))
    assert found.update == health.GateUse(found.update.mean, always_open=H, never_open=0, saturated=0)
    assert found.update.mean == pytest.approx(1, abs=1e-3)
    finding = the(found, "update gate always open")
    assert finding.sentence == f"the update gate of {H} of {H} units is above 0.95 at every step"
    assert "chrono_" in finding.advice


def test_an_update_gate_that_is_never_open():
    (found,) = looked_at(biased({"update": -9.0}), random(T, B, I))
    assert found.update == health.GateUse(found.update.mean, always_open=0, never_open=H, saturated=0)
    assert found.update.mean == pytest.approx(0, abs=1e-3)
    assert kinds(found) == {"update gate never open"}


def test_a_slow_update_gate_is_not_one_that_is_never_open_once_the_sequence_is_long_enough():
    module = biased({"update": -7.0})  # 0.00091 a step
    assert kinds(looked_at(module, random(20, 1, I))[0]) == {"update gate never open"}
    assert "update gate never open" not in kinds(looked_at(module, random(500, 1, I))[0])


def test_reset_gates_that_are_always_and_never_open():
    (found,) = looked_at(biased({"reset": 9.0}), random(T, B, I))
    assert (found.reset.always_open, found.reset.never_open) == (H, 0)
    assert "reset=None" in the(found, "reset gate always open").advice
    (found,) = looked_at(biased({"reset": -9.0}), random(T, B, I))
    assert (found.reset.always_open, found.reset.never_open) == (0, H)
    assert the(found, "reset gate never open").sentence.endswith("is below 0.05 at every step")


@pytest.mark.parametrize("gate", ["update", "reset"])
def test_a_gate_that_is_nearly_shut_or_nearly_open_at_every_step_is_saturated(gate):
    module = biased({gate: 0.0})
    rows = slice(H, 2 * H) if gate == "update" else slice(0, H)
    with torch.no_grad():
        module.weight_ih_l0[rows, 0] = 1.0
    x = random(T, B, I)
    x[..., 0] = torch.where(torch.arange(T) % 2 == 0, 20.0, -20.0)[:, None]
    (found,) = looked_at(module, x)
    use = getattr(found, gate)
    assert (use.always_open, use.never_open, use.saturated) == (0, 0, H)
    assert the(found, f"{gate} gate saturated").sentence.endswith("is within 0.01 of 0 or 1 at 95 % of the steps")


def test_fewer_than_a_tenth_of_the_units_are_counted_and_not_worth_a_sentence():
    for units, told in ((30, False), (20, True)):
        module = biased({"update": 0.0}, hidden=units)
        with torch.no_grad():
            module.bias_ih_l0[units : units + 2] = -9.0
        (found,) = looked_at(module, random(T, B, I))
        assert found.update.always_open == 2
        assert ("update gate always open" in kinds(found)) is told


def test_a_candidate_that_is_saturated_and_one_whose_activation_has_no_ends():
    module = biased({"candidate": 9.0})
    (found,) = looked_at(module, random(T, B, I))
    assert found.candidate_saturated == H
    assert the(found, "candidate saturated").sentence.startswith(f"the candidate of {H} of {H} units is within 0.01 of")
    (found,) = looked_at(tg.RNN(I, H, activation="identity", dtype=torch.float64), random(T, B, I))
    assert found.candidate_saturated is None


@pytest.mark.parametrize("steps", [20, 50, 200, 1000])
def test_a_chrono_initialised_layer_is_not_called_sick(steps):
    module = tg.init.chrono_(tg.GRU(I, 64), steps)
    (found,) = looked_at(module, torch.randn(steps, 4, I))
    assert kinds(found) == set()


def test_a_short_memory_is_told_and_a_short_sequence_asks_for_none():
    module = biased({"update": -1.2})  # 0.231: a half-life of 2.63 steps
    (found,) = looked_at(module, random(27, B, I))
    assert the(found, "short memory").sentence.endswith("half of what they know for at most 2.6 of 27 steps")
    assert "chrono_(layer, 27)" in the(found, "short memory").advice
    assert "short memory" not in kinds(looked_at(module, random(26, B, I))[0])
    module = biased({"update": 2.0})
    assert "short memory" not in kinds(looked_at(module, random(19, B, I))[0])
    assert "short memory" in kinds(looked_at(module, random(20, B, I))[0])


@pytest.mark.parametrize("units", [1, 2, 5, 9, 10, 11, 30])
def test_nine_of_ten_units_are_at_least_nine_of_ten(units):
    """All units but one in ten, rounded down, are short: then it is told; if one more is long, it isn't."""
    most = units // 10
    for long in (most, most + 1):
        module = biased({"update": 2.0}, hidden=units)
        with torch.no_grad():
            module.bias_ih_l0[units : units + long] = 5.0
        (found,) = looked_at(module, random(40, B, I))
        assert ("short memory" in kinds(found)) is (long == most), long


# ----------------------------------------------------------------------------------------------------------------------
# Gradients


def linear(c: float, dtype: torch.dtype = torch.float64) -> Any:
    """`a(t) = c*a(t-1) + Wax·x(t)`: the gradient changes by exactly c a step."""
    module: Any = tg.RNN(I, H, activation="identity", dtype=dtype)
    with torch.no_grad():
        module.weight_hh_l0.copy_(c * torch.eye(H, dtype=dtype))
    return module


@pytest.mark.parametrize(("c", "steps", "kind"), [(0.5, 30, "vanishing"), (1.5, 30, "exploding"), (0.97, 30, None)])
def test_the_gradient_of_a_linear_rnn_is_its_factor(c, steps, kind):
    (found,) = looked_at(linear(c), random(steps, B, I))
    assert found.gradient_per_step == pytest.approx(c, rel=1e-9)
    assert kinds(found) == (set() if kind is None else {f"{kind} gradient"})


def test_the_sentences_on_gradients_have_the_numbers():
    (found,) = looked_at(linear(0.5), random(30, B, I))
    finding = the(found, "vanishing gradient")
    assert finding.sentence == (
        "a gradient shrinks to 0.5 of itself per step back: beyond 9 of 30 steps it is under 0.001"
    )
    assert 0.5**9 >= 1e-3 > 0.5**10
    assert "use a GRU" in finding.advice
    (found,) = looked_at(linear(1.5), random(30, B, I))
    assert the(found, "exploding gradient").sentence == (
        "a gradient grows 1.5 times per step back: over 30 steps to more than 1000 times itself"
    )
    assert str(the(found, "exploding gradient")) == (
        f"{the(found, 'exploding gradient').sentence}; {the(found, 'exploding gradient').advice}"
    )


@pytest.mark.parametrize("c", [0.0, 1e-30, 1e30])
def test_factors_far_out_stay_numbers(c):
    (found,) = looked_at(linear(c), random(40, 1, I))
    assert found.gradient_per_step == pytest.approx(c, rel=1e-6)
    assert len(kinds(found) & {"vanishing gradient", "exploding gradient"}) == 1


def test_sequences_of_other_lengths_do_not_dilute_the_gradient():
    lengths = torch.tensor([1, 2, 3, 4, 40])
    x = random(40, 5, I)
    (found,) = looked_at(linear(0.5), x, lengths=lengths)
    assert found.steps == 40
    assert found.gradient_per_step == pytest.approx(0.5, rel=1e-9)
    assert "beyond 9 of 40 steps" in the(found, "vanishing gradient").sentence


def test_the_window_of_a_long_run_follows_the_longest_sequences(monkeypatch):
    monkeypatch.setattr(health, "_WORK", 10 * H**3)
    x = random(200, 6, I)
    (found,) = looked_at(linear(0.5), x, lengths=torch.tensor([3, 4, 5, 6, 200, 7]))
    assert len(found.flow.log_norm) == 11
    assert found.flow.steps.tolist() == [10]
    assert found.gradient_per_step == pytest.approx(0.5, rel=1e-9)
    assert "(followed over the last 10)" in the(found, "vanishing gradient").sentence


def test_steps_are_those_that_were_not_masked():
    keep = torch.zeros(60, B, dtype=torch.bool)
    keep[:12] = True
    (found,) = looked_at(linear(0.6), random(60, B, I), mask=keep)
    assert found.steps == 12
    assert kinds(found) == set()  # 0.6 to the power of 12 is 0.002
    assert found.gradient_per_step == pytest.approx(0.6, rel=1e-9)


def test_a_sequence_that_begins_anew_is_not_called_vanishing_for_it():
    cut = torch.zeros(60, B, dtype=torch.bool)
    cut[::20] = True
    (found,) = looked_at(linear(0.95), random(60, B, I), reset_at=cut)
    assert found.gradient_per_step == pytest.approx(0.95, rel=1e-9)
    assert found.steps == 20
    assert kinds(found) == set()
    (found,) = looked_at(linear(0.5), random(60, B, I), reset_at=cut)
    assert "of 20 steps" in the(found, "vanishing gradient").sentence


@pytest.mark.parametrize("lengths", [[30, 30, 30], [7, 30, 12]])
def test_backward_directions_are_followed_in_their_own_order(lengths):
    module = layer("gru", I, H, bidirectional=True, num_layers=2)
    x = random(T, B, I)
    found = looked_at(module, x, lengths=torch.tensor(lengths))
    assert [(one.depth, one.reverse) for one in found] == [(0, False), (0, True), (1, False), (1, True)]
    for one in found:
        flow = tg.gradient_flow(
            module, x, depth=one.depth, reverse=one.reverse, norm="frobenius", lengths=torch.tensor(lengths)
        )
        logs = (flow.log_norm[0] - flow.log_norm[-1]).sum() / flow.steps.sum()
        assert one.gradient_per_step == pytest.approx(math.exp(logs), rel=1e-9)


# ----------------------------------------------------------------------------------------------------------------------
# What can be looked at


def test_states_that_are_not_finite_are_told_and_no_gradient_is():
    module = layer("gru", I, H)
    x = random(T, B, I)
    x[3, 1, 2] = math.nan
    (found,) = looked_at(module, x)
    assert "not finite" in kinds(found)
    assert math.isnan(found.gradient_per_step)
    assert not kinds(found) & {"vanishing gradient", "exploding gradient", "short memory"}


def test_one_step_and_a_batch_that_is_masked_throughout():
    (found,) = looked_at(layer("gru", I, H), random(1, 1, I))
    assert found.steps == 1
    assert not kinds(found) & {"vanishing gradient", "exploding gradient", "short memory"}
    (found,) = looked_at(layer("gru", I, H), random(T, B, I), mask=torch.zeros(T, B, dtype=torch.bool))
    assert (found.steps, found.update.always_open, found.update.never_open) == (0, 0, 0)
    assert math.isnan(found.update.mean)
    assert math.isnan(found.gradient_per_step)
    assert found.findings == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_half_precision_is_counted_in_single(dtype):
    module = biased({"update": 9.0}).to(dtype)
    (found,) = looked_at(module, torch.randn(T, B, I, dtype=dtype))
    assert found.update.always_open == H
    module = layer("gru", I, H).to(dtype)
    x = torch.randn(300, 40, I, dtype=dtype)
    (found,) = looked_at(module, x)
    assert found.update.mean == pytest.approx(float(tg.trace(module, x).update.detach().double().mean()), rel=1e-5)


def test_torchs_layers_cells_and_what_lies_inside_a_model():
    theirs, ours = nn.GRU(I, H), tg.GRU(I, H)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, I)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.other = theirs, nn.RNN(H, 2)

        def forward(self, x):
            return self.other(self.inner(x)[0])[0]

    model = Model().train()
    (inside,) = looked_at(model, x, layer="inner")
    assert model.training
    assert theirs.training
    cell = tg.GRUCell(I, H)
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in ours.state_dict().items()})
    for found in (inside, *looked_at(theirs, x), *looked_at(cell, x)):
        (expected,) = looked_at(ours, x)
        assert found.update.mean == pytest.approx(expected.update.mean, rel=1e-5)
        assert found.gradient_per_step == pytest.approx(expected.gradient_per_step, rel=1e-4)
        assert kinds(found) == kinds(expected)
    assert looked_at(model, x, layer="other")[0].system == "rnn"


def test_dropout_is_off_and_the_random_state_is_left_alone():
    module = tg.GRU(I, H, num_layers=2, dropout=0.5)
    x = torch.randn(T, B, I)
    before = torch.get_rng_state()
    first, second = looked_at(module, x)[1], looked_at(module, x)[1]
    assert first.update == second.update
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not first.half_life.requires_grad


def test_what_cannot_be_looked_into_is_refused():
    x = torch.randn(T, B, I)
    assert_refused(lambda: looked_at(nn.Linear(I, H), x), InputTypeError, "must contain a GRU or RNN layer")
    assert_refused(lambda: looked_at(tg.GRU(I, H), x[..., :3]), InputValueError, "input")
    both = nn.ModuleList([tg.GRU(I, H), tg.GRU(H, H)])
    assert_refused(lambda: looked_at(both, x), InputValueError, "layer must name one of")
