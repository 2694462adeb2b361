"""Run a recurrent module: read its input, stack its layers and directions, give the output back in the input's form."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate import ops
from tidegate.equations import FREE
from tidegate.nn.dropouts import drop_inputs, drop_weights, left_out, zone_out
from tidegate.nn.inputs import Sequences, read_inputs
from tidegate.nn.spec import Spec, describe
from tidegate.ops.call import Call, Steps
from tidegate.ops.pins import Pins, read_pins, resolve

__all__ = ["Ran", "Record", "choices", "explain", "run"]


@dataclass(frozen=True, eq=False)
class Record:
    """One layer in one direction, as it ran: what the backend was given, and what it gave."""

    call: Call
    steps: Steps


@dataclass(frozen=True, eq=False)
class Ran:
    """What a module returned, and a `Record` for each direction of each layer."""

    output: Tensor | PackedSequence
    h_n: Tensor
    layers: tuple[tuple[Record, ...], ...]


def run(
    module: nn.Module,
    input: Tensor | PackedSequence,
    hx: Tensor | None = None,
    *,
    lengths: Tensor | Iterable[int] | None = None,
    mask: Tensor | None = None,
    reset_at: Tensor | None = None,
    pins: Pins | Iterable[Pins] | None = None,
    gates: bool = False,
) -> Ran:
    """Run a recurrent layer with the arguments of its `forward`; a cell is unrolled over an input of (T, B, I)."""
    spec = describe(module)
    sequences = read_inputs(spec, input, hx, lengths=lengths, mask=mask, reset_at=reset_at)
    pins = _read_pins(spec, pins)
    x, finals, layers = sequences.x, [], []
    for depth in range(len(spec.weights)):
        if depth and spec.dropout > 0:
            x = sequences.drop(x, spec.dropout)
        if spec.training:
            x = drop_inputs(x, spec.dropouts.inputs)
        calls = _calls(spec, sequences, depth, x, pins, gates=gates)
        records = tuple(Record(call, ops.run(call, spec.backend)) for call in calls)
        layers.append(records)
        finals += [record.steps.hidden[0 if record.call.reverse else -1] for record in records]
        outputs = [record.steps.hidden for record in records]
        x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
    return Ran(sequences.restore_output(x), sequences.restore_state(torch.stack(finals)), tuple(layers))


def choices(
    module: nn.Module,
    input: Tensor | PackedSequence,
    hx: Tensor | None = None,
    *,
    lengths: Tensor | Iterable[int] | None = None,
    mask: Tensor | None = None,
    reset_at: Tensor | None = None,
    pins: Pins | Iterable[Pins] | None = None,
) -> list[tuple[str, ops.Choice]]:
    """The backend of each layer and direction ("layer 0, backward") for this input; nothing is computed."""
    spec = describe(module)
    sequences = read_inputs(spec, input, hx, lengths=lengths, mask=mask, reset_at=reset_at)
    pins = _read_pins(spec, pins)
    chosen = []
    for depth in range(len(spec.weights)):
        inner = sequences.x.new_empty(*sequences.x.shape[:2], spec.directions * spec.hidden_size)
        for call in _calls(spec, sequences, depth, inner if depth else sequences.x, pins, draw=False):
            way = ", backward" if call.reverse else ""
            chosen.append((f"layer {depth}{way}", ops.choose(call, spec.backend)))
    return chosen


def explain(
    module: nn.Module,
    input: Tensor | PackedSequence,
    hx: Tensor | None = None,
    *,
    lengths: Tensor | Iterable[int] | None = None,
    mask: Tensor | None = None,
    reset_at: Tensor | None = None,
    pins: Pins | Iterable[Pins] | None = None,
) -> str:
    """Which backend each layer of `module` runs on for this input, and why: one line a layer. Nothing is computed."""
    chosen = choices(module, input, hx, lengths=lengths, mask=mask, reset_at=reset_at, pins=pins)
    return "\n".join(f"{place}: {choice.backend} ({choice.reason})" for place, choice in chosen)


def _read_pins(spec: Spec, pins: Pins | Iterable[Pins] | None) -> tuple[Pins, ...]:
    directions = ("forward", "reverse")[: spec.directions]
    return read_pins(pins, spec.system, layers=len(spec.weights), directions=directions)


def _calls(
    spec: Spec,
    sequences: Sequences,
    depth: int,
    x: Tensor,
    pins: tuple[Pins, ...],
    *,
    gates: bool = False,
    draw: bool = True,
) -> list[Call]:
    """The calls that make up layer `depth`: forward and, where it runs both ways, backward.

    Without `draw`, torch's generator is left alone, and nothing is left out where something would be at random.
    """
    shape = (x.shape[0], x.shape[1], spec.hidden_size)
    dropouts, drawing = spec.dropouts, spec.training and draw
    calls = []
    for way, weights in enumerate(spec.weights[depth]):
        pinned = resolve(pins, shape, x, layer=depth, reverse=bool(way)) if pins else FREE
        calls.append(
            Call(
                system=spec.system,
                x=x,
                h_0=sequences.h_0[depth * spec.directions + way],
                weights=drop_weights(weights, dropouts.weight) if drawing else weights,
                activation=spec.activation,
                mask=sequences.mask,
                pins=zone_out(pinned, dropouts.zoneout, shape, x, draw=draw) if spec.training else pinned,
                reverse=bool(way),
                gates=gates,
                recompute=spec.recompute,
                resets=_in_order(sequences.resets, reverse=bool(way)),
                dropped=left_out(dropouts, shape, x, training=spec.training, draw=draw),
            )
        )
    return calls


def _in_order(resets: Tensor | None, *, reverse: bool) -> Tensor | None:
    """Where a direction's state begins anew: a backward one begins at the last step of each piece."""
    if resets is None or not reverse:
        return resets
    return torch.cat([resets[1:], torch.zeros_like(resets[:1])])
