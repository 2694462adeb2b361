"""Dense: the row of the table without a memory, as a layer beside the others, for comparison."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from tidegate.equations import Activation
from tidegate.nn.run import run
from tidegate.nn.spec import Recurrent
from tidegate.ops.backends import check_backend
from tidegate.ops.checks import check_activation, check_sizes
from tidegate.ops.pins import Pins

__all__ = ["Dense"]


class Dense(Recurrent, torch.nn.Module):
    """`a(t) = g(Wax·x(t) + ba)` at every step: what a GRU is with `Gu=1` and `Gr=0`; it remembers nothing.

    Takes and returns what a one-layer `GRU` does, so that it can stand in its place and be traced like it. Initialised
    as `torch.nn.RNN`: uniform in ±1/sqrt(H).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: str | Activation = "tanh",
        backend: str = "auto",
    ) -> None:
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        check_activation("activation", activation)
        check_backend(backend)
        super().__init__()
        self.system, self.activation, self.backend = "dense", activation, backend
        self.input_size, self.hidden_size, self.batch_first = input_size, hidden_size, batch_first
        self.weight_ih_l0 = torch.nn.Parameter(torch.empty(hidden_size, input_size, device=device, dtype=dtype))
        bias_ih = torch.nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias_ih_l0", bias_ih)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, uniform in ±1/sqrt(H)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound)

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
        """As `GRU.forward`; `hx` matters only where a mask or a pin holds it. `pins` may force the update gate."""
        ran = run(self, input, hx, lengths=lengths, mask=mask, reset_at=reset_at, pins=pins)
        return ran.output, ran.h_n

    own_forward = forward

    def extra_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        bias = "" if self.bias_ih_l0 is not None else ", bias=False"
        batch_first = ", batch_first=True" if self.batch_first else ""
        activation = "" if self.activation == "tanh" else f", activation={self.activation!r}"
        backend = "" if self.backend == "auto" else f", backend={self.backend!r}"
        return f"{self.input_size}, {self.hidden_size}{bias}{batch_first}{activation}{backend}"
