"""Equinox's GRUCell. Equinox has no simple RNN, and no layer over a sequence: there, a stack is a list of cells."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tidegate.conventions import EQUINOX
from tidegate.convert.arrays import Array, to_numpy
from tidegate.convert.cells import cells_of, layer_of
from tidegate.errors import InputTypeError
from tidegate.extras import require
from tidegate.nn import GRU, RNN

__all__ = ["from_equinox", "to_equinox"]


def to_equinox(layer: nn.Module) -> list[dict[str, Array]]:
    """The arrays of an `equinox.nn.GRUCell` by their names, for each layer and direction in the order of `h_n`.

    `weight_ih`, `weight_hh` and, unless the layer has no biases, `bias` and `bias_n`, the candidate's second bias. That
    of the reset and update gates is added to the first.

    Raises:
        InputTypeError: not a GRU that resets after the product: Equinox has no other.
        InputValueError: the activation is not tanh, or the layer has a learned `h_0`.
    """
    return [{name: to_numpy(array) for name, array in cell.items()} for cell in cells_of(EQUINOX, layer)]


def from_equinox(source: object, *, bidirectional: bool = False, batch_first: bool = False) -> GRU | RNN:
    """The layer with the weights of an `equinox.nn.GRUCell`, of a list of them, or of what `to_equinox` gives.

    A list is a stack; with `bidirectional`, each layer is two cells, forward and backward.
    """
    given = list(source) if isinstance(source, Sequence) else [source]
    cells = [cell if isinstance(cell, Mapping) else _arrays(cell) for cell in given]
    return layer_of(EQUINOX, cells, bidirectional=bidirectional, batch_first=batch_first)


def _arrays(cell: Any) -> dict[str, object]:
    """The arrays of a cell of Equinox's; a subclass may compute something else."""
    if type(cell) is not require("equinox", "frameworks").nn.GRUCell:
        raise InputTypeError(f"source must be equinox.nn.GRUCell, arrays by name, or a list; got {type(cell).__name__}")
    arrays = {stored.name: getattr(cell, stored.name) for stored in EQUINOX.systems["gru"].arrays}
    return {name: array for name, array in arrays.items() if array is not None}
