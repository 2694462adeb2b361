"""The operators of ONNX around a recurrent node, as functions of torch tensors: one a name."""

from tidegate.convert.onnx.operators import elementwise, layout, making, products, reductions
from tidegate.convert.onnx.operators.table import OPERATORS, Operator

__all__ = ["OPERATORS", "Operator", "elementwise", "layout", "making", "products", "reductions"]
