"""How frameworks lay out the same weights: one record each, and the two functions that read a record.

Gate order, the sign of the update gate and the number of biases are data here, so that no mathematics has to ask.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tidegate.equations import Affine, Weights
from tidegate.errors import InputValueError

__all__ = [
    "ONNX_GRU",
    "ONNX_RNN",
    "ONNX_UPDATE_ONLY",
    "TORCH_DENSE",
    "TORCH_GRU",
    "TORCH_RNN",
    "TORCH_UPDATE_ONLY",
    "Block",
    "Convention",
    "PackedWeights",
    "pack",
    "unpack",
]

Block = Literal["update", "reset", "candidate"]


class PackedWeights(NamedTuple):
    """The weights of one layer and direction as a framework stores them: G blocks of H rows on top of each other."""

    weight_ih: Float[Tensor, "GH I"]
    weight_hh: Float[Tensor, "GH H"] | None
    bias_ih: Float[Tensor, "GH"] | None
    bias_hh: Float[Tensor, "GH"] | None


@dataclass(frozen=True)
class Convention:
    """One framework's layout of one system: the order of the blocks, and whether it stores `z = 1 - Gu` for `Gu`.

    Since `1 - σ(p) = σ(-p)`, a stored `z` is turned into `Gu` by the sign of its weights, without rounding.
    """

    blocks: tuple[Block, ...]
    update_keeps: bool

    def rows(self, block: Block, hidden_size: int) -> slice:
        """The rows of `block` in a packed weight or bias."""
        first = self.blocks.index(block) * hidden_size
        return slice(first, first + hidden_size)

    def sign(self, block: Block) -> int:
        """What the stored weights of `block` are multiplied by to get the equations' own: 1 or -1."""
        return -1 if block == "update" and self.update_keeps else 1


TORCH_GRU = Convention(blocks=("reset", "update", "candidate"), update_keeps=True)
#: torch.nn has no update-only GRU; this is its GRU without the reset rows.
TORCH_UPDATE_ONLY = Convention(blocks=("update", "candidate"), update_keeps=True)
TORCH_RNN = Convention(blocks=("candidate",), update_keeps=False)
TORCH_DENSE = Convention(blocks=("candidate",), update_keeps=False)

#: ONNX's GRU node, whichever way `linear_before_reset` is set: `z`, `r`, `h`, with `h(t) = (1-z)*h + z*h(t-1)`.
ONNX_GRU = Convention(blocks=("update", "reset", "candidate"), update_keeps=True)
ONNX_RNN = Convention(blocks=("candidate",), update_keeps=False)
#: ONNX has no update-only GRU; this is its GRU without the reset rows, as Tidegate's own function in a file takes them.
ONNX_UPDATE_ONLY = Convention(blocks=("update", "candidate"), update_keeps=True)


def unpack(convention: Convention, packed: PackedWeights) -> Weights:
    """The packed weights in the equations' terms; differentiable, and views where the sign allows."""
    rows, blocks = packed.weight_ih.shape[0], len(convention.blocks)
    if rows % blocks:
        raise InputValueError(f"weight_ih must hold {blocks} blocks of equally many rows; got {rows} rows")
    hidden_size = rows // blocks

    def part(tensor: Tensor | None, block: Block) -> Tensor | None:
        if tensor is None:
            return None
        rows = tensor[convention.rows(block, hidden_size)]
        return -rows if convention.sign(block) < 0 else rows

    def affine(block: Block) -> Affine:
        weight_ih = part(packed.weight_ih, block)
        assert weight_ih is not None
        others = (part(tensor, block) for tensor in (packed.weight_hh, packed.bias_ih, packed.bias_hh))
        return Affine(weight_ih, *others)

    return Weights(**{block: affine(block) for block in convention.blocks})


def pack(convention: Convention, weights: Weights) -> PackedWeights:
    """The inverse of `unpack`, to the bit."""
    affines = [(convention.sign(block), getattr(weights, block)) for block in convention.blocks]
    missing = [block for block, (_, affine) in zip(convention.blocks, affines, strict=True) if affine is None]
    if missing:
        raise InputValueError(f"weights must hold every block of {convention.blocks}; missing: {', '.join(missing)}")

    def stack(field: str) -> Tensor | None:
        parts = [sign * part for sign, affine in affines if (part := getattr(affine, field)) is not None]
        if parts and len(parts) < len(affines):
            raise InputValueError(
                f"weights must hold {field} in every block or in none; got {len(parts)} of {len(affines)}"
            )
        return torch.cat(parts) if parts else None

    weight_ih = stack("weight_ih")
    assert weight_ih is not None
    return PackedWeights(weight_ih, stack("weight_hh"), stack("bias_ih"), stack("bias_hh"))
