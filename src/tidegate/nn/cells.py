"""GRUCell and RNNCell: torch.nn's cells, one step at a time, with variants, masks and pins."""

from collections.abc import Iterable

import torch
from torch import Tensor

from tidegate.equations import Activation
from tidegate.errors import InputValueError
from tidegate.nn.dropouts import Dropouts, read_dropouts
from tidegate.nn.run import run
from tidegate.nn.spec import Recurrent
from tidegate.nn.variants import Gated, add_gain, gru_system, reset_gains
from tidegate.ops.backends import check_backend
from tidegate.ops.checks import check_activation, check_mask, check_nonlinearity, check_shape, check_sizes, check_tensor
from tidegate.ops.functional import Reset
from tidegate.ops.pins import Pins

__all__ = ["GRUCell", "RNNCell"]


class _Cell(Recurrent, torch.nn.RNNCellBase):
    """What GRUCell and RNNCell share: one step."""

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        pins: Pins | Iterable[Pins] | None = None,
    ) -> Tensor:
        """Take one step.

        Args:
            input: (B, I), or (I,) unbatched.
            hx: the state before the step, (B, H) or (H,); zeros if not given.
            mask: (B,) bool, or () unbatched. False holds the state.
            pins: gates forced to a value; see `Pins`. There is one step, 0.

        Returns:
            The state after the step, (B, H) or (H,).
        """
        if check_tensor("input", input).ndim not in (1, 2) or input.shape[-1] != self.input_size:
            expected = f"(B, I) or (I,) with I = {self.input_size}"
            raise InputValueError(f"input must be {expected}; got {tuple(input.shape)}")
        if hx is not None:
            expected_hx = (*input.shape[:-1], self.hidden_size)
            check_shape("hx", check_tensor("hx", hx), expected_hx, "(B, H)" if input.ndim == 2 else "(H,)")
            hx = hx.unsqueeze(0)
        if mask is not None:
            mask = check_mask(mask, input.shape[:-1], "(B,)" if input.ndim == 2 else "()", input.device).unsqueeze(0)
        return run(self, input.unsqueeze(0), hx, mask=mask, pins=pins).h_n.squeeze(0)

    own_forward = forward

    def reset_parameters(self) -> None:
        """Draw the weights anew as torch.nn does; gains become 1."""
        super().reset_parameters()
        reset_gains(self)

    def extra_repr(self) -> str:
        """torch.nn's, and what differs from torch.nn's."""
        own = f", recurrent_dropout={self.recurrent_dropout}" if self.recurrent_dropout.chosen() else ""
        return super().extra_repr() + own + ("" if self.backend == "auto" else f", backend={self.backend!r}")


def _dropouts_of_a_step(recurrent_dropout: float | Dropouts) -> Dropouts:
    """The argument of a cell, refused for what is drawn once for all steps, of which a cell sees only one."""
    dropouts = read_dropouts(recurrent_dropout)
    whole = dropouts.chosen().keys() - {"candidate", "zoneout"}
    if whole:
        got = ", ".join(sorted(whole))
        raise InputValueError(
            f"recurrent_dropout of a cell must be candidate or zoneout, which are drawn at every step; got {got}"
        )
    return dropouts


class GRUCell(Gated, _Cell, torch.nn.GRUCell):
    """One step of a gated recurrent unit: `torch.nn.GRUCell` with `GRU`'s variants, activation and backend.

    Of `Dropouts` a cell takes `candidate` and `zoneout`, drawn at every step; with `layer_norm` its gains are `gain_ih`
    and `gain_hh`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset: Reset = "after",
        layer_norm: bool = False,
        activation: str | Activation = "tanh",
        recurrent_dropout: float | Dropouts = 0.0,
        backend: str = "auto",
    ) -> None:
        system = gru_system(reset, layer_norm=layer_norm)
        dropouts = _dropouts_of_a_step(recurrent_dropout)
        check_activation("activation", activation)
        check_backend(backend)
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.system, self.activation, self.backend, self.recurrent_dropout = system, activation, backend, dropouts
        if reset is None:
            for name, full in list(self.named_parameters()):
                setattr(self, name, torch.nn.Parameter(full.detach()[hidden_size:].clone()))
        if layer_norm:
            add_gain(self, "weight_ih")
            add_gain(self, "weight_hh")

    def extra_repr(self) -> str:
        """torch.nn's, and what differs from torch.nn's."""
        return (
            super().extra_repr()
            + self._printed_variant()
            + ("" if self.activation == "tanh" else f", activation={self.activation!r}")
        )


class RNNCell(_Cell, torch.nn.RNNCell):
    """One step of a recurrent layer without gates: `torch.nn.RNNCell` with `RNN`'s activation and backend.

    Of `Dropouts` a cell takes `candidate` and `zoneout`, drawn at every step.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: str | Activation | None = None,
        recurrent_dropout: float | Dropouts = 0.0,
        backend: str = "auto",
    ) -> None:
        check_backend(backend)
        check_nonlinearity(nonlinearity)
        dropouts = _dropouts_of_a_step(recurrent_dropout)
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        super().__init__(input_size, hidden_size, bias, nonlinearity, device, dtype)
        self.system, self.activation = "rnn", nonlinearity if activation is None else activation
        self.backend, self.recurrent_dropout = backend, dropouts
        check_activation("activation", self.activation)

    def extra_repr(self) -> str:
        """torch.nn's, and what differs from torch.nn's."""
        plain = self.activation == self.nonlinearity
        return super().extra_repr() + ("" if plain else f", activation={self.activation!r}")
