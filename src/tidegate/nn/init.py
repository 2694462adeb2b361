"""Initialisation that torch.nn does not have."""

import math

import torch
from torch import Tensor, nn

from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn.spec import describe
from tidegate.ops.call import SYSTEMS

__all__ = ["chrono_"]


@torch.no_grad()
def chrono_(layer: nn.Module, steps: float, generator: torch.Generator | None = None) -> nn.Module:
    """Set the biases of the update gate, in place, for a memory of up to `steps` steps (Tallec & Ollivier 2018).

    Each unit gets a bias of `-log(u)` with `u` uniform in [1, steps - 1], so that its gate starts near `1/(1+u)` and it
    forgets with a time constant of its own between 2 and `steps`. Other weights stay. Takes Tidegate's and torch.nn's
    GRU layers and cells, every layer and direction; returns the layer.

    Raises:
        InputTypeError: the layer has no update gate (an RNN), or no biases.
        InputValueError: `steps` is less than 2, or not finite.
    """
    spec = describe(layer)
    convention = SYSTEMS[spec.system].convention
    if "update" not in convention.blocks:
        raise InputTypeError(f"layer must have an update gate; {type(layer).__name__} has none")
    if not 2 <= steps < math.inf:
        raise InputValueError(f"steps must be at least 2 and finite; got {steps:g}")
    owned = list(layer.parameters())
    rows = convention.rows("update", spec.hidden_size)
    for weights in (direction for directions in spec.weights for direction in directions):
        if weights.bias_ih is None or weights.bias_hh is None:
            raise InputTypeError("layer must have biases (bias=True) to initialise; it has none")
        if not all(any(bias is own for own in owned) for bias in (weights.bias_ih, weights.bias_hh)):
            raise InputTypeError("layer must own its biases to initialise them; here they are computed (parametrized)")
        _fill(weights.bias_ih[rows], convention.sign("update"), steps, generator)
        weights.bias_hh[rows].zero_()
    return layer


def _fill(bias: Tensor, sign: int, steps: float, generator: torch.Generator | None) -> None:
    """`bias` (H,) becomes the stored form of `-log(uniform(1, steps - 1))`."""
    bias.uniform_(1, max(steps - 1, 1), generator=generator).log_().mul_(-sign)
