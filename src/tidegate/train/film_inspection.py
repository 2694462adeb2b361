"""What a trained network does with sequences whose parts are known: answers, gates, memory and gradient flow."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tidegate.data.film import KINDS, FilmBatch
from tidegate.gates import gradient_flow
from tidegate.train.model import SequenceModel

__all__ = ["FLOWS", "Inspection", "gates", "inspect"]

_AT_ONCE = 250  # sequences traced at once
FLOWS = 8  # sequences whose gradient flow is measured: each needs the Jacobian of every step


@dataclass(frozen=True, eq=False)
class Inspection:
    """Means over the test sequences, and the first sequence in full."""

    accuracy: float
    #: Per kind of step: the mean update gate, over units and steps.
    update: tuple[float, ...]
    #: Per kind of step: the share of the final state that was written there, mean over units.
    memory: tuple[float, ...]
    #: (T+1,) ‖∂a(T)/∂a(t)‖, the median over the first FLOWS sequences.
    gradient_norms: Float[Tensor, "rows"]
    first_answer: int
    first_update: Float[Tensor, "T H"]
    first_reset: Float[Tensor, "T H"]
    first_memory: Float[Tensor, "rows H"]


@torch.no_grad()
def gates(model: SequenceModel, features: Float[Tensor, "N I"], tests: FilmBatch) -> tuple[float, ...]:
    """Per kind of step, the mean update gate over units and steps of the test films."""
    model.eval()
    kind = torch.from_numpy(tests.kind)
    total = torch.zeros(len(KINDS))
    for here in _slices(tests):
        _, seen = model.traced(features[tests.index[:, here]])
        total += _per_kind(seen.update.mean(-1), kind[:, here])
    return tuple((total / _counts(kind)).tolist())


@torch.no_grad()
def inspect(model: SequenceModel, features: Float[Tensor, "N I"], tests: FilmBatch) -> Inspection:
    """Ask `model` every film of `tests`, whose frames are rows of `features`, and look inside while it answers."""
    model.eval()
    label, kind = torch.from_numpy(tests.label), torch.from_numpy(tests.kind)
    right = 0
    update, memory = torch.zeros(len(KINDS)), torch.zeros(len(KINDS))
    first = None
    for here in _slices(tests):
        scores, seen = model.traced(features[tests.index[:, here]])
        answers = scores.argmax(-1)
        shares = seen.memory()
        right += int((answers == label[here]).sum())
        update += _per_kind(seen.update.mean(-1), kind[:, here])
        memory += _per_kind(shares[1:].mean(-1), kind[:, here])
        if first is None:
            first = (int(answers[0]), seen.update[:, 0], seen.reset[:, 0], shares[:, 0])
    assert first is not None
    flow = gradient_flow(model.layer, model.encoder(features[tests.index[:, :FLOWS]]))
    return Inspection(
        right / len(label),
        tuple((update / _counts(kind)).tolist()),
        tuple((memory / len(label)).tolist()),
        flow.norm.median(dim=1).values,
        *first,
    )


def _slices(tests: FilmBatch) -> list[slice]:
    """The test films in portions that fit in memory with all their gates."""
    return [slice(start, start + _AT_ONCE) for start in range(0, tests.kind.shape[1], _AT_ONCE)]


def _per_kind(values: Float[Tensor, "T B"], kind: Int[Tensor, "T B"]) -> Float[Tensor, "kinds"]:
    return torch.stack([(values * (kind == number)).sum() for number in range(len(KINDS))])


def _counts(kind: Int[Tensor, "T B"]) -> Int[Tensor, "kinds"]:
    return torch.stack([(kind == number).sum() for number in range(len(KINDS))])
