"""Arrays of any framework in and out: NumPy's, JAX's and torch's into tensors, tensors into NumPy's, bit by bit."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.errors import InputTypeError
from tidegate.extras import require

__all__ = ["Array", "is_array", "to_numpy", "to_tensor"]

Array = np.ndarray[Any, np.dtype[Any]]


def is_array(value: object) -> bool:
    """Whether `value` is an array or a tensor of some framework, rather than a list or a layer."""
    return isinstance(value, Tensor) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def to_tensor(name: str, value: object) -> Tensor:
    """A copy of a floating array as a tensor of the same dtype, on the CPU."""
    if not is_array(value):
        raise InputTypeError(f"{name} must be an array; got {type(value).__name__}")
    if isinstance(value, Tensor):
        if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise InputTypeError(f"{name} must be an array of floating numbers; got {value.dtype}")
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    array = np.array(value, order="C")
    if array.dtype.name == "bfloat16":  # a type that NumPy knows by name only
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if array.dtype.name not in ("float16", "float32", "float64"):
        raise InputTypeError(f"{name} must be an array of floating numbers; got {array.dtype}")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def to_numpy(tensor: Tensor) -> Array:
    """A copy of `tensor` as an array of NumPy's, in C order; bfloat16 needs the package that gives NumPy the type."""
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        bfloat16 = require("ml_dtypes", "frameworks").bfloat16
        return np.array(plain.view(torch.int16).numpy()).view(bfloat16)
    return np.array(plain.numpy())
