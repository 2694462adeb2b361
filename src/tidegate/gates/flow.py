"""Gradient flow: how much of the last state's gradient reaches every earlier one; vanishing and exploding, measured."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.nn.utils.rnn import PackedSequence

from tidegate.conventions import PackedWeights, unpack
from tidegate.equations import Pinned
from tidegate.errors import InputValueError
from tidegate.gates.inside import observe
from tidegate.nn.run import Record
from tidegate.ops.call import SYSTEMS, Call
from tidegate.ops.pins import Pins
from tidegate.ops.reference import without_unread_values

__all__ = ["GradientFlow", "flow_of", "gradient_flow"]

#: How many numbers of step Jacobians are held at once.
_BUDGET = 1 << 24


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """`‖∂a(T)/∂a(t)‖` for every t: near 0 the past is out of reach of training, far above 1 it explodes."""

    #: (T+1, B) the natural logarithm of the norm, which neither underflows nor overflows: row 0 is the initial state,
    #: row t the state after t steps. -inf where the norm is exactly 0, NaN where a state was not finite.
    log_norm: Float[Tensor, "rows B"]
    #: (B,) how many steps of each sequence were not masked.
    steps: Int[Tensor, "B"]

    @property
    def norm(self) -> Float[Tensor, "rows B"]:
        """(T+1, B) the norm itself; row T is 1 in the spectral norm. Beyond float64 it is 0 or infinite."""
        return self.log_norm.exp()

    @property
    def per_step(self) -> Float[Tensor, "B"]:
        """(B,) the factor by which the norm changes per step back, on (geometric) average over the unmasked steps."""
        return ((self.log_norm[0] - self.log_norm[-1]) / self.steps.clamp_min(1)).exp()


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
    reset_at: Tensor | None = None,
    pins: Pins | Iterable[Pins] | None = None,
) -> GradientFlow:
    """The norm of `∂a(T)/∂a(t)`, the product of the Jacobians of all steps after t, with the inputs held fixed.

    The model runs once, in evaluation mode and its own dtype; around the states that it took, every step's Jacobian
    comes from automatic differentiation of its equation in float64. The time grows as T*B*H^3: measure a few sequences,
    not a whole data set.

    Args:
        model, x, hx, layer, lengths, mask, reset_at, pins: as for `trace`.
        depth: which of the stacked layers; the last if not said.
        reverse: the backward direction instead, where T counts in the order in which it runs.
        norm: "spectral", the largest factor by which any small change of a(t) is seen in a(T); or "frobenius".
    """
    if norm not in ("spectral", "frobenius"):
        raise InputValueError(f'norm must be "spectral" or "frobenius"; got {norm!r}')
    _, ran = observe(model, x, hx, layer=layer, evaluate=True, lengths=lengths, mask=mask, reset_at=reset_at, pins=pins)
    if not -len(ran.layers) <= depth < len(ran.layers):
        raise InputValueError(f"depth must lie in {-len(ran.layers)}..{len(ran.layers) - 1}; got {depth}")
    directions = ran.layers[depth]
    if reverse and len(directions) == 1:
        raise InputValueError("reverse must be False for a layer of one direction; got True")
    return flow_of(directions[int(reverse)], norm)


@torch.no_grad()
def flow_of(
    record: Record,
    norm: Literal["spectral", "frobenius"],
    *,
    steps: int | None = None,
    sequences: Int[Tensor, "n"] | None = None,
    cuts: bool = True,
) -> GradientFlow:
    """The gradient flow of one layer and direction as it ran; of its last `steps` and of some `sequences` if given.

    Row 0 is then the state before the first of those steps. Where the state begins anew no gradient passes; without
    `cuts` it passes unchanged, and that step is not counted.
    """
    call, before = _in_order(record.call), _states_before(record.call, record.steps.hidden)
    call, before = _window(call, before, steps or len(before), sequences)
    if call.resets is not None and not cuts:
        mask = ~call.resets if call.mask is None else call.mask & ~call.resets
        call = replace(call, mask=mask, resets=None)
    counted = before.new_full(before.shape[1:2], len(before)) if call.mask is None else call.mask.sum(0)
    return GradientFlow(_log_norms(call, before, norm), counted.long())


def _window(
    call: Call, before: Tensor, steps: int, sequences: Int[Tensor, "n"] | None
) -> tuple[Call, Float[Tensor, "T B H"]]:
    """The last steps of some sequences of a call in its order, and the states before them."""

    def rows(tensor: Tensor) -> Tensor:
        return tensor[-steps:] if sequences is None else tensor[-steps:, sequences]

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else rows(tensor)

    pins = Pinned(*(None if pin is None else rows(pin.expand_as(before)) for pin in call.pins))
    h_0 = call.h_0 if sequences is None else call.h_0[sequences]
    window = replace(call, x=rows(call.x), h_0=h_0, mask=cut(call.mask), resets=cut(call.resets), pins=pins)
    return window, rows(before)


def _log_norms(call: Call, before: Tensor, norm: str) -> Float[Tensor, "rows B"]:
    """The logarithms of the running product's norm, from the last step back to the first."""
    steps, batch, hidden = before.shape
    product = torch.eye(hidden, dtype=before.dtype, device=before.device).expand(batch, -1, -1)
    scale = before.new_zeros(batch)
    product, scale = _rescaled(product, scale, norm)
    log_norms = [scale]
    chunk = max(1, _BUDGET // (batch * hidden * hidden))
    for end in range(steps, 0, -chunk):
        jacobians = _jacobians(call, before, slice(max(0, end - chunk), end))
        for jacobian in jacobians.flip(0):
            product, scale = _rescaled(product @ jacobian, scale, norm)
            log_norms.append(scale)
    return torch.stack(log_norms[::-1])


def _rescaled(product: Tensor, scale: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """The product (B, H, H) at norm 1, so that it stays in range for any T, and the logarithm (B,) of what it was."""
    finite = product.isfinite().all(-1).all(-1)
    order: Any = 2 if norm == "spectral" else "fro"
    size = torch.linalg.matrix_norm(torch.where(finite[:, None, None], product, 0), order)
    product = product / torch.where(size > 0, size, 1)[:, None, None]
    return product, scale + torch.where(finite, size, torch.nan).log()


def _jacobians(call: Call, before: Tensor, chunk: slice) -> Float[Tensor, "S B H H"]:
    """`∂a(t)/∂a(t-1)` for the steps of `chunk`."""
    system = SYSTEMS[call.system]
    weights = unpack(system.convention, call.weights)
    pins = [None if pin is None else pin[chunk] for pin in call.pins]
    dropped = call.dropped  # in evaluation, one factor on the update gate for all

    def after(h_prev: Tensor) -> Tensor:
        return system.equation(call.x[chunk], h_prev, weights, call.g, Pinned(*pins), dropped).hidden

    states, pull_back = vjp(after, before[chunk])  # type: ignore[misc]  # two things, as has_aux is False
    # rows of a batch are independent: one unit of every state at once is one row of every Jacobian
    units = torch.eye(states.shape[-1], dtype=states.dtype, device=states.device)
    (rows,) = vmap(lambda unit: pull_back(unit.expand_as(states)))(units)
    jacobians: Tensor = rows.movedim(0, 2)
    if call.mask is not None:
        identity = torch.eye(before.shape[-1], dtype=before.dtype, device=before.device)
        jacobians = torch.where(call.mask[chunk][..., None, None], jacobians, identity)
    if call.resets is not None:  # the state before such a step goes nowhere
        jacobians = torch.where(call.resets[chunk][..., None, None], 0, jacobians)
    return jacobians


def _in_order(call: Call) -> Call:
    """The call in float64, its inputs, mask and pins in the order in which it runs."""

    def ordered(tensor: Tensor) -> Tensor:
        return tensor.flip(0) if call.reverse else tensor

    return Call(
        system=call.system,
        x=ordered(without_unread_values(call)).double(),
        h_0=call.h_0.double(),
        weights=PackedWeights(*(None if weight is None else weight.double() for weight in call.weights)),  # type: ignore[arg-type]
        activation=copy.deepcopy(call.activation).double()
        if isinstance(call.activation, nn.Module)
        else call.activation,
        mask=None if call.mask is None else ordered(call.mask),
        pins=Pinned(*(None if pin is None else ordered(pin).double() for pin in call.pins)),
        resets=None if call.resets is None else ordered(call.resets),
        dropped=call.dropped,
    )


def _states_before(call: Call, hidden: Tensor) -> Float[Tensor, "T B H"]:
    """The state before each step, in float64 and in the order in which the call runs."""
    after = hidden.flip(0) if call.reverse else hidden
    before = torch.cat([call.h_0.unsqueeze(0), after[:-1]])
    if call.resets is not None:
        resets = call.resets.flip(0) if call.reverse else call.resets
        before = torch.where(resets.unsqueeze(-1), call.h_0, before)
    return before.double()
