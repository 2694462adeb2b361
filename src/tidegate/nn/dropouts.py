"""Dropouts: what a recurrent layer leaves out at random while it is trained, and how each is drawn.

    inputs      x(t) -> m*x(t), one m for all steps of a sequence                     Gal & Ghahramani 2016
    state       a(t-1) -> m*a(t-1) in the products, one m for all steps of a sequence  Gal & Ghahramani 2016
    candidate   ã(t) -> m(t)*ã(t), drawn at every step                                 Semeniuta et al. 2016
    zoneout     Gu -> 0 with probability p, drawn at every step; in evaluation (1-p)*Gu  Krueger et al. 2017
    weight      Waa -> M*Waa, and of the gates, one M for the whole forward            Merity et al. 2018 (DropConnect)

m, m(t) and M hold 0 with probability p, and else 1/(1-p). What acts inside a step stands in `equations.py`; the other
two are changes of a tensor before the sequence runs. All is drawn by torch's generator, before a layer runs, so that
the way back meets the same numbers, with `recompute` too.
"""

from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from tidegate.conventions import PackedWeights
from tidegate.equations import KEPT, Dropped, Pinned, force
from tidegate.errors import InputTypeError, InputValueError

__all__ = ["Dropouts", "drop_inputs", "drop_weights", "left_out", "read_dropouts", "zone_out"]

#: (T, B, H), of which the first two are symbols while a program is exported for any of them.
Shape = tuple[int | torch.SymInt, int | torch.SymInt, int]


@dataclass(frozen=True)
class Dropouts:
    """What a recurrent layer leaves out at random in training, each with its probability, in [0, 1); 0 is nothing.

    Raises `InputTypeError` for what is no number, `InputValueError` for one outside [0, 1).
    """

    #: Of the state where it enters the products with the past, the same units at every step of a sequence: recurrent
    #: (variational) dropout, Keras's `recurrent_dropout`.
    state: float = 0.0
    #: Of what a layer takes in, the same features at every step of a sequence: Keras's `dropout`.
    inputs: float = 0.0
    #: Of the candidate, drawn at every step: recurrent dropout without loss of memory.
    candidate: float = 0.0
    #: A unit keeps its old state, drawn at every step.
    zoneout: float = 0.0
    #: Of the entries of the recurrent weights, drawn at every forward: DropConnect, the AWD-LSTM's `weight drop`.
    weight: float = 0.0

    def __post_init__(self) -> None:
        for name, p in self._given().items():
            if isinstance(p, bool) or not isinstance(p, Real):
                raise InputTypeError(f"recurrent_dropout {name} must be a number; got {type(p).__name__}")
            if not 0 <= float(p) < 1:
                raise InputValueError(f"recurrent_dropout {name} must lie in [0, 1); got {float(p):g}")

    def __repr__(self) -> str:
        return f"Dropouts({', '.join(f'{name}={p}' for name, p in self.chosen().items())})"

    def chosen(self) -> dict[str, float]:
        """The probabilities by name, those that are not 0."""
        return {name: p for name, p in self._given().items() if p != 0}

    def _given(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def read_dropouts(recurrent_dropout: object) -> Dropouts:
    """The argument of a layer: `Dropouts`, or a number for that of the state alone."""
    if isinstance(recurrent_dropout, Dropouts):
        return recurrent_dropout
    if isinstance(recurrent_dropout, bool) or not isinstance(recurrent_dropout, Real):
        got = type(recurrent_dropout).__name__
        raise InputTypeError(f"recurrent_dropout must be a number or tidegate.Dropouts; got {got}")
    return Dropouts(state=float(recurrent_dropout))


def drop_inputs(x: Tensor, p: float) -> Tensor:
    """`m*x(t)` for the steps of (T, B, I)."""
    return x * dropout(x.new_ones(1, *x.shape[1:]), p) if p else x


def drop_weights(weights: PackedWeights, p: float) -> PackedWeights:
    """The weights with `M*Waa` for their recurrent ones."""
    if not p or weights.weight_hh is None:
        return weights
    return weights._replace(weight_hh=dropout(weights.weight_hh, p))


def left_out(dropouts: Dropouts, shape: Shape, like: Tensor, *, training: bool, draw: bool) -> Dropped:
    """The factors of a layer's steps over (T, B, H); without `draw` nothing is drawn, and all are 1."""
    if not training:
        return Dropped(write=1 - dropouts.zoneout) if dropouts.zoneout else KEPT

    def factors(p: float, size: tuple[int | torch.SymInt, ...]) -> Tensor | None:
        return dropout(like.new_ones(size), p, training=draw) if p else None

    return Dropped(factors(dropouts.state, shape[1:]), factors(dropouts.candidate, shape))


def zone_out(pins: Pinned, p: float, shape: Shape, like: Tensor, *, draw: bool) -> Pinned:
    """The pins of a layer and, where they leave the update gate free, units pinned to `Gu=0` at random."""
    if not p:
        return pins
    held = torch.rand(shape, device=like.device) < p if draw else torch.zeros(1, dtype=torch.bool, device=like.device)
    free = like.new_full(shape, torch.nan)
    return pins._replace(update=force(torch.where(held, 0, free), pins.update))
