"""GRU and RNN over whole sequences: torch.nn's classes with variants, masks and pins."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from tidegate.equations import Activation
from tidegate.nn.dropouts import Dropouts, read_dropouts
from tidegate.nn.run import run
from tidegate.nn.spec import Recurrent
from tidegate.nn.variants import Gated, add_gain, gru_system, reset_gains
from tidegate.ops.backends import check_backend
from tidegate.ops.checks import check_activation, check_flags, check_nonlinearity, check_sizes
from tidegate.ops.functional import Reset
from tidegate.ops.pins import Pins

__all__ = ["GRU", "RNN"]


class _Layers(Recurrent, torch.nn.RNNBase):
    """What GRU and RNN share: one forward, a learned initial state, and a printed form."""

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        lengths: Tensor | Iterable[int] | None = None,
        mask: Tensor | None = None,
        reset_at: Tensor | None = None,
        pins: Pins | Iterable[Pins] | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run the sequences.

        Args:
            input: (T, B, I), or (B, T, I) with `batch_first`, or (T, I) unbatched, or a `PackedSequence`.
            hx: the initial state `h_0`, (L*D, B, H) or, unbatched, (L*D, H); zeros, or the learned one, if not given.
            lengths: (B,) ints in 0..T. Each sequence ends there: the output after it is zero, `h_n` is the state at
                its own last step, and a backward direction starts from it.
            mask: bool, with the input's first axes: (T, B), (B, T) or (T,). False holds the state at that step
                (`Gu=0`); the input there is not looked at, so it may be anything.
            reset_at: bool, with the input's first axes, as `mask`. True begins a new piece: the state becomes `h_0`
                before that step, as if the sequence were cut there and the pieces ran apart; a backward direction
                begins anew at the last step of each piece.
            pins: gates forced to a value; see `Pins`. Later pins lie on top of earlier ones.

        Returns:
            `output`, the last layer's states in the form of the input, (T, B, D*H) or as above, and `h_n`, the final
            states (L*D, B, H) or (L*D, H).

        A gradient needs `output` as it was: changed in place before the way back, it is PyTorch's error.

        Raises:
            InputValueError, InputTypeError: an argument has the wrong shape, value, dtype or device.
            BackendError: the layer's backend cannot run this call.
        """
        ran = run(self, input, hx, lengths=lengths, mask=mask, reset_at=reset_at, pins=pins)
        return ran.output, ran.h_n

    own_forward = forward

    def reset_parameters(self) -> None:
        """Draw the weights anew as torch.nn does; a learned initial state becomes zero, gains become 1."""
        super().reset_parameters()
        reset_gains(self)
        if isinstance(h_0 := getattr(self, "h_0", None), Tensor):
            torch.nn.init.zeros_(h_0)

    def flatten_parameters(self) -> None:
        """Nothing to do: only cuDNN needs its weights in one piece."""

    def extra_repr(self) -> str:
        """torch.nn's, and what differs from torch.nn's."""
        own = ", recompute=True" if self.recompute else ""
        own += f", recurrent_dropout={self.recurrent_dropout}" if self.recurrent_dropout.chosen() else ""
        own += "" if self.backend == "auto" else f", backend={self.backend!r}"
        return super().extra_repr() + ("" if getattr(self, "h_0", None) is None else ", learn_h_0=True") + own

    def _finish(self, learn_h_0: bool, dropouts: Dropouts, recompute: bool, backend: str) -> None:
        """Set what both constructors share, once torch.nn's own has run."""
        check_backend(backend)
        check_flags(learn_h_0=learn_h_0, recompute=recompute)
        self.recurrent_dropout, self.recompute, self.backend = dropouts, recompute, backend
        states = self.num_layers * (2 if self.bidirectional else 1)
        like = self.weight_ih_l0
        assert isinstance(like, Tensor)
        learned = torch.nn.Parameter(like.detach().new_zeros(states, self.hidden_size)) if learn_h_0 else None
        self.register_parameter("h_0", learned)


class GRU(Gated, _Layers, torch.nn.GRU):  # type: ignore[misc]  # one forward with more keywords, for two overloads
    """A stack of gated recurrent units (Chung et al. 2014): `torch.nn.GRU`, to look into and to steer.

        Gu = σ(Wxu·x(t) + Wau·a(t-1) + bu)    update gate: 1 writes, 0 holds
        Gr = σ(Wxr·x(t) + War·a(t-1) + br)    reset (relevance) gate: 1 uses the past
        ã(t) = g(Wax·x(t) + Gr*(Waa·a(t-1)) + ba)
        a(t) = Gu*ã(t) + (1-Gu)*a(t-1)

    Positional arguments, parameter names, shapes and initialisation are `torch.nn.GRU`'s; a state_dict goes both ways
    (with `learn_h_0` it has one entry more: load torch.nn's with `strict=False`).

    Args:
        reset: "after" the product, as above and in torch.nn; "before" it, `ã = g(Wax·x + Waa·(Gr*a) + ba)` (Cho et al.
            2014); None for the update-only GRU, whose weights lack the reset rows: (2*H, ·) instead of (3*H, ·).
        layer_norm: normalise every product of every gate over the layer's units before its bias is added (Ba et al.
            2016, `equations.gru_layer_norm`); goes with reset "after". The state_dict then also holds the gains,
            1 at first: `gain_ih_l0` and `gain_hh_l0`, (3*H,) each, in the order of the weights' rows, for every layer
            and direction.
        activation: `g`: "tanh", "relu", "sigmoid", "identity" or a function of a tensor.
        learn_h_0: add a parameter `h_0` (L*D, H), zero at first, that is the initial state where none is given.
        recurrent_dropout: what is left out at random in training: a number for that of the state (variational), or
            `Dropouts`. `dropout` remains torch.nn's, between layers.
        recompute: keep only the states for the gradient, and compute the gates anew on the way back: about half of the
            memory, less than a third of torch.nn.GRU's, for about a third more time.
        backend: "auto", or the name of the one to use.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset: Reset = "after",
        layer_norm: bool = False,
        activation: str | Activation = "tanh",
        learn_h_0: bool = False,
        recurrent_dropout: float | Dropouts = 0.0,
        recompute: bool = False,
        backend: str = "auto",
    ) -> None:
        system = gru_system(reset, layer_norm=layer_norm)
        dropouts = read_dropouts(recurrent_dropout)
        check_activation("activation", activation)
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        sizes = (input_size, hidden_size, num_layers)
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype)
        self.system, self.activation = system, activation
        if reset is None:
            for name in self._flat_weights_names:
                full = getattr(self, name).detach()
                setattr(self, name, torch.nn.Parameter(full[self.hidden_size :].clone()))
        if layer_norm:
            for name in [name for name in self._flat_weights_names if name.startswith("weight")]:
                add_gain(self, name)
        self._finish(learn_h_0, dropouts, recompute, backend)

    def extra_repr(self) -> str:
        """torch.nn's, and what differs from torch.nn's."""
        return (
            super().extra_repr()
            + self._printed_variant()
            + ("" if self.activation == "tanh" else f", activation={self.activation!r}")
        )


class RNN(_Layers, torch.nn.RNN):  # type: ignore[misc]  # as GRU
    """A stack of recurrent layers without gates, `a(t) = g(Wax·x(t) + Waa·a(t-1) + ba)`: `torch.nn.RNN` to look into.

    Positional arguments, parameter names, shapes and initialisation are `torch.nn.RNN`'s; a state_dict goes both ways.

    Args:
        activation: `g`: "tanh", "relu", "sigmoid", "identity" or a function of a tensor; if None, torch.nn's
            `nonlinearity`.
        learn_h_0: add a parameter `h_0` (L*D, H), zero at first, that is the initial state where none is given.
        recurrent_dropout: what is left out at random in training: a number for that of the state (variational), or
            `Dropouts`. `dropout` remains torch.nn's, between layers.
        recompute: keep only the states for the gradient, as the way back of an RNN needs no more.
        backend: "auto", or the name of the one to use.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: str | Activation | None = None,
        learn_h_0: bool = False,
        recurrent_dropout: float | Dropouts = 0.0,
        recompute: bool = False,
        backend: str = "auto",
    ) -> None:
        check_nonlinearity(nonlinearity)
        dropouts = read_dropouts(recurrent_dropout)
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        sizes = (input_size, hidden_size, num_layers)
        super().__init__(*sizes, nonlinearity, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype)
        self.system, self.activation = "rnn", self.nonlinearity if activation is None else activation
        check_activation("activation", self.activation)
        self._finish(learn_h_0, dropouts, recompute, backend)

    def extra_repr(self) -> str:
        """torch.nn's, and what differs from torch.nn's."""
        plain = self.activation == self.nonlinearity
        return super().extra_repr() + ("" if plain else f", activation={self.activation!r}")
