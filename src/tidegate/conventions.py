"""How frameworks lay out the same weights: one record each, and the functions that read a record.

Gate order, the sign of the update gate, which way a matrix lies and where biases are kept are data here, so that no
mathematics has to ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tidegate.equations import Affine, Weights
from tidegate.errors import InputValueError

__all__ = [
    "EQUINOX",
    "FLAX",
    "KERAS",
    "NOTES",
    "ONNX_GRU",
    "ONNX_RNN",
    "ONNX_UPDATE_ONLY",
    "TORCH",
    "TORCH_DENSE",
    "TORCH_GRU",
    "TORCH_GRU_BEFORE",
    "TORCH_GRU_LAYER_NORM",
    "TORCH_RNN",
    "TORCH_UPDATE_ONLY",
    "Block",
    "Convention",
    "Field",
    "Framework",
    "PackedWeights",
    "Stored",
    "fit",
    "pack",
    "read",
    "unfit",
    "unpack",
    "write",
]

Block = Literal["update", "reset", "candidate"]
Field = Literal["weight_ih", "weight_hh", "bias_ih", "bias_hh", "gain_ih", "gain_hh"]


class PackedWeights(NamedTuple):
    """The weights of one layer and direction as a framework stores them: G blocks of H rows on top of each other.

    The gains are a layer-normalised layer's. A gain has no sign to turn: normalising -W·x gives -N(W·x).
    """

    weight_ih: Float[Tensor, "GH I"]
    weight_hh: Float[Tensor, "GH H"] | None
    bias_ih: Float[Tensor, "GH"] | None
    bias_hh: Float[Tensor, "GH"] | None
    gain_ih: Float[Tensor, "GH"] | None = None
    gain_hh: Float[Tensor, "GH"] | None = None


@dataclass(frozen=True)
class Stored:
    """One array of a framework: what it holds, of which blocks, in the order in which they lie in it."""

    name: str
    #: One field of `Affine`; two stand as the two rows of one array.
    fields: tuple[Field, ...]
    blocks: tuple[Block, ...]
    #: The framework multiplies `x·W`, so that the array is (I, G*H) and not (G*H, I).
    transposed: bool = False

    def shape(self, input_size: int, hidden_size: int) -> tuple[int, ...]:
        """The shape of the array in a layer of these sizes."""
        rows = len(self.blocks) * hidden_size
        widths: dict[Field, tuple[int, ...]] = {"weight_ih": (input_size,), "weight_hh": (hidden_size,)}
        shape = (rows, *widths.get(self.fields[0], ()))
        shape = shape[::-1] if self.transposed else shape
        return shape if len(self.fields) == 1 else (len(self.fields), *shape)


@dataclass(frozen=True)
class Convention:
    """One framework's layout of one system: the order of the blocks, and whether it stores `z = 1 - Gu` for `Gu`.

    Since `1 - σ(p) = σ(-p)`, a stored `z` is turned into `Gu` by the sign of its weights, without rounding.
    """

    blocks: tuple[Block, ...]
    update_keeps: bool
    #: What the reset gate multiplies: the product with the past ("after" it), or the past ("before"); None without one.
    reset: Literal["after", "before"] | None = None
    #: The arrays of one layer and direction in the framework's own order; torch's four if not given.
    arrays: tuple[Stored, ...] = ()
    #: The framework has no such layer without biases.
    needs_bias: bool = False

    def __post_init__(self) -> None:
        if not self.arrays:
            four = tuple(Stored(name, (name,), self.blocks) for name in _FOUR)
            object.__setattr__(self, "arrays", four)

    def rows(self, block: Block, hidden_size: int) -> slice:
        """The rows of `block` in a packed weight or bias."""
        first = self.blocks.index(block) * hidden_size
        return slice(first, first + hidden_size)

    def sign(self, block: Block) -> int:
        """What the stored weights of `block`, but not its gains, are multiplied by for the equations' own: 1 or -1."""
        return -1 if block == "update" and self.update_keeps else 1

    def holds(self, field: Field, block: Block) -> bool:
        """Whether an array has room for this field of `block`."""
        return any(field in stored.fields and block in stored.blocks for stored in self.arrays)

    def folds(self, block: Block) -> bool:
        """Whether the two biases of `block` are only ever added, so that one can stand for both.

        Under "reset after" the candidate's second bias is inside the reset gate: `Gr*(Waa·a(t-1) + b)`.
        """
        return not (block == "candidate" and self.reset == "after")


@dataclass(frozen=True)
class Framework:
    """What a framework can hold: the systems that it has, each in its convention, and the activations of each."""

    name: str
    systems: Mapping[str, Convention]
    #: For each system, our names to theirs.
    activations: Mapping[str, Mapping[str, str]]


_FIELDS: tuple[Field, ...] = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "gain_ih", "gain_hh")
_OF_THE_INPUT: tuple[Field, ...] = ("weight_ih", "bias_ih")
_FOUR, _BIASES, _GAINS = _FIELDS[:4], _FIELDS[2:4], _FIELDS[4:]
_TANH = {"tanh": "tanh"}
_ANY = {name: name for name in ("tanh", "relu", "sigmoid", "identity")}

# ----------------------------------------------------------------------------------------------------------------------
# torch: r, z, n; rows are units; two biases for everything

TORCH_GRU = Convention(blocks=("reset", "update", "candidate"), update_keeps=True, reset="after")
#: torch.nn has none of the next three: this is its GRU with another equation,
TORCH_GRU_BEFORE = replace(TORCH_GRU, reset="before")
#: and that with gains for its products.
TORCH_GRU_LAYER_NORM = replace(TORCH_GRU, arrays=tuple(Stored(name, (name,), TORCH_GRU.blocks) for name in _FIELDS))
#: and that without the reset rows.
TORCH_UPDATE_ONLY = Convention(blocks=("update", "candidate"), update_keeps=True)
TORCH_RNN = Convention(blocks=("candidate",), update_keeps=False)
TORCH_DENSE = replace(TORCH_RNN, arrays=tuple(Stored(name, (name,), TORCH_RNN.blocks) for name in _OF_THE_INPUT))
TORCH = Framework(
    "torch.nn", {"gru": TORCH_GRU, "rnn": TORCH_RNN}, {"gru": _TANH, "rnn": {"tanh": "tanh", "relu": "relu"}}
)

# ----------------------------------------------------------------------------------------------------------------------
# Keras: z, r, h; columns are units; two biases, as the rows of one array, only where the reset gate comes after


def _keras(
    blocks: tuple[Block, ...], biases: tuple[Field, ...], reset: Literal["after", "before"] | None
) -> Convention:
    return Convention(
        blocks,
        update_keeps=True,
        reset=reset,
        arrays=(
            Stored("kernel", ("weight_ih",), blocks, transposed=True),
            Stored("recurrent_kernel", ("weight_hh",), blocks, transposed=True),
            Stored("bias", biases, blocks),
        ),
    )


_ZRH: tuple[Block, ...] = ("update", "reset", "candidate")
KERAS = Framework(
    "Keras",
    {
        "gru": _keras(_ZRH, ("bias_ih", "bias_hh"), "after"),
        "gru-reset-before": _keras(_ZRH, ("bias_ih",), "before"),
        "rnn": _keras(("candidate",), ("bias_ih",), None),
    },
    dict.fromkeys(("gru", "gru-reset-before", "rnn"), _ANY | {"identity": "linear"}),
)

# ----------------------------------------------------------------------------------------------------------------------
# Flax NNX: r, z, n; columns are units; one bias, always there, with the input (its formula shows a second, b_hn, that
# the cell does not have)


def _flax(blocks: tuple[Block, ...], reset: Literal["after"] | None) -> Convention:
    return Convention(
        blocks,
        update_keeps=True,
        reset=reset,
        arrays=(
            Stored("dense_i.kernel", ("weight_ih",), blocks, transposed=True),
            Stored("dense_i.bias", ("bias_ih",), blocks),
            Stored("dense_h.kernel", ("weight_hh",), blocks, transposed=True),
        ),
        needs_bias=True,
    )


FLAX = Framework(
    "Flax NNX",
    {"gru": _flax(("reset", "update", "candidate"), "after"), "rnn": _flax(("candidate",), None)},
    {"gru": _ANY, "rnn": _ANY},
)

# ----------------------------------------------------------------------------------------------------------------------
# Equinox: r, z, n; rows are units; of the second bias only the candidate's part. It has no RNN, and tanh only

_RZN: tuple[Block, ...] = ("reset", "update", "candidate")
EQUINOX = Framework(
    "Equinox",
    {
        "gru": Convention(
            _RZN,
            update_keeps=True,
            reset="after",
            arrays=(
                Stored("weight_ih", ("weight_ih",), _RZN),
                Stored("weight_hh", ("weight_hh",), _RZN),
                Stored("bias", ("bias_ih",), _RZN),
                Stored("bias_n", ("bias_hh",), ("candidate",)),
            ),
        )
    },
    {"gru": _TANH},
)

# ----------------------------------------------------------------------------------------------------------------------
# The notes: a matrix for each gate, `Gu` itself and not `1 - Gu`, one bias


def _notes(blocks: tuple[Block, ...], reset: Literal["after", "before"] | None = None) -> Convention:
    letters: dict[Block, str] = {"update": "u", "reset": "r", "candidate": "a"}
    arrays: list[Stored] = []
    for block in blocks:
        past = f"Wa{letters[block]}"
        into = f"Wx{letters[block]}" if block != "candidate" else "Wax"
        arrays += [
            Stored(into, ("weight_ih",), (block,)),
            Stored(past, ("weight_hh",), (block,)),
            Stored(f"b{letters[block]}", ("bias_ih",), (block,)),
        ]
    return Convention(blocks, update_keeps=False, reset=reset, arrays=tuple(arrays))


NOTES = Framework(
    "the notes",
    {
        "gru": _notes(("update", "reset", "candidate"), "after"),
        "gru-reset-before": _notes(("update", "reset", "candidate"), "before"),
        "update-only": _notes(("update", "candidate")),
        "rnn": _notes(("candidate",)),
    },
    dict.fromkeys(("gru", "gru-reset-before", "update-only", "rnn"), _ANY),
)

# ----------------------------------------------------------------------------------------------------------------------


def read(convention: Convention, arrays: Mapping[str, Tensor | None]) -> Weights:
    """A framework's arrays in the equations' terms; differentiable, and views where the sign allows."""
    named = [stored.name for stored in convention.arrays]
    unknown = [name for name, array in arrays.items() if array is not None and name not in named]
    if unknown:
        raise InputValueError(f"arrays must be {', '.join(named)}; got {', '.join(unknown)} too")
    parts: dict[Block, dict[Field, Tensor]] = {block: {} for block in convention.blocks}
    for stored in convention.arrays:
        array = arrays.get(stored.name)
        if array is None:
            continue
        for name, held in zip(stored.fields, array if len(stored.fields) > 1 else (array,), strict=True):
            lying = held.T if stored.transposed else held
            rows, blocks = lying.shape[0], len(stored.blocks)
            if rows % blocks:
                raise InputValueError(f"{stored.name} must hold {blocks} blocks of equally many rows; got {rows} rows")
            size = rows // blocks
            for place, block in enumerate(stored.blocks):
                part = lying[place * size : (place + 1) * size]
                parts[block][name] = _turned(convention, block, name, part)
    return Weights(**{block: Affine(**parts[block]) for block in convention.blocks})


def _turned(convention: Convention, block: Block, name: Field, part: Tensor) -> Tensor:
    """What is stored in the sign of the equations, or the other way round."""
    return _negated(part) if convention.sign(block) < 0 and name not in _GAINS else part


def _negated(part: Tensor) -> Tensor:
    """`-part`, where a NaN stays as it is: in bfloat16 torch would make another of it."""
    return torch.where(part.isnan(), part, -part) if part.dtype == torch.bfloat16 else -part


def write(convention: Convention, weights: Weights) -> dict[str, Tensor]:
    """The inverse of `read`, to the bit; an array whose weights are None everywhere is left out."""
    given = {block: affine for block in convention.blocks if (affine := getattr(weights, block)) is not None}
    missing = [block for block in convention.blocks if block not in given]
    if missing:
        raise InputValueError(f"weights must hold every block of {convention.blocks}; missing: {', '.join(missing)}")
    for block, affine in given.items():
        for name in _FIELDS:
            if getattr(affine, name) is not None and not convention.holds(name, block):
                raise InputValueError(f"weights must not hold {name} of the {block}, which this layout has no room for")

    arrays: dict[str, Tensor] = {}
    for stored in convention.arrays:
        held = {
            name: array for name in stored.fields if (array := _stacked(convention, given, stored, name)) is not None
        }
        if held and len(held) < len(stored.fields):
            raise InputValueError(f"{stored.name} must hold {' and '.join(stored.fields)}; got {', '.join(held)} alone")
        if held:
            arrays[stored.name] = torch.stack(list(held.values())) if len(held) > 1 else next(iter(held.values()))
    return arrays


def _stacked(convention: Convention, given: Mapping[Block, Affine], stored: Stored, name: Field) -> Tensor | None:
    """One field of the blocks of an array, as they lie in it; None where none has it."""
    parts = [
        _turned(convention, block, name, part)
        for block in stored.blocks
        if (part := getattr(given[block], name)) is not None
    ]
    if parts and len(parts) < len(stored.blocks):
        raise InputValueError(
            f"weights must hold {name} in every block or in none; got {len(parts)} of {len(stored.blocks)}"
        )
    together = torch.cat(parts) if parts else None
    return together.T if stored.transposed and together is not None else together


def unfit(convention: Convention, weights: Weights) -> str | None:
    """Why no layer of `convention` computes what one with these weights does, or None."""
    for block in convention.blocks:
        bias_hh = getattr(weights, block).bias_hh
        if bias_hh is None or convention.holds("bias_hh", block) or convention.folds(block):
            continue
        if bool((bias_hh != 0).any()):
            return (
                f"bias_hh of the {block} must be zero, since it is inside the reset gate, where there is no room for "
                f"it and no other bias can stand for it; it is up to {float(bias_hh.abs().max()):.3g}"
            )
    return None


def fit(convention: Convention, weights: Weights) -> Weights:
    """The same function's weights with their biases where `convention` has room for them.

    Where one bias has to stand for two, it becomes their sum: exact but for the rounding of that one addition, and to
    the bit where the second bias is zero. Where there is room for a bias that the weights lack, it becomes zero.

    Raises:
        InputValueError: see `unfit`.
    """
    affines: dict[Block, Affine] = {block: getattr(weights, block) for block in convention.blocks}
    reason = unfit(convention, weights)
    if reason is not None:
        raise InputValueError(reason)
    biased = convention.needs_bias or any(bias is not None for affine in affines.values() for bias in affine[2:4])

    return Weights(**{block: _fitted(convention, block, affine, biased) for block, affine in affines.items()})


def _fitted(convention: Convention, block: Block, affine: Affine, biased: bool) -> Affine:
    """The weights of one block, with the biases that the layout has room for."""
    if not convention.holds("bias_hh", block):
        affine = affine._replace(bias_ih=_sum(affine.bias_ih, affine.bias_hh), bias_hh=None)
    if not biased:
        return affine
    zero = affine.weight_ih.new_zeros(affine.weight_ih.shape[0])
    absent = [name for name in _BIASES if getattr(affine, name) is None and convention.holds(name, block)]
    return affine._replace(**dict.fromkeys(absent, zero))


def _sum(bias_ih: Tensor | None, bias_hh: Tensor | None) -> Tensor | None:
    """One bias for two."""
    if bias_ih is None or bias_hh is None:
        return bias_ih if bias_hh is None else bias_hh
    # not a sum where there is nothing to add: -0.0 + 0.0 is 0.0
    return torch.where(bias_hh == 0, bias_ih, bias_ih + bias_hh)


#: ONNX's GRU node, whichever way `linear_before_reset` is set: `z`, `r`, `h`, with `h(t) = (1-z)*h + z*h(t-1)`.
ONNX_GRU = Convention(blocks=("update", "reset", "candidate"), update_keeps=True)
ONNX_RNN = Convention(blocks=("candidate",), update_keeps=False)
#: ONNX has no update-only GRU; this is its GRU without the reset rows, as Tidegate's own function in a file takes them.
ONNX_UPDATE_ONLY = Convention(blocks=("update", "candidate"), update_keeps=True)


def unpack(convention: Convention, packed: PackedWeights) -> Weights:
    """The packed weights in the equations' terms; differentiable, and views where the sign allows."""
    return read(convention, dict(zip(PackedWeights._fields, packed, strict=True)))


def pack(convention: Convention, weights: Weights) -> PackedWeights:
    """The inverse of `unpack`, to the bit."""
    arrays = write(convention, weights)
    return PackedWeights(arrays["weight_ih"], *(arrays.get(name) for name in _FIELDS[1:]))
