"""Initialisation that torch.nn does not have: the update gate's memory, and orthogonal recurrent weights.

Each function changes a layer in place and returns it. It takes Tidegate's and torch.nn's layers and cells, and reaches
every layer and direction; weights that it does not name stay.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tidegate.conventions import PackedWeights
from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn.spec import describe
from tidegate.ops.call import SYSTEMS
from tidegate.ops.checks import check_number

__all__ = ["chrono_", "orthogonal_", "update_bias_"]


@torch.no_grad()
def chrono_(
    layer: nn.Module,
    steps: float,
    generator: torch.Generator | None = None,
    *,
    spacing: str = "uniform",
    share: float = 1.0,
) -> nn.Module:
    """Set the biases of the update gate, in place, for a memory of up to `steps` steps (Tallec & Ollivier 2018).

    Each unit gets a bias of `-log(u)` with `u` uniform in [1, steps - 1], so that its gate starts near `1/(1+u)` and it
    forgets with a time constant of its own between 2 and `steps`. With `spacing` "log" it is `log(u)` that is uniform:
    as many units remember for 2 to 4 steps as for 50 to 100, where the paper's draw has few short memories. With a
    `share` below 1, so many of the units, drawn at random, get such a bias and the others keep theirs. Takes Tidegate's
    and torch.nn's GRU layers and cells, every layer and direction; returns the layer.

    Raises:
        InputTypeError: the layer has no update gate (an RNN), or no biases; or what should be a number is none.
        InputValueError: `steps` is less than 2, or not finite; `spacing` is neither; `share` is not in 0..1.
    """
    biases = _update_biases(layer)
    steps = check_number("steps", steps)
    if spacing not in ("uniform", "log"):
        raise InputValueError(f'spacing must be "uniform" or "log"; got {spacing!r}')
    if not 2 <= steps < math.inf:
        raise InputValueError(f"steps must be at least 2 and finite; got {steps:g}")
    share = check_number("share", share)
    if not 0 <= share <= 1:
        raise InputValueError(f"share must lie in 0..1; got {share:g}")
    longest = max(steps - 1, 1)
    for taken, carried, sign in biases:
        drawn = torch.empty_like(taken)
        if spacing == "log":
            drawn.uniform_(0, math.log(longest), generator=generator)
        else:
            drawn.uniform_(1, longest, generator=generator).log_()
        chosen = slice(None) if share == 1 else _some(taken, share, generator)
        taken[chosen] = -sign * drawn[chosen]
        carried[chosen] = 0
    return layer


def _some(units: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """The numbers of a share of the units, in a random order."""
    device = units.device if generator is None else generator.device
    return torch.randperm(len(units), generator=generator, device=device)[: round(share * len(units))].to(units.device)


@torch.no_grad()
def update_bias_(layer: nn.Module, bias: float) -> nn.Module:
    """Set the biases of the update gate, in place, so that `bu` is `bias` and the gate starts at σ(bias).

    1 writes and 0 holds: a negative bias remembers. -1 is what a forget gate's bias of 1 is to an LSTM (Jozefowicz et
    al. 2015), and starts at 0.27. The layer stores the bias as its convention has it; other weights stay.

    Raises:
        InputTypeError: the layer has no update gate (an RNN), or no biases; or what should be a number is none.
        InputValueError: `bias` is not finite.
    """
    biases = _update_biases(layer)
    bias = check_number("bias", bias)
    if not math.isfinite(bias):
        raise InputValueError(f"bias must be finite; got {bias:g}")
    for taken, carried, sign in biases:
        taken.fill_(sign * bias)
        carried.zero_()
    return layer


@torch.no_grad()
def orthogonal_(layer: nn.Module, gain: float = 1.0, generator: torch.Generator | None = None) -> nn.Module:
    """Make the recurrent weights of each gate and of the candidate, (H, H), orthogonal times `gain` (Saxe et al. 2014).

    Each block on its own, in place: a product with it then keeps the state's length, whatever the number of steps.
    Other weights stay.

    Raises:
        InputTypeError: the layer has no recurrent weights (a dense layer), or `gain` is no number.
        InputValueError: `gain` is not finite.
    """
    spec = describe(layer)
    convention = SYSTEMS[spec.system].convention
    recurrent = [weights.weight_hh for weights in _each(spec.weights) if weights.weight_hh is not None]
    if not recurrent:
        raise InputTypeError(f"layer must have recurrent weights; {type(layer).__name__} has none")
    gain = check_number("gain", gain)
    if not math.isfinite(gain):
        raise InputValueError(f"gain must be finite; got {gain:g}")
    _check_owned(layer, "recurrent weights", recurrent)
    for weight in recurrent:
        for block in convention.blocks:
            part = weight[convention.rows(block, spec.hidden_size)]
            wide = part.double() if part.dtype == torch.float64 else part.float()  # of halves torch has no QR
            part.copy_(nn.init.orthogonal_(wide, gain, generator))
    return layer


def _update_biases(layer: nn.Module) -> list[tuple[Tensor, Tensor, int]]:
    """The update gate's two biases (H,) of each layer and direction, and the sign with which they are stored."""
    spec = describe(layer)
    convention = SYSTEMS[spec.system].convention
    if "update" not in convention.blocks:
        raise InputTypeError(f"layer must have an update gate; {type(layer).__name__} has none")
    rows, found = convention.rows("update", spec.hidden_size), []
    for weights in _each(spec.weights):
        if weights.bias_ih is None or weights.bias_hh is None:
            raise InputTypeError("layer must have biases (bias=True) to initialise; it has none")
        _check_owned(layer, "biases", [weights.bias_ih, weights.bias_hh])
        found.append((weights.bias_ih[rows], weights.bias_hh[rows], convention.sign("update")))
    return found


def _each(layers: tuple[tuple[PackedWeights, ...], ...]) -> Iterator[PackedWeights]:
    return (weights for directions in layers for weights in directions)


def _check_owned(layer: nn.Module, what: str, tensors: list[Tensor]) -> None:
    """A tensor that is computed anew in every forward would not keep what is written into it."""
    owned = list(layer.parameters())
    if not all(any(tensor is own for own in owned) for tensor in tensors):
        raise InputTypeError(f"layer must own its {what} to initialise them; here they are computed (parametrized)")
