"""What a run asks of its update gates beside its answers: shut at some steps, seldom open; and what they do."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.gates import DirectionTrace, Trace
from tidegate.gates.losses import hold, write_budget
from tidegate.train.batches import Batch
from tidegate.train.settings import Settings

__all__ = ["GateUse", "Teaching"]


@dataclass(frozen=True)
class Teaching:
    """The losses on the gates of every layer, in every direction; each is the mean over these."""

    #: The weight of steps to hold; 0 where nothing says which.
    hold: float
    #: The share of the time that gates may be open, and its weight; None and 0 for no budget.
    share: float | None
    budget: float

    @classmethod
    def of(cls, settings: Settings) -> "Teaching | None":
        """What the settings ask; None if nothing."""
        held = settings.hold_weight if settings.hold is not None or settings.hold_edl is not None else 0.0
        budget = settings.budget_weight if settings.write_budget is not None else 0.0
        return cls(held, settings.write_budget, budget) if held or budget else None

    def losses(self, seen: Trace, batch: Batch) -> list[Tensor]:
        """The weighted losses of a batch or chunk, those that ask something of it."""
        directions, asked = _directions(seen), []
        if self.hold and batch.held is not None:
            steps = batch.held == 1
            if steps.any():
                asked.append(self.hold * _mean([hold(one, steps) for one in directions]))
        if self.share is not None and self.budget:
            asked.append(self.budget * _mean([write_budget(one, self.share) for one in directions]))
        return asked


class GateUse:
    """Counts how far update gates are open, batch by batch: at steps to hold, and at others; and their losses."""

    def __init__(self, teaching: Teaching) -> None:
        self.teaching = teaching
        self._open, self._counted = dict.fromkeys(_GROUPS, 0.0), dict.fromkeys(_GROUPS, 0)
        self._loss, self._steps = 0.0, 0

    def count(self, seen: Trace, batch: Batch) -> None:
        """Look at one batch or chunk more."""
        there = torch.arange(len(batch.values)).unsqueeze(-1) < batch.lengths
        if batch.held is None:
            groups = {"gate": there}
        else:
            groups = {"gate_held": there & (batch.held == 1), "gate_others": there & (batch.held == 0)}
        for one in _directions(seen):
            update = one.update.double().mean(-1)
            for name, steps in groups.items():
                self._open[name] += float(update[steps].sum())
                self._counted[name] += int(steps.sum())
        count = int(there.sum())
        self._loss += count * sum(float(loss) for loss in self.teaching.losses(seen, batch))
        self._steps += count

    def told(self) -> Mapping[str, float]:
        """The mean update gate over units and steps, of those to hold and of others, or of all where none are told;
        and `gate_loss`, the mean of the weighted losses.
        """
        shares = {name: self._open[name] / count for name, count in self._counted.items() if count}
        return shares | ({"gate_loss": self._loss / self._steps} if self._steps else {})


_GROUPS = ("gate", "gate_held", "gate_others")


def _directions(seen: Trace) -> list[DirectionTrace]:
    return [one for layer in seen.layers for one in (layer, layer.reverse) if one is not None]


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()
