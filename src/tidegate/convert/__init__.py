"""Weights and models in and out of other frameworks' formats."""

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
