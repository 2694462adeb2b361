"""ONNX's GRU in ONNX Runtime and in OpenVINO as competitors."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.problem import Problem
from benchmarks.rounds import Competitor
from benchmarks.shapes import Shape

__all__ = ["infer_request", "model", "onnxruntime_forward", "openvino_forward", "session"]

# Without it OpenVINO does not report its use over the network, for which it forks as it is imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def model(shape: Shape, weights: Mapping[str, NDArray[np.float32]], *, state: bool) -> bytes:
    """An ONNX file with one GRU of fixed shape: `x` (T, B, I) to `y` (T, 1, B, H).

    With `state`, `h_0` (1, B, H) comes in, and `h_n` (1, B, H) goes out instead of `y`.
    """
    onnx: Any = import_module("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    batch, steps, inputs, units = shape
    constants = {
        "W": _gates(weights["weight_ih"])[None],
        "R": _gates(weights["weight_hh"])[None],
        "B": np.concatenate([_gates(weights["bias_ih"]), _gates(weights["bias_hh"])])[None],
    }
    given = {"x": (steps, batch, inputs), **({"h_0": (1, batch, units)} if state else {})}
    wanted = {"h_n": (1, batch, units)} if state else {"y": (steps, 1, batch, units)}
    node = helper.make_node(
        "GRU",
        ["x", "W", "R", "B", *(["", "h_0"] if state else [])],
        ["", "h_n"] if state else ["y"],
        hidden_size=units,
        linear_before_reset=1,
    )
    graph = helper.make_graph(
        [node],
        "gru",
        [helper.make_tensor_value_info(name, kind, size) for name, size in given.items()],
        [helper.make_tensor_value_info(name, kind, size) for name, size in wanted.items()],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(whole)
    file: bytes = whole.SerializeToString()
    return file


def _gates(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Torch's blocks of rows, reset, z, candidate, in ONNX's order: z, reset, candidate."""
    reset, z, candidate = np.split(rows, 3)
    return np.concatenate([z, reset, candidate])


def session(file: bytes, threads: int) -> Any:
    """The model in ONNX Runtime."""
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def infer_request(file: bytes, threads: int) -> Any:
    """The model in OpenVINO, as something that takes an input and waits for the output."""
    openvino: Any = import_module("openvino")
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    core = openvino.Core()
    return core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()


def onnxruntime_forward(problem: Problem, threads: int) -> Competitor:
    """ONNX Runtime, NumPy in and out."""
    ready = session(model(problem.shape, problem.weights, state=False), threads)
    return Competitor(
        "ONNX Runtime",
        lambda: ready.run(["y"], {"x": problem.x})[0],
        lambda output: {"output": output[:, 0]},
    )


def openvino_forward(problem: Problem, threads: int) -> Competitor:
    """OpenVINO, NumPy in and out, neither of them copied."""
    ready = infer_request(model(problem.shape, problem.weights, state=False), threads)
    return Competitor(
        "OpenVINO",
        lambda: ready.infer({0: problem.x}, share_inputs=True, share_outputs=True)[0],
        lambda output: {"output": output[:, 0]},
    )
