"""What a run asks of its update gates beside its answers: shut at some steps, seldom open; and what they do."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.gates import DirectionTrace, Trace
from tidegate.gates.losses import hold, write_budget
from tidegate.train.batches import Batch
from tidegate.train.processes import ALONE, Processes
from tidegate.train.settings import Settings

__all__ = ["GateUse", "Teaching", "Term"]


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

    def terms(self, seen: Trace, batch: Batch) -> list["Term"]:
        """The losses of a batch or chunk, always as many: one that asks nothing of it has the count 0."""
        directions, asked = _directions(seen), []
        if self.hold:
            steps = torch.zeros_like(seen.layers[0].update[..., 0], dtype=torch.bool)
            if batch.held is not None:
                steps = batch.held == 1
            asked.append(Term(self.hold, _mean([hold(one, steps) for one in directions]), int(steps.sum())))
        if self.share is not None and self.budget:
            count = 0 if batch.lent else len(batch.numbers)
            asked.append(Term(self.budget, _mean([write_budget(one, self.share) for one in directions]), count))
        return asked


@dataclass(frozen=True)
class Term:
    """One part of the loss of a batch: a mean, and over how many labels, steps or sequences it goes."""

    weight: float
    loss: Tensor
    count: int


class GateUse:
    """Counts how far update gates are open, batch by batch: at steps to hold, and at others; and their losses."""

    def __init__(self, teaching: Teaching) -> None:
        self.teaching = teaching
        #: The sum over steps of the mean gate, and how many steps, of each group.
        self._open = torch.zeros(len(_GROUPS), 2, dtype=torch.float64)
        #: The weighted sum of each loss, and over how many it goes.
        self._losses: Tensor | None = None

    def count(self, seen: Trace, batch: Batch) -> None:
        """Look at one batch or chunk more."""
        terms = self.teaching.terms(seen, batch)
        sums = torch.tensor([[term.weight * float(term.loss) * term.count, term.count] for term in terms]).double()
        self._losses = sums if self._losses is None else self._losses + sums
        if batch.lent:
            return
        there = torch.arange(len(batch.values)).unsqueeze(-1) < batch.lengths
        if batch.held is None:
            groups = {"gate": there}
        else:
            groups = {"gate_held": there & (batch.held == 1), "gate_others": there & (batch.held == 0)}
        for one in _directions(seen):
            update = one.update.double().mean(-1)
            for name, steps in groups.items():
                self._open[_GROUPS.index(name)] += torch.stack([update[steps].sum(), steps.sum()])

    def told(self, processes: Processes = ALONE) -> Mapping[str, float]:
        """The mean update gate over units and steps, of those to hold and of others, or of all where none are told;
        and `gate_loss`, the sum of the weighted losses, each a mean over all that was looked at. Of all processes.
        """
        opened = processes.total(self._open).tolist()
        shares = {name: total / count for name, (total, count) in zip(_GROUPS, opened, strict=True) if count}
        if self._losses is None:
            return shares
        losses = [total / max(count, 1) for total, count in processes.total(self._losses).tolist()]
        return shares | {"gate_loss": sum(losses)}


_GROUPS = ("gate", "gate_held", "gate_others")


def _directions(seen: Trace) -> list[DirectionTrace]:
    return [one for layer in seen.layers for one in (layer, layer.reverse) if one is not None]


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()
