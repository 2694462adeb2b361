"""The kernels as operators of PyTorch, so that autograd, `torch.compile` and `torch.export` know them.

`tidegate::recurrence` runs a sequence, `tidegate::recurrence_backward` gives its gradients. A second derivative is not
theirs: where autograd asks for gradients that can be differentiated again, they come from the reference backend.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tidegate.conventions import PackedWeights
from tidegate.errors import InputValueError
from tidegate.ops import reference
from tidegate.ops.call import SYSTEMS, Call
from tidegate.ops.cpu.launch import Problem, States, backward, forward, kept_states
from tidegate.ops.cpu.steering import Steering

__all__ = ["ACTIVATION_NUMBERS", "recurrence"]

#: How a kernel is told which activation to apply.
ACTIVATION_NUMBERS = {"tanh": 0, "relu": 1, "sigmoid": 2, "identity": 3}
_NAMES = list(ACTIVATION_NUMBERS)


def _operator(function: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """The function as the operator `tidegate::<its name>` for the CPU; `fake` gives the shapes alone.

    What `torch.library.custom_op` does, but for one thing: calling what that makes imports PyTorch's compiler, which
    takes most of a second, in the first call of every process.
    """
    name = f"tidegate::{function.__name__.lstrip('_')}"
    schema = torch.library.infer_schema(function, mutates_args=())
    torch.library.define(name, schema, tags=[torch.Tag.pt2_compliant_tag])
    torch.library.impl(name, "cpu", function)
    torch.library.register_fake(name, fake)
    return getattr(torch.ops.tidegate, function.__name__.lstrip("_")).default


def _recurrence(
    system: str,
    x: Tensor,
    h_0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    activation: int,
    mask: Tensor | None,
    pin_update: Tensor | None,
    pin_reset: Tensor | None,
    factor: Tensor | None,
    write: float,
    reverse: bool,
    gates: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The states, and what was asked for of update, reset, candidate and the candidate's past; the others are empty.

    `gates` asks for the first three; `keep` for what the gradient needs, without which it computes the gates anew.
    """
    tensors = [x, h_0, weight_ih, weight_hh, bias_ih, bias_hh, mask, pin_update, pin_reset, factor]
    problem = _problem(system, tensors, activation, write, reverse)
    hidden, *others = forward(problem, gates=gates, keep=keep)
    update, reset, candidate, past = (x.new_empty(0) if other is None else other for other in others)
    return hidden, update, reset, candidate, past


def _fake(
    system: str, x: Tensor, h_0: Tensor, weight_ih: Tensor, weight_hh: Tensor | None, bias_ih: Tensor | None,
    bias_hh: Tensor | None, activation: int, mask: Tensor | None, pin_update: Tensor | None, pin_reset: Tensor | None,
    factor: Tensor | None, write: float, reverse: bool, gates: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    shape = (x.shape[0], x.shape[1], h_0.shape[1])
    pinned = pin_update is not None or pin_reset is not None
    wanted = kept_states(system, pinned=pinned, gates=gates, keep=keep)
    hidden, update, reset, candidate, past = (x.new_empty(shape if one else (0,)) for one in (True, *wanted))
    return hidden, update, reset, candidate, past


def _recurrence_backward(
    system: str,
    tensors: Sequence[Tensor | None],
    activation: int,
    write: float,
    reverse: bool,
    states: Sequence[Tensor],
    arrived: Sequence[Tensor | None],
    d_x: bool,
    recompute: bool,
) -> list[Tensor]:
    """The gradients of x (empty unless `d_x`), h_0 and the four weights (empty where there is none).

    `tensors` are x, h_0, the four weights, mask, pins and factor; `states` what `recurrence` gave, `arrived` the
    gradients of its first four.
    """
    problem = _problem(system, tensors, activation, write, reverse)
    given = [state if state.numel() else None for state in states]
    kept = States(*given, *[None] * (len(States._fields) - len(given)))  # type: ignore[arg-type]
    contiguous = (None if one is None else one.contiguous() for one in arrived)
    whole = States(*contiguous, past=None)  # type: ignore[arg-type, misc]
    gradients = backward(problem, kept, whole, d_x=d_x, recompute=recompute)
    return [problem.x.new_empty(0) if gradient is None else gradient for gradient in gradients]


def _fake_backward(
    system: str, tensors: Sequence[Tensor | None], activation: int, write: float, reverse: bool,
    states: Sequence[Tensor], arrived: Sequence[Tensor | None], d_x: bool, recompute: bool,
) -> list[Tensor]:  # fmt: skip
    x, *others = tensors[:6]
    assert x is not None
    first = torch.empty_like(x) if d_x else x.new_empty(0)
    return [first, *(x.new_empty(0) if other is None else torch.empty_like(other) for other in others)]


recurrence = _operator(_recurrence, _fake)
recurrence_backward = _operator(_recurrence_backward, _fake_backward)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    system, *tensors, activation, mask, pin_update, pin_reset, factor, write, reverse, gates, keep = inputs
    ctx.system, ctx.activation, ctx.write, ctx.reverse, ctx.recompute = system, activation, write, reverse, not keep
    ctx.given = 4 if gates else 1
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[ctx.given :])
    states = output if keep else output[:1]
    ctx.save_for_backward(*tensors, mask, pin_update, pin_reset, factor, *states)


def _backward(ctx: Any, *arrived: Tensor | None) -> tuple[Any, ...]:
    """The gradients of all that `recurrence` was given."""
    saved = ctx.saved_tensors  # once: torch.utils.checkpoint gives them no second time
    tensors, states = saved[:10], saved[10:]
    needed = ctx.needs_input_grad[2:8]
    arrived = tuple(arrived[: ctx.given]) + (None,) * (4 - ctx.given)
    if torch.is_grad_enabled() or any(one is not None and _batched(one) for one in arrived):
        gradients = _twice_differentiable(ctx, tensors, arrived, needed)
    else:
        gradients = recurrence_backward(
            ctx.system, list(tensors), ctx.activation, ctx.write, ctx.reverse, list(states), list(arrived), needed[0],
            ctx.recompute,
        )  # fmt: skip
    chosen = (gradient if need else None for gradient, need in zip(gradients, needed, strict=True))
    return (None, *chosen, *[None] * 9)


def _batched(tensor: Tensor) -> bool:
    """Whether it stands for many, as under `torch.func.vmap` or in `torch.autograd.grad(…, is_grads_batched=True)`."""
    kinds = torch._C._functorch
    return kinds.is_batchedtensor(tensor) or kinds.is_legacy_batchedtensor(tensor)


class _Differentiable(torch.autograd.Function):
    """`recurrence` with its gradient, given the dispatcher's keys before its arguments."""

    @staticmethod
    def forward(ctx: Any, keys: Any, *inputs: Any) -> Any:
        output = _below_autograd(keys, *inputs)
        _setup(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, *arrived: Tensor | None) -> tuple[Any, ...]:
        return (None, *_backward(ctx, *arrived))


def _below_autograd(keys: Any, *inputs: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return recurrence.redispatch(keys & torch._C._after_autograd_keyset, *inputs)


def _autograd(keys: Any, *inputs: Any) -> Any:
    # what `torch.library.register_autograd` does, which also reads the operator's schema, 60 µs, in every call
    if torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in inputs):
        return _Differentiable.apply(keys, *inputs)  # type: ignore[no-untyped-call]
    return _below_autograd(keys, *inputs)


_library = torch.library.Library("tidegate", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.impl("recurrence", _autograd, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]


def _twice_differentiable(
    ctx: Any, tensors: Sequence[Tensor | None], arrived: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients by the reference backend, as functions of everything that they depend on, or of many at once."""
    problem = _problem(ctx.system, tensors, ctx.activation, ctx.write, ctx.reverse)
    with torch.enable_grad():
        outputs = reference.run(_call(problem, gates=True))
    pairs = [
        (output, one) for output, one in zip(outputs, arrived, strict=True) if output is not None and one is not None
    ]
    wanted = [tensor for tensor, need in zip(tensors, needed, strict=False) if need and tensor is not None]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in pairs], wanted, [one for _, one in pairs], create_graph=True, allow_unused=True
        )
    )
    return [next(found) if need else None for need in needed]


def _problem(system: str, tensors: Sequence[Tensor | None], activation: int, write: float, reverse: bool) -> Problem:
    """The problem in contiguous memory, its shapes checked: a kernel reads addresses, and an operator's caller may be a
    graph that was exported for other tensors.
    """
    contiguous = [None if one is None else one.contiguous() for one in tensors]
    x, h_0, weight_ih, weight_hh, bias_ih, bias_hh, mask, pin_update, pin_reset, factor = contiguous
    assert x is not None
    assert h_0 is not None
    assert weight_ih is not None
    (steps, batch, inputs), units, blocks = x.shape, h_0.shape[-1], SYSTEMS[system].blocks
    past = (blocks * units, units)
    expected = (x.shape, (batch, units), (blocks * units, inputs), past, past[:1], past[:1], (steps, batch))
    names = ("x", "h_0", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "mask")
    for name, tensor, shape in zip(names, contiguous, expected, strict=False):
        if tensor is not None and tensor.shape != shape:
            raise InputValueError(f"{name} must be {tuple(shape)}; got {tuple(tensor.shape)}")
    for name, spread in zip(("pin_update", "pin_reset", "factor"), contiguous[7:], strict=True):
        if spread is not None and any(
            have not in (1, full) for have, full in zip(spread.shape, (steps, batch, units), strict=True)
        ):
            raise InputValueError(f"{name} must fit {(steps, batch, units)}; got {tuple(spread.shape)}")
    steering = Steering(pin_update, pin_reset, factor, write)
    return Problem(system, x, h_0, weight_ih, weight_hh, bias_ih, bias_hh, activation, mask, steering, reverse)


def _call(problem: Problem, *, gates: bool) -> Call:
    """The problem as the reference backend takes it."""
    weights = PackedWeights(problem.weight_ih, problem.weight_hh, problem.bias_ih, problem.bias_hh)
    steering, name = problem.steering, _NAMES[problem.activation]
    return Call(
        problem.system, problem.x, problem.h_0, weights, name, problem.mask, steering.pins, problem.reverse, gates,
        dropped=steering.dropped,
    )  # fmt: skip
