"""One recurrent layer of Keras as a plain record, whether it was read from a layer or from a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.convert.arrays import Array
from tidegate.errors import InputTypeError, InputValueError

__all__ = ["GATES", "KerasLayer", "check_convertible", "expected_shapes", "plain_config", "record"]

Kind = Literal["GRU", "SimpleRNN", "LSTM"]
#: How many blocks of `units` columns each kind has.
GATES: dict[str, int] = {"GRU": 3, "SimpleRNN": 1, "LSTM": 4}


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """A recurrent layer as Keras keeps it: what it is, its configuration, and its weights.

    `from_keras` makes a layer of it, or of a list of such.
    """

    #: Where it stands in the model, and under which name.
    path: str
    name: str
    #: "GRU", "SimpleRNN" or "LSTM"; an `RNN` of such a cell counts as the layer.
    class_name: Kind
    #: Keras's own `get_config()`, of the forward direction where it runs both ways.
    config: Mapping[str, Any]
    #: In the order of `get_weights()`: kernel, recurrent kernel, bias; forward, then backward.
    weights: tuple[Array, ...]
    #: The configuration of the backward direction, in a `Bidirectional`.
    backward: Mapping[str, Any] | None = None
    #: How a `Bidirectional` puts its directions together.
    merge_mode: str | None = None

    @property
    def units(self) -> int:
        """The size of the state."""
        return int(self.config["units"])

    @property
    def input_size(self) -> int:
        """The size of the input."""
        return int(self.weights[0].shape[0])

    @property
    def activation(self) -> str:
        """Keras's name of `g`."""
        return str(self.config["activation"])

    @property
    def use_bias(self) -> bool:
        """Whether there are biases."""
        return bool(self.config["use_bias"])

    @property
    def reset_after(self) -> bool:
        """Whether the reset gate multiplies the product; of a GRU."""
        return bool(self.config.get("reset_after"))

    @property
    def bidirectional(self) -> bool:
        """Whether it runs both ways."""
        return self.backward is not None


def record(
    path: str, class_name: str, config: Mapping[str, Any], weights: Sequence[Array], around: Mapping[str, Any] | None
) -> KerasLayer:
    """The record of a layer described by Keras's `get_config()`; `around` is the `Bidirectional`'s own.

    Raises `InputValueError` unless the configuration tells what the record needs, and the weights have its shapes.
    """
    backward = None if around is None else plain_config(around["backward_layer"])[1]
    for told in (config, backward):
        if told is not None:
            _check_config(class_name, told)
    made = KerasLayer(
        path=path,
        name=str((around or config).get("name", "")),
        class_name=class_name,  # type: ignore[arg-type]
        config=config,
        weights=tuple(weights),
        backward=backward,
        merge_mode=None if around is None else around.get("merge_mode"),
    )
    shapes = [tuple(array.shape) for array in made.weights]
    inputs = shapes[0][0] if shapes and len(shapes[0]) == 2 else 0
    expected = [shape for told in (config, backward) if told for shape in expected_shapes(class_name, told, inputs)]
    if shapes != expected or not inputs:
        raise InputValueError(f"the weights must be of shapes {_list(expected)}; they are of {_list(shapes)}")
    return made


def plain_config(described: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The kind of a layer and its configuration; an `RNN` of one cell is told as the layer that it amounts to."""
    class_name, config = described["class_name"], described["config"]
    if class_name == "RNN":
        cell = config["cell"]
        return str(cell["class_name"]).removesuffix("Cell"), {**config, **cell["config"], "name": config.get("name")}
    return class_name, config


def expected_shapes(class_name: str, config: Mapping[str, Any], inputs: int) -> list[tuple[int, ...]]:
    """The shapes of the weights of one direction."""
    units = int(config["units"])
    columns = GATES[class_name] * units
    bias = (2, columns) if class_name == "GRU" and config["reset_after"] else (columns,)
    return [(inputs, columns), (units, columns), *([bias] if config["use_bias"] else [])]


def check_convertible(layer: KerasLayer) -> None:
    """Raise unless a layer of Tidegate's computes what this one does."""
    if layer.class_name == "LSTM":
        raise InputTypeError(f"source must be a GRU or a SimpleRNN; {layer.name!r} is an LSTM")
    if layer.config.get("go_backwards"):
        raise InputValueError(f"source must run forwards, or both ways; {layer.name!r} only runs backwards")
    if layer.config.get("recurrent_activation", "sigmoid") != "sigmoid":
        raise InputValueError(
            f"source must have sigmoid gates; {layer.name!r} has {layer.config['recurrent_activation']!r}"
        )
    if layer.backward is None:
        return
    if layer.merge_mode != "concat":
        raise InputValueError(
            f"source must put its two directions side by side (merge_mode='concat'); {layer.name!r} has "
            f"{layer.merge_mode!r}"
        )
    if not layer.backward.get("go_backwards"):
        raise InputValueError(f"source must run its second direction backwards; that of {layer.name!r} does not")
    for key in ("units", "activation", "recurrent_activation", "use_bias", "reset_after"):
        if layer.config.get(key) != layer.backward.get(key):
            raise InputValueError(f"source must be alike in both directions; {layer.name!r} differs in {key}")


def _check_config(class_name: str, config: Mapping[str, Any]) -> None:
    needed: dict[str, type] = {"units": int, "activation": str, "use_bias": bool}
    if class_name == "GRU":
        needed |= {"recurrent_activation": str, "reset_after": bool}
    for key, kind in needed.items():
        value = config.get(key)
        if type(value) is not kind or (isinstance(value, int) and kind is int and not 0 < value < 2**31):
            got = "a function of its own" if isinstance(value, Mapping) else repr(value)
            raise InputValueError(f"the configuration must tell {key}, {_WORDS[kind]}; got {got}")


_WORDS = {int: "a size", str: "by name", bool: "true or false"}


def _list(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) if shapes else "none"
