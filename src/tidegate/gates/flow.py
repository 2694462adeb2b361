"""Gradient flow: how much of the last state's gradient reaches every earlier one; vanishing and exploding, measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.nn.utils.rnn import PackedSequence

from tidegate.conventions import PackedWeights, unpack
from tidegate.equations import Pinned
from tidegate.errors import InputValueError
from tidegate.gates.inside import observe
from tidegate.ops.call import SYSTEMS, Call
from tidegate.ops.pins import Pins
from tidegate.ops.reference import without_unread_values

__all__ = ["GradientFlow", "gradient_flow"]

#: How many numbers of step Jacobians are held at once.
_BUDGET = 1 << 24


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """`‖∂a(T)/∂a(t)‖` for every t: near 0 the past is out of reach of training, far above 1 it explodes."""

    #: (T+1, B): row 0 is the initial state, row t the state after t steps; row T is 1 in the spectral norm.
    norm: Float[Tensor, "rows B"]

    @property
    def per_step(self) -> Float[Tensor, "B"]:
        """The factor by which the norm changes per step back, on (geometric) average over the whole sequence."""
        return (self.norm[0] / self.norm[-1]) ** (1 / (len(self.norm) - 1))


@torch.no_grad()
def gradient_flow(
    model: nn.Module,
    x: Tensor | PackedSequence,
    hx: Tensor | None = None,
    *,
    layer: str | None = None,
    depth: int = -1,
    reverse: bool = False,
    norm: Literal["spectral", "frobenius"] = "spectral",
    lengths: Tensor | Iterable[int] | None = None,
    mask: Tensor | None = None,
    pins: Pins | Iterable[Pins] | None = None,
) -> GradientFlow:
    """The norm of `∂a(T)/∂a(t)`, the product of the Jacobians of all steps after t, with the inputs held fixed.

    Computed in float64: every step's Jacobian by automatic differentiation of its equation, then their product.

    Args:
        model, x, hx, layer, lengths, mask, pins: as for `trace`.
        depth: which of the stacked layers; the last if not said.
        reverse: the backward direction instead, where T counts in the order in which it runs.
        norm: "spectral", the largest factor by which any small change of a(t) is seen in a(T); or "frobenius".
    """
    if norm not in ("spectral", "frobenius"):
        raise InputValueError(f'norm must be "spectral" or "frobenius"; got {norm!r}')
    _, ran = observe(model, x, hx, layer=layer, lengths=lengths, mask=mask, pins=pins)
    if not -len(ran.layers) <= depth < len(ran.layers):
        raise InputValueError(f"depth must lie in {-len(ran.layers)}..{len(ran.layers) - 1}; got {depth}")
    directions = ran.layers[depth]
    if reverse and len(directions) == 1:
        raise InputValueError("reverse must be False for a layer of one direction; got True")
    record = directions[int(reverse)]
    return GradientFlow(_norms(_in_order(record.call), _states_before(record.call, record.steps.hidden), norm))


def _norms(call: Call, before: Tensor, norm: str) -> Tensor:
    """(T+1, B) norms of the running product, from the last step back."""
    steps, batch, hidden = before.shape
    product = torch.eye(hidden, dtype=before.dtype, device=before.device).expand(batch, -1, -1)
    order: Any = 2 if norm == "spectral" else "fro"
    norms = [torch.linalg.matrix_norm(product, order)]
    chunk = max(1, _BUDGET // (batch * hidden * hidden))
    for end in range(steps, 0, -chunk):
        jacobians = _jacobians(call, before, slice(max(0, end - chunk), end))
        for jacobian in jacobians.flip(0):
            product = product @ jacobian
            norms.append(torch.linalg.matrix_norm(product, order))
    return torch.stack(norms[::-1])


def _jacobians(call: Call, before: Tensor, chunk: slice) -> Float[Tensor, "S B H H"]:
    """`∂a(t)/∂a(t-1)` for the steps of `chunk`."""
    system = SYSTEMS[call.system]
    weights = unpack(system.convention, call.weights)
    pins = [None if pin is None else pin.expand_as(before)[chunk] for pin in call.pins]

    def after(h_prev: Tensor, x: Tensor, *pinned: Tensor | None) -> Tensor:
        return system.equation(x, h_prev, weights, call.g, Pinned(*pinned)).hidden

    axes = (0, 0, *(None if pin is None else 0 for pin in pins))
    per_step = vmap(vmap(jacrev(after), in_dims=axes), in_dims=axes)
    jacobians: Tensor = per_step(before[chunk], call.x[chunk], *pins)
    if call.mask is None:
        return jacobians
    identity = torch.eye(before.shape[-1], dtype=before.dtype, device=before.device)
    return torch.where(call.mask[chunk][..., None, None], jacobians, identity)


def _in_order(call: Call) -> Call:
    """The call in float64, its inputs, mask and pins in the order in which it runs."""

    def ordered(tensor: Tensor) -> Tensor:
        return tensor.flip(0) if call.reverse else tensor

    return Call(
        system=call.system,
        x=ordered(without_unread_values(call)).double(),
        h_0=call.h_0.double(),
        weights=PackedWeights(*(None if weight is None else weight.double() for weight in call.weights)),  # type: ignore[arg-type]
        activation=call.activation,
        mask=None if call.mask is None else ordered(call.mask),
        pins=Pinned(*(None if pin is None else ordered(pin).double() for pin in call.pins)),
    )


def _states_before(call: Call, hidden: Tensor) -> Float[Tensor, "T B H"]:
    """The state before each step, in float64 and in the order in which the call runs."""
    after = hidden.flip(0) if call.reverse else hidden
    return torch.cat([call.h_0.unsqueeze(0), after[:-1]]).double()
