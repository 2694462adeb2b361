"""Sequences of more than 65,535 steps: where a 16-bit count of steps would have come round, nothing happens."""
# mypy: allow-untyped-calls

import pytest
import torch

import tidegate as tg

T, B, I, H = 70_000, 2, 2, 4
BEYOND = 65_536


def both() -> tuple[torch.nn.GRU, tg.GRU, torch.Tensor]:
    torch.manual_seed(0)
    theirs = torch.nn.GRU(I, H)
    ours = tg.GRU(I, H, backend="cpu")
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, torch.randn(T, B, I)


def test_states_are_torchs_and_the_sequence_is_its_halves():
    theirs, ours, x = both()
    with torch.no_grad():
        y, h_n = ours(x)
        torch.testing.assert_close(y, theirs(x)[0], rtol=1e-4, atol=1e-5)
        first, middle = ours(x[:BEYOND])
        second, last = ours(x[BEYOND:], middle)
        assert y.equal(torch.cat([first, second]))
        assert h_n.equal(last)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recompute"])
def test_gradients_reach_over_the_whole_length(recompute):
    """From the last state to the first: with gates nearly shut, all of a(0) is still there."""
    _, ours, x = both()
    ours.recompute = recompute
    tg.init.update_bias_(ours, -16.0)
    h_0 = torch.randn(1, B, H, requires_grad=True)
    x.requires_grad_()
    _, h_n = ours(x, h_0)
    d_x, d_h_0 = torch.autograd.grad(h_n.sum(), [x, h_0])
    assert d_x[0].any()
    assert d_x[BEYOND - 1 :].abs().sum(-1).all()
    with torch.no_grad():  # the same by hand, step by step: of each unit, the product of what its gates keep
        kept = (1 - tg.trace(ours, x.detach(), h_0.detach()).update.double()).prod(0)
    torch.testing.assert_close(d_h_0[0].double(), kept, rtol=0.05, atol=0)


def test_the_gradients_of_the_weights_are_the_sum_over_the_pieces():
    """Resets on both sides of the 65,536th step, so that the pieces are short and float32 tells."""
    _, ours, x = both()
    reset_at = torch.zeros(T, B, dtype=torch.bool)
    reset_at[::1000] = True
    weights = list(ours.parameters())
    got = torch.autograd.grad(ours(x, reset_at=reset_at)[0].square().mean(), weights)
    pieces = x.reshape(T // 1000, 1000, B, I).transpose(1, 2).flatten(0, 1).transpose(0, 1)
    expected = torch.autograd.grad(ours(pieces)[0].square().mean(), weights)
    torch.testing.assert_close(got, expected)


def test_masks_pins_lengths_and_resets_count_so_far():
    _, ours, x = both()
    length = BEYOND + 1000
    with torch.no_grad():
        plain = ours(x)[0]
        y, h_n = ours(x, lengths=[length, T])
        assert h_n[0, 0].equal(plain[length - 1, 0])
        assert not y[length:, 0].any()
        y, _ = ours(x, pins=tg.Pins(update=0.0, steps=slice(length, length + 10)))
        assert y[length + 9].equal(plain[length - 1])
        assert not y[length + 10].equal(plain[length - 1])
        reset_at = torch.zeros(T, B, dtype=torch.bool)
        reset_at[length, 0] = True
        y, _ = ours(x, reset_at=reset_at)
        assert y[:, 1].equal(plain[:, 1])
        assert y[:length, 0].equal(plain[:length, 0])
        assert y[length:, 0].equal(ours(x[length:, :1])[0][:, 0])
        backward = tg.GRU(I, H, bidirectional=True, backend="cpu")
        backward.load_state_dict(
            {f"{name}{way}": value for way in ("", "_reverse") for name, value in ours.state_dict().items()}
        )
        assert backward(x)[0][..., H:].flip(0).equal(ours(x.flip(0))[0])
