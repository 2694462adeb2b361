"""The table `cpu`: inference and training of one layer over whole sequences, beside every peer."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.ceiling import Ceiling
from benchmarks.jax_scan import jax_forward, jax_training
from benchmarks.onnx_model import onnxruntime_forward, openvino_forward
from benchmarks.peers import Peer, present
from benchmarks.problem import Problem
from benchmarks.rounds import Competitor, agreement, geometric_mean, paired_ratio, take_turns
from benchmarks.settings import Crowd, Outcome, Settings, disturbed, progress
from benchmarks.shapes import OWN, STANDARD, Shape
from benchmarks.table import digits, markdown, ratio
from benchmarks.torch_layers import (
    tidegate_forward,
    tidegate_gates,
    tidegate_training,
    torch_forward,
    torch_training,
)

__all__ = ["FORWARD", "TRAINING", "Row", "measure", "run"]

Make = Callable[[Problem, int], Competitor]

FORWARD: tuple[Peer[Make], ...] = (
    Peer("torch", ("torch",), torch_forward),
    Peer("JAX", ("jax",), jax_forward),
    Peer("ONNX Runtime", ("onnx", "onnxruntime"), onnxruntime_forward),
    Peer("OpenVINO", ("onnx", "openvino"), openvino_forward),
)
TRAINING: tuple[Peer[Make], ...] = (
    Peer("torch", ("torch",), torch_training),
    Peer("JAX", ("jax",), jax_training),
)
_TITLES = {"forward": "Forward (no gradients)", "training": "Training (forward, and back to the weights)"}
_QUICK_STEPS = 16


@dataclass(frozen=True)
class Row:
    """One shape: seconds of one call for each competitor and round, the errors found before, and the gates' ratio."""

    shape: Shape
    counted: bool
    samples: Mapping[str, Sequence[float]]
    errors: Mapping[str, float]
    gates: Mapping[str, Sequence[float]]
    #: The share of the machine that others kept busy while this was timed.
    others: float

    def milliseconds(self, name: str) -> float:
        """The median time of a competitor."""
        return 1e3 * statistics.median(self.samples[name])

    def times(self, peer: str) -> float:
        """How many times as long as Tidegate the peer takes."""
        return paired_ratio(self.samples["tidegate"], self.samples[peer])

    def times_fastest(self) -> float:
        """The same for whichever peer is the fastest."""
        return min(self.times(peer) for peer in self.samples if peer != "tidegate")

    def record(self) -> dict[str, Any]:
        """The row for the file, times in seconds."""
        return {
            "shape": list(self.shape),
            "counted": self.counted,
            "samples": dict(self.samples),
            "errors": dict(self.errors),
            "others_busy": self.others,
            "ratios": {peer: self.times(peer) for peer in self.samples if peer != "tidegate"},
            **({"gates": dict(self.gates)} if self.gates else {}),
        }


def measure(kind: str, shape: Shape, peers: Sequence[Peer[Make]], settings: Settings, *, counted: bool = True) -> Row:
    """Check and time Tidegate and its peers on one shape; raises `DisagreementError` where one gives wrong numbers."""
    problem = Problem(shape)
    forward = kind == "forward"
    ours, expected = (tidegate_forward, problem.output) if forward else (tidegate_training, problem.training)
    competitors = [make(problem, settings.threads) for make in (ours, *(peer.make for peer in peers))]
    errors = {one.name: agreement(one, expected) for one in competitors}
    crowd = Crowd()
    samples = take_turns(competitors, settings.rounds)
    gates: dict[str, list[float]] = {}
    if forward:
        pair = [tidegate_gates(problem, gates=gates) for gates in (False, True)]
        errors |= {one.name: agreement(one, expected) for one in pair}
        gates = take_turns(pair, settings.rounds)
    return Row(shape, counted, samples, errors, gates, crowd.share)


def run(settings: Settings) -> Outcome:
    """Both tables."""
    torch.set_num_threads(settings.threads)
    wanted = settings.shapes or STANDARD if settings.quick else settings.shapes or (*STANDARD, *OWN)
    ceiling = Ceiling()
    texts: list[str] = []
    record: dict[str, Any] = {}
    for kind, all_peers in (("forward", FORWARD), ("training", TRAINING)):
        peers, left_out = present(all_peers)
        rows = []
        for shape in wanted:
            timed = shape.shortened(_QUICK_STEPS) if settings.quick and not settings.shapes else shape
            progress(f"{kind} {timed}")
            ceiling.measure(0.02 if settings.quick else 0.2)
            rows.append(measure(kind, timed, peers, settings, counted=shape not in OWN))
        texts.append(_text(kind, rows, ceiling.rate * settings.threads, left_out))
        record[kind] = {"rows": [row.record() for row in rows], "left_out": left_out}
    told = (
        f"One core's ceiling: {ceiling.rate / 1e9:.0f} billion multiplications and additions of float32 a second, the "
        f"best of {len(ceiling.samples)} runs of the engine's own tile; shares are of {settings.threads} times that."
    )
    record["ceiling"] = {"operations_per_second_of_a_core": ceiling.rate, "samples": ceiling.samples}
    return Outcome("\n".join([*texts, f"{told}\n"]), record)


def _text(kind: str, rows: Sequence[Row], rate: float, left_out: str) -> str:
    names = list(rows[0].samples)
    header = ["B, T, I, H", *(f"{name} ms" for name in names), "÷ torch", "÷ fastest peer", "share of ceiling"]
    gates = any(row.gates for row in rows)
    cells = []
    for row in rows:
        counted = row.shape.forward_operations if kind == "forward" else row.shape.training_operations
        share = counted / rate / (row.milliseconds("tidegate") / 1e3)
        line = [str(row.shape), *(digits(row.milliseconds(name)) for name in names)]
        line += [ratio(row.times("torch")), ratio(row.times_fastest()), f"{share:.0%}"]
        if gates:
            line.append(ratio(1 / paired_ratio(row.gates["with gates"], row.gates["without gates"])))
        cells.append(line)
    text = f"{_TITLES[kind]}\n\n{markdown([*header, *(['gates traced'] if gates else [])], cells)}\n"
    text += _means([row for row in rows if row.counted])
    text += disturbed({str(row.shape): row.others for row in rows})
    return f"{text}{left_out}\n" if left_out else text


def _means(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    told = []
    for name, ratios in (
        ("torch", [row.times("torch") for row in rows]),
        ("the fastest peer", [row.times_fastest() for row in rows]),
    ):
        told.append(f"{ratio(geometric_mean(ratios))} {name} (least {ratio(min(ratios))})")
    which = "the standard shape" if len(rows) == 1 else f"the {len(rows)} standard shapes"
    return f"Speed, geometric mean over {which}: {', '.join(told)}.\n"
