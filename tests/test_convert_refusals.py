"""What a framework cannot hold, and arrays that are not its own, are refused in one sentence; nothing is half made."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tidegate as tg
from tests.convert_helpers import FORMATS, Shape, arrays_of, same_bits
from tests.refusals import assert_refused
from tidegate.convert import from_equinox, from_flax, from_keras, from_notes, from_torch, read_keras_file, to_torch
from tidegate.errors import FileError, FileMissingError, InputTypeError, InputValueError

Arrays = dict[str, Any]


class Doubled(torch.nn.GRU):
    """A layer that computes something of its own."""

    def forward(self, input, hx=None):
        return 2 * super().forward(input, hx)[0]


def wrong(value: Any) -> Any:
    """A value whose type says already that it is wrong."""
    return value


def frozen_bias(layer: Any) -> Any:
    """The layer with a candidate's second bias of zero."""
    with torch.no_grad():
        layer.bias_hh_l0[8:] = 0
    return layer


GIVERS: dict[str, Callable[[Any], Any]] = {name: form.give for name, form in FORMATS.items()} | {"torch": to_torch}


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("format", GIVERS)
@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: torch.nn.LSTM(3, 4), InputTypeError, "must be a GRU, an RNN or one of their cells; got LSTM"),
        (lambda: "gru", InputTypeError, "must be a GRU, an RNN or one of their cells; got str"),
        (lambda: Doubled(3, 4), InputTypeError, "Doubled has a forward of its own"),
        (lambda: tg.Dense(3, 4), InputTypeError, "layer must be one that .* has, .*; got a layer without a memory"),
        (lambda: frozen_bias(tg.GRU(3, 4, learn_h_0=True)), InputValueError, "keeps no h_0; it has learned one"),
        (
            lambda: tg.GRU(3, 4, layer_norm=True),
            InputTypeError,
            "one that .* has, .*; got a layer-normalised GRU",
        ),
        (
            lambda: frozen_bias(tg.GRU(3, 4, recurrent_dropout=tg.Dropouts(zoneout=0.1))),
            InputValueError,
            "layer must have no zoneout, .*; it has 0.1",
        ),
        (
            lambda: tg.GRU(3, 4, activation=torch.sin),
            InputValueError,
            "must have an activation that .*; got a function",
        ),
        (lambda: tg.GRU(3, 4, device="meta"), InputValueError, "those on the meta device have no values"),
    ],
    ids=["lstm", "str", "own-forward", "dense", "h_0", "layer-norm", "zoneout", "function", "meta"],
)
def test_a_layer_that_no_framework_has_is_refused(format, make, error, sentence):
    assert_refused(lambda: GIVERS[format](make()), error, sentence)


@pytest.mark.parametrize(
    ("format", "options", "error", "sentence"),
    [
        (
            "flax",
            {"reset": "before"},
            InputTypeError,
            "that Flax NNX has, a GRU with the reset after .* and a simple RNN; got a GRU with the reset before",
        ),
        ("flax", {"reset": None}, InputTypeError, "got a GRU without a reset gate"),
        ("keras", {"reset": None}, InputTypeError, "that Keras has, .*; got a GRU without a reset gate"),
        (
            "equinox",
            {"reset": "before"},
            InputTypeError,
            "that Equinox has, a GRU with the reset after the product; got",
        ),
        (
            "equinox",
            {"activation": "relu"},
            InputValueError,
            "must have an activation that Equinox has there, \"tanh\"; got 'relu'",
        ),
        ("torch", {"reset": "before"}, InputTypeError, "that torch.nn has, .*; got a GRU with the reset before"),
        ("torch", {"activation": "relu"}, InputValueError, 'torch.nn has there, "tanh"; got .relu.'),
        ("torch", {"activation": "sigmoid"}, InputValueError, "there, .tanh.; got 'sigmoid'"),
    ],
)
def test_a_variant_that_one_framework_lacks_is_refused(format, options, error, sentence):
    assert_refused(lambda: GIVERS[format](tg.GRU(3, 4, **options)), error, sentence)


def test_equinox_has_no_rnn_and_torchs_knows_two_activations():
    assert_refused(lambda: GIVERS["equinox"](tg.RNN(3, 4)), InputTypeError, "Equinox has, a GRU .*; got a simple RNN")
    assert_refused(
        lambda: to_torch(tg.RNN(3, 4, activation="sigmoid")), InputValueError, '"tanh", "relu"; got .sigmoid.'
    )


@pytest.mark.parametrize("format", ["flax", "notes"])
def test_a_bias_inside_the_reset_gate_is_refused_with_its_place_and_the_layer_is_left_alone(format):
    layer = frozen_bias(tg.GRU(3, 4, num_layers=2, bidirectional=True))
    with torch.no_grad():
        for name in ("bias_hh_l0_reverse", "bias_hh_l1", "bias_hh_l1_reverse"):
            getattr(layer, name)[8:] = 0
        layer.bias_hh_l1_reverse[9] = -0.25
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    assert_refused(
        lambda: GIVERS[format](layer),
        InputValueError,
        "can hold; layer 1, backward: bias_hh of the candidate must be zero, .* reset gate.*; it is up to 0.25$",
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    layer.bias_hh_l1_reverse.data[9] = torch.nan
    assert_refused(lambda: GIVERS[format](layer), InputValueError, "bias_hh of the candidate must be zero")


def test_the_same_bias_goes_where_the_reset_is_before_or_there_is_none():
    layer: Any
    for layer in (tg.GRU(3, 4, reset="before"), tg.GRU(3, 4, reset=None), tg.RNN(3, 4)):
        (cell,) = tg.convert.to_notes(layer)
        total = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()[-4:].numpy()
        assert np.array_equal(cell["ba"], total)
    assert tg.convert.to_keras(tg.GRU(3, 4, reset="before"))[2].shape == (12,)


# ----------------------------------------------------------------------------------------------------------------------
# Arrays


def change(cells: list[Arrays], number: int, **new: Any) -> list[Arrays]:
    """The arrays with some of one set replaced; None takes one away."""
    changed = {name: array for name, array in (cells[number] | new).items() if array is not None}
    return [changed if place == number else cell for place, cell in enumerate(cells)]


def notes_arrays(layers: int = 2, both: bool = True) -> list[Arrays]:
    return arrays_of(
        FORMATS["notes"].framework.systems["gru"], Shape(3, 4, layers, both), lambda size: np.ones(size, np.float32)
    )


ONES = np.ones((4, 4), np.float32)


@pytest.mark.parametrize(
    ("changed", "error", "sentence"),
    [
        ({"Wau": None}, InputValueError, "layer 1, backward: the arrays must be Wxu, .*; got Wxu, bu, Wxr"),
        (
            {"Wzz": ONES},
            InputValueError,
            "the arrays must be Wxu, Wau, bu, Wxr, War, br, Wax, Waa, ba; or .*; got .*Wzz",
        ),
        ({"br": None}, InputValueError, "layer 1, backward: the arrays must hold bu, br, ba; missing: br"),
        ({"bu": None, "br": None, "ba": None}, InputValueError, "biases must be there in all cells or in none"),
        (
            {"Wxr": ONES},
            InputValueError,
            r"layer 1, backward: Wxr must be \(4, 8\) where the input has 8 .*; got \(4, 4\)",
        ),
        ({"Waa": np.ones((4, 5), np.float32)}, InputValueError, r"Waa must be \(4, 4\) where .*; got \(4, 5\)"),
        ({"Wau": np.ones((5, 4), np.float32)}, InputValueError, r"Wau must be \(H, H\); got \(5, 4\)"),
        (
            {"Wau": np.ones((5, 5), np.float32)},
            InputValueError,
            "one hidden size .*; layer 0 has 4, layer 1, backward has 5",
        ),
        ({"bu": np.ones((4, 1), np.float32)}, InputValueError, r"bu must be \(4,\) where .*; got \(4, 1\)"),
        ({"bu": np.ones(4)}, InputTypeError, "must have one dtype|bu"),
        (
            {"bu": np.ones(4, np.int64)},
            InputTypeError,
            "layer 1, backward: bu must be an array of floating numbers; got int64",
        ),
        ({"bu": np.ones(4, complex)}, InputTypeError, "floating numbers; got complex128"),
        ({"bu": [1.0] * 4}, InputTypeError, "layer 1, backward: bu must be an array; got list"),
        ({"Wau": [[1.0] * 4] * 4}, InputValueError, r"Wau must be \(H, H\); got list"),
        ({"bu": np.array(["a"] * 4)}, InputTypeError, "bu must be an array of floating numbers; got <U1"),
    ],
)
def test_arrays_that_are_not_the_notes_are_refused_by_their_place(changed, error, sentence):
    cells = notes_arrays()
    given = change(cells, 3, **changed)
    assert_refused(lambda: from_notes(given, bidirectional=True), error, sentence)
    assert same_bits(cells, notes_arrays())


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: from_notes([]), InputValueError, "must hold sets of arrays, one for each layer; got 0"),
        (
            lambda: from_notes(notes_arrays(1), bidirectional=True, reset=None),
            InputValueError,
            'must be "after" or "before" .*; got None',
        ),
        (
            lambda: from_notes(notes_arrays(1), reset=wrong("sideways")),
            InputValueError,
            '"after" or "before" .*; got .sideways',
        ),
        (
            lambda: from_notes(notes_arrays()[:3], bidirectional=True),
            InputValueError,
            "two for each layer, forward and backward; got 3",
        ),
        (lambda: from_notes(wrong(7)), InputTypeError, "must be a dict of arrays or a list of such; got int"),
        (
            lambda: from_notes(wrong([ONES])),
            InputTypeError,
            "layer 0: the arrays must be a mapping by name; got ndarray",
        ),
        (lambda: from_notes(notes_arrays(1, False), activation="swish"), InputValueError, "activation must be one of"),
        (
            lambda: from_notes([*notes_arrays(1, False), {"Wax": ONES, "Waa": ONES, "ba": ONES[0]}]),
            InputValueError,
            "must be of one kind to be one layer; got a GRU .* and a simple RNN",
        ),
        (
            lambda: from_keras([ONES, ONES]),
            InputValueError,
            "must hold kernel, recurrent_kernel, bias .* bias is True; got 2",
        ),
        (
            lambda: from_keras([ONES] * 3, bias=False),
            InputValueError,
            "must hold kernel, recurrent_kernel for .* False; got 3",
        ),
        (lambda: from_keras([]), InputTypeError, "must hold a layer or arrays; it is empty"),
        (
            lambda: from_keras([np.ones((3, 12)), np.ones((4, 12)), np.ones(12)]),
            InputValueError,
            r"bias must be \(2, 12\) where .*; got \(12,\)",
        ),
        (
            lambda: from_keras([np.ones((3, 12)), np.ones((4, 12)), np.ones((2, 12))], reset="before"),
            InputValueError,
            r"bias must be \(12,\) where .*; got \(2, 12\)",
        ),
        (
            lambda: from_keras([np.ones((3, 16)), np.ones((4, 16)), np.ones(16)]),
            InputValueError,
            r"recurrent_kernel must be \(H, 3\*H\) or \(H, H\); got \(4, 16\)",
        ),
        (
            lambda: from_keras([np.ones((12, 3)), np.ones((12, 4)), np.ones((2, 12))]),
            InputValueError,
            r"recurrent_kernel must be \(H, 3\*H\) or \(H, H\); got \(12, 4\)",
        ),
        (
            lambda: from_keras([np.ones(12), np.ones((4, 12)), np.ones((2, 12))]),
            InputValueError,
            r"kernel must be \(I, 3\*H\); got \(12,\)",
        ),
        (
            lambda: from_keras([np.ones((0, 12)), np.ones((4, 12)), np.ones((2, 12))]),
            InputValueError,
            r"kernel must be \(I, 3\*H\); got \(0, 12\)",
        ),
        (
            lambda: from_flax({"dense_i": {"kernel": ONES}, "dense_h": {"kernel": ONES}}),
            InputValueError,
            "must hold dense_i.bias; missing: dense_i.bias",
        ),
        (
            lambda: from_flax({"hz": {"kernel": ONES}}),
            InputValueError,
            "must be dense_i.kernel, dense_i.bias, dense_h.kernel; got hz.kernel",
        ),
        (
            lambda: from_equinox({"weight_ih": ONES, "weight_hh": ONES}),
            InputValueError,
            r"weight_hh must be \(3\*H, H\); got \(4, 4\)",
        ),
        (
            lambda: from_torch(torch.nn.Linear(3, 4)),
            InputTypeError,
            "must be a GRU, an RNN or one of their cells; got Linear",
        ),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_sources_that_are_no_layer_are_refused(call, error, sentence):
    assert_refused(call, error, sentence)


# ----------------------------------------------------------------------------------------------------------------------
# Files, as far as they are read without HDF5


def file_of(path: Path, config: Any, weights: bytes = b"") -> Path:
    """A zip with a configuration and weights."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config if isinstance(config, bytes) else json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return path


LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}
OWN = {"module": "mine", "class_name": "Own", "config": {}, "registered_name": "mine>Own"}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"class_name": "Sequential", "module": "keras", "config": {"layers": [LAMBDA]}}, "holds a lambda"),
        (
            {"class_name": "Sequential", "module": "keras", "config": {"layers": [OWN]}},
            "'Own' in it is not Keras's own",
        ),
        ({"class_name": "Model", "module": "mine", "config": {}}, "'Model' in it is not Keras's own"),
        ([], "must hold a model's description in config.json; got a list"),
        (b"{", "must hold JSON in config.json: JSONDecodeError"),
        (b"\xff\xfe\x00", "must hold JSON in config.json: UnicodeDecodeError"),
        (b'{"a":' * 100_000, "must hold JSON in config.json: RecursionError"),
        (b"1" * 10_000, "must hold JSON in config.json: ValueError"),
    ],
)
def test_a_configuration_that_is_not_read_is_refused(tmp_path, config, sentence):
    path = file_of(tmp_path / "model.keras", config)
    assert_refused(lambda: read_keras_file(path), FileError, sentence)


@pytest.mark.parametrize("path", [None, 3, b"model.keras"])
@pytest.mark.usefixtures("as_users_run_it")
def test_a_path_that_is_none_is_refused(path):
    assert_refused(lambda: read_keras_file(path), InputTypeError, "^path must be a str or a Path; got ")


@pytest.mark.parametrize("limit", [0, -1, 1.5, None, True, "1"])
@pytest.mark.usefixtures("as_users_run_it")
def test_a_limit_that_is_none_is_refused(limit):
    sentence = "^max_bytes must be an int of at least 1; got "
    assert_refused(lambda: read_keras_file("model.keras", max_bytes=limit), InputValueError, sentence)


def test_a_path_that_no_file_can_have_is_refused():
    assert_refused(lambda: read_keras_file("a" * 5000), FileError, "' cannot be read: File name too long$")


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.keras")  # to open it would wait for a writer
    assert_refused(lambda: read_keras_file(tmp_path / "pipe.keras"), FileError, "pipe.keras' must be a file$")


class Odd:
    """An activation that cannot be looked up."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, value: Any) -> Any:
        return value


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("format", GIVERS)
def test_an_activation_that_has_no_hash_is_refused_as_any_function(format):
    layer = tg.GRU(3, 4, activation=Odd(), bias=False)
    assert_refused(lambda: GIVERS[format](layer), InputValueError, "must have an activation that .*; got a function")


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        (None, "^nodes must be an OnnxNode or a list of such; got NoneType$"),
        ("ab", "^nodes must be an OnnxNode or a list of such; got str$"),
        ([1], r"^nodes\[0\] must be an OnnxNode; got int$"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_nodes_that_are_none_are_refused(nodes, sentence):
    assert_refused(lambda: tg.convert.from_onnx_nodes(nodes), InputTypeError, sentence)


def test_files_that_are_no_zip_not_there_or_not_whole_are_refused(tmp_path):
    assert_refused(
        lambda: read_keras_file(tmp_path / "none.keras"), FileMissingError, "there is no file '.*none.keras'"
    )
    assert_refused(lambda: read_keras_file(tmp_path), FileError, "is a folder; a .keras file is expected")
    text = tmp_path / "text.keras"
    text.write_text("no model")
    assert_refused(lambda: read_keras_file(text), FileError, "is truncated or not a zip file: File is not a zip file")
    whole = file_of(tmp_path / "whole.keras", {"class_name": "Sequential", "config": {"layers": []}}, b"x" * 1000)
    data = whole.read_bytes()
    for end in (0, 10, len(data) // 2, len(data) - 10):
        whole.write_bytes(data[:end])
        assert_refused(lambda: read_keras_file(whole), FileError, "is truncated or not a zip file")
    whole.write_bytes(data.replace(b"x" * 1000, b"y" * 1000))
    assert_refused(lambda: read_keras_file(whole), FileError, "is truncated or not a zip file: Bad CRC-32")
    whole.write_bytes(data)
    assert_refused(lambda: read_keras_file(whole, max_bytes=999), FileError, "at most 999 bytes of .*; it holds 1,000")
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("config.json", "{}")
    assert_refused(
        lambda: read_keras_file(whole), FileError, "must hold model.weights.h5 once, .*; it holds config.json$"
    )
