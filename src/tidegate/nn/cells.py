"""GRUCell and RNNCell: torch.nn's cells, one step at a time, with variants, masks and pins."""

from collections.abc import Iterable

import torch
from torch import Tensor

from tidegate.equations import Activation
from tidegate.errors import InputValueError
from tidegate.nn.run import run
from tidegate.nn.spec import Recurrent
from tidegate.ops.backends import check_backend
from tidegate.ops.checks import check_activation, check_mask, check_nonlinearity, check_shape, check_sizes, check_tensor
from tidegate.ops.functional import Reset, system_of
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


class GRUCell(_Cell, torch.nn.GRUCell):
    """One step of a gated recurrent unit: `torch.nn.GRUCell` with `GRU`'s `reset`, `activation` and `backend`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        reset: Reset = "after",
        activation: str | Activation = "tanh",
        backend: str = "auto",
    ) -> None:
        system = system_of(reset)
        check_activation("activation", activation)
        check_backend(backend)
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.system, self.reset, self.activation, self.backend = system, reset, activation, backend
        if reset is None:
            for name, full in list(self.named_parameters()):
                setattr(self, name, torch.nn.Parameter(full.detach()[hidden_size:].clone()))

    def extra_repr(self) -> str:
        """torch.nn's, and what differs from torch.nn's."""
        reset = "" if self.reset == "after" else f", reset={self.reset!r}"
        return super().extra_repr() + reset + ("" if self.activation == "tanh" else f", activation={self.activation!r}")


class RNNCell(_Cell, torch.nn.RNNCell):
    """One step of a recurrent layer without gates: `torch.nn.RNNCell` with `RNN`'s `activation` and `backend`."""

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
        backend: str = "auto",
    ) -> None:
        check_backend(backend)
        check_nonlinearity(nonlinearity)
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        super().__init__(input_size, hidden_size, bias, nonlinearity, device, dtype)
        self.system, self.activation = "rnn", nonlinearity if activation is None else activation
        self.backend = backend
        check_activation("activation", self.activation)

    def extra_repr(self) -> str:
        """torch.nn's, and what differs from torch.nn's."""
        plain = self.activation == self.nonlinearity
        return super().extra_repr() + ("" if plain else f", activation={self.activation!r}")
