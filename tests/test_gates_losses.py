"""Losses on the gates: their formulas, their gradients, and that training on them does what they ask."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import tidegate as tg
from tidegate.errors import InputTypeError, InputValueError
from tidegate.gates import losses


def gates(steps: int = 6, batch: int = 3, units: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.rand(steps, batch, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_budget_counts_what_goes_beyond_it():
    update = torch.full((5, 2, 3), 0.2, dtype=torch.float64)
    update[:, 1, 2] = 0.7
    assert_close(losses.write_budget(update, 0.3), torch.tensor(0.4**2 / 6, dtype=torch.float64))
    assert losses.write_budget(update, 0.7) == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_the_formulas_step_by_step(steps, batch, units, share, seed):
    update = gates(steps, batch, units, seed)
    chosen = torch.rand(steps, batch, generator=torch.Generator().manual_seed(seed + 1)) < 0.5
    mask = torch.rand(steps, batch, generator=torch.Generator().manual_seed(seed + 2)) < 0.7
    held, written, beyond, count = 0.0, 0.0, 0.0, 0
    for b in range(batch):
        for u in range(units):
            seen = [float(update[t, b, u]) for t in range(steps) if mask[t, b]]
            beyond += max(0.0, sum(seen) / max(len(seen), 1) - share) ** 2
            for t in range(steps):
                if mask[t, b] and chosen[t, b]:
                    held -= math.log(1 - float(update[t, b, u]))
                    written -= math.log(float(update[t, b, u]))
                    count += 1
    assert_close(float(losses.write_budget(update, share, mask)), beyond / (batch * units))
    assert_close(float(losses.hold(update, chosen, mask)), held / max(count, 1))
    assert_close(float(losses.write(update, chosen, mask)), written / max(count, 1))


def test_gates_at_their_ends_give_finite_losses_and_gradients():
    update = torch.tensor([0.0, 1.0]).reshape(2, 1, 1).requires_grad_()
    steps = torch.ones(2, 1, dtype=torch.bool)
    for loss in (losses.hold(update, steps), losses.write(update, steps)):
        (gradient,) = torch.autograd.grad(loss, update)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_no_such_step_is_no_loss():
    update = gates().requires_grad_()
    loss = losses.hold(update, torch.zeros(6, 3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, update)
    assert loss == 0
    assert (gradient == 0).all()


def test_training_on_them_shuts_the_gate_where_it_is_told_to():
    torch.manual_seed(0)
    layer, x = tg.GRU(3, 8), torch.randn(10, 4, 3)
    advert = torch.zeros(10, 4, dtype=torch.bool)
    advert[4:7] = True
    x[4:7] += 2  # so that it can be told apart
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(60):
        seen = tg.trace(layer, x)
        optimizer.zero_grad()
        (losses.hold(seen, advert) + losses.write(seen, ~advert)).backward()
        optimizer.step()
    update = tg.trace(layer, x).update.mean(-1)
    assert update[advert].mean() < 0.2
    assert update[~advert].mean() > 0.6


def test_a_mask_of_the_trace_counts_too():
    layer, x = tg.GRU(3, 4), torch.randn(5, 2, 3)
    mask = torch.rand(5, 2) < 0.5
    mask[0] = True
    seen = tg.trace(layer, x, mask=mask)
    everywhere = torch.ones(5, 2, dtype=torch.bool)
    assert_close(losses.hold(seen, everywhere), losses.hold(seen.update, mask))
    assert_close(losses.write_budget(seen, 0.1), losses.write_budget(seen.update, 0.1, mask))


def test_spans_of_time_become_steps():
    times = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert losses.steps_of([(1.0, 3.0)], times).tolist() == [False, True, True, False]
    assert losses.steps_of([(1.5, 2.4)], times).tolist() == [False, True, False, False]
    assert losses.steps_of([(3.0, 9.0), (0.0, 0.5)], times).tolist() == [True, False, False, True]
    assert losses.steps_of([(1.0, 1.3), (1.1, 1.4)], times).tolist() == [False] * 4  # 0.4 of a step, not 0.6
    assert losses.steps_of([(1.0, 9.0), (1.5, 1.6)], times).tolist() == [False, True, True, True]
    assert losses.steps_of([], times).tolist() == [False] * 4
    assert losses.steps_of([(0.0, 0.6)], torch.tensor([0.0])).tolist() == [True]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda u: losses.write_budget(u, 1.5), InputValueError, "share must lie in 0..1"),
        (
            lambda u: losses.write_budget(u.long(), 0.5),
            InputTypeError,
            "traced must be",
        ),
        (lambda u: losses.write_budget(u[0], 0.5), InputValueError, r"update gates must be \(T, B, H\)"),
        (lambda u: losses.hold(u, torch.ones(6, 3)), InputTypeError, "steps must be a bool tensor"),
        (lambda u: losses.hold(u, torch.ones(3, 6, dtype=torch.bool)), InputValueError, r"steps must be \(T, B\)"),
        (lambda u: losses.write(u, torch.ones(6, 3, dtype=torch.bool), torch.ones(1)), InputTypeError, "mask must be"),
        (lambda u: losses.steps_of([(2, 1)], u[:, 0, 0]), InputValueError, "spans must be"),
        (lambda u: losses.steps_of([], u), InputValueError, "times must be"),
    ],
)
def test_bad_input_is_one_sentence(call, error, words):
    update = torch.linspace(0, 1, 72).reshape(6, 3, 4)
    with pytest.raises(error, match=words):
        call(update)
