"""Lengths and masks: each sequence is run as if it were alone and whole; what is masked is never looked at."""
# mypy: allow-untyped-calls

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import tidegate as tg
from tests.layer_helpers import CELLS, KINDS, SYSTEMS, assert_same, draw_, everything, layer, twins

T, B, I, H = 6, 4, 3, 5
LENGTHS = [4, 6, 0, 1]


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=1e-13)


# Lengths.


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("kind", KINDS)
def test_lengths_give_what_torch_gives_for_a_packed_sequence_and_every_gradient(kind, bidirectional):
    theirs, ours = twins(KINDS, kind, I, H, 2, scale=0.4, bidirectional=bidirectional, dtype=torch.float64)
    x, h_0, lengths = random(T, 3, I), random(2 * (1 + bidirectional), 3, H), [4, 6, 1]

    class Packed(torch.nn.Module):
        """torch.nn's layer between packing and padding."""

        named_parameters = theirs.named_parameters

        def forward(self, padded, hx):
            output, h_n = theirs(pack_padded_sequence(padded, lengths, enforce_sorted=False), hx)
            return pad_packed_sequence(output)[0], h_n

    expected = everything(Packed(), x, h_0)
    assert_same(everything(ours, x, h_0, lengths=lengths), expected, 1e-12)
    assert_same(everything(ours, x, h_0, lengths=torch.tensor(lengths)), expected, 1e-12)
    assert_same(everything(ours, x, h_0, lengths=torch.tensor(lengths, dtype=torch.int32)), expected, 1e-12)
    assert_same(everything(ours, x, h_0, lengths=iter(lengths)), expected, 1e-12)


@settings(max_examples=settings().max_examples // 4)  # each example is many runs
@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    spare=st.integers(0, 2),
    depth=st.integers(1, 2),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    system=st.sampled_from(list(SYSTEMS)),
)
def test_every_padded_sequence_is_run_as_if_alone(lengths, spare, depth, bidirectional, batch_first, system):
    module = layer(system, I, H, depth, bidirectional=bidirectional, batch_first=batch_first)
    steps = max([1, *lengths]) + spare
    x, h_0 = random(steps, len(lengths), I), random(depth * (1 + bidirectional), len(lengths), H)
    for b, length in enumerate(lengths):
        x[length:, b] = torch.nan
    y, h_n = module(x.transpose(0, 1) if batch_first else x, h_0, lengths=lengths)
    y = y.transpose(0, 1) if batch_first else y
    for b, length in enumerate(lengths):
        assert y[length:, b].eq(0).all(), "the output after a sequence's end is not zero"
        if length:
            alone, final = module(x[:length, b], h_0[:, b])
            close(y[:length, b], alone)
            close(h_n[:, b], final)
        else:
            assert h_n[:, b].equal(h_0[:, b]), "a sequence without steps did not keep its initial state to the bit"


@pytest.mark.parametrize("system", SYSTEMS)
def test_full_lengths_change_nothing(system):
    module, x = layer(system, I, H, 2, bidirectional=True), random(T, B, I)
    for found, expected in zip(module(x, lengths=[T] * B), module(x), strict=True):
        assert found.equal(expected)


def test_lengths_of_an_unbatched_input_are_one_number():
    module, x = layer("gru", I, H, bidirectional=True), random(T, I)
    y, h_n = module(x, lengths=[4])
    alone, final = module(x[:4])
    close(y[:4], alone)
    close(h_n, final)
    assert y[4:].eq(0).all()


def test_lengths_of_a_learned_state_and_no_steps_give_the_learned_state():
    module = draw_(tg.GRU(I, H, 2, bidirectional=True, learn_h_0=True))
    h_n = module(torch.randn(T, 2, I), lengths=[0, 3])[1]
    assert h_n[:, 0].equal(module.h_0)


# Masks.


@settings(max_examples=settings().max_examples // 4)  # each example is many runs
@given(
    keep=st.lists(st.lists(st.booleans(), min_size=T, max_size=T), min_size=1, max_size=4),
    depth=st.integers(1, 3),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    system=st.sampled_from(list(SYSTEMS)),
)
def test_a_masked_sequence_is_the_shorter_sequence_whatever_the_mask_hides(
    keep, depth, bidirectional, batch_first, system
):
    module = layer(system, I, H, depth, bidirectional=bidirectional, batch_first=batch_first)
    mask = torch.tensor(keep)
    x, h_0 = random(len(keep), T, I), random(depth * (1 + bidirectional), len(keep), H)
    x[~mask] = torch.nan
    y, h_n = module(*((x, h_0) if batch_first else (x.transpose(0, 1), h_0)), mask=mask if batch_first else mask.T)
    y = y if batch_first else y.transpose(0, 1)
    assert y.isfinite().all()
    for b, row in enumerate(mask):
        if row.any():
            alone, final = module(x[b][row], h_0[:, b])
            close(y[b][row], alone)
            close(h_n[:, b], final)
        else:
            assert h_n[:, b].equal(h_0[:, b])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_gradients_under_a_mask_are_the_shorter_sequences_and_zero_where_it_hides_nan(system, bidirectional):
    module = layer(system, I, H, 2, bidirectional=bidirectional)
    mask = torch.tensor([True, False, False, True, True, False])
    x, h_0 = random(T, 1, I), random(2 * (1 + bidirectional), 1, H)
    x[~mask] = torch.nan

    def run(input, hx, mask):
        input, hx = input.clone().requires_grad_(), hx.clone().requires_grad_()
        module.zero_grad()
        y, h_n = module(input, hx, mask=mask)
        kept = y if mask is None else y[mask.squeeze(1)]
        (kept.square().sum() + h_n.sin().sum()).backward()
        return input.grad, hx.grad, [parameter.grad.clone() for parameter in module.parameters()]

    d_x, d_h_0, d_weights = run(x, h_0, mask.unsqueeze(1))
    short_x, short_h_0, short_weights = run(x[mask], h_0, None)
    assert d_x[~mask].eq(0).all()
    close(d_x[mask], short_x)
    close(d_h_0, short_h_0)
    close(d_weights, short_weights)


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_unbatched_mask_is_a_row_of_bools(system):
    module = layer(system, I, H, 2, bidirectional=True)
    x, mask = random(T, I), torch.tensor([True, True, False, True, False, True])
    x[~mask] = torch.nan
    y, h_n = module(x, mask=mask)
    alone, final = module(x[mask])
    close(y[mask], alone)
    close(h_n, final)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_masked_step_repeats_the_state_to_the_bit(system):
    module = layer(system, I, H)
    x, h_0, mask = random(T, B, I), random(1, B, H), torch.ones(T, B, dtype=torch.bool)
    mask[0, 1], mask[3, 2], mask[4, 2] = False, False, False
    y, _ = module(x, h_0, mask=mask)
    assert y[0, 1].equal(h_0[0, 1])
    assert y[3, 2].equal(y[2, 2])
    assert y[4, 2].equal(y[2, 2])
    assert not y[3, 1].equal(y[2, 1])


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_mask_that_keeps_all_changes_nothing(system):
    module, x = layer(system, I, H, 2, bidirectional=True), random(T, B, I)
    mask = torch.ones(T, B, dtype=torch.bool)
    for found, expected in zip(module(x, mask=mask), module(x), strict=True):
        assert found.equal(expected)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_mask_and_lengths_together_hold_where_either_does(system):
    module = layer(system, I, H, 2, bidirectional=True)
    x, h_0 = random(T, B, I), random(4, B, H)
    mask = torch.rand(T, B) > 0.4
    inside = torch.arange(T).unsqueeze(1) < torch.tensor(LENGTHS)
    both_y, both_h_n = module(x, h_0, mask=mask, lengths=LENGTHS)
    y, h_n = module(x, h_0, mask=mask & inside)
    assert both_h_n.equal(h_n)
    assert both_y[inside].equal(y[inside])
    assert both_y[~inside].eq(0).all()


def test_a_mask_on_a_packed_sequence_is_time_major_in_the_order_given():
    module = layer("gru", I, H, bidirectional=True)
    x, lengths, mask = random(T, 3, I), [2, 6, 4], torch.rand(T, 3) > 0.4
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, h_n = module(packed, mask=mask)
    expected, final = module(x, mask=mask, lengths=lengths)
    close(pad_packed_sequence(y)[0], expected)
    close(h_n, final)


def test_dropout_between_layers_keeps_masked_steps_held():
    module = layer("gru", I, H, 2, dropout=0.5)
    x, mask = random(T, B, I), torch.ones(T, B, dtype=torch.bool)
    mask[2:] = False
    x[2:] = torch.nan
    y, h_n = module(x, mask=mask)
    assert y.isfinite().all()
    assert y[5].equal(y[1])
    assert h_n[1].equal(y[1])


# Cells.


@pytest.mark.parametrize("kind", CELLS)
def test_a_cells_mask_holds_the_state_of_the_sequences_it_hides(kind):
    _, cell = twins(CELLS, kind, I, H, dtype=torch.float64)
    x, h_prev, mask = random(B, I), random(B, H), torch.tensor([True, False, True, False])
    free = cell(x, h_prev)
    x[~mask] = torch.nan
    x.requires_grad_()
    h = cell(x, h_prev, mask=mask)
    assert h[~mask].equal(h_prev[~mask])
    assert h[mask].equal(free[mask])
    h.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[~mask].eq(0).all()


@pytest.mark.parametrize("kind", CELLS)
def test_an_unbatched_cells_mask_is_one_bool(kind):
    _, cell = twins(CELLS, kind, I, H, dtype=torch.float64)
    x, h_prev = random(I), random(H)
    assert cell(x, h_prev, mask=torch.tensor(False)).equal(h_prev)
    assert cell(x, h_prev, mask=torch.tensor(True)).equal(cell(x, h_prev))
