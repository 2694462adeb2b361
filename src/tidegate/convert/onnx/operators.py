"""The operators of ONNX around a recurrent node, as functions of torch tensors: one a name, its attributes by keyword.

An operator takes its inputs in ONNX's order (None for one that is left out) and its attributes as keywords; what it has
no keyword for is refused. `since` is the version of ONNX's operators from which on the function says what they do.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tidegate.convert.onnx.file import DTYPES
from tidegate.errors import InputValueError

__all__ = ["OPERATORS", "RESHAPING", "Operator"]


@dataclass(frozen=True)
class Operator:
    """A function of tensors, and what may be asked of it."""

    function: Callable[..., Any]
    since: int
    attributes: frozenset[str]
    #: How many inputs it takes, at least and at most; None for any number.
    inputs: tuple[int, int | None]
    #: Told how many outputs are wanted, by the keyword `outputs`.
    counts_outputs: bool


OPERATORS: dict[str, Operator] = {}


def _operator(*names: str, since: int = 7) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function under its names."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(function).parameters.values()
        plain = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        least = sum(one.default is one.empty for one in plain)
        most = None if any(one.kind is one.VAR_POSITIONAL for one in parameters) else len(plain)
        keywords = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
        told = "outputs" in keywords
        for name in names:
            OPERATORS[name] = Operator(function, since, frozenset(keywords - {"outputs"}), (least, most), told)
        return function

    return enter


def _numbers(tensor: Tensor) -> list[int]:
    """A tensor of sizes or axes as ints."""
    numbers: list[int] = tensor.flatten().tolist()
    return numbers


# ---------------------------------------------------------------------------------------------------------------------
# Unit by unit

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Identity": lambda x: x,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}


def _enter_plain() -> None:
    # torch's own signatures say too little: these have as many inputs as the operators
    def unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        def run(x: Tensor) -> Tensor:
            return function(x)

        return run

    def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
        def run(a: Tensor, b: Tensor) -> Tensor:
            return function(a, b)

        return run

    for name, one in _UNARY.items():
        _operator(name, since=1 if name == "Not" else 7)(unary(one))
    for name, two in _BINARY.items():
        _operator(name)(binary(two))


_enter_plain()


@_operator("Div")
def _div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@_operator("Pow")
def _pow(x: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(x, exponent).to(x.dtype)


@_operator("Where")
def _where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


@_operator("Clip", since=11)
def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@_operator("Max", since=8)
def _max(*tensors: Tensor) -> Tensor:
    return _reduce_all(torch.maximum, tensors)


@_operator("Min", since=8)
def _min(*tensors: Tensor) -> Tensor:
    return _reduce_all(torch.minimum, tensors)


@_operator("Sum", since=8)
def _sum(*tensors: Tensor) -> Tensor:
    return _reduce_all(torch.add, tensors)


@_operator("Mean", since=8)
def _mean(*tensors: Tensor) -> Tensor:
    return _reduce_all(torch.add, tensors) / len(tensors)


def _reduce_all(function: Callable[[Tensor, Tensor], Tensor], tensors: Sequence[Tensor]) -> Tensor:
    total, *others = tensors
    for tensor in others:
        total = function(total, tensor)
    return total


@_operator("LeakyRelu")
def _leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return functional.leaky_relu(x, alpha)


@_operator("Elu")
def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.elu(x, alpha)


@_operator("HardSigmoid")
def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@_operator("Gelu", since=20)
def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return functional.gelu(x, approximate=approximate)


@_operator("Dropout")
def _dropout(
    x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None, *, seed: int = 0, outputs: int
) -> Any:  # fmt: skip
    if training_mode is not None and bool(training_mode):
        raise InputValueError("training_mode of a Dropout node must be False; got True")
    return x if outputs == 1 else (x, torch.ones_like(x, dtype=torch.bool))


# ---------------------------------------------------------------------------------------------------------------------
# Products and norms


@_operator("Gemm")
def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    product = torch.matmul(a.T if transA else a, b.T if transB else b)
    product = product if alpha == 1 else alpha * product
    return product if c is None else product + (c if beta == 1 else beta * c)


@_operator("Softmax", since=13)
def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@_operator("LogSoftmax", since=13)
def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


@_operator("LayerNormalization", since=17)
def _layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    over = list(range(axis % x.ndim, x.ndim))
    wide = x.float() if stash_type == 1 and x.dtype in (torch.float16, torch.bfloat16) else x
    mean = wide.mean(over, keepdim=True)
    shifted = wide - mean
    scaled = 1 / torch.sqrt(shifted.square().mean(over, keepdim=True) + epsilon)
    y = (shifted * scaled).to(x.dtype) * scale
    return y if bias is None else y + bias, mean, scaled


@_operator("BatchNormalization", since=15)
def _batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Tensor:  # fmt: skip
    if training_mode:
        raise InputValueError("training_mode of a BatchNormalization node must be 0; got 1")
    return functional.batch_norm(x, mean, variance, scale, bias, eps=epsilon)


# ---------------------------------------------------------------------------------------------------------------------
# Over axes


def _reduction(name: str, reduce: Callable[[Tensor, list[int], bool], Tensor]) -> None:
    def run(
        x: Tensor,
        axes_given: Tensor | None = None,
        *,
        axes: list[int] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        over = axes if axes_given is None else _numbers(axes_given)
        if not over:
            if noop_with_empty_axes:
                return x
            over = list(range(x.ndim))
        return reduce(x, over, bool(keepdims)) if x.ndim else x

    _operator(name)(run)


_reduction("ReduceMax", torch.amax)
_reduction("ReduceMean", torch.mean)
_reduction("ReduceMin", torch.amin)
_reduction("ReduceSum", lambda x, axes, keep: torch.sum(x, axes, keep).to(x.dtype))


@_operator("ArgMax", since=12)
def _argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if not select_last_index:
        return torch.argmax(x, axis, bool(keepdims))
    return x.shape[axis] - 1 - torch.argmax(x.flip(axis), axis, bool(keepdims))


@_operator("CumSum", since=11)
def _cumsum(x: Tensor, axis_given: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    axis = int(axis_given)
    flipped = x.flip(axis) if reverse else x
    total = flipped.cumsum(axis).to(x.dtype)
    total = total - flipped if exclusive else total
    return total.flip(axis) if reverse else total


# ---------------------------------------------------------------------------------------------------------------------
# Shapes


@_operator("Shape")
def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape)[slice(start, end)], dtype=torch.int64)


@_operator("Size")
def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@_operator("Reshape")
def _reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    sizes = _numbers(shape)
    if not allowzero:
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(tuple(sizes))


@_operator("Flatten")
def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    rows = x.shape[: axis % x.ndim if axis < 0 else axis].numel()
    return x.reshape(rows, x.numel() // rows if rows else 0)


@_operator("Transpose")
def _transpose(x: Tensor, *, perm: list[int] | None = None) -> Tensor:
    return x.permute(list(range(x.ndim))[::-1] if perm is None else perm)


@_operator("Squeeze")
def _squeeze(x: Tensor, axes_given: Tensor | None = None, *, axes: list[int] | None = None) -> Tensor:
    told = axes if axes_given is None else _numbers(axes_given)
    away = (
        [axis for axis, size in enumerate(x.shape) if size == 1] if told is None else [axis % x.ndim for axis in told]
    )
    if any(x.shape[axis] != 1 for axis in away):
        raise InputValueError(f"axes of a Squeeze node must have the size 1; got {away} of {tuple(x.shape)}")
    return x.reshape(tuple(size for axis, size in enumerate(x.shape) if axis not in away))


@_operator("Unsqueeze")
def _unsqueeze(x: Tensor, axes_given: Tensor | None = None, *, axes: list[int] | None = None) -> Tensor:
    told = axes if axes_given is None else _numbers(axes_given)
    assert told is not None
    rank = x.ndim + len(told)
    for axis in sorted(axis % rank for axis in told):
        x = x.unsqueeze(axis)
    return x


@_operator("Expand", since=8)
def _expand(x: Tensor, shape: Tensor) -> Tensor:
    like = x.new_empty(()).expand(tuple(_numbers(shape)))
    expanded: Tensor = torch.broadcast_tensors(x, like)[0]  # type: ignore[no-untyped-call]
    return expanded


@_operator("Tile")
def _tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(_numbers(repeats))


@_operator("Concat")
def _concat(*tensors: Tensor, axis: int) -> Tensor:
    return torch.cat(tensors, axis)


@_operator("Split")
def _split(
    x: Tensor,
    sizes: Tensor | None = None,
    *,
    axis: int = 0,
    split: list[int] | None = None,
    num_outputs: int | None = None,
    outputs: int,
) -> tuple[Tensor, ...]:
    told = split if sizes is None else _numbers(sizes)
    if told is None:
        count = outputs if num_outputs is None else num_outputs
        whole = -(-x.shape[axis] // count)
        told = [whole] * (count - 1)
        told.append(x.shape[axis] - sum(told))
    return torch.split(x, told, axis)


@_operator("Slice", since=10)
def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    first, last = _numbers(starts), _numbers(ends)
    over = list(range(len(first))) if axes is None else _numbers(axes)
    by = [1] * len(first) if steps is None else _numbers(steps)
    for axis, start, end, step in zip(over, first, last, by, strict=True):
        chosen = range(*slice(start, end, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, chosen.start if chosen else 0, len(chosen))
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


@_operator("Gather")
def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.ndim
    chosen = _counted_from_the_start(indices, x.shape[axis])
    return x.index_select(axis, chosen.flatten()).reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@_operator("GatherElements", since=11)
def _gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return torch.gather(x, axis, _counted_from_the_start(indices, x.shape[axis]))


def _counted_from_the_start(indices: Tensor, size: int) -> Tensor:
    """Indices of which negative ones counted from the end; refused where they lie outside."""
    if indices.numel() and not bool(((indices >= -size) & (indices < size)).all()):
        raise InputValueError(f"indices must lie in {-size}..{size - 1}; got {indices.min()} to {indices.max()}")
    return torch.where(indices < 0, indices + size, indices).long()


@_operator("ReverseSequence", since=10)
def _reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    moved = x.movedim((time_axis, batch_axis), (0, 1))
    steps = torch.arange(moved.shape[0], device=x.device).unsqueeze(-1)
    mirrored = torch.where(steps < lengths, lengths - 1 - steps, steps)
    turned = moved.gather(0, mirrored.reshape(*mirrored.shape, *[1] * (x.ndim - 2)).expand_as(moved))
    return turned.movedim((0, 1), (time_axis, batch_axis))


# ---------------------------------------------------------------------------------------------------------------------
# New tensors, and dtypes


@_operator("Cast")
def _cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(DTYPES[to])


@_operator("CastLike", since=15)
def _cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(like.dtype)


@_operator("Constant")
def _constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
) -> Tensor:
    if value is not None:
        return value
    floats = value_float if value_floats is None else value_floats
    if floats is not None:
        return torch.tensor(floats, dtype=torch.float32)
    return torch.tensor(value_int if value_ints is None else value_ints, dtype=torch.int64)


@_operator("ConstantOfShape", since=9)
def _constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    filler = torch.zeros(1) if value is None else value
    return filler.reshape(()).expand(tuple(_numbers(shape))).clone()


@_operator("Range", since=11)
def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    count = max(0, int(torch.ceil((limit - start) / delta)))
    return start + torch.arange(count, dtype=start.dtype) * delta


#: Those that only lay numbers out anew: of constants they make a constant, of no more numbers than all that they read.
RESHAPING = frozenset(
    [
        "Cast",
        "Concat",
        "Constant",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)
