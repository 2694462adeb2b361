"""The equations of gated recurrence as plain PyTorch, one function per system: the specification of everything else.

Every function here is short enough to read aloud, works for any floating dtype on any device, and is
differentiable as often as you like. Kernels are tested against this file; where the two differ, the kernel is wrong.

    dense layer        a(t) = g(Wax·x(t) + ba)
    RNN                a(t) = g(Wax·x(t) + Waa·a(t-1) + ba)
    update-only GRU    ã(t) = g(Wax·x(t) + Waa·a(t-1) + ba)         a(t) = Gu*ã(t) + (1-Gu)*a(t-1)
    GRU, reset after   ã(t) = g(Wax·x(t) + Gr*(Waa·a(t-1)) + ba)    a(t) = Gu*ã(t) + (1-Gu)*a(t-1)
    GRU, reset before  ã(t) = g(Wax·x(t) + Waa·(Gr*a(t-1)) + ba)    a(t) = Gu*ã(t) + (1-Gu)*a(t-1)

with the update gate Gu = σ(Wxu·x(t) + Wau·a(t-1) + bu), where 1 writes and 0 holds (Chung et al. 2014), and the
reset gate, which the notes call relevance gate, Gr = σ(Wxr·x(t) + War·a(t-1) + br), where 1 uses the past.
Reset before is Cho et al. 2014.

    layer-normalised GRU (Ba et al. 2016), with N(v) = gain*(v - mean(v))/sqrt(variance(v) + 1e-5) over the H units
        Gu = σ(N(Wxu·x(t)) + N(Wau·a(t-1)) + bu)    Gr = σ(N(Wxr·x(t)) + N(War·a(t-1)) + br)
        ã(t) = g(N(Wax·x(t)) + Gr*N(Waa·a(t-1)) + ba)    a(t) = Gu*ã(t) + (1-Gu)*a(t-1)

What is left out of a step at random (`Dropped`) stands in the same equations, of every system:

    recurrent dropout   m*a(t-1) for a(t-1) in every product, m in {0, 1/(1-p)} (Gal & Ghahramani 2016)
    of the candidate    a(t) = Gu*m(t)*ã(t) + (1-Gu)*a(t-1)                     (Semeniuta et al. 2016)
    zoneout             a(t) = z(t)*a(t-1) + (1-z(t))*(Gu*ã(t) + (1-Gu)*a(t-1)), z in {0, 1} (Krueger et al. 2017)
                        which is Gu = 0 where z = 1; in evaluation z is its mean p, which is (1-p)*Gu for Gu

All functions take one step: `x` is (*B, I), `h_prev` is (*B, H), and so are the gates and the state they return.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from tidegate.errors import InputValueError

__all__ = [
    "ACTIVATIONS",
    "FREE",
    "KEPT",
    "Activation",
    "Affine",
    "Dropped",
    "Pinned",
    "Step",
    "Weights",
    "blend",
    "dense",
    "force",
    "gru",
    "gru_layer_norm",
    "gru_reset_before",
    "rnn",
    "update_only",
]

Activation = Callable[[Tensor], Tensor]

#: The activations `g` that have a name, so that a configuration file can hold them.
ACTIVATIONS: dict[str, Activation] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": torch.clone,
}


class Affine(NamedTuple):
    """The weights behind one gate, or behind the candidate: what it takes from the input and what from the past.

    `bias_ih` is the notes' only bias; `bias_hh` belongs to the product with the past, as PyTorch stores it. With a
    gain, a product is layer-normalised before its bias is added: `N(W·x) + b` for `W·x + b`.
    """

    weight_ih: Float[Tensor, "H I"]
    weight_hh: Float[Tensor, "H H"] | None = None
    bias_ih: Float[Tensor, "H"] | None = None
    bias_hh: Float[Tensor, "H"] | None = None
    gain_ih: Float[Tensor, "H"] | None = None
    gain_hh: Float[Tensor, "H"] | None = None

    def from_input(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B H"]:
        """`W·x + b`."""
        return _product(x, self.weight_ih, self.bias_ih, self.gain_ih)

    def from_past(self, h_prev: Float[Tensor, "*B H"]) -> Float[Tensor, "*B H"]:
        """`W·a(t-1)`, and PyTorch's second bias where there is one; zeros for a layer without a past."""
        if self.weight_hh is None:
            return torch.zeros_like(h_prev)
        return _product(h_prev, self.weight_hh, self.bias_hh, self.gain_hh)


class Weights(NamedTuple):
    """The weights of one layer in the equations' own terms; a system without a gate has None for it."""

    candidate: Affine
    update: Affine | None = None
    reset: Affine | None = None


class Pinned(NamedTuple):
    """Gate values forced at one step, each broadcastable to (*B, H): NaN leaves a gate free, None all of them."""

    update: Float[Tensor, "..."] | None = None
    reset: Float[Tensor, "..."] | None = None


FREE = Pinned()


class Dropped(NamedTuple):
    """What one step leaves out, as factors; None leaves nothing out. 0 drops, 1/(1-p) makes up for what is dropped."""

    #: On `a(t-1)` wherever it enters a product, the same at every step: recurrent (variational) dropout.
    state: Float[Tensor, "..."] | None = None
    #: On `ã(t)`, before it is blended in.
    candidate: Float[Tensor, "..."] | None = None
    #: On `Gu`: 1-p in evaluation, after training with zoneout at p. (In training, units are pinned to `Gu=0`.)
    write: float | None = None


KEPT = Dropped()


class Step(NamedTuple):
    """What one step computes: `Gu`, `Gr`, `ã(t)` and `a(t)`, each (*B, H)."""

    update: Float[Tensor, "*B H"]
    reset: Float[Tensor, "*B H"]
    candidate: Float[Tensor, "*B H"]
    hidden: Float[Tensor, "*B H"]


def dense(
    x: Float[Tensor, "*B I"],
    h_prev: Float[Tensor, "*B H"],
    weights: Weights,
    activation: Activation = torch.tanh,
    pinned: Pinned = FREE,
    dropped: Dropped = KEPT,
) -> Step:
    """A dense layer, `a(t) = g(Wax·x(t) + ba)`: always writes (`Gu=1`), never looks back (`Gr=0`)."""
    update = force(_times(torch.ones_like(h_prev), dropped.write), pinned.update)
    reset = torch.zeros_like(h_prev)
    candidate = _times(activation(weights.candidate.from_input(x)), dropped.candidate)
    return Step(update, reset, candidate, blend(update, candidate, h_prev))


def rnn(
    x: Float[Tensor, "*B I"],
    h_prev: Float[Tensor, "*B H"],
    weights: Weights,
    activation: Activation = torch.tanh,
    pinned: Pinned = FREE,
    dropped: Dropped = KEPT,
) -> Step:
    """An RNN, `a(t) = g(Wax·x(t) + Waa·a(t-1) + ba)`: always writes (`Gu=1`), always looks back (`Gr=1`)."""
    past = _times(h_prev, dropped.state)
    update = force(_times(torch.ones_like(h_prev), dropped.write), pinned.update)
    reset = force(torch.ones_like(h_prev), pinned.reset)
    candidate = activation(_add_past(weights.candidate.from_input(x), reset, weights.candidate.from_past(past)))
    candidate = _times(candidate, dropped.candidate)
    return Step(update, reset, candidate, blend(update, candidate, h_prev))


def update_only(
    x: Float[Tensor, "*B I"],
    h_prev: Float[Tensor, "*B H"],
    weights: Weights,
    activation: Activation = torch.tanh,
    pinned: Pinned = FREE,
    dropped: Dropped = KEPT,
) -> Step:
    """An update-only GRU: `ã(t) = g(Wax·x(t) + Waa·a(t-1) + ba)`, `a(t) = Gu*ã(t) + (1-Gu)*a(t-1)`."""
    past = _times(h_prev, dropped.state)
    update = force(_times(_gate(x, past, weights.update), dropped.write), pinned.update)
    reset = force(torch.ones_like(h_prev), pinned.reset)
    candidate = activation(_add_past(weights.candidate.from_input(x), reset, weights.candidate.from_past(past)))
    candidate = _times(candidate, dropped.candidate)
    return Step(update, reset, candidate, blend(update, candidate, h_prev))


def gru(
    x: Float[Tensor, "*B I"],
    h_prev: Float[Tensor, "*B H"],
    weights: Weights,
    activation: Activation = torch.tanh,
    pinned: Pinned = FREE,
    dropped: Dropped = KEPT,
) -> Step:
    """A GRU that resets after the product: `ã(t) = g(Wax·x(t) + Gr*(Waa·a(t-1)) + ba)`, as `torch.nn.GRU`."""
    past = _times(h_prev, dropped.state)
    update = force(_times(_gate(x, past, weights.update), dropped.write), pinned.update)
    reset = force(_gate(x, past, weights.reset), pinned.reset)
    candidate = activation(_add_past(weights.candidate.from_input(x), reset, weights.candidate.from_past(past)))
    candidate = _times(candidate, dropped.candidate)
    return Step(update, reset, candidate, blend(update, candidate, h_prev))


def gru_reset_before(
    x: Float[Tensor, "*B I"],
    h_prev: Float[Tensor, "*B H"],
    weights: Weights,
    activation: Activation = torch.tanh,
    pinned: Pinned = FREE,
    dropped: Dropped = KEPT,
) -> Step:
    """A GRU that resets before the product: `ã(t) = g(Wax·x(t) + Waa·(Gr*a(t-1)) + ba)` (Cho et al. 2014)."""
    past = _times(h_prev, dropped.state)
    update = force(_times(_gate(x, past, weights.update), dropped.write), pinned.update)
    reset = force(_gate(x, past, weights.reset), pinned.reset)
    relevant = torch.where(reset == 0, 0, reset * past)
    candidate = activation(weights.candidate.from_input(x) + weights.candidate.from_past(relevant))
    candidate = _times(candidate, dropped.candidate)
    return Step(update, reset, candidate, blend(update, candidate, h_prev))


def gru_layer_norm(
    x: Float[Tensor, "*B I"],
    h_prev: Float[Tensor, "*B H"],
    weights: Weights,
    activation: Activation = torch.tanh,
    pinned: Pinned = FREE,
    dropped: Dropped = KEPT,
) -> Step:
    """A layer-normalised GRU, `ã(t) = g(N(Wax·x(t)) + Gr*N(Waa·a(t-1)) + ba)` (Ba et al. 2016): `gru` with gains.

    Each product of each gate is normalised by itself, over the layer's H units.
    """
    for affine in weights:
        if affine is None or affine.gain_ih is None or affine.gain_hh is None:
            raise InputValueError("a layer-normalised GRU needs gain_ih and gain_hh in every block; one is None")
    return gru(x, h_prev, weights, activation, pinned, dropped)


def blend(
    update: Float[Tensor, "*B H"], candidate: Float[Tensor, "*B H"], h_prev: Float[Tensor, "*B H"]
) -> Float[Tensor, "*B H"]:
    """`a(t) = Gu*ã(t) + (1-Gu)*a(t-1)`; at 0 and 1 one side passes to the bit, whatever the other holds (NaN too)."""
    mixed = update * candidate + (1 - update) * h_prev
    return torch.where(update == 0, h_prev, torch.where(update == 1, candidate, mixed))


def force(gate: Float[Tensor, "*B H"], pin: Float[Tensor, "..."] | None) -> Float[Tensor, "*B H"]:
    """The gate, with the pinned value wherever `pin` is not NaN."""
    return gate if pin is None else torch.where(torch.isnan(pin), gate, pin)


def _gate(x: Float[Tensor, "*B I"], h_prev: Float[Tensor, "*B H"], weights: Affine | None) -> Float[Tensor, "*B H"]:
    """`G = σ(W·x(t) + W·a(t-1) + b)`."""
    if weights is None:
        raise InputValueError("this system needs the weights of both of its gates; one of them is None")
    return torch.sigmoid(weights.from_input(x) + weights.from_past(h_prev))


def _add_past(
    from_input: Float[Tensor, "*B H"], reset: Float[Tensor, "*B H"], from_past: Float[Tensor, "*B H"]
) -> Float[Tensor, "*B H"]:
    """`Wax·x(t) + ba + Gr*(Waa·a(t-1))`; a reset gate at 0 leaves the input's part untouched, to the bit."""
    return torch.where(reset == 0, from_input, from_input + reset * from_past)


def _times(value: Float[Tensor, "*B H"], factor: Float[Tensor, "..."] | float | None) -> Float[Tensor, "*B H"]:
    """The value, or where there is a factor their product."""
    return value if factor is None else value * factor


def _product(
    x: Float[Tensor, "*B K"], weight: Float[Tensor, "H K"], bias: Tensor | None, gain: Tensor | None
) -> Float[Tensor, "*B H"]:
    """`W·x + b` or, with a gain, `N(W·x) + b`."""
    if gain is None:
        return linear(x, weight, bias)
    normed = gain * _normed(linear(x, weight))
    return normed if bias is None else normed + bias


def _normed(value: Float[Tensor, "*B H"]) -> Float[Tensor, "*B H"]:
    """`(v - mean(v))/sqrt(variance(v) + 1e-5)` over the units: torch's layer_norm, but centred before it is scaled.

    The other order loses digits where the units hardly differ: 1e-5 makes of their rounding 300 times as much.
    """
    centred = value - value.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
