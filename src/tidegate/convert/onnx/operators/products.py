"""Operators that are products, and those that normalise."""

import torch
from torch import Tensor
from torch.nn import functional

from tidegate.convert.onnx.operators.table import operator, place_of
from tidegate.errors import InputValueError

__all__: list[str] = []


@operator("Gemm")
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


@operator("Softmax", since=13)
def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@operator("LogSoftmax", since=13)
def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


@operator("LayerNormalization", since=17)
def _layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    over = list(range(place_of(axis, x.ndim), x.ndim))
    wide = x.float() if stash_type == 1 and x.dtype in (torch.float16, torch.bfloat16) else x
    mean = wide.mean(over, keepdim=True)
    shifted = wide - mean
    scaled = 1 / torch.sqrt(shifted.square().mean(over, keepdim=True) + epsilon)
    y = (shifted * scaled).to(x.dtype) * scale
    return y if bias is None else y + bias, mean, scaled


@operator("BatchNormalization", since=15)
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
