"""The health of gates on given data: always open, never open, saturated; how long they hold, how gradients fare."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate.gates.flow import GradientFlow, flow_of
from tidegate.gates.inside import observe
from tidegate.gates.trace import DirectionTrace, trace_of
from tidegate.nn.run import Ran, Record
from tidegate.ops.call import SYSTEMS

__all__ = ["Finding", "GateHealth", "GateUse", "gate_health", "health_of"]

#: A gate above is open, a gate below is shut.
OPEN, SHUT = 0.95, 0.05
#: So near to an end, a sigmoid's slope is under a hundredth, and tanh's under a fiftieth: it hardly learns any more.
_EDGE = 0.01
#: A unit is saturated if it is so near to an end at this share of the steps.
_MOSTLY = 0.95
#: Fewer units than this share are counted, but not worth a sentence.
_NOTABLE = 0.1
#: What is held for under this share of the sequence is a short memory.
_SHORT = 0.1
#: Shorter sequences ask for no memory.
_LONG_ENOUGH = 20
#: A gradient that is smaller than this after the whole sequence vanishes; one that is larger than its inverse explodes.
_VANISHED = 1e-3
#: The logarithm of the largest factor that is told.
_LARGEST = 700.0
#: Of T*B*H^3, which is what gradient flow costs: some seconds.
_WORK = 4 * 10**9
#: Sequences in which the gradient is followed, if they are not too long.
_FOLLOWED = 4


@dataclass(frozen=True)
class Finding:
    """One thing to know about a layer, with its numbers, and what may be done about it."""

    #: Such as "never open" or "vanishing gradient".
    kind: str
    sentence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.sentence}; {self.advice}"


@dataclass(frozen=True)
class GateUse:
    """How many units of a layer use one gate in a way that is no gate's use, and its mean over all steps."""

    mean: float
    #: Units whose gate is above 0.95 at every step.
    always_open: int
    #: Units whose reset gate is below 0.05 at every step; or whose update gate lets in so little that in every sequence
    #: 95 % of the last state are still the initial one.
    never_open: int
    #: Units that are neither, and whose gate is within 0.01 of 0 or 1 at 95 % of the steps; an update gate that never
    #: comes near 1 is slow, not saturated.
    saturated: int


@dataclass(frozen=True, eq=False)
class GateHealth:
    """One layer in one direction on given data."""

    #: Which of the stacked layers, from 0, and whether it is its backward direction.
    depth: int
    reverse: bool
    #: As in `SYSTEMS`: "gru", "update-only", "rnn".
    system: str
    #: How long the longest sequence is: without masked steps, and from where its state last began anew.
    steps: int
    sequences: int
    units: int
    #: None for a gate that the system does not have.
    update: GateUse | None
    reset: GateUse | None
    #: Units whose candidate is within 0.01 of -1 or 1 at 95 % of the steps; None unless the activation is tanh.
    candidate_saturated: int | None
    #: (H,) in steps, as `DirectionTrace.half_life`.
    half_life: Float[Tensor, "H"]
    #: Over the last `len(flow.log_norm) - 1` steps of the longest sequences, as if no state had begun anew.
    flow: GradientFlow
    findings: tuple[Finding, ...]

    @property
    def gradient_per_step(self) -> float:
        """The factor by which a gradient changes per step back, on geometric average over steps and sequences.

        NaN if a state is not finite, or every step is masked.
        """
        return _per_step(self.flow)


def gate_health(
    model: nn.Module,
    x: Tensor | PackedSequence,
    hx: Tensor | None = None,
    *,
    layer: str | None = None,
    lengths: Tensor | Iterable[int] | None = None,
    mask: Tensor | None = None,
    reset_at: Tensor | None = None,
) -> tuple[GateHealth, ...]:
    """How the gates of a recurrent layer do on `x`, in evaluation mode: a record for each stacked layer and direction.

    Arguments are those of `trace`. The half-life of a unit is that of its mean update gate. The gradient is followed as
    by `gradient_flow` (in the Frobenius norm) over as many of the last steps, of the four longest sequences at most, as
    some seconds allow: all of 238 steps at 256 units, the last 29 at 512. Where `reset_at` has the state begin anew,
    it is followed past that, and compared with the longest piece.

    Raises as `trace`.
    """
    with torch.no_grad():
        _, ran = observe(
            model, x, hx, layer=layer, evaluate=True, lengths=lengths, mask=mask, reset_at=reset_at, gates=True
        )
    return health_of(ran)


@torch.no_grad()
def health_of(ran: Ran, work: int | None = None) -> tuple[GateHealth, ...]:
    """The health of every layer and direction of a run in evaluation mode that gave its gates out.

    `work` is how much of T*B*H^3 each may cost to follow the gradient; some seconds if not given.
    """
    healths = []
    for depth, (layer, records) in enumerate(zip(trace_of(ran).layers, ran.layers, strict=True)):
        directions = [layer] if layer.reverse is None else [layer, layer.reverse]
        healths += [
            _health(depth, *pair, _WORK if work is None else work) for pair in zip(directions, records, strict=True)
        ]
    return tuple(healths)


def _health(depth: int, direction: DirectionTrace, record: Record, work: int) -> GateHealth:
    sequences, units = direction.hidden.shape[1:]
    system, blocks = record.call.system, SYSTEMS[record.call.system].convention.blocks
    steps = _longest(direction)
    candidate = _seen(direction.candidate, direction).abs() if record.call.activation == "tanh" else None
    half_life = direction.half_life()
    flow = _flow(direction, record, work)
    update = _use(direction.update, direction, writes=True) if "update" in blocks else None
    reset = _use(direction.reset, direction, writes=False) if "reset" in blocks else None
    saturated = None if candidate is None else int((_share(candidate > 1 - _EDGE) >= _MOSTLY).sum())
    finite = bool(torch.isfinite(direction.hidden).all())
    findings = [
        *_of_values(finite=finite),
        *_of_gate("update", update, units),
        *_of_gate("reset", reset, units),
        *_of_candidate(saturated, units),
        *(_of_memory(half_life, steps) if update else ()),
        *_of_gradient(flow, steps, gated=update is not None),
    ]
    return GateHealth(
        depth, direction.backward, system, steps, sequences, units, update, reset, saturated, half_life, flow,
        tuple(findings),
    )  # fmt: skip


def _longest(direction: DirectionTrace) -> int:
    """The steps of the longest sequence, or of the longest piece of one, that were not masked."""
    steps, batch = direction.hidden.shape[:2]
    seen = torch.ones(steps, batch, dtype=torch.long) if direction.mask is None else direction.mask.long().cpu()
    if direction.resets is None:
        return int(seen.sum(0).max())
    cuts = direction.resets.long().cpu()
    piece = cuts.flip(0).cumsum(0).flip(0) - cuts if direction.backward else cuts.cumsum(0)
    return int(seen.new_zeros(steps + 1, batch).scatter_add_(0, piece, seen).max())


def _flow(direction: DirectionTrace, record: Record, work: int) -> GradientFlow:
    """The gradient flow of the longest sequences, over as much as is affordable."""
    steps, sequences, units = direction.hidden.shape
    affordable = max(1, work // units**3)
    lengths = torch.full((sequences,), steps) if direction.mask is None else direction.mask.sum(0).cpu()
    followed = max(1, min(_FOLLOWED, sequences, affordable // steps))
    longest = lengths.sort(descending=True, stable=True).indices[:followed].to(direction.hidden.device)
    return flow_of(record, "frobenius", steps=min(steps, affordable), sequences=longest, cuts=False)


def _per_step(flow: GradientFlow) -> float:
    steps = int(flow.steps.sum())
    changes = float((flow.log_norm[0] - flow.log_norm[-1]).sum())
    return math.exp(min(changes / steps, _LARGEST)) if steps else math.nan


def _seen(gate: Tensor, direction: DirectionTrace) -> Float[Tensor, "N H"]:
    """What a gate did where nothing was masked, in float32 at least."""
    seen = gate if direction.mask is None else gate[direction.mask]
    seen = seen.reshape(-1, gate.shape[-1])
    return seen.float() if seen.dtype in (torch.float16, torch.bfloat16) else seen


def _share(which: Tensor) -> Float[Tensor, "H"]:
    return which.sum(0) / max(len(which), 1)


def _use(gate: Tensor, direction: DirectionTrace, *, writes: bool) -> GateUse:
    seen = _seen(gate, direction)
    if not len(seen):  # masked throughout
        return GateUse(math.nan, 0, 0, 0)
    always = (seen > OPEN).all(0)
    edges = _share((seen < _EDGE) | (seen > 1 - _EDGE)) >= _MOSTLY
    if writes:
        never = (_kept(gate) > 1 - SHUT).all(0)
        edges &= (seen > 1 - _EDGE).any(0)
    else:
        never = (seen < SHUT).all(0)
    return GateUse(float(seen.mean()), int(always.sum()), int(never.sum()), int((edges & ~always & ~never).sum()))


def _kept(update: Tensor) -> Float[Tensor, "B H"]:
    """The share of the initial state in the last one, if it never began anew; masked steps have 0 for their gate."""
    return torch.log1p(-update.double()).sum(0).exp()


def _of_values(*, finite: bool) -> Iterator[Finding]:
    if not finite:
        yield Finding(
            "not finite",
            "states are NaN or infinite",
            "look for such numbers in the data and the weights, lower the learning rate, clip the gradient",
        )


_ADVICE = {
    ("update", "always open"): "they keep nothing, as in an RNN: for a memory of T steps start from "
    "tg.init.chrono_(layer, T)",
    ("update", "never open"): "they only hold what they started with: start with tg.init.update_bias_(layer, 0.0), "
    "lower the learning rate, or use fewer units",
    ("update", "saturated"): "it hardly learns any more: lower the learning rate, clip the gradient, or normalise the "
    "inputs",
    ("reset", "always open"): "they work as an update-only GRU: GRU(..., reset=None) saves a third of the weights",
    ("reset", "never open"): "their candidate sees the input alone: for a memory of what came before, lower the "
    "learning rate or use fewer units",
    ("reset", "saturated"): "it hardly learns any more: lower the learning rate, clip the gradient, or normalise the "
    "inputs",
}


def _of_gate(name: str, use: GateUse | None, units: int) -> Iterator[Finding]:
    if use is None:
        return
    shut = {
        "update": "lets in so little that the last state is 95 % the initial one",
        "reset": f"is below {SHUT} at every step",
    }
    told = {
        "always open": (use.always_open, f"is above {OPEN} at every step"),
        "never open": (use.never_open, shut[name]),
        "saturated": (use.saturated, f"is within {_EDGE} of 0 or 1 at {100 * _MOSTLY:.0f} % of the steps"),
    }
    for kind, (count, words) in told.items():
        if count >= max(1, _NOTABLE * units):
            sentence = f"the {name} gate of {count} of {units} units {words}"
            yield Finding(f"{name} gate {kind}", sentence, _ADVICE[name, kind])


def _of_candidate(saturated: int | None, units: int) -> Iterator[Finding]:
    if saturated and saturated >= _NOTABLE * units:
        yield Finding(
            "candidate saturated",
            f"the candidate of {saturated} of {units} units is within {_EDGE} of -1 or 1 at "
            f"{100 * _MOSTLY:.0f} % of the steps",
            "normalise the inputs, or lower the weights by weight decay",
        )


def _of_memory(half_life: Tensor, steps: int) -> Iterator[Finding]:
    if steps < _LONG_ENOUGH or half_life.isnan().any():
        return
    longest = float(half_life.sort().values[-(-9 * len(half_life) // 10) - 1])
    if longest < _SHORT * steps:
        yield Finding(
            "short memory",
            f"nine of ten units hold half of what they know for at most {longest:.1f} of {steps} steps",
            f"if the answer lies further back, start from tg.init.chrono_(layer, {steps})",
        )


def _of_gradient(flow: GradientFlow, steps: int, *, gated: bool) -> Iterator[Finding]:
    per_step, followed = _per_step(flow), len(flow.log_norm) - 1
    if math.isnan(per_step):
        return
    change = math.log(per_step) * steps if per_step else -math.inf
    over = "" if followed >= steps else f" (followed over the last {followed})"
    if change < math.log(_VANISHED):
        reach = math.floor(math.log(_VANISHED) / math.log(per_step)) if per_step else 0
        remedy = "start from tg.init.chrono_(layer, T)" if gated else "use a GRU"
        yield Finding(
            "vanishing gradient",
            f"a gradient shrinks to {per_step:.3g} of itself per step back{over}: beyond {reach} of {steps} steps it "
            f"is under {_VANISHED:g}",
            f"what lies further back teaches nothing: {remedy}, or shorten the sequences",
        )
    elif change > -math.log(_VANISHED):
        yield Finding(
            "exploding gradient",
            f"a gradient grows {per_step:.3g} times per step back{over}: over {steps} steps to more than "
            f"{1 / _VANISHED:g} times itself",
            "clip it (torch.nn.utils.clip_grad_norm_), lower the learning rate, start from tg.init.orthogonal_(layer)",
        )
