"""What a network's gates and gradients look like while it learns: alarms, one line each with advice."""

import numpy as np
import torch

from tidegate.data.sequences import Sequences
from tidegate.gates import gate_health
from tidegate.train.batches import Batches
from tidegate.train.model import SequenceModel
from tidegate.train.spans import Which, spans_of

__all__ = ["alarms", "is_looked_at"]

#: After these many epochs, and every further hundred, the gates are looked at.
_EPOCHS = (1, 2, 5, 10, 20, 50)
#: Sequences that are looked at, and steps of each: from its beginning.
_SEQUENCES, _STEPS = 4, 1000


def is_looked_at(epochs: int) -> bool:
    """Whether the gates are looked at after so many epochs."""
    return epochs in _EPOCHS or epochs % 100 == 0


def alarms(model: SequenceModel, sequences: Sequences, which: Which) -> list[tuple[str, str]]:
    """What is wrong with the gates on the longest of some sequences: the kind and place of each finding, and a line.

    The model's mode and torch's random numbers stay as they are. A dense layer has no gates.
    """
    if model.config.variant == "dense":
        return []
    spans = spans_of(sequences, which)
    longest = spans.chosen(np.argsort(-spans.lengths, kind="stable")[:_SEQUENCES])
    batch = next(iter(Batches(sequences, longest, len(longest), chunk=_STEPS)))
    with torch.no_grad():
        x = model.encoder(batch.values, model.head.weight.dtype)
        healths = gate_health(model.layer, x, lengths=batch.lengths)
    found = []
    for health in healths:
        several = len(healths) > 1
        place = f"layer {health.depth}{' backward' if health.reverse else ''}: " if several else ""
        found += [(f"{place}{finding.kind}", f"{place}{finding}") for finding in health.findings]
    return found
