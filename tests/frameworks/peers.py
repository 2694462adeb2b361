"""The real layers of each framework: made, filled with weights, and run."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

import tidegate as tg
from tests.layer_helpers import draw_

__all__ = ["CASES", "PEERS", "Case", "drawn_layer", "largest_difference", "randomised"]

T, B, I, H = 12, 3, 5, 6


@dataclass(frozen=True)
class Case:
    """A kind of layer in one framework."""

    framework: str
    #: Of a GRU; None for an RNN.
    reset: Literal["after", "before"] | None
    activation: str = "tanh"
    bias: bool = True
    layers: int = 1
    bidirectional: bool = False

    @property
    def variant(self) -> str:
        """What is written in a table."""
        kind = "RNN" if self.reset is None else f"GRU, reset {self.reset}"
        bias = "" if self.bias else ", no bias"
        return kind + ("" if self.activation == "tanh" else f", {self.activation}") + bias

    @property
    def form(self) -> str:
        """How many layers and directions."""
        return ("one layer" if self.layers == 1 else f"{self.layers} layers") + (
            ", both ways" if self.bidirectional else ""
        )

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def __str__(self) -> str:
        return f"{self.framework}: {self.variant}; {self.form}"


_KINDS = [
    Case("Keras", "after"),
    Case("Keras", "after", bias=False),
    Case("Keras", "after", activation="sigmoid"),
    Case("Keras", "before"),
    Case("Keras", "before", bias=False),
    Case("Keras", None),
    Case("Keras", None, activation="relu"),
    Case("Keras", None, activation="identity", bias=False),
    Case("Flax", "after"),
    Case("Flax", "after", activation="relu"),
    Case("Flax", None),
    Case("Flax", None, activation="relu"),
    Case("Equinox", "after"),
    Case("Equinox", "after", bias=False),
]
CASES = [
    replace(kind, layers=layers, bidirectional=both)
    for kind, both, layers in itertools.product(_KINDS, (False, True), (1, 3))
]


@dataclass(frozen=True)
class Peer:
    """How one framework's layers are made, filled with what `to_…` gives, run, and read by `from_…`."""

    make: Callable[[Case], list[Any]]
    load: Callable[[Case, list[Any], Any], list[Any]]
    run: Callable[[Case, list[Any], np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    convert: Callable[[Any], Any]
    back: Callable[[Case, list[Any]], Any]
    arrays: Callable[[Any], list[np.ndarray]]


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """`x` (T, B, I) and `h_0` (L*D, B, H)."""
    generator = np.random.default_rng(1)
    x = generator.standard_normal((T, B, I)).astype(np.float32)
    return x, generator.uniform(-1, 1, (case.layers * case.directions, B, H)).astype(np.float32)


def drawn_layer(case: Case, seed: int = 0) -> Any:
    """A layer of ours with drawn weights, among them biases that the framework can hold."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"bias": case.bias, "num_layers": case.layers, "bidirectional": case.bidirectional}
    if case.reset is None:
        layer: Any = tg.RNN(I, H, activation=case.activation, **options)
    else:
        layer = tg.GRU(I, H, activation=case.activation, reset=case.reset, **options)
    draw_(layer, 0.3)
    if case.framework == "Flax" and case.reset is not None:
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                if name.startswith("bias_hh"):
                    parameter[2 * H :] = 0
    return layer


def randomised(arrays: Any, seed: int = 2) -> Any:
    """The same structure of arrays with other numbers."""
    generator = np.random.default_rng(seed)

    def other(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: other(inner) for name, inner in node.items()}
        if isinstance(node, list):
            return [other(inner) for inner in node]
        return (generator.standard_normal(node.shape) * 0.3).astype(node.dtype)

    return other(arrays)


def leaves(node: Any) -> list[np.ndarray]:
    """Every array of a structure, in its order."""
    if isinstance(node, dict):
        return [array for key in sorted(node) for array in leaves(node[key])]
    return [array for inner in node for array in leaves(inner)] if isinstance(node, list) else [np.asarray(node)]


def largest_difference(case: Case, real: list[Any], layer: Any) -> float:
    """The largest difference between the real layers and ours, over every step's output and the final states.

    In units of their largest number, where that is over 1: an RNN with relu or identity has no bound.
    """
    x, h_0 = inputs(case)
    theirs = PEERS[case.framework].run(case, real, x, h_0)
    with torch.no_grad():
        ours = layer(torch.from_numpy(x), torch.from_numpy(h_0))
    assert all(np.abs(part).max() > 0.05 for part in theirs), "the real layer gives next to nothing"
    return max(
        float(np.abs(their - our.numpy()).max() / max(1, np.abs(their).max()))
        for their, our in zip(theirs, ours, strict=True)
    )


# ----------------------------------------------------------------------------------------------------------------------
# Keras


def _make_keras(case: Case) -> list[Any]:
    import keras

    theirs = {"identity": "linear"}.get(case.activation, case.activation)
    options = {"activation": theirs, "use_bias": case.bias, "return_sequences": True, "return_state": True}
    made = []
    for depth in range(case.layers):
        one = (
            keras.layers.SimpleRNN(H, **options)
            if case.reset is None
            else keras.layers.GRU(H, reset_after=case.reset == "after", **options)
        )
        layer = keras.layers.Bidirectional(one) if case.bidirectional else one
        layer.build((None, None, I if depth == 0 else case.directions * H))
        made.append(layer)
    return made


def _load_keras(case: Case, real: list[Any], arrays: list[np.ndarray]) -> list[Any]:
    left = list(arrays)
    for layer in real:
        count = len(layer.get_weights())
        layer.set_weights(left[:count])
        del left[:count]
    assert not left
    return real


def _run_keras(case: Case, real: list[Any], x: np.ndarray, h_0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y: Any = x.swapaxes(0, 1)
    finals = []
    with torch.no_grad():
        for depth, layer in enumerate(real):
            states = [torch.from_numpy(h) for h in h_0[depth * case.directions :][: case.directions]]
            y, *last = layer(y, initial_state=states)
            finals += last
    return y.numpy().swapaxes(0, 1), np.stack([final.numpy() for final in finals])


# ----------------------------------------------------------------------------------------------------------------------
# Flax


def _make_flax(case: Case) -> list[Any]:
    from flax import nnx

    rngs = nnx.Rngs(0)
    made: list[Any] = []
    for depth in range(case.layers):
        size = I if depth == 0 else case.directions * H
        kind = nnx.SimpleCell if case.reset is None else nnx.GRUCell
        g = getattr(nnx, case.activation)
        ways = [nnx.RNN(kind(size, H, activation_fn=g, rngs=rngs)) for _ in range(case.directions)]
        made.append(nnx.Bidirectional(*ways) if case.bidirectional else ways[0])
    return made


def _flax_cells(real: list[Any]) -> list[Any]:
    ways = [(layer.forward_rnn, layer.backward_rnn) if hasattr(layer, "forward_rnn") else (layer,) for layer in real]
    return [way.cell for both in ways for way in both]


def _load_flax(case: Case, real: list[Any], states: list[Any]) -> list[Any]:
    from flax import nnx

    for cell, state in zip(_flax_cells(real), states, strict=True):
        nnx.update(cell, state)
    return real


def _run_flax(case: Case, real: list[Any], x: np.ndarray, h_0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import jax.numpy as jnp

    y: Any = jnp.asarray(x)
    finals: list[Any] = []
    for depth, layer in enumerate(real):
        states = tuple(jnp.asarray(h) for h in h_0[depth * case.directions :][: case.directions])
        carry = states if case.bidirectional else states[0]
        last, y = layer(y, initial_carry=carry, return_carry=True, time_major=True)
        finals += list(last) if case.bidirectional else [last]
    return np.asarray(y), np.stack([np.asarray(final) for final in finals])


# ----------------------------------------------------------------------------------------------------------------------
# Equinox


def _make_equinox(case: Case) -> list[Any]:
    import equinox
    import jax

    sizes = [I] * case.directions + [case.directions * H] * (case.directions * (case.layers - 1))
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return [equinox.nn.GRUCell(size, H, use_bias=case.bias, key=key) for size, key in zip(sizes, keys, strict=True)]


def _load_equinox(case: Case, real: list[Any], cells: list[dict[str, np.ndarray]]) -> list[Any]:
    import equinox
    import jax.numpy as jnp

    def filled(cell: Any, arrays: dict[str, np.ndarray]) -> Any:
        names = list(arrays)
        new = [jnp.asarray(array) for array in arrays.values()]
        return equinox.tree_at(lambda old: [getattr(old, name) for name in names], cell, new)

    return [filled(cell, arrays) for cell, arrays in zip(real, cells, strict=True)]


def _run_equinox(case: Case, real: list[Any], x: np.ndarray, h_0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import jax
    import jax.numpy as jnp

    y: Any = jnp.asarray(x)
    finals = []
    for depth in range(case.layers):
        outputs = []
        for way in range(case.directions):
            number = depth * case.directions + way
            step = jax.vmap(real[number])

            def take(hidden: Any, x_t: Any, step: Any = step) -> Any:
                hidden = step(x_t, hidden)
                return hidden, hidden

            last, states = jax.lax.scan(take, jnp.asarray(h_0[number]), y, reverse=bool(way))
            finals.append(last)
            outputs.append(states)
        y = jnp.concatenate(outputs, -1)
    return np.asarray(y), np.stack([np.asarray(final) for final in finals])


PEERS = {
    "Keras": Peer(
        _make_keras,
        _load_keras,
        _run_keras,
        tg.convert.to_keras,
        lambda case, real: tg.convert.from_keras(real if case.layers > 1 else real[0]),
        lambda real: [array for layer in real for array in layer.get_weights()],
    ),
    "Flax": Peer(
        _make_flax,
        _load_flax,
        _run_flax,
        tg.convert.to_flax,
        lambda case, real: tg.convert.from_flax(real if case.layers > 1 else real[0]),
        lambda real: [
            np.asarray(array)
            for cell in _flax_cells(real)
            for array in (cell.dense_h.kernel[...], cell.dense_i.bias[...], cell.dense_i.kernel[...])
        ],
    ),
    "Equinox": Peer(
        _make_equinox,
        _load_equinox,
        _run_equinox,
        tg.convert.to_equinox,
        lambda case, real: tg.convert.from_equinox(real, bidirectional=case.bidirectional),
        lambda real: [
            np.asarray(getattr(cell, name))
            for cell in real
            for name in ("bias", "bias_n", "weight_hh", "weight_ih")
            if getattr(cell, name) is not None
        ],
    ),
}
