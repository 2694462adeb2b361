"""What the tests of conversion share: arrays as each framework has them, with the numbers that are easily lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import tidegate as tg
from tidegate.conventions import EQUINOX, FLAX, KERAS, NOTES, Convention, Framework
from tidegate.convert.arrays import to_numpy

__all__ = ["FORMATS", "Format", "Shape", "arrays_of", "bits", "same_bits", "shapes"]


@dataclass(frozen=True)
class Shape:
    """The sizes of a stack."""

    input_size: int
    hidden_size: int
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True

    @property
    def cells(self) -> list[tuple[int, int]]:
        """The input size and hidden size of each layer and direction."""
        ways = 2 if self.bidirectional else 1
        return [
            (self.input_size if layer == 0 else ways * self.hidden_size, self.hidden_size)
            for layer in range(self.layers)
            for _ in range(ways)
        ]


@dataclass(frozen=True)
class Format:
    """One framework's pair of functions, and how a list of named arrays looks there."""

    framework: Framework
    give: Callable[[Any], Any]
    take: Callable[..., Any]
    form: Callable[[list[dict[str, Any]]], Any]
    #: Which of bias and reset the reader has to be told.
    told: Callable[[str, Shape], dict[str, Any]]


def nested(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`{"dense_i.kernel": …}` as `{"dense_i": {"kernel": …}}`."""
    trees: list[dict[str, Any]] = []
    for cell in cells:
        tree: dict[str, Any] = {}
        for name, array in cell.items():
            outer, inner = name.split(".")
            tree.setdefault(outer, {})[inner] = array
        trees.append(tree)
    return trees


_RESET = {"gru": {"reset": "after"}, "gru-reset-before": {"reset": "before"}}
FORMATS = {
    "keras": Format(
        KERAS,
        tg.convert.to_keras,
        tg.convert.from_keras,
        lambda cells: [array for cell in cells for array in cell.values()],
        lambda system, shape: {"bias": shape.bias, **_RESET.get(system, {})},
    ),
    "flax": Format(FLAX, tg.convert.to_flax, tg.convert.from_flax, nested, lambda *_: {}),
    "equinox": Format(EQUINOX, tg.convert.to_equinox, tg.convert.from_equinox, lambda cells: cells, lambda *_: {}),
    "notes": Format(
        NOTES, tg.convert.to_notes, tg.convert.from_notes, lambda cells: cells, lambda system, _: _RESET.get(system, {})
    ),
}

shapes = st.builds(
    Shape, st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), bidirectional=st.booleans(), bias=st.booleans()
)


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Any:
    """Numbers with zeros of both signs, infinities, NaN and the smallest among them."""
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-45, torch.inf, -torch.inf, torch.nan])
    picked = special[torch.randint(0, len(special), shape)]
    return to_numpy(torch.where(torch.rand(shape) < 0.3, picked, torch.randn(shape)).to(dtype))


def arrays_of(
    convention: Convention, shape: Shape, draw: Callable[[tuple[int, ...]], Any] = drawn
) -> list[dict[str, Any]]:
    """Arrays as the convention lays them out, for every layer and direction."""
    return [
        {
            stored.name: draw(stored.shape(*sizes))
            for stored in convention.arrays
            if shape.bias or convention.needs_bias or not stored.fields[0].startswith("bias")
        }
        for sizes in shape.cells
    ]


def bits(node: Any) -> Any:
    """A structure of arrays as one of plain tuples: shape, dtype and bytes."""
    if isinstance(node, dict):
        return {name: bits(inner) for name, inner in node.items()}
    if isinstance(node, list):
        return [bits(inner) for inner in node]
    return node.shape, node.dtype.name, node.tobytes()


def same_bits(one: Any, other: Any) -> bool:
    """Whether two structures of arrays are the same to the bit."""
    return bool(bits(one) == bits(other))


def normal(shape: tuple[int, ...]) -> Any:
    """Float64 numbers large enough to open and close a gate."""
    return np.random.default_rng(int(torch.randint(0, 2**31, ()))).standard_normal(shape) * 0.5
