"""The table `stream`: one step of one live signal, called from Python, NumPy in and NumPy out."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import tidegate as tg
from benchmarks.onnx_model import infer_request, model, session
from benchmarks.peers import Peer, present
from benchmarks.problem import Problem
from benchmarks.rounds import Competitor, agreement, paired_ratio, take_turns
from benchmarks.settings import Crowd, Outcome, Settings, disturbed, progress
from benchmarks.shapes import STREAM, Shape
from benchmarks.table import digits, markdown, ratio

__all__ = ["PEERS", "run"]

#: Steps of one call of a competitor; the first call begins with the zero state, and its states are compared.
_STEPS = 20
Make = Callable[[Problem, int], Competitor]


def _competitor(name: str, call: Callable[[], Sequence[NDArray[np.float32]]]) -> Competitor:
    return Competitor(name, call, lambda states: {"output": np.stack([state.reshape(1, -1) for state in states])})


def _tidegate(problem: Problem, _threads: int) -> Competitor:
    layer = tg.GRU(*problem.shape[2:])
    layer.load_state_dict(problem.state_dict())
    stream = tg.Stream(layer)
    xs = list(problem.x[:, 0])
    return _competitor("tidegate", lambda: [stream(x) for x in xs])


def _torch(problem: Problem, _threads: int) -> Competitor:
    cell = torch.nn.GRUCell(*problem.shape[2:])
    cell.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in problem.state_dict().items()})
    xs = list(problem.x)
    state = torch.zeros(1, problem.shape.units)

    def call() -> list[NDArray[np.float32]]:
        nonlocal state
        states = []
        with torch.no_grad():
            for x in xs:
                state = cell(torch.from_numpy(x), state)
                states.append(state.numpy())
        return states

    return _competitor("torch", call)


def _onnxruntime(problem: Problem, threads: int) -> Competitor:
    ready = session(_one_step(problem), threads)
    xs = list(problem.x[:, None])
    state = np.zeros((1, 1, problem.shape.units), np.float32)

    def call() -> list[NDArray[np.float32]]:
        nonlocal state
        states = []
        for x in xs:
            state = ready.run(["h_n"], {"x": x, "h_0": state})[0]
            states.append(state)
        return states

    return _competitor("ONNX Runtime", call)


def _openvino(problem: Problem, threads: int) -> Competitor:
    ready = infer_request(_one_step(problem), threads)
    xs = list(problem.x[:, None])
    state = np.zeros((1, 1, problem.shape.units), np.float32)

    def call() -> list[NDArray[np.float32]]:
        nonlocal state
        states = []
        for x in xs:  # the output is copied: the next step reads it while it writes its own
            state = ready.infer({"x": x, "h_0": state}, share_inputs=True, share_outputs=False)[0]
            states.append(state)
        return states

    return _competitor("OpenVINO", call)


def _one_step(problem: Problem) -> bytes:
    return model(problem.shape.shortened(1), problem.weights, state=True)


PEERS: tuple[Peer[Make], ...] = (
    Peer("torch", ("torch",), _torch),
    Peer("ONNX Runtime", ("onnx", "onnxruntime"), _onnxruntime),
    Peer("OpenVINO", ("onnx", "openvino"), _openvino),
)


def run(settings: Settings) -> Outcome:
    """The table."""
    torch.set_num_threads(settings.threads)
    peers, left_out = present(PEERS)
    shapes = settings.shapes or (STREAM[:1] if settings.quick else STREAM)
    rows: list[dict[str, Any]] = []
    cells: list[list[str]] = []
    for shape in shapes:
        progress(f"stream {shape.units} units")
        problem = Problem(Shape(1, _STEPS, shape.inputs, shape.units))
        competitors = [make(problem, settings.threads) for make in (_tidegate, *(peer.make for peer in peers))]
        errors = {one.name: agreement(one, problem.output) for one in competitors}
        crowd = Crowd()
        turns = take_turns(competitors, settings.rounds)
        samples = {name: [seconds / _STEPS for seconds in taken] for name, taken in turns.items()}
        ratios = {peer.name: paired_ratio(samples["tidegate"], samples[peer.name]) for peer in peers}
        rows.append(
            {"shape": list(shape), "samples": samples, "errors": errors, "ratios": ratios, "others_busy": crowd.share}
        )
        times = (digits(1e6 * statistics.median(taken)) for taken in samples.values())
        cells.append([f"{shape.inputs}, {shape.units}", *times, ratio(ratios["torch"]), ratio(min(ratios.values()))])
    names = ("tidegate", *(peer.name for peer in peers))
    header = ["I, H", *(f"{name} µs" for name in names), "÷ torch", "÷ fastest peer"]
    text = f"One live step of one signal\n\n{markdown(header, cells)}\n"
    text += f"{left_out}\n" if left_out else ""
    text += disturbed({f"{row['shape'][3]} units": row["others_busy"] for row in rows})
    return Outcome(text, {"rows": rows, "left_out": left_out})
