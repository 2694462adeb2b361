"""What a backend is given and what it gives back: the systems by name, one `Call`, one `Steps`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from tidegate import conventions, equations
from tidegate.conventions import Convention, PackedWeights
from tidegate.equations import ACTIVATIONS, Activation, Dropped, Pinned, Step
from tidegate.errors import InputValueError

__all__ = ["SYSTEMS", "Call", "Steps", "System"]


@dataclass(frozen=True)
class System:
    """One row of the table of equations: its function, and how its weights are stored."""

    equation: Callable[..., Step]
    convention: Convention

    @property
    def blocks(self) -> int:
        """How many blocks of H rows the weights of a layer have."""
        return len(self.convention.blocks)


#: Every system by its name. A new cell is a function in `equations.py` and a line here.
SYSTEMS: dict[str, System] = {
    "dense": System(equations.dense, conventions.TORCH_DENSE),
    "rnn": System(equations.rnn, conventions.TORCH_RNN),
    "update-only": System(equations.update_only, conventions.TORCH_UPDATE_ONLY),
    "gru": System(equations.gru, conventions.TORCH_GRU),
    "gru-reset-before": System(equations.gru_reset_before, conventions.TORCH_GRU_BEFORE),
    "gru-layer-norm": System(equations.gru_layer_norm, conventions.TORCH_GRU_LAYER_NORM),
}


@dataclass(frozen=True, eq=False)
class Call:
    """One layer in one direction over a whole sequence, checked and time-major: all that a backend needs to know."""

    system: str
    x: Float[Tensor, "T B I"]
    h_0: Float[Tensor, "B H"]
    weights: PackedWeights
    activation: str | Activation = "tanh"
    #: False holds the state at that step: `Gu=0`, nothing is written, the input is not looked at.
    mask: Bool[Tensor, "T B"] | None = None
    #: Forced gates, each broadcastable to (T, B, H); NaN is free.
    pins: Pinned = equations.FREE
    #: Run from the last step to the first; `Steps` stay in the order of the input.
    reverse: bool = False
    #: Give the gates out too.
    gates: bool = False
    #: Where gradients are wanted, keep only the states and compute the gates anew on the way back: less memory, more
    #: time. A backend that keeps what autograd keeps (reference) takes no notice.
    recompute: bool = False
    #: Where the state becomes `h_0` before the step, in the order in which the call runs.
    resets: Bool[Tensor, "T B"] | None = None
    #: What the steps leave out: `state` broadcastable to (B, H), `candidate` to (T, B, H).
    dropped: Dropped = equations.KEPT

    def pinned_at(self, t: int) -> Pinned:
        """The gates that are forced at step `t`."""
        return Pinned(*(None if pin is None else pin[t] for pin in self.pins))

    def dropped_at(self, t: int) -> Dropped:
        """What step `t` leaves out."""
        candidate = self.dropped.candidate
        return self.dropped if candidate is None else self.dropped._replace(candidate=candidate[t])

    @property
    def g(self) -> Activation:
        """The activation as a function."""
        return ACTIVATIONS[self.activation] if isinstance(self.activation, str) else _unit_by_unit(self.activation)


def _unit_by_unit(activation: Activation) -> Activation:
    """A user's activation, refused where it does not give one number for each unit, which would be broadcast."""

    def checked(value: Tensor) -> Tensor:
        result = activation(value)
        if not isinstance(result, Tensor) or result.shape != value.shape:
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise InputValueError(f"activation must give a tensor of its argument's shape; got {got}")
        return result

    return checked


class Steps(NamedTuple):
    """The state after every step, in the order of the input, and the gates where the call asked for them."""

    hidden: Float[Tensor, "T B H"]
    update: Float[Tensor, "T B H"] | None = None
    reset: Float[Tensor, "T B H"] | None = None
    candidate: Float[Tensor, "T B H"] | None = None
