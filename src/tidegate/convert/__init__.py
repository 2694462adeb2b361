"""Weights and models in and out of other frameworks' formats; each format's module loads when it is first asked for."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate.convert.onnx import (
        OnnxFile,
        OnnxLayer,
        OnnxModel,
        OnnxNode,
        from_onnx,
        from_onnx_nodes,
        to_onnx,
        to_onnx_nodes,
    )

__all__ = [
    "OnnxFile",
    "OnnxLayer",
    "OnnxModel",
    "OnnxNode",
    "from_onnx",
    "from_onnx_nodes",
    "to_onnx",
    "to_onnx_nodes",
]


def __getattr__(name: str) -> Any:
    """A name of `__all__`, from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("tidegate.convert.onnx"), name)


def __dir__() -> list[str]:
    """The names that can be asked for."""
    return sorted({*globals(), *__all__})
