"""Trace: what every gate did at every step, and the memory map that follows from it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate.errors import InputTypeError, InputValueError
from tidegate.gates.inside import observe
from tidegate.nn.run import Ran, Record
from tidegate.ops.pins import Pins

__all__ = ["DirectionTrace", "LayerTrace", "Trace", "trace", "trace_of"]


@dataclass(frozen=True, eq=False)
class DirectionTrace:
    """What one layer did in one direction. Everything is time-major, in the order of the input, and differentiable.

    An RNN's update gate is 1, and a gate that a system lacks is what the system is without it; where a mask holds the
    state, gates and candidate are 0, for nothing was computed.
    """

    #: The update gate: 1 writes the candidate into the state, 0 holds the state.
    update: Float[Tensor, "T B H"]
    #: The reset (relevance) gate: 1 uses the past while the candidate is made, 0 ignores it.
    reset: Float[Tensor, "T B H"]
    #: What the step would write.
    candidate: Float[Tensor, "T B H"]
    #: The state after each step.
    hidden: Float[Tensor, "T B H"]
    #: The state before the first step.
    h_0: Float[Tensor, "B H"]
    #: False where a mask or a length held the state.
    mask: Bool[Tensor, "T B"] | None
    #: Whether this direction runs from the last step to the first.
    backward: bool
    #: True where the state began anew from `h_0` before the step, in this direction's order; None if it never did.
    resets: Bool[Tensor, "T B"] | None = None

    def memory(self, t: int = -1) -> Float[Tensor, "rows B H"]:
        """The memory map (T+1, B, H) of the state at step `t`: the share of `h_0` (row 0) and of each step s (row s+1).

        `a(t) = w(init)*a(0) + Σ_s w(s)*ã(s)` with `w(s) = Gu(s) * Π_k (1-Gu(k))` over the steps k between s and t. This
        is exact: the rows are in [0, 1], sum to 1 for every unit, and rebuild the state from the candidates. Steps that
        this direction had not seen by `t`, or that lie before its last reset, have 0. Gates of half precision are
        multiplied in float32.

        Raises `InputValueError` if `t` is outside the sequence.
        """
        steps = len(self.update)
        if type(t) is not int:
            raise InputTypeError(f"t must be an int; got {type(t).__name__}")
        if not -steps <= t < steps:
            raise InputValueError(f"t must lie in {-steps}..{steps - 1}; got {t}")
        update = _at_least_single(self.update.flip(0) if self.backward else self.update)
        seen = steps - t % steps if self.backward else t % steps + 1
        written, keep = update[:seen], 1 - update[:seen]
        if self.resets is not None:
            resets = (self.resets.flip(0) if self.backward else self.resets)[:seen].unsqueeze(-1)
            forgotten = resets.flip(0).cumsum(0).flip(0) > resets.long()  # a reset came after
            written, keep = torch.where(forgotten, 0, written), torch.where(forgotten, 1, keep)
        one = torch.ones_like(keep[:1])
        later = torch.cat([one, keep.flip(0).cumprod(0)]).flip(0)  # row s: what all steps from s on keep of the state
        shares = torch.cat([later[:1], written * later[1:]])
        unseen = shares.new_zeros(steps - seen, *shares.shape[1:])
        ordered = torch.cat([shares[1:], unseen])
        return torch.cat([shares[:1], ordered.flip(0) if self.backward else ordered])

    def half_life(self) -> Float[Tensor, "H"]:
        """Steps, per unit, after which half of what it held is overwritten, at its mean update gate in this trace.

        `ln(1/2) / ln(1 - mean Gu)`, the mean over the steps and sequences that were not masked: 0 for a unit that
        always writes (an RNN), infinite for one that never does, or was masked throughout.
        """
        update = _at_least_single(self.update)
        if self.mask is not None:
            update = update[self.mask]
        update = update.reshape(-1, update.shape[-1])
        mean = update.sum(0) / max(len(update), 1)
        return math.log(2) / torch.log1p(-mean).abs()


@dataclass(frozen=True, eq=False)
class LayerTrace(DirectionTrace):
    """A layer's forward direction, and its backward one if it has one."""

    reverse: DirectionTrace | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """A recurrent module's run, seen from inside: every layer, and the last one's forward direction at hand."""

    #: What the module returned.
    output: Tensor | PackedSequence
    h_n: Tensor
    layers: tuple[LayerTrace, ...]

    @property
    def update(self) -> Float[Tensor, "T B H"]:
        """The last layer's update gate: 1 writes, 0 holds."""
        return self.layers[-1].update

    @property
    def reset(self) -> Float[Tensor, "T B H"]:
        """The last layer's reset (relevance) gate: 1 uses the past."""
        return self.layers[-1].reset

    @property
    def candidate(self) -> Float[Tensor, "T B H"]:
        """What each step of the last layer would write."""
        return self.layers[-1].candidate

    @property
    def hidden(self) -> Float[Tensor, "T B H"]:
        """The last layer's state after each step."""
        return self.layers[-1].hidden

    def memory(self, t: int = -1) -> Float[Tensor, "rows B H"]:
        """The last layer's memory map; see `DirectionTrace.memory`."""
        return self.layers[-1].memory(t)

    def half_life(self) -> Float[Tensor, "H"]:
        """The last layer's half-life per unit, in steps; see `DirectionTrace.half_life`."""
        return self.layers[-1].half_life()


def trace(
    model: nn.Module,
    x: Tensor | PackedSequence,
    hx: Tensor | None = None,
    *,
    layer: str | None = None,
    lengths: Tensor | Iterable[int] | None = None,
    mask: Tensor | None = None,
    reset_at: Tensor | None = None,
    pins: Pins | Iterable[Pins] | None = None,
) -> Trace:
    """Run a recurrent layer and record every gate; `torch.nn`'s layers are traced as they stand, their `z` as `1-z`.

    Args:
        model: a GRU, RNN or Dense layer, a cell (unrolled over an x of (T, B, I)), or a model that contains one.
        x, hx, lengths, mask, reset_at, pins: as for the layer's `forward`. A model that contains a layer is called with
            `x` alone, and `lengths`, `mask`, `reset_at` and `pins` go to the layer inside.
        layer: which layer of a model that contains several, by its name in `named_modules()`.

    Returns:
        A `Trace`; its gates are (T, B, H) whatever the form of the input (B is 1 if it was unbatched).
    """
    return trace_of(
        observe(model, x, hx, layer=layer, lengths=lengths, mask=mask, reset_at=reset_at, pins=pins, gates=True)[1]
    )


def trace_of(ran: Ran) -> Trace:
    """The trace of a run that gave its gates out."""
    return Trace(ran.output, ran.h_n, tuple(_layer_trace(records) for records in ran.layers))


def _at_least_single(gate: Tensor) -> Tensor:
    """Half-precision gates in float32, for their products over many steps would drift."""
    return gate.float() if gate.dtype in (torch.float16, torch.bfloat16) else gate


def _layer_trace(records: tuple[Record, ...]) -> LayerTrace:
    reverse = DirectionTrace(*_parts(records[1])) if len(records) > 1 else None
    return LayerTrace(*_parts(records[0]), reverse=reverse)


def _parts(record: Record) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, bool, Tensor | None]:
    hidden, update, reset, candidate = record.steps
    assert update is not None, "the run did not give its gates out"
    assert reset is not None
    assert candidate is not None
    return update, reset, candidate, hidden, record.call.h_0, record.call.mask, record.call.reverse, record.call.resets
