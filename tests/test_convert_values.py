"""What each framework computes with its arrays, written by hand from its formulas, is what the layer here computes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tidegate as tg
from tests.convert_helpers import FORMATS, Shape, arrays_of, normal

Step = Callable[[dict[str, Any], np.ndarray, np.ndarray], np.ndarray]


def sigmoid(value: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-value)))


def keras_gru_after(w: dict[str, Any], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """`z, r, h` side by side; both products have a bias; `z` keeps."""
    bias = w.get("bias", np.zeros((2, 1)))
    x_z, x_r, x_h = np.split(x @ w["kernel"] + bias[0], 3, -1)
    h_z, h_r, h_h = np.split(h @ w["recurrent_kernel"] + bias[1], 3, -1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return np.asarray(z * h + (1 - z) * np.tanh(x_h + r * h_h))


def keras_gru_before(w: dict[str, Any], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """The state is multiplied by `r` before the product; one bias."""
    units = h.shape[-1]
    x_z, x_r, x_h = np.split(x @ w["kernel"] + w.get("bias", 0), 3, -1)
    u_z, u_r, u_h = np.split(w["recurrent_kernel"], [units, 2 * units], -1)
    z, r = sigmoid(x_z + h @ u_z), sigmoid(x_r + h @ u_r)
    return np.asarray(z * h + (1 - z) * np.tanh(x_h + (r * h) @ u_h))


def keras_rnn(w: dict[str, Any], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    return np.asarray(np.tanh(x @ w["kernel"] + w.get("bias", 0) + h @ w["recurrent_kernel"]))


def flax_gru(w: dict[str, Any], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """`r, z, n` side by side; the product with the state has no bias."""
    x_r, x_z, x_n = np.split(x @ w["dense_i.kernel"] + w["dense_i.bias"], 3, -1)
    h_r, h_z, h_n = np.split(h @ w["dense_h.kernel"], 3, -1)
    z = sigmoid(x_z + h_z)
    return np.asarray((1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h)


def flax_rnn(w: dict[str, Any], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    return np.asarray(np.tanh(x @ w["dense_i.kernel"] + w["dense_i.bias"] + h @ w["dense_h.kernel"]))


def equinox_gru(w: dict[str, Any], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """`r, z, n` on top of each other; a second bias for the candidate alone."""
    x_r, x_z, x_n = np.split(x @ w["weight_ih"].T + w.get("bias", 0), 3, -1)
    h_r, h_z, h_n = np.split(h @ w["weight_hh"].T, 3, -1)
    new = np.tanh(x_n + sigmoid(x_r + h_r) * (h_n + w.get("bias_n", 0)))
    return np.asarray(new + sigmoid(x_z + h_z) * (h - new))


def notes(w: dict[str, Any], x: np.ndarray, h: np.ndarray, *, reset: str | None, gated: bool) -> np.ndarray:
    """The notes' lines: `Gu` writes."""

    def of(gate: str, past: np.ndarray) -> np.ndarray:
        return np.asarray(past @ w[f"Wa{gate}"].T)

    def into(gate: str) -> np.ndarray:
        name = "Wax" if gate == "a" else f"Wx{gate}"
        return np.asarray(x @ w[name].T + w.get(f"b{gate}", 0))

    relevant = sigmoid(into("r") + of("r", h)) if reset else 1.0
    past = of("a", relevant * h) if reset == "before" else relevant * of("a", h)
    candidate = np.tanh(into("a") + past)
    update = sigmoid(into("u") + of("u", h)) if gated else 1.0
    return np.asarray(update * candidate + (1 - update) * h)


STEPS: dict[tuple[str, str], Step] = {
    ("keras", "gru"): keras_gru_after,
    ("keras", "gru-reset-before"): keras_gru_before,
    ("keras", "rnn"): keras_rnn,
    ("flax", "gru"): flax_gru,
    ("flax", "rnn"): flax_rnn,
    ("equinox", "gru"): equinox_gru,
    ("notes", "gru"): lambda w, x, h: notes(w, x, h, reset="after", gated=True),
    ("notes", "gru-reset-before"): lambda w, x, h: notes(w, x, h, reset="before", gated=True),
    ("notes", "update-only"): lambda w, x, h: notes(w, x, h, reset=None, gated=True),
    ("notes", "rnn"): lambda w, x, h: notes(w, x, h, reset=None, gated=False),
}


def by_hand(step: Step, cells: list[dict[str, Any]], x: np.ndarray, ways: int) -> np.ndarray:
    """The output of a stack, from zeros."""
    for depth in range(len(cells) // ways):
        outputs = []
        for way, cell in enumerate(cells[depth * ways : (depth + 1) * ways]):
            hidden = np.zeros((x.shape[1], 4))
            states = np.empty((*x.shape[:2], 4))
            for t in range(len(x))[:: -1 if way else 1]:
                hidden = states[t] = step(cell, x[t], hidden)
            outputs.append(states)
        x = np.concatenate(outputs, -1)
    return x


def test_every_format_and_system_has_its_formula():
    assert set(STEPS) == {(name, system) for name, one in FORMATS.items() for system in one.framework.systems}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("format", "system"), STEPS)
def test_a_layer_made_of_a_frameworks_arrays_computes_the_frameworks_formula(format, system, both, bias):
    form, shape = FORMATS[format], Shape(3, 4, layers=2, bidirectional=both, bias=bias)
    cells = arrays_of(form.framework.systems[system], shape, normal)
    layer = form.take(form.form(cells), bidirectional=both, **form.told(system, shape))
    x = normal((7, 2, 3))
    with torch.no_grad():
        got = layer(torch.from_numpy(x))[0].numpy()
    assert np.abs(got - by_hand(STEPS[format, system], cells, x, 2 if both else 1)).max() < 1e-13


@pytest.mark.parametrize(("format", "system"), STEPS)
def test_arrays_made_of_a_layer_compute_the_same_by_the_frameworks_formula(format, system):
    """With both of PyTorch's biases drawn, where the framework has a place for their sum."""
    reset: Any = {"gru": "after", "gru-reset-before": "before"}.get(system)
    layer: Any = (
        tg.RNN(3, 4, dtype=torch.float64) if system == "rnn" else tg.GRU(3, 4, reset=reset, dtype=torch.float64)
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5)
        if system == "gru" and format in ("flax", "notes"):
            layer.bias_hh_l0[8:] = 0
    form = FORMATS[format]
    again = form.take(form.give(layer), **form.told(system, Shape(3, 4)))  # to know the names: the form goes one way
    names = [stored.name for stored in form.framework.systems[system].arrays]
    cells = [flat(form.give(layer), names)]
    x = normal((7, 2, 3))
    expected = by_hand(STEPS[format, system], cells, x, 1)
    with torch.no_grad():
        for one in (layer, again):
            assert np.abs(one(torch.from_numpy(x))[0].numpy() - expected).max() < 1e-13


def flat(given: Any, names: list[str]) -> dict[str, Any]:
    """The arrays of one layer by name, from any of the forms."""
    if not isinstance(given[0], dict):
        return dict(zip(names, given, strict=True))
    flattened: dict[str, Any] = {}
    for name, held in given[0].items():
        flattened |= (
            {f"{name}.{leaf}": array for leaf, array in held.items()} if isinstance(held, dict) else {name: held}
        )
    return flattened
