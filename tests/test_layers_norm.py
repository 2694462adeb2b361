"""The layer-normalised GRU: Ba et al.'s equations written out, its parameters, and what goes with it."""
# mypy: allow-untyped-calls

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import tidegate as tg
from tests.refusals import assert_refused
from tidegate.errors import BackendError, InputTypeError, InputValueError

T, B, I, H = 7, 3, 4, 6


def layer(**options: Any) -> Any:
    """A layer whose gains differ from 1 and from each other."""
    torch.manual_seed(2)
    module = tg.GRU(I, H, layer_norm=True, dtype=torch.float64, **options)
    for name, parameter in module.named_parameters():
        if name.startswith("gain"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return module


def sequences() -> torch.Tensor:
    return torch.randn(T, B, I, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_it_is_the_equations_of_the_paper():
    """`h = (1-σ(z))*h + σ(z)*ĥ` with the paper's z, which is `Gu`; torch.nn's rows hold its negative, 1-σ(z)."""
    gru, x = layer(), sequences()
    norms = []
    for ih_or_hh in ("ih", "hh"):
        for block in range(3):
            norm = nn.LayerNorm(H, dtype=torch.float64)
            rows = slice(block * H, (block + 1) * H)
            norm.weight.data = getattr(gru, f"gain_{ih_or_hh}_l0")[rows].detach()
            norm.bias.data = getattr(gru, f"bias_{ih_or_hh}_l0")[rows].detach()
            norms.append(norm)
    h, states = torch.zeros(B, H, dtype=torch.float64), []
    for x_t in x:
        own = [norm(part) for norm, part in zip(norms[:3], (x_t @ gru.weight_ih_l0.T).split(H, -1), strict=True)]
        past = [norm(part) for norm, part in zip(norms[3:], (h @ gru.weight_hh_l0.T).split(H, -1), strict=True)]
        r, keep = torch.sigmoid(own[0] + past[0]), torch.sigmoid(own[1] + past[1])
        new = torch.tanh(own[2] + r * past[2])
        h = keep * h + (1 - keep) * new
        states.append(h)
    torch.testing.assert_close(gru(x)[0], torch.stack(states))


def test_the_scale_of_the_weights_does_not_matter():
    gru, x = layer(), sequences()
    larger = copy.deepcopy(gru)
    with torch.no_grad():
        larger.weight_ih_l0.mul_(1000)
        larger.weight_hh_l0.mul_(1000)
    # 1e-5 beside the variance is what the scale still changes, and at the first step all that there is of the past is 0
    torch.testing.assert_close(
        larger(x, torch.ones(1, B, H).double())[0], gru(x, torch.ones(1, B, H).double())[0], atol=1e-3, rtol=0
    )


def test_its_parameters_have_documented_names_and_start_as_torchs_with_gains_of_1():
    torch.manual_seed(0)
    plain = nn.GRU(I, H, 2, bidirectional=True)
    torch.manual_seed(0)
    gru: Any = tg.GRU(I, H, 2, bidirectional=True, layer_norm=True)
    held = gru.state_dict()
    gains = {name: value for name, value in held.items() if name.startswith("gain")}
    ways = [f"l{depth}{way}" for depth in range(2) for way in ("", "_reverse")]
    assert gains.keys() == {f"gain_{part}_{way}" for part in ("ih", "hh") for way in ways}
    assert all(value.equal(torch.ones(3 * H)) for value in gains.values())
    for name, value in plain.state_dict().items():
        assert held[name].equal(value)
    assert gru.load_state_dict(plain.state_dict(), strict=False).missing_keys == list(gains)
    gru.gain_hh_l0.data.fill_(7)
    gru.reset_parameters()
    assert gru.gain_hh_l0.equal(torch.ones(3 * H))
    assert "layer_norm=True" in repr(gru)
    assert "layer_norm" not in repr(tg.GRU(I, H))


def test_a_stack_a_cell_and_a_stream_are_one():
    gru, x = layer(), sequences()
    cell: Any = tg.GRUCell(I, H, layer_norm=True, dtype=torch.float64)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in gru.state_dict().items()})
    stream, h = tg.Stream(gru), torch.zeros(B, H, dtype=torch.float64)
    for x_t, y_t in zip(x, gru(x)[0], strict=True):
        h = cell(x_t, h)
        torch.testing.assert_close(h, y_t)
        torch.testing.assert_close(stream(x_t), y_t.detach())
    assert "layer_norm=True" in repr(cell)
    cell.reset_parameters()
    assert cell.gain_ih.equal(torch.ones(3 * H, dtype=torch.float64))


@pytest.mark.parametrize("bias", [True, False])
def test_every_gradient_and_its_gradient_is_the_limit_of_differences(bias):
    gru, x = layer(bias=bias), sequences()[:2, :1].requires_grad_()
    h_0 = torch.randn(1, 1, H, dtype=torch.float64, requires_grad=True)
    names, weights = zip(*gru.named_parameters(), strict=True)
    assert len(names) == (6 if bias else 4)

    def check(*leaves):
        return torch.func.functional_call(gru, dict(zip(names, leaves[2:], strict=True)), leaves[:2])

    assert gradcheck(check, (x, h_0, *weights), fast_mode=True)
    assert gradgradcheck(check, (x, h_0, *weights), fast_mode=True)


def test_pins_masks_traces_and_initialisations_go_with_it():
    gru, x = layer(num_layers=2, bidirectional=True), sequences()
    trace = tg.trace(gru, x, pins=tg.Pins(update=0.0, steps=slice(2, 4)), mask=torch.rand(T, B) < 0.7)
    assert not trace.update[2:4].any()
    torch.testing.assert_close(trace.memory().sum(0), torch.ones(B, H, dtype=torch.float64))
    assert tg.gradient_flow(gru, x).norm.isfinite().all()
    tg.init.orthogonal_(tg.init.chrono_(gru, 50))
    assert all(parameter.isfinite().all() for parameter in gru.parameters())


def test_the_kernels_say_that_they_do_not_have_it():
    gru, x = tg.GRU(I, H, layer_norm=True), sequences().float()
    told = tg.explain(gru, x)
    assert told.startswith('layer 0: reference (not cpu: its kernels do not have the system "gru-layer-norm"; ')
    with pytest.raises(BackendError, match=r'^backend "cpu" cannot run this layer: its kernels do not have the system'):
        tg.GRU(I, H, layer_norm=True, backend="cpu")(x)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("make", [tg.GRU, tg.GRUCell])
def test_what_does_not_go_with_it_is_refused(make):
    for reset in ("before", None):
        sentence = rf'^layer_norm must be False unless reset is "after"; got True with reset={reset!r}$'
        assert_refused(partial(make, I, H, reset=reset, layer_norm=True), InputValueError, sentence)
    assert_refused(lambda: make(I, H, layer_norm=1), InputTypeError, r"^layer_norm must be a bool; got int$")
