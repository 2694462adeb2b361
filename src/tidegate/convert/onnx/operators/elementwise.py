"""Operators that work unit by unit."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tidegate.convert.onnx.operators.table import operator
from tidegate.errors import InputValueError

__all__: list[str] = []

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
        operator(name, since=1 if name == "Not" else 7, lays_out=name == "Identity")(unary(one))
    for name, two in _BINARY.items():
        operator(name)(binary(two))


_enter_plain()


@operator("Div")
def _div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Pow")
def _pow(x: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(x, exponent).to(x.dtype)


@operator("Where")
def _where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


@operator("Clip", since=11)
def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@operator("Max", since=8)
def _max(*tensors: Tensor) -> Tensor:
    return _reduce_all(torch.maximum, tensors)


@operator("Min", since=8)
def _min(*tensors: Tensor) -> Tensor:
    return _reduce_all(torch.minimum, tensors)


@operator("Sum", since=8)
def _sum(*tensors: Tensor) -> Tensor:
    return _reduce_all(torch.add, tensors)


@operator("Mean", since=8)
def _mean(*tensors: Tensor) -> Tensor:
    return _reduce_all(torch.add, tensors) / len(tensors)


def _reduce_all(function: Callable[[Tensor, Tensor], Tensor], tensors: Sequence[Tensor]) -> Tensor:
    total, *others = tensors
    for tensor in others:
        total = function(total, tensor)
    return total


@operator("LeakyRelu")
def _leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return functional.leaky_relu(x, alpha)


@operator("Elu")
def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.elu(x, alpha)


@operator("HardSigmoid")
def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@operator("Gelu", since=20)
def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return functional.gelu(x, approximate=approximate)


@operator("Dropout")
def _dropout(
    x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None, *, seed: int = 0, outputs: int
) -> Any:  # fmt: skip
    if training_mode is not None and bool(training_mode):
        raise InputValueError("training_mode of a Dropout node must be False; got True")
    return x if outputs == 1 else (x, torch.ones_like(x, dtype=torch.bool))
