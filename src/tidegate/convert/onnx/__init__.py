"""ONNX: models written to it, and its GRU and RNN nodes, or whole graphs, read from it."""

from tidegate.convert.onnx.export import to_onnx
from tidegate.convert.onnx.graph import OnnxModel
from tidegate.convert.onnx.read import OnnxFile, OnnxLayer, from_onnx
from tidegate.convert.onnx.weights import OnnxNode, from_onnx_nodes, to_onnx_nodes

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
