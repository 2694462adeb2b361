"""Keras 3's GRU and SimpleRNN, and RNN of their cells, alone, in a stack, and in a Bidirectional."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from torch import nn

from tidegate.conventions import KERAS
from tidegate.convert.arrays import Array, is_array, to_numpy
from tidegate.convert.cells import agreed, cells_of, layer_of
from tidegate.convert.keras_record import KerasLayer, check_convertible, plain_config, record
from tidegate.errors import InputTypeError, InputValueError
from tidegate.extras import require
from tidegate.nn import GRU, RNN
from tidegate.ops.functional import Reset

__all__ = ["from_keras", "to_keras"]

_OURS = {theirs: ours for ours, theirs in KERAS.activations["gru"].items()}
T = TypeVar("T")
_ARRAYS = ("kernel", "recurrent_kernel", "bias")


def to_keras(layer: nn.Module) -> list[Array]:
    """The layer's weights in the order of Keras's `get_weights()`, for `set_weights()`.

    For one layer `kernel` (I, G*H), `recurrent_kernel` (H, G*H) and, unless it has none, `bias`: (2, 3*H) for a GRU
    that resets after the product, else (G*H,), the sum of PyTorch's two. Layers of a stack follow each other, as in a
    `Sequential` of them, and in each the backward direction follows the forward one, as in a `Bidirectional`. The Keras
    layer is made with the same `units`, `activation`, `use_bias` and `reset_after`.

    Raises:
        InputTypeError: a GRU without a reset gate, or not a GRU or an RNN.
        InputValueError: the activation is a function of one's own, or the layer has a learned `h_0`.
    """
    return [to_numpy(array) for cell in cells_of(KERAS, layer) for array in cell.values()]


def from_keras(
    source: object,
    *,
    reset: Literal["after", "before"] | None = None,
    activation: str | None = None,
    bias: bool | None = None,
    bidirectional: bool | None = None,
    batch_first: bool = False,
) -> GRU | RNN:
    """The layer with the weights of Keras layers, of the records of a `.keras` file, or of what `get_weights()` gave.

    `source` is one `GRU`, `SimpleRNN`, `RNN` of their cells, or `Bidirectional` of one of them, which has been built; a
    `KerasLayer` of `read_keras_file`; a list of either, or a `Sequential`, as a stack; or the list of arrays. What
    arrays do not tell, the keywords do: `reset` ("after" if not given), `activation` ("tanh"), `bias` (True),
    `bidirectional` (False).
    A layer tells itself, and they must agree with it. Dropout, masking and what concerns training alone is left behind.

    Raises:
        InputTypeError: another kind of layer, or a subclass.
        InputValueError: a layer that runs only backwards, merges its directions in another way than side by side, has
            another gate function than the sigmoid or an activation without a name here; or arrays of a wrong shape.
    """
    given = list(source) if isinstance(source, Sequence) else [source]
    named: Reset
    if given and all(is_array(item) for item in given):
        cells = _cut(given, bias is not False)
        g, both, named = (
            "tanh" if activation is None else activation,
            bool(bidirectional),
            "after" if reset is None else reset,
        )
    else:
        layers = [layer for item in given for layer in _layers(item)]
        if not layers:
            raise InputTypeError("source must hold a layer or arrays; it is empty")
        for layer in layers:
            check_convertible(layer)
        biased = agreed("bias", bias, _common("use_bias", [layer.use_bias for layer in layers]))
        cells = [cell for layer in layers for cell in _cut(layer.weights, biased)]
        g = agreed("activation", activation, _common("activation", [_activation(layer) for layer in layers]))
        both = agreed("bidirectional", bidirectional, _common("direction", [layer.bidirectional for layer in layers]))
        resets: list[Reset] = [
            "after" if layer.reset_after else "before" for layer in layers if layer.class_name == "GRU"
        ]
        named = agreed("reset", reset, _common("reset_after", resets)) if resets else "after"
    return layer_of(KERAS, cells, reset=named, activation=g, bidirectional=both, batch_first=batch_first)


def _cut(arrays: Sequence[object], biased: bool) -> list[Mapping[str, object]]:
    """The arrays of `get_weights()` by name, for each layer and direction."""
    names = _ARRAYS if biased else _ARRAYS[:2]
    if len(arrays) % len(names):
        raise InputValueError(
            f"source must hold {', '.join(names)} for each layer and direction where bias is {biased}; got "
            f"{len(arrays)} arrays"
        )
    return [
        dict(zip(names, arrays[first : first + len(names)], strict=True)) for first in range(0, len(arrays), len(names))
    ]


def _layers(item: Any) -> Iterator[KerasLayer]:
    """The records of a record, a Keras layer, or a `Sequential`: one for each layer of a stack."""
    if isinstance(item, KerasLayer):
        yield item
        return
    keras = require("keras", "frameworks")
    kinds = keras.layers
    if type(item) is keras.Sequential:
        for inner in item.layers:
            yield from _layers(inner)
    elif type(item) in (kinds.GRU, kinds.SimpleRNN, kinds.RNN, kinds.Bidirectional):
        if not item.built:
            raise InputValueError(f"source must have been built, so that it has weights; {item.name!r} has not")
        if type(item) is kinds.Bidirectional:
            yield _both_ways(keras, item)
        elif type(item) is kinds.RNN:
            yield from _of_cells(keras, item)
        else:
            config = keras.saving.serialize_keras_object(item)["config"]
            yield record(item.name, type(item).__name__, config, item.get_weights(), None)
    else:
        raise InputTypeError(
            "source must be keras.layers.GRU, SimpleRNN, RNN of their cells, or Bidirectional of one, a Sequential of "
            f"them, a record of a file, arrays, or a list; got {type(item).__name__}"
        )


def _of_cells(keras: Any, layer: Any) -> Iterator[KerasLayer]:
    """The records of an RNN: one for each of its cells, as a stack."""
    config = keras.saving.serialize_keras_object(layer)["config"]
    for cell in _cells(keras, layer):
        alone = {**config, "cell": keras.saving.serialize_keras_object(cell)}
        class_name, plain = plain_config({"class_name": "RNN", "config": alone})
        yield record(layer.name, class_name, plain, cell.get_weights(), None)


def _cells(keras: Any, layer: Any) -> list[Any]:
    """The cells of an RNN, if they are Keras's own."""
    stacked = type(layer.cell) is keras.layers.StackedRNNCells
    cells = list(layer.cell.cells) if stacked else [layer.cell]
    for cell in cells:
        if type(cell) not in (keras.layers.GRUCell, keras.layers.SimpleRNNCell):
            raise InputTypeError(f"source must run keras.layers.GRUCell or SimpleRNNCell; got {type(cell).__name__}")
    return cells


def _both_ways(keras: Any, layer: Any) -> KerasLayer:
    """The record of a Bidirectional."""
    for way in (layer.forward_layer, layer.backward_layer):
        if type(way) not in (keras.layers.GRU, keras.layers.SimpleRNN, keras.layers.RNN):
            raise InputTypeError(f"source must run a GRU or a SimpleRNN both ways; got a {type(way).__name__}")
        if type(way) is keras.layers.RNN and len(_cells(keras, way)) != 1:
            raise InputTypeError(
                f"source must run one cell in each direction; got {len(_cells(keras, way))}, which are stacked inside"
                " a direction as no layer's are"
            )
    around = keras.saving.serialize_keras_object(layer)["config"]
    class_name, config = plain_config(around["layer"])
    return record(layer.name, class_name, config, layer.get_weights(), around)


def _activation(layer: KerasLayer) -> str:
    """The activation of a layer by its name here."""
    if layer.activation not in _OURS:
        known = ", ".join(f'"{name}"' for name in _OURS)
        raise InputValueError(f"source must have one of {known} as its activation; got {layer.activation!r}")
    return _OURS[layer.activation]


def _common(name: str, values: Sequence[T]) -> T:
    """The value that all layers of a stack share."""
    if len(set(values)) > 1:
        raise InputValueError(f"source must be of one {name} to be one layer: convert its layers one by one")
    return values[0]
