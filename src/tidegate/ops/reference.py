"""The reference backend: a loop over `equations.py` on any device, in any dtype, as differentiable as the equations."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tidegate.conventions import PackedWeights, unpack
from tidegate.equations import Step
from tidegate.ops import scan
from tidegate.ops.call import SYSTEMS, Call, Steps
from tidegate.ops.checks import autocasting

__all__ = ["Stepper", "remark", "run", "unsupported", "without_unread_values"]


def unsupported(call: Call) -> str | None:  # noqa: ARG001 - every backend is asked the same
    """Why this backend cannot run `call`: it always can."""
    return None


def remark(call: Call) -> str | None:
    """What a user of this backend should know."""
    return "it keeps all that autograd keeps, whatever recompute says" if call.recompute else None


def run(call: Call) -> Steps:
    """Run the sequence step by step."""
    if scan.needed(call):
        return scan.run(call, _initial(call), run)
    system = SYSTEMS[call.system]
    weights = unpack(system.convention, call.weights)
    inputs = without_unread_values(call)
    steps = range(len(inputs))
    taken: list[Step] = []
    hidden = _initial(call)
    for t in reversed(steps) if call.reverse else steps:
        if call.resets is not None:
            hidden = torch.where(call.resets[t].unsqueeze(-1), call.h_0, hidden)
        step = system.equation(inputs[t], hidden, weights, call.g, call.pinned_at(t), call.dropped_at(t))
        if call.mask is not None:
            step = _hold(step, hidden, call.mask[t])
        taken.append(step)
        hidden = step.hidden
    if call.reverse:
        taken.reverse()
    if not call.gates:
        return Steps(torch.stack([step.hidden for step in taken]))
    update, reset, candidate, hidden = (torch.stack(values) for values in zip(*taken, strict=True))
    return Steps(hidden, update, reset, candidate)


def _initial(call: Call) -> Tensor:
    """The initial state, under autocast in the dtype of the states that follow.

    The state of a gated system keeps its dtype, since it is added to; without a gate it is what the product gave.
    """
    device = call.x.device
    gated = "update" in SYSTEMS[call.system].convention.blocks
    if gated or call.h_0.dtype == torch.float64 or not autocasting(device):
        return call.h_0
    return call.h_0.to(torch.get_autocast_dtype(device.type))


class Stepper:
    """A stack of layers that takes one step at a time (see `backends.Stepper`)."""

    def __init__(self, calls: Sequence[Call]) -> None:
        """Copy the weights of the layers, each told by a call of one step."""
        self._calls = [replace(call, weights=_copied(call.weights)) for call in calls]
        self.x = calls[0].x.new_zeros(calls[0].x.shape[1:])
        self.state = torch.stack([torch.zeros_like(call.h_0) for call in calls]).detach()
        self.outputs = (torch.zeros_like(self.state[-1]),)

    @torch.no_grad()
    def step(self) -> int:
        """Take one step from `x`; the number of the output that holds the result."""
        x, states = self.x, []
        for call, h_prev in zip(self._calls, self.state, strict=True):
            x = run(replace(call, x=x.unsqueeze(0), h_0=h_prev)).hidden[0]
            states.append(x)
        self.state = torch.stack(states)
        self.outputs[0].copy_(x)
        return 0


def _copied(weights: PackedWeights) -> PackedWeights:
    return PackedWeights(*(None if weight is None else weight.detach().clone() for weight in weights))  # type: ignore[arg-type]


def _hold(step: Step, h_prev: Tensor, mask: Tensor) -> Step:
    """The step where the mask is True; elsewhere the state stays, and the gates and the candidate say nothing (0)."""
    write = mask.unsqueeze(-1)
    update, reset, candidate = (torch.where(write, value, 0) for value in step[:3])
    return Step(update, reset, candidate, torch.where(write, step.hidden, h_prev))


def without_unread_values(call: Call) -> Tensor:
    """The input without what no unit takes in, so that a NaN there reaches neither a value nor a gradient.

    Masked steps become zeros. Where a pin holds every unit, only numbers that are not finite do: the candidate still
    tells what the step would have written.
    """
    x = call.x
    if call.mask is not None:
        x = torch.where(call.mask.unsqueeze(-1), x, 0)
    if call.pins.update is not None:
        held = (call.pins.update == 0).all(-1, keepdim=True)
        x = torch.where(held & ~torch.isfinite(x), 0, x)
    return x
