"""reset_at in layers: as if the sequence were cut there, in every form of input, both ways, beside all the rest."""
# mypy: allow-untyped-calls

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence

import tidegate as tg
from tests.refusals import assert_refused
from tidegate.errors import InputTypeError, InputValueError

T, B, I, H = 9, 3, 4, 5


def stack(**options: Any) -> Any:
    torch.manual_seed(2)
    return tg.GRU(I, H, 2, bidirectional=True, dtype=torch.float64, **options)


def sequences() -> torch.Tensor:
    return torch.randn(T, B, I, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def resets(share: float = 0.3) -> torch.Tensor:
    return torch.rand(T, B, generator=torch.Generator().manual_seed(4)) < share


def in_pieces(module, x, reset_at, h_0=None):
    """Every row cut where it is reset, every piece run alone; the output, and the last piece's forward final states."""
    rows = []
    for row in range(x.shape[1]):
        cuts = [0, *(t for t in range(1, len(x)) if reset_at[t, row]), len(x)]
        own = None if h_0 is None else h_0[:, row : row + 1]
        parts = [module(x[a:b, row : row + 1], own)[0] for a, b in pairwise(cuts)]
        rows.append(torch.cat(parts))
    return torch.cat(rows, 1)


@pytest.mark.parametrize("make", [tg.GRU, tg.RNN, tg.Dense])
def test_one_layer_is_its_pieces(make):
    module, x, reset_at = make(I, H), sequences().float(), resets()
    y, h_n = module(x, reset_at=reset_at)
    torch.testing.assert_close(y, in_pieces(module, x, reset_at))
    torch.testing.assert_close(h_n[0], y[-1])


def test_a_stack_that_runs_both_ways_is_its_pieces_with_every_gradient():
    """No step of any layer or direction sees past a cut."""
    module, x, reset_at = stack(), sequences().requires_grad_(), resets()
    h_0 = torch.randn(4, B, H, dtype=torch.float64, requires_grad=True)
    leaves = [x, h_0, *module.parameters()]
    y, expected = module(x, h_0, reset_at=reset_at)[0], in_pieces(module, x, reset_at, h_0)
    torch.testing.assert_close(y, expected)
    got, right = (torch.autograd.grad(one.square().sum(), leaves) for one in (y, expected))
    torch.testing.assert_close(got, right)


def test_the_final_states_are_the_last_pieces_one_and_backwards_the_first_pieces_one():
    module, x, reset_at = stack(), sequences(), torch.zeros(T, B, dtype=torch.bool)
    reset_at[4] = True
    _, h_n = module(x, reset_at=reset_at)
    first, last = module(x[:4])[1], module(x[4:])[1]
    torch.testing.assert_close(h_n, torch.stack([last[0], first[1], last[2], first[3]]))


def test_every_form_of_input_is_the_same():
    module, x, reset_at = stack(), sequences(), resets()
    y, h_n = module(x, reset_at=reset_at)
    module.batch_first = True
    by_batch, _ = module(x.transpose(0, 1), reset_at=reset_at.transpose(0, 1))
    torch.testing.assert_close(by_batch.transpose(0, 1), y)
    alone, alone_h_n = module(x[:, 1], reset_at=reset_at[:, 1])
    torch.testing.assert_close(alone, y[:, 1])
    torch.testing.assert_close(alone_h_n, h_n[:, 1])


def test_behind_its_end_a_sequence_is_not_reset():
    module, x, lengths = stack(), sequences(), torch.tensor([9, 6, 2])
    reset_at = resets()
    reset_at[7:] = True
    y, h_n = module(x, lengths=lengths, reset_at=reset_at)
    _, packed_h_n = module(pack_padded_sequence(x, lengths), reset_at=reset_at)
    torch.testing.assert_close(packed_h_n, h_n)
    for row, length in enumerate(lengths):
        alone, alone_h_n = module(x[:length, row], reset_at=reset_at[:length, row])
        torch.testing.assert_close(y[:length, row], alone)
        torch.testing.assert_close(h_n[:, row], alone_h_n)


def test_a_masked_step_that_begins_a_piece_holds_the_initial_state():
    module, x, reset_at = tg.GRU(I, H), torch.randn(T, B, I), torch.zeros(T, B, dtype=torch.bool)
    h_0, mask = torch.randn(1, B, H), torch.ones(T, B, dtype=torch.bool)
    reset_at[4], mask[4] = True, False
    y, _ = module(x, h_0, reset_at=reset_at, mask=mask)
    assert y[4].equal(h_0[0])


def test_a_learned_initial_state_gets_the_gradient_of_every_piece():
    module: Any = tg.GRU(I, H, learn_h_0=True, dtype=torch.float64)
    x = sequences()
    torch.nn.init.normal_(module.h_0)
    reset_at = torch.zeros(T, B, dtype=torch.bool)
    reset_at[[3, 7]] = True
    (got,) = torch.autograd.grad(module(x, reset_at=reset_at)[0].sum(), module.h_0)
    parts = [torch.autograd.grad(module(part)[0].sum(), module.h_0)[0] for part in (x[:3], x[3:7], x[7:])]
    torch.testing.assert_close(got, sum(parts))


def test_a_learned_initial_state_is_where_every_sequence_begins():
    module, x = stack(learn_h_0=True), sequences()
    torch.nn.init.normal_(module.h_0)
    y, h_n = module(x)
    given = module.h_0.unsqueeze(1).expand(-1, B, -1)
    torch.testing.assert_close((y, h_n), module(x, given))
    (got,) = torch.autograd.grad(y.sum(), module.h_0)
    h_0 = given.detach().requires_grad_()
    torch.testing.assert_close(got, torch.autograd.grad(module(x, h_0)[0].sum(), h_0)[0].sum(1))


def test_traces_flows_and_counterfactuals_know_the_cuts():
    module, x, reset_at = stack(), sequences(), torch.zeros(T, B, dtype=torch.bool)
    reset_at[5] = True
    trace = tg.trace(module, x, reset_at=reset_at)
    alone = tg.trace(module, x[5:])
    torch.testing.assert_close(trace.update[5:], alone.update)
    assert not trace.memory(-1)[1:6].any()
    torch.testing.assert_close(trace.memory(-1)[6:], alone.memory(-1)[1:])
    torch.testing.assert_close(trace.memory(-1)[0], alone.memory(-1)[0])
    torch.testing.assert_close(
        trace.memory(2), tg.trace(module, x[:5]).memory(2)[[0, 1, 2, 3, 4, 5, 0, 0, 0, 0]] * _seen(2)
    )
    backward, first = trace.layers[0].reverse, tg.trace(module, x[:5]).layers[0].reverse
    assert backward is not None
    assert first is not None
    torch.testing.assert_close(backward.memory(0)[:6], first.memory(0))
    assert not backward.memory(0)[6:].any()
    one_way = tg.GRU(I, H, dtype=torch.float64)
    flow, of_piece = tg.gradient_flow(one_way, x, reset_at=reset_at), tg.gradient_flow(one_way, x[5:])
    assert not flow.norm[:6].any()
    torch.testing.assert_close(flow.log_norm[6:], of_piece.log_norm[1:])
    effect = tg.counterfactual(one_way, x, slice(0, 5), reset_at=reset_at)
    assert not effect.share.any()
    assert not effect.change[5:].any()
    assert effect.change[:5].any()


def _seen(t: int) -> torch.Tensor:
    """1 for the rows of a memory map that the state at `t` can hold."""
    return (torch.arange(T + 1) <= t + 1).double()[:, None, None]


@given(seed=st.integers(0, 2**16), share=st.floats(0, 1), steps=st.integers(1, 9), batch=st.integers(1, 4))
def test_any_resets_give_pieces(seed, share, steps, batch):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, batch, I, generator=generator)
    reset_at = torch.rand(steps, batch, generator=generator) < share
    module = tg.GRU(I, H, bidirectional=True)
    torch.testing.assert_close(module(x, reset_at=reset_at)[0], in_pieces(module, x, reset_at))


def test_explain_says_that_the_kernels_run_it():
    told = tg.explain(tg.GRU(I, H), torch.randn(T, B, I), reset_at=resets())
    assert told.startswith("layer 0: cpu (cpu is the fastest")


REFUSED: dict[str, tuple[type[Exception], str, Any]] = {
    "ints": (
        InputTypeError,
        r"^reset_at must be a bool tensor, True where .* begins anew; got torch\.int64$",
        resets().long(),
    ),
    "list": (InputTypeError, r"^reset_at must be a bool tensor, .*; got list$", resets().tolist()),
    "shape": (InputValueError, r"^reset_at must be \(T, B\) = \(9, 3\); got \(3, 9\)$", resets().T),
    "one-for-all": (InputValueError, r"^reset_at must be \(T, B\) = \(9, 3\); got \(9,\)$", resets()[:, 0]),
    "device": (InputTypeError, r"^reset_at must be on the device of the input, cpu; got meta$", resets().to("meta")),
}


@pytest.mark.parametrize("which", REFUSED)
@pytest.mark.usefixtures("as_users_run_it")
def test_what_says_no_resets_is_refused(which):
    error, sentence, reset_at = REFUSED[which]
    x = torch.randn(T, B, I)
    assert_refused(lambda: tg.GRU(I, H)(x, reset_at=reset_at), error, sentence)
    if which != "one-for-all":
        packed = pack_padded_sequence(x, torch.tensor([9, 9, 9]))
        assert_refused(lambda: tg.GRU(I, H)(packed, reset_at=reset_at), error, sentence)
    weights = [weight.detach() for weight in tg.GRU(I, H).parameters()]
    assert_refused(lambda: tg.ops.gru(x, torch.zeros(B, H), *weights, reset_at=reset_at), error, sentence)


def test_a_batch_first_layer_names_its_axes():
    with pytest.raises(InputValueError, match=r"^reset_at must be \(B, T\) = \(3, 9\); got \(9, 3\)$"):
        tg.GRU(I, H, batch_first=True)(torch.randn(B, T, I), reset_at=resets())
