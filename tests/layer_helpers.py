"""What the tests of layers and gates share: twins with the same weights, every gradient, loops written by hand."""
# mypy: allow-untyped-calls

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import tidegate as tg
from tidegate import conventions, equations
from tidegate.conventions import PackedWeights
from tidegate.equations import Activation

Kinds = dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, str]]]

KINDS: Kinds = {
    "gru": (nn.GRU, tg.GRU, {}),
    "rnn-tanh": (nn.RNN, tg.RNN, {"nonlinearity": "tanh"}),
    "rnn-relu": (nn.RNN, tg.RNN, {"nonlinearity": "relu"}),
}
CELLS: Kinds = {
    "gru": (nn.GRUCell, tg.GRUCell, {}),
    "rnn-tanh": (nn.RNNCell, tg.RNNCell, {"nonlinearity": "tanh"}),
    "rnn-relu": (nn.RNNCell, tg.RNNCell, {"nonlinearity": "relu"}),
}
#: Every system as a layer: what a test of all of them is parametrised over.
SYSTEMS: dict[str, Callable[..., Any]] = {
    "gru": tg.GRU,
    "gru-reset-before": lambda *sizes, **options: tg.GRU(*sizes, reset="before", **options),
    "update-only": lambda *sizes, **options: tg.GRU(*sizes, reset=None, **options),
    "rnn": tg.RNN,
}
EQUATIONS = {
    "gru": (equations.gru, conventions.TORCH_GRU),
    "gru-reset-before": (equations.gru_reset_before, conventions.TORCH_GRU),
    "update-only": (equations.update_only, conventions.TORCH_UPDATE_ONLY),
    "rnn": (equations.rnn, conventions.TORCH_RNN),
    "dense": (equations.dense, conventions.TORCH_DENSE),
}


def draw_(module: nn.Module, scale: float = 0.5) -> Any:
    """Draw every parameter anew, large enough that gates open and close."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, scale)
    return module


def layer(system: str, *sizes: int, **options: Any) -> Any:
    """A float64 layer of a system, with drawn weights."""
    return draw_(SYSTEMS[system](*sizes, dtype=torch.float64, **options))


def twins(kinds: Kinds, kind: str, *sizes: int, scale: float | None = None, **options: Any) -> tuple[Any, Any]:
    """torch.nn's module and Tidegate's, with the same weights."""
    theirs_class, ours_class, fixed = kinds[kind]
    theirs, ours = theirs_class(*sizes, **fixed, **options), ours_class(*sizes, **fixed, **options)
    if scale is not None:
        draw_(theirs, scale)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def everything(
    module: nn.Module,
    input: Tensor,
    hx: Tensor | None = None,
    pack: Callable[[Tensor], PackedSequence] | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Output, final state and every gradient of a fixed weighted sum of both; `pack` is applied to `input` inside."""
    x = input.detach().clone().requires_grad_()
    h_0 = None if hx is None else hx.detach().clone().requires_grad_()
    module.zero_grad()
    result = module(x if pack is None else pack(x), h_0, **given)
    output, h_n = result if isinstance(result, tuple) else (result, result)
    data = output.data if isinstance(output, PackedSequence) else output
    weights = torch.Generator().manual_seed(1)
    loss = sum((torch.randn(t.shape, generator=weights, dtype=t.dtype) * t).sum() for t in (data, h_n))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    found = {"output": data.detach(), "h_n": h_n.detach(), "d_input": x.grad}
    if h_0 is not None:
        found["d_hx"] = h_0.grad
    return found | {f"d_{name}": gradient(parameter) for name, parameter in module.named_parameters()}


def gradient(parameter: Tensor) -> Tensor:
    """A copy of the gradient, which must be there."""
    assert parameter.grad is not None
    return parameter.grad.clone()


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    """All of `everything`, within an absolute and relative tolerance."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():

        def naming(text: str, name: str = name) -> str:
            return f"{name}: {text}"

        torch.testing.assert_close(ours[name], expected, atol=tolerance, rtol=tolerance, msg=naming)


def directions(module: nn.Module) -> list[list[str]]:
    """The suffixes of the weights' names, per layer: forward, and backward where there is one."""
    ways = ["", "_reverse"] if getattr(module, "bidirectional", False) else [""]
    return [[f"_l{depth}{way}" for way in ways] for depth in range(getattr(module, "num_layers", 1))]


def torch_gates(module: Any, x: Tensor, h_0: Tensor | None = None) -> list[list[list[Tensor]]]:
    """What torch.nn's GRU or RNN does, written by hand from its weights: (1-z, r, n, h), per layer and direction.

    Everything is time-major; the backward direction's lists are in the order of the input.
    """
    gated = isinstance(module, nn.GRU)
    states = iter(torch.zeros(99, x.shape[1], module.hidden_size, dtype=x.dtype) if h_0 is None else h_0)
    layers = []
    for suffixes in directions(module):
        done = []
        for way, suffix in enumerate(suffixes):
            w_ih, w_hh = (getattr(module, f"{kind}{suffix}") for kind in ("weight_ih", "weight_hh"))
            b_ih, b_hh = (getattr(module, f"{kind}{suffix}", None) for kind in ("bias_ih", "bias_hh"))
            h, rows = next(states), []
            for x_t in x.flip(0) if way else x:
                from_x, from_h = F.linear(x_t, w_ih, b_ih), F.linear(h, w_hh, b_hh)
                if gated:
                    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3, -1), from_h.chunk(3, -1)
                    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
                    n = torch.tanh(n_x + r * n_h)
                    h = (1 - z) * n + z * h
                    rows.append((1 - z, r, n, h))
                else:
                    h = getattr(torch, module.nonlinearity)(from_x + from_h)
                    rows.append((torch.ones_like(h), torch.ones_like(h), h, h))
            stacked = [torch.stack(parts) for parts in zip(*rows, strict=True)]
            done.append([part.flip(0) for part in stacked] if way else stacked)
        x = torch.cat([parts[3] for parts in done], -1)
        layers.append(done)
    return layers


def loop(
    system: str,
    module: Any,
    x: Tensor,
    h_0: Tensor | None = None,
    activation: Activation = torch.tanh,
    suffix: str = "_l0",
) -> list[Tensor]:
    """A plain loop over `equations.py` with one layer's weights: (update, reset, candidate, hidden), each (T, B, H)."""
    equation, convention = EQUATIONS[system]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    packed = PackedWeights(*(getattr(module, f"{name}{suffix}", None) for name in names))  # type: ignore[arg-type]
    weights = conventions.unpack(convention, packed)
    h = x.new_zeros(x.shape[1], module.hidden_size) if h_0 is None else h_0
    steps = []
    for x_t in x:
        steps.append(equation(x_t, h, weights, activation))
        h = steps[-1].hidden
    return [torch.stack(parts) for parts in zip(*steps, strict=True)]
