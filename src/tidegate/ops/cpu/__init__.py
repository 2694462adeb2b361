"""The CPU backend: kernels in Python, compiled by Numba to vector code, with threads, gates, masks and pins inside."""

import torch
from torch import Tensor

from tidegate.ops import reference
from tidegate.ops.call import Call, Steps
from tidegate.ops.cpu.layout import LAYOUTS
from tidegate.ops.cpu.machine import missing
from tidegate.ops.cpu.operators import ACTIVATION_NUMBERS, recurrence
from tidegate.ops.cpu.steering import Steering
from tidegate.ops.cpu.step import Stepper
from tidegate.ops.pieces import piece_by_piece

__all__ = ["Stepper", "remark", "run", "unsupported"]

_DTYPES = (torch.float32, torch.float64)


def unsupported(call: Call) -> str | None:  # noqa: PLR0911 - one for each reason
    """Why the kernels cannot run `call`, in one sentence, or None if they can."""
    if call.x.device.type != "cpu":
        return f"its kernels run on the CPU, and the input is on {call.x.device}"
    if call.x.dtype not in _DTYPES:
        return f"its kernels calculate in float32 and float64, and the input is {call.x.dtype}"
    if (reason := _unknown(call)) is not None:
        return reason
    if torch.is_autocast_enabled("cpu"):
        return "its kernels calculate in the dtype they are given, and autocast is on"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "its kernels cannot be transformed by torch.func (vmap, grad, jvp)"
    if not torch.compiler.is_compiling() and (reason := _beyond(call)):
        return reason
    return missing()


def _unknown(call: Call) -> str | None:
    """What the kernels do not do in a step, or None."""
    if call.system not in LAYOUTS:
        return f'its kernels do not have the system "{call.system}"'
    if not isinstance(call.activation, str):
        return f"its kernels have the activations {', '.join(ACTIVATION_NUMBERS)}, and this one is a function"
    if call.x.shape[1] == 0:
        return "its kernels calculate for at least one sequence, and there is none"
    if call.resets is not None and torch.compiler.is_compiling():
        return "where the state is reset, its kernels run the pieces apart, which torch.compile cannot follow"
    if call.dropped.state is not None:
        return "its kernels drop nothing of the state before its products (recurrent dropout)"
    return None


def _beyond(call: Call) -> str | None:
    """Which kind of differentiation or tensor is under way that operators of PyTorch's own could follow, not ours."""
    tensors = _tensors(call)
    if torch.autograd.forward_ad._current_level >= 0 and any(
        torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None  # type: ignore[no-untyped-call]
        for tensor in tensors
    ):
        return "its kernels do not differentiate forwards"
    for tensor in tensors:
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            return f"its kernels take plain tensors, and one of these is a {type(tensor).__name__}"
        if tensor.dtype != call.x.dtype or tensor.device != call.x.device:
            return f"its kernels take tensors that are all {call.x.dtype} on the CPU, and one of these is not"
    return None


def _tensors(call: Call) -> list[Tensor]:
    return [tensor for tensor in (call.x, call.h_0, *call.weights) if tensor is not None]


def remark(call: Call) -> str | None:  # noqa: ARG001 - every backend is asked the same
    """What a user of this backend should know."""
    return "gradients of gradients come from reference"


def run(call: Call) -> Steps:
    """Run the sequence by the kernels."""
    if call.resets is not None:
        return piece_by_piece(call, run)
    x = call.x if call.pins.update is None else reference.without_unread_values(call)
    tensors = [None if one is None else one.contiguous() for one in (x, call.h_0, *call.weights[:4])]
    mask = None if call.mask is None else call.mask.contiguous()
    learning = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in _tensors(call))
    assert isinstance(call.activation, str)
    number = ACTIVATION_NUMBERS[call.activation]
    keep = learning and not call.recompute
    given = (call.system, *tensors, number, mask, *Steering.of(call), call.reverse, call.gates, keep)
    if learning or torch.compiler.is_compiling():
        hidden, update, reset, candidate, _ = recurrence(*given)
    else:  # past autograd, which would ask again whether anything learns
        with torch._C._AutoDispatchBelowAutograd():
            hidden, update, reset, candidate, _ = recurrence(*given)
    return Steps(hidden, update, reset, candidate) if call.gates else Steps(hidden)
