"""The layout of the notes: a matrix for each gate, `Wxu`, `Wau`, `bu`, and the update gate that writes at 1."""

from collections.abc import Mapping, Sequence

from torch import nn

from tidegate.conventions import NOTES
from tidegate.convert.arrays import Array, to_numpy
from tidegate.convert.cells import cells_of, layer_of
from tidegate.equations import Activation
from tidegate.errors import InputTypeError
from tidegate.nn import GRU, RNN
from tidegate.ops.functional import Reset

__all__ = ["from_notes", "to_notes"]


def to_notes(layer: nn.Module) -> list[dict[str, Array]]:
    """The layer's weights by the notes' names, one dict for each layer and direction, in the order of `h_n`.

    `Wx` (H, I) multiplies x(t), `Wa` (H, H) multiplies a(t-1), `b` is (H,); `u` is the update gate, `r` the reset
    (relevance) gate, `a` the candidate. PyTorch's second bias is added to the first. An RNN has `Wax`, `Waa`, `ba`, an
    update-only GRU lacks `Wxr`, `War`, `br`, and a layer without biases every `b`.

    Raises:
        InputTypeError: not a GRU or an RNN.
        InputValueError: the candidate's second bias is not zero in a GRU that resets after the product: it is inside
            the reset gate, and the notes have no place for it; or the layer has a learned `h_0`.
    """
    return [{name: to_numpy(array) for name, array in cell.items()} for cell in cells_of(NOTES, layer)]


def from_notes(
    cells: Mapping[str, object] | Sequence[Mapping[str, object]],
    *,
    reset: Reset = "after",
    activation: str | Activation = "tanh",
    bidirectional: bool = False,
    batch_first: bool = False,
) -> GRU | RNN:
    """The layer with these weights: what `to_notes` gives, or a single dict for a single layer.

    The names tell whether it is a GRU, an update-only GRU or an RNN; `reset` tells where a GRU with `Wxr` resets.
    """
    given = [cells] if isinstance(cells, Mapping) else cells
    if not isinstance(given, Sequence):
        raise InputTypeError(f"cells must be a dict of arrays or a list of such; got {type(cells).__name__}")
    return layer_of(
        NOTES, given, reset=reset, activation=activation, bidirectional=bidirectional, batch_first=batch_first
    )
