"""Sequences whose state begins anew on the way: each piece becomes a sequence of its own, which any backend can run.

Pieces of about the same length run together, as the rows of one batch with a mask: a piece is padded to less than twice
its length, and there are at most log2(T) + 1 such batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tidegate.equations import Dropped, Pinned
from tidegate.ops.call import Call, Steps

__all__ = ["piece_by_piece"]


def piece_by_piece(call: Call, run: Callable[[Call], Steps]) -> Steps:
    """The steps of `call`, whose `resets` are given, by `run`, which is only given calls without any."""
    steps, batch, _ = call.x.shape
    told: list[Steps] = []
    found, so_far = torch.empty(steps * batch, dtype=torch.long, device=call.x.device), 0
    for rows, inside in _batches(call):
        mask = inside if call.mask is None else inside & call.mask.reshape(-1)[rows]
        part = replace(
            call,
            x=_taken(call.x, rows),
            h_0=call.h_0.index_select(0, rows[0] % batch),
            mask=None if mask.all() else mask,
            pins=Pinned(*(None if pin is None else _taken(_expanded(pin, steps, batch), rows) for pin in call.pins)),
            reverse=False,
            resets=None,
            dropped=_dropped(call, rows),
        )
        told.append(run(part))
        chosen = inside.reshape(-1).nonzero().squeeze(-1)
        found[rows.reshape(-1)[chosen]] = so_far + chosen
        so_far += rows.numel()

    def laid_out(parts: tuple[Tensor | None, ...]) -> Tensor | None:
        there = [part.flatten(0, 1) for part in parts if part is not None]
        return torch.cat(there).index_select(0, found).reshape(steps, batch, -1) if there else None

    return Steps(*(laid_out(parts) for parts in zip(*told, strict=True)))  # type: ignore[arg-type]


def _batches(call: Call) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of about one length: where each step is found in (T*B,), (steps, pieces); and True inside each piece."""
    assert call.resets is not None
    steps, batch = call.resets.shape
    begins = (call.resets.flip(0) if call.reverse else call.resets).clone()
    begins[0] = True
    first = begins.t().reshape(-1).nonzero().squeeze(-1)  # b*T + s, s in the order in which the call runs
    end = torch.cat([first[1:], first.new_tensor([steps * batch])])
    lengths = end - first
    kinds = torch.log2(lengths.double()).ceil()
    for kind in torch.unique(kinds):
        some = (kinds == kind).nonzero().squeeze(-1)
        own, size = lengths[some], int(lengths[some].max())
        within = torch.arange(size, device=first.device).unsqueeze(-1)
        inside = within < own
        place = first[some] + torch.where(inside, within, 0)  # behind its end, a piece is filled with its first step
        s, b = place % steps, place // steps
        yield (steps - 1 - s if call.reverse else s) * batch + b, inside


def _taken(tensor: Tensor, rows: Tensor) -> Tensor:
    """(T, B, N) as (steps, pieces, N)."""
    return tensor.flatten(0, 1).index_select(0, rows.reshape(-1)).reshape(*rows.shape, -1)


def _dropped(call: Call, rows: Tensor) -> Dropped:
    """What the steps of these pieces leave out."""
    (steps, batch, _), (state, candidate, write) = call.x.shape, call.dropped
    return Dropped(
        None if state is None else state.expand(batch, -1).index_select(0, rows[0] % batch),
        None if candidate is None else _taken(_expanded(candidate, steps, batch), rows),
        write,
    )


def _expanded(pin: Tensor, steps: int, batch: int) -> Tensor:
    """A pin with an entry for each step and sequence; what it has in common for all units stays one number."""
    pin = pin.reshape((1,) * (3 - pin.ndim) + tuple(pin.shape))
    return pin.expand(steps, batch, -1)
