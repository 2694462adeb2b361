"""Every form of input that `torch.nn.GRU` takes, read into one: time-major sequences with a mask; and back again."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tidegate.errors import InputTypeError, InputValueError
from tidegate.nn.spec import Spec
from tidegate.ops.checks import check_lengths, check_like, check_mask, check_reset_at, check_shape, check_tensor

__all__ = ["Sequences", "read_inputs"]


@dataclass(frozen=True, eq=False)
class Sequences:
    """A batch in the one form that the layers work in, and how to turn their results into the form that came."""

    x: Tensor  # (T, B, I)
    h_0: Tensor  # (L*D, B, H)
    mask: Tensor | None = None  # (T, B)
    #: Where each sequence begins anew, in the order of the input.
    resets: Tensor | None = None  # (T, B)
    #: True inside each sequence's length; the output is zero elsewhere, as `pad_packed_sequence` has it.
    inside: Tensor | None = None
    packed: PackedSequence | None = None
    batch_first: bool = False
    batched: bool = True

    def restore_output(self, y: Tensor) -> Tensor | PackedSequence:
        """The last layer's (T, B, D*H) in the form of the input."""
        if self.packed is not None:
            return _pack_like(y, self.packed)
        if self.inside is not None:
            y = torch.where(self.inside.unsqueeze(-1), y, 0)
        if not self.batched:
            return y.squeeze(1)
        return y.transpose(0, 1) if self.batch_first else y

    def drop(self, x: Tensor, share: float) -> Tensor:
        """Dropout between layers, drawn for the form that came: the numbers that torch.nn's layers would draw."""
        if self.packed is None:
            return dropout(x, share, training=True)
        packed = _pack_like(x, self.packed)
        return pad_packed_sequence(packed._replace(data=dropout(packed.data, share, training=True)))[0]

    def restore_state(self, h_n: Tensor) -> Tensor:
        """The final states (L*D, B, H) in the form of the input."""
        return h_n if self.batched else h_n.squeeze(1)


def read_inputs(
    spec: Spec,
    input: Tensor | PackedSequence,
    hx: Tensor | None,
    *,
    lengths: Tensor | Iterable[int] | None,
    mask: Tensor | None,
    reset_at: Tensor | None = None,
) -> Sequences:
    """Check what came against what the layer expects and bring it into time-major form."""
    if isinstance(input, PackedSequence):
        return _read_packed(spec, input, hx, lengths, mask, reset_at)
    x = check_tensor("input", input)
    batched = x.ndim == 3
    order = "(B, T, I)" if spec.batch_first else "(T, B, I)"
    if x.ndim not in (2, 3) or x.shape[-1] != spec.input_size:
        expected = f"{order} or, unbatched, (T, I) with I = {spec.input_size}"
        raise InputValueError(f"input must be {expected}; got {tuple(x.shape)}")
    check_like("input", x, "the weights", spec.like)
    axes = order.replace(", I", "") if batched else "(T,)"
    if mask is not None:
        check_mask(mask, x.shape[:-1], axes, x.device)
    if reset_at is not None:
        check_reset_at(reset_at, x.shape[:-1], axes, x.device)
    if not batched:
        x, mask, reset_at = x.unsqueeze(1), *(None if one is None else one.unsqueeze(1) for one in (mask, reset_at))
    elif spec.batch_first:
        x, mask, reset_at = (None if one is None else one.transpose(0, 1) for one in (x, mask, reset_at))  # type: ignore[assignment]
    steps, batch = x.shape[:2]
    if not steps or not (batch or spec.empty_batches):
        raise InputValueError(f"input must hold at least one step and one sequence; got T = {steps}, B = {batch}")
    inside = None
    if lengths is not None:
        values = check_lengths(lengths, batch, steps, x.device)
        inside = torch.arange(steps, device=x.device).unsqueeze(-1) < values
        mask = inside if mask is None else mask & inside
    resets = _begin_anew(reset_at, inside)
    return Sequences(x, _initial(spec, hx, batch, batched), mask, resets, inside, None, spec.batch_first, batched)


def _begin_anew(reset_at: Tensor | None, inside: Tensor | None) -> Tensor | None:
    """Where sequences begin anew: behind its end, a sequence keeps the state of its last step."""
    return reset_at if reset_at is None or inside is None else reset_at & inside


def _read_packed(
    spec: Spec,
    packed: PackedSequence,
    hx: Tensor | None,
    lengths: object,
    mask: Tensor | None,
    reset_at: Tensor | None,
) -> Sequences:
    """A packed batch, padded and in the order in which the sequences were given."""
    if lengths is not None:
        raise InputValueError("lengths must be None with a PackedSequence, which carries its own")
    data = check_tensor("input", packed.data)
    if data.ndim != 2 or data.shape[1] != spec.input_size:
        raise InputValueError(f"input must hold steps of I = {spec.input_size}; got packed {tuple(data.shape)}")
    check_like("input", data, "the weights", spec.like)
    x, own_lengths = pad_packed_sequence(packed)
    steps, batch = x.shape[:2]
    inside = torch.arange(steps, device=x.device).unsqueeze(-1) < own_lengths.to(x.device)
    if reset_at is not None:
        check_reset_at(reset_at, (steps, batch), "(T, B)", x.device)
    resets = _begin_anew(reset_at, inside)
    if mask is not None:
        inside = inside & check_mask(mask, (steps, batch), "(T, B)", x.device)
    return Sequences(x, _initial(spec, hx, batch, batched=True), inside, resets, packed=packed)


def _pack_like(y: Tensor, packed: PackedSequence) -> PackedSequence:
    """The padded (T, B, D*H) packed in the order and with the lengths of `packed`."""
    _, lengths = pad_packed_sequence(packed)
    if packed.sorted_indices is not None:
        y, lengths = y[:, packed.sorted_indices], lengths[packed.sorted_indices.to(lengths.device)]
    data = pack_padded_sequence(y, lengths).data
    return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)


def _initial(spec: Spec, hx: Tensor | None, batch: int, batched: bool) -> Tensor:
    """The initial states (L*D, B, H): given, learned or zero."""
    if hx is None:
        if spec.h_0 is not None:
            check_shape("the learned h_0", spec.h_0, (spec.states, spec.hidden_size), "(L*D, H)")
            check_like("the learned h_0", spec.h_0, "the weights", spec.like)
            return spec.h_0.unsqueeze(1).expand(-1, batch, -1)
        return spec.like.new_zeros(spec.states, batch, spec.hidden_size)
    if not isinstance(hx, Tensor):
        raise InputTypeError(f"hx (h_0) must be a torch.Tensor; got {type(hx).__name__}")
    check_tensor("hx (h_0)", hx)
    sizes = (batch,) if batched else ()
    axes = "(L*D, B, H)" if batched else "(L*D, H)"
    check_shape("hx (h_0)", hx, (spec.states, *sizes, spec.hidden_size), axes)
    check_like("hx (h_0)", hx, "the weights", spec.like)
    return hx if batched else hx.unsqueeze(1)
