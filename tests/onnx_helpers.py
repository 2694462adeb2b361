"""What the tests of ONNX share: ONNX Runtime on a file, and files of one node."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

__all__ = ["node_file", "onnx_runtime", "run"]

onnxruntime.set_default_logger_severity(3)  # it warns of every state that has a default, which is meant

_RANKS = {"Y": 4, "Y_h": 3}


def onnx_runtime(proto: Any) -> Any:
    """A session of ONNX Runtime on one thread, for a checked file."""
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(proto: Any, **inputs: Tensor) -> list[Tensor]:
    """What ONNX Runtime makes of a file."""
    made = onnx_runtime(proto).run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return [torch.from_numpy(np.array(one)) for one in made]


def node_file(
    operator: str,
    initializers: dict[str, Tensor],
    inputs: dict[str, Tensor],
    *,
    opset: int = 20,
    outputs: int = 2,
    **attributes: Any,
) -> Any:
    """A file of one GRU or RNN node: `initializers` and `inputs` by ONNX's names for the node's inputs."""
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
    named = [name if name in initializers or name in inputs else "" for name in order]
    while not named[-1]:
        named.pop()
    made = ["Y", "Y_h"][:outputs]
    node = onnx.helper.make_node(operator, named, made, name="recurrent", **attributes)
    kinds = {torch.float32: onnx.TensorProto.FLOAT, torch.int32: onnx.TensorProto.INT32}

    def told(name: str, tensor: Tensor) -> Any:
        return onnx.helper.make_tensor_value_info(name, kinds[tensor.dtype], [None] * tensor.ndim)

    graph = onnx.helper.make_graph(
        [node],
        "one_node",
        [told(name, tensor) for name, tensor in inputs.items()],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * _RANKS[name]) for name in made],
        [onnx.numpy_helper.from_array(tensor.numpy(), name) for name, tensor in initializers.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
