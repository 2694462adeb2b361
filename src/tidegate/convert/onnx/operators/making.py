"""Operators that make tensors of nothing but numbers, and change their dtypes."""

import torch
from torch import Tensor

from tidegate.convert.onnx.file import DTYPES
from tidegate.convert.onnx.operators.table import numbers, operator
from tidegate.errors import InputValueError

__all__: list[str] = []


@operator("Cast", lays_out=True)
def _cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(DTYPES[to])


@operator("CastLike", since=15)
def _cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(like.dtype)


@operator("Constant", lays_out=True)
def _constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
) -> Tensor:
    floats = {"value_float": value_float, "value_floats": value_floats}
    told = {"value": value, "value_int": value_int, "value_ints": value_ints, **floats}
    given = sorted(name for name, one in told.items() if one is not None)
    if len(given) != 1:
        raise InputValueError(f"a Constant node must have one value; got {', '.join(given) or 'none'}")
    if value is not None:
        return value
    return torch.tensor(told[given[0]], dtype=torch.float32 if given[0] in floats else torch.int64)


@operator("ConstantOfShape", since=9)
def _constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    filler = torch.zeros(1) if value is None else value
    return filler.reshape(()).expand(tuple(numbers(shape))).clone()


@operator("Range", since=11)
def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    if not delta:
        raise InputValueError("delta of a Range node must not be 0")
    count = max(0, int(torch.ceil((limit - start) / delta)))
    return start + torch.arange(count, dtype=start.dtype) * delta
