"""Flax NNX's GRUCell and SimpleCell, alone, in an `nnx.RNN` or in an `nnx.Bidirectional`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from tidegate.conventions import FLAX
from tidegate.convert.arrays import Array, to_numpy
from tidegate.convert.cells import agreed, cells_of, layer_of
from tidegate.errors import InputTypeError, InputValueError
from tidegate.extras import require
from tidegate.nn import GRU, RNN

__all__ = ["from_flax", "to_flax"]

Tree = dict[str, dict[str, Array]]


def to_flax(layer: nn.Module) -> list[Tree]:
    """The state of an `nnx.GRUCell` or `nnx.SimpleCell` for each layer and direction, in the order of `h_n`.

    Each is `{"dense_i": {"kernel": (I, G*H), "bias": (G*H,)}, "dense_h": {"kernel": (H, G*H)}}`, for
    `nnx.update(cell, state)`. PyTorch's second bias is added to the first; a layer without biases gets zeros.

    Raises:
        InputTypeError: not an RNN, nor a GRU that resets after the product: Flax has no other.
        InputValueError: the candidate's second bias is not zero in a GRU: it is inside the reset gate, and Flax's cell
            has none there; or the layer has a learned `h_0`.
    """
    states: list[Tree] = []
    for cell in cells_of(FLAX, layer):
        state: Tree = {}
        for name, array in cell.items():
            dense, _, leaf = name.partition(".")
            state.setdefault(dense, {})[leaf] = to_numpy(array)
        states.append(state)
    return states


def from_flax(
    source: object, *, activation: str | None = None, bidirectional: bool | None = None, batch_first: bool = False
) -> GRU | RNN:
    """The layer with the weights of Flax's cells, RNNs, Bidirectionals, a list of them, or what `to_flax` gives.

    A list is a stack. `activation` and `bidirectional` tell what arrays, and cells in a list, do not; where the source
    tells itself, they must agree with it.

    Raises:
        InputTypeError: something else, a subclass, or an activation or gate function that has no name here.
        InputValueError: a residual cell, an RNN that only runs backwards, or arrays of a wrong shape or name.
    """
    given = list(source) if isinstance(source, Sequence) else [source]
    found = [part for item in given for part in _cells(item)]
    ways = {way for _, _, way in found if way is not None}
    kinds = {name for _, name, _ in found if name is not None}
    for name, told in (("activation", kinds), ("direction", ways)):
        if len(told) > 1:
            raise InputValueError(f"source must be of one {name} to be one layer: convert its layers one by one")
    return layer_of(
        FLAX,
        [_flat(state) for state, _, _ in found],
        activation=agreed("activation", activation, kinds.pop())
        if kinds
        else "tanh"
        if activation is None
        else activation,
        bidirectional=agreed("bidirectional", bidirectional, ways.pop()) if ways else bool(bidirectional),
        batch_first=batch_first,
    )


def _cells(item: Any) -> Iterator[tuple[object, str | None, bool | None]]:
    """The state of each cell of an item, its activation and whether it belongs to a layer that runs both ways."""
    if isinstance(item, Mapping):
        yield item, None, None
        return
    nnx = require("flax.nnx", "frameworks")
    if type(item) is nnx.Bidirectional:
        if item.merge_fn is not nnx.Bidirectional.merge_fn:
            raise InputValueError("source must put its two directions side by side; its merge_fn does something else")
        for way in (item.forward_rnn, item.backward_rnn):
            if type(way) is not nnx.RNN:
                raise InputTypeError(f"source must run nnx.RNN in each direction; got {type(way).__name__}")
            yield (*_cell(nnx, way.cell), True)
    elif type(item) is nnx.RNN:
        if item.reverse:
            raise InputValueError("source must run forwards, or both ways; here is an nnx.RNN with reverse=True alone")
        yield (*_cell(nnx, item.cell), False)
    else:
        yield (*_cell(nnx, item), None)


def _cell(nnx: Any, cell: Any) -> tuple[object, str]:
    if type(cell) not in (nnx.GRUCell, nnx.SimpleCell):
        raise InputTypeError(
            "source must be nnx.GRUCell or nnx.SimpleCell, in nnx.RNN or nnx.Bidirectional or alone, arrays by name, "
            f"or a list; got {type(cell).__name__}"
        )
    if getattr(cell, "residual", False):
        raise InputValueError("source must not be residual: no layer here adds the state to the product with it")
    if getattr(cell, "gate_fn", nnx.sigmoid) is not nnx.sigmoid:
        raise InputTypeError("source must have sigmoid gates; its gate_fn is another function")
    for ours, theirs in FLAX.activations["gru"].items():
        if cell.activation_fn is getattr(nnx, theirs):
            return nnx.to_pure_dict(nnx.state(cell, nnx.Param)), ours
    known = ", ".join(f"nnx.{name}" for name in FLAX.activations["gru"].values())
    raise InputTypeError(f"source must have one of {known} as its activation_fn; got another function")


def _flat(state: object) -> Mapping[str, object]:
    """A cell's state with `dense_i.kernel` for the key of the array that lies two deep."""
    if not isinstance(state, Mapping):
        raise InputTypeError(f"source must hold the states of cells, dicts; got {type(state).__name__}")
    flat: dict[str, object] = {}
    for name, held in state.items():
        flat |= {f"{name}.{leaf}": array for leaf, array in held.items()} if isinstance(held, Mapping) else {name: held}
    return flat
