"""Counterfactuals: the output without some steps is the output with those steps held, and the map's share of them."""
# mypy: allow-untyped-calls

import pytest
import torch
from torch import nn

import tidegate as tg
from tests.layer_helpers import SYSTEMS, draw_, layer

T, B, I, H = 6, 3, 4, 5
STEPS = {
    "int": 2,
    "slice": slice(1, 4),
    "list": [0, 5],
    "bools": torch.tensor([False, True, True, False, False, True]),
    "plane": torch.rand(T, B, generator=torch.Generator().manual_seed(0)) > 0.5,
}


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class Classifier(nn.Module):
    """A model with dropout around and inside its recurrent layer."""

    def __init__(self, recurrent):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.recurrent = recurrent
        self.after = nn.Linear(H, 2)

    def forward(self, x):
        return self.after(self.dropout(self.recurrent(self.dropout(x))[1][-1]))


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("system", SYSTEMS)
def test_of_a_bare_layer_it_is_the_run_with_the_steps_pinned_to_0(system, steps):
    module, x, h_0 = layer(system, I, H, 2, bidirectional=True), random(T, B, I), random(4, B, H)
    found = tg.counterfactual(module, x, steps, h_0)
    assert found.output.equal(module(x, h_0)[0])
    assert found.output_without.equal(module(x, h_0, pins=tg.Pins(update=0.0, steps=steps))[0])
    assert found.change.equal(found.output_without - found.output)
    assert found.change.ne(0).any()


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("system", SYSTEMS)
def test_share_is_what_the_memory_map_says_of_the_steps(system, steps):
    module, x = layer(system, I, H, 2, bidirectional=True), random(T, B, I)
    memory = tg.trace(module, x).memory()[1:]
    if isinstance(steps, torch.Tensor) and steps.ndim == 2:
        expected = (memory * steps.unsqueeze(-1)).sum(0)
    else:
        expected = memory[steps].sum(0) if not isinstance(steps, int) else memory[steps]
    share = tg.counterfactual(module, x, steps).share
    assert share.shape == (B, H)
    torch.testing.assert_close(share, expected, atol=1e-14, rtol=0)


def test_the_share_of_all_steps_and_of_the_initial_state_is_the_whole():
    module, x, h_0 = layer("gru", I, H), random(T, B, I), random(1, B, H)
    found = tg.counterfactual(module, x, slice(None), h_0)
    torch.testing.assert_close(found.share + tg.trace(module, x, h_0).memory()[0], torch.ones_like(found.share))
    assert found.output_without.equal(h_0.expand(T, -1, -1))


@pytest.mark.parametrize("make", [nn.GRU, nn.RNN, tg.GRU, tg.RNN])
def test_inside_a_model_it_is_the_models_output_in_evaluation_with_dropout_off(make):
    model = Classifier(draw_(make(I, H, 2, dropout=0.5))).double()
    x = random(T, B, I)
    found = tg.counterfactual(model, x, [1, 2])
    model.eval()
    recurrent = (tg.GRU if isinstance(model.recurrent, nn.GRU) else tg.RNN)(I, H, 2).double()
    recurrent.load_state_dict(model.recurrent.state_dict())
    h_n = recurrent(x, pins=tg.Pins(update=0.0, steps=[1, 2]))[1]
    torch.testing.assert_close(found.output, model(x), atol=1e-13, rtol=0)
    torch.testing.assert_close(found.output_without, model.after(h_n[-1]), atol=1e-13, rtol=0)


def test_training_flags_are_put_back_as_they_were_one_by_one():
    model = Classifier(nn.GRU(I, H, 2, dropout=0.5)).train()
    model.dropout.eval()
    tg.counterfactual(model, torch.randn(T, B, I), 1)
    assert model.training
    assert model.recurrent.training
    assert not model.dropout.training
    model.eval()
    tg.counterfactual(model, torch.randn(T, B, I), 1)
    assert not any(module.training for module in model.modules())


def test_training_flags_are_put_back_after_an_error():
    model = Classifier(nn.GRU(I, H)).train()
    with pytest.raises(ValueError, match=r"^pins steps must lie in 0\.\.5; got 9"):
        tg.counterfactual(model, torch.randn(T, B, I), [9])
    assert all(module.training for module in model.modules())


def test_dropout_does_not_pass_for_an_effect_of_the_steps():
    model = Classifier(nn.GRU(I, H, 2, dropout=0.9)).train()
    nothing = torch.zeros(T, dtype=torch.bool)
    assert tg.counterfactual(model, torch.randn(T, B, I), nothing).change.eq(0).all()


def test_a_packed_input_gives_the_packed_data_and_steps_in_the_order_given():
    module, x, lengths = layer("gru", I, H), random(T, B, I), [3, 6, 2]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    found = tg.counterfactual(module, packed, slice(0, 2))
    pins = tg.Pins(update=0.0, steps=slice(0, 2))
    assert found.output.equal(module(packed)[0].data)
    assert found.output_without.equal(module(packed, pins=pins)[0].data)
    memory = tg.trace(module, x, lengths=lengths).memory()
    torch.testing.assert_close(found.share, memory[1:3].sum(0), atol=1e-14, rtol=0)


def test_a_change_is_differentiable():
    module, x = layer("gru", I, H), random(T, B, I).requires_grad_()
    tg.counterfactual(module, x, 2).change.sum().backward()
    assert x.grad is not None
    assert x.grad[2].ne(0).any()


def test_a_step_that_writes_nothing_has_no_share_and_no_effect():
    module, x = layer("gru", I, H), random(T, B, I)
    with torch.no_grad():
        module.weight_ih_l0[H : 2 * H].zero_()
        module.weight_hh_l0[H : 2 * H].zero_()
        module.bias_ih_l0[H : 2 * H].fill_(1000)
    found = tg.counterfactual(module, x, slice(1, 4))
    assert found.share.eq(0).all()
    assert found.change.eq(0).all()


def test_a_model_that_returns_no_tensor_is_refused():
    class Talker(Classifier):
        """A model that returns a word."""

        def forward(self, x):
            super().forward(x)
            return "cat"

    with pytest.raises(TypeError, match=r"^the model must return a tensor, .*; got str$"):
        tg.counterfactual(Talker(nn.GRU(I, H)), torch.randn(T, B, I), 1)


def test_lengths_and_masks_hold_in_both_runs():
    module, x, lengths = layer("gru", I, H), random(T, B, I), [3, 6, 2]
    found = tg.counterfactual(module, x, 1, lengths=lengths)
    assert found.output.equal(module(x, lengths=lengths)[0])
    assert found.output_without.equal(module(x, lengths=lengths, pins=tg.Pins(update=0.0, steps=1))[0])
    keep = torch.rand(T, B) > 0.3
    assert tg.counterfactual(module, x, 1, mask=keep).output.equal(module(x, mask=keep)[0])
