"""`.keras` files that Keras itself saved, read without Keras; and what was done to them is refused."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tidegate as tg
from tests.refusals import assert_refused
from tidegate.convert import from_keras, read_keras_file
from tidegate.errors import FileError, InputTypeError, InputValueError


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def filled(model: Any) -> Any:
    """The model with other weights than zero biases."""
    generator = np.random.default_rng(0)
    model.set_weights([generator.standard_normal(array.shape) * 0.3 for array in model.get_weights()])
    return model


def no(source: Any, error: type[Exception], sentence: str, **said: Any) -> None:
    """`from_keras` refuses the source."""
    assert_refused(lambda: from_keras(source, **said), error, sentence)


def unreadable(path: Path, sentence: str) -> None:
    """`read_keras_file` refuses the file."""
    assert_refused(lambda: read_keras_file(path), FileError, sentence)


def saved(model: Any, path: Path) -> Path:
    filled(model).save(path)
    return path


@pytest.fixture
def small(keras, tmp_path) -> Path:
    """A file with one GRU, to be damaged."""
    return saved(keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4)]), tmp_path / "small.keras")


def test_every_recurrent_layer_of_a_nested_model_is_found_with_its_own_weights(keras, tmp_path):
    L = keras.layers
    entry = keras.Input((5, 3))
    a = L.GRU(4, return_sequences=True, name="first")(entry)
    b = L.Bidirectional(L.GRU(4, return_sequences=True, reset_after=False), name="second")(a)
    c = L.Dense(6)(b)
    inner = keras.Sequential([keras.Input((5, 6)), L.SimpleRNN(2, return_sequences=True), L.LSTM(3), L.Dense(2)])
    d = inner(c)
    e = L.RNN(L.GRUCell(3), name="of a cell")(b)
    f = L.RNN([L.GRUCell(3), L.SimpleRNNCell(2), L.GRUCell(5)], name="of cells")(b)
    g = L.GRU(2, use_bias=False)(c)
    model = filled(keras.Model(entry, [d, e, f, g]))
    path = saved(model, tmp_path / "nested.keras")
    found = {layer.path: layer for layer in read_keras_file(path)}
    expected = {
        "layers/gru": ("first", "GRU", model.get_layer("first").get_weights()),
        "layers/bidirectional": ("second", "GRU", model.get_layer("second").get_weights()),
        "layers/sequential/layers/simple_rnn": ("simple_rnn", "SimpleRNN", inner.layers[0].get_weights()),
        "layers/sequential/layers/lstm": ("lstm", "LSTM", inner.layers[1].get_weights()),
        "layers/rnn": ("of a cell", "GRU", model.get_layer("of a cell").get_weights()),
        "layers/rnn_1/cell/cells/gru_cell": ("of cells", "GRU", model.get_layer("of cells").get_weights()[:3]),
        "layers/rnn_1/cell/cells/simple_rnn_cell": (
            "of cells",
            "SimpleRNN",
            model.get_layer("of cells").get_weights()[3:6],
        ),
        "layers/rnn_1/cell/cells/gru_cell_1": ("of cells", "GRU", model.get_layer("of cells").get_weights()[6:]),
    }
    last = next(layer for layer in model.layers if isinstance(layer, L.GRU) and layer.name != "first")
    expected["layers/gru_1"] = (last.name, "GRU", last.get_weights())
    assert set(found) == set(expected)
    for where, (name, class_name, weights) in expected.items():
        layer = found[where]
        assert (layer.class_name, len(layer.weights)) == (class_name, len(weights)), where
        if "simple_rnn" not in name and name != "lstm":
            assert layer.name == name
        for one, other in zip(layer.weights, weights, strict=True):
            assert np.array_equal(one, other), where
    second = found["layers/bidirectional"]
    assert (second.units, second.input_size, second.activation, second.use_bias) == (4, 4, "tanh", True)
    assert second.bidirectional
    assert not second.reset_after
    assert found["layers/gru"].reset_after


def test_a_layer_from_a_file_computes_what_the_saved_model_does(keras, tmp_path):
    L = keras.layers
    model = keras.Sequential(
        [
            keras.Input((7, 3)),
            L.Bidirectional(L.GRU(4, return_sequences=True)),
            L.Bidirectional(L.GRU(4, return_sequences=True)),
        ]
    )
    path = saved(model, tmp_path / "stack.keras")
    layer = from_keras(read_keras_file(path), batch_first=True)
    assert isinstance(layer, tg.GRU)
    assert (layer.num_layers, layer.bidirectional, layer.batch_first) == (2, True, True)
    x = np.random.default_rng(1).standard_normal((2, 7, 3)).astype(np.float32)
    with torch.no_grad():
        assert np.abs(layer(torch.from_numpy(x))[0].numpy() - model(x).numpy()).max() < 1e-6
    for one, other in zip(tg.convert.to_keras(layer), model.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_what_to_keras_gives_is_what_a_sequential_takes(keras):
    L = keras.layers
    ours = tg.RNN(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    stack = [L.Bidirectional(L.SimpleRNN(4, return_sequences=True)) for _ in range(2)]
    model = keras.Sequential([keras.Input((7, 3)), *stack])
    model.set_weights(tg.convert.to_keras(ours))
    x = torch.randn(2, 7, 3)
    with torch.no_grad():
        assert (ours(x)[0] - torch.as_tensor(model(x))).abs().max() < 1e-6
    again = from_keras(model, batch_first=True)
    assert all(
        torch.equal(one, other) for one, other in zip(again(x), from_keras(stack, batch_first=True)(x), strict=True)
    )


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_come_as_they_are(keras, tmp_path, dtype):
    model = keras.Sequential(
        [keras.Input((5, 3), dtype=dtype), keras.layers.GRU(4, dtype=dtype, recurrent_initializer="glorot_uniform")]
    )
    path = saved(model, tmp_path / "typed.keras")
    (layer,) = read_keras_file(path)
    assert {array.dtype.name for array in layer.weights} == {dtype}
    ours = from_keras(layer)
    assert ours.weight_ih_l0.dtype == getattr(torch, dtype)
    for one, other in zip(ours.parameters(), from_keras(model).parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_model_without_recurrence_has_no_layers(keras, tmp_path):
    assert (
        read_keras_file(saved(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "d.keras")) == []
    )


# ----------------------------------------------------------------------------------------------------------------------
# What is refused


def changed(path: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a file in which one member is another."""
    other = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, change(data) if info.filename == name else data)
    return other


def configured(path: Path, change: Callable[[dict], None]) -> Path:
    """A copy of a file in which the GRU's configuration was changed."""

    def rewrite(text: bytes) -> bytes:
        config = json.loads(text)
        (layer,) = [layer for layer in config["config"]["layers"] if layer["class_name"] == "GRU"]
        change(layer)
        return json.dumps(config).encode()

    return changed(path, "config.json", rewrite)


def weighted(path: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a file in which the HDF5 file was changed."""
    import h5py

    def rewrite(data: bytes) -> bytes:
        buffer = io.BytesIO(data)
        with h5py.File(buffer, "r+") as store:
            change(store)
        return buffer.getvalue()

    return changed(path, "model.weights.h5", rewrite)


def constant(data: bytes) -> Callable[[bytes], bytes]:
    """These bytes, whatever there was."""
    return lambda _: data


def outcome(path: Path) -> str:
    """What is said of a file that may be damaged: only a FileError says no."""
    try:
        return f"{len(read_keras_file(path))} layers"
    except FileError as error:
        return str(error)


def test_a_file_cut_short_anywhere_is_refused(small):
    whole = small.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        small.write_bytes(whole[: int(len(whole) * share)])
        unreadable(small, "is truncated or not a zip file")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_weights_cut_short_are_refused(small, share):
    path = changed(small, "model.weights.h5", lambda data: data[: int(len(data) * share)])
    unreadable(path, "is truncated or not a file whose weights are HDF5")


def test_bytes_that_were_flipped_never_escape_as_another_error(small):
    whole = small.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        for at in generator.integers(0, len(data), 3):
            data[at] ^= 1 << int(generator.integers(8))
        small.write_bytes(bytes(data))
        assert "\n" not in outcome(small)


def test_weights_flipped_inside_hdf5_never_escape_as_another_error(small):
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(small) as archive:
        whole = archive.read("model.weights.h5")
    for _ in range(200):
        data = bytearray(whole)
        for at in generator.integers(0, min(len(data), 4096), 4):
            data[at] = int(generator.integers(256))
        path = changed(small, "model.weights.h5", constant(bytes(data)))
        assert "\n" not in outcome(path)


def test_too_large_weights_are_refused_before_they_are_read(small):
    assert_refused(lambda: read_keras_file(small, max_bytes=100), FileError, "at most 100 bytes of model.weights.h5")


def test_a_huge_array_in_a_small_file_is_refused(small):
    def blow_up(store):
        del store["layers/gru/cell/vars/0"]
        store.create_dataset("layers/gru/cell/vars/0", (1 << 20, 1 << 20), "f4", chunks=(64, 64))

    path = weighted(small, blow_up)
    unreadable(path, r"are 4,398,046,511,104 bytes or more; at most")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda layer: layer["config"].update(units=5), r"must be of shapes \(3, 15\), \(5, 15\), \(2, 15\); they are"),
        (lambda layer: layer["config"].update(reset_after=False), r"must be of shapes .* \(12,\); they are"),
        (lambda layer: layer["config"].update(use_bias=False), r"must be 2 arrays; there are 3"),
        (lambda layer: layer["config"].update(units="4"), r"must tell units, a size; got '4'"),
        (lambda layer: layer["config"].update(units=-4), r"must tell units, a size; got -4"),
        (lambda layer: layer["config"].update(units=True), r"must tell units, a size; got True"),
        (lambda layer: layer["config"].pop("activation"), r"must tell activation, by name; got None"),
        (lambda layer: layer.update(config=[]), r"does not describe a layer"),
        (
            lambda layer: layer.update(class_name="ConvLSTM9D", config={"layer": {"class_name": "GRU"}}),
            r"inside 'ConvLSTM9D'",
        ),
        (lambda layer: layer.update(module="mine"), r"'GRU' in it is not Keras's own"),
        (lambda layer: layer.update(module=None, registered_name="mine>GRU"), r"'GRU' in it is not Keras's own"),
        (
            lambda layer: layer["config"].update(activation={"class_name": "__lambda__", "config": {"value": "x"}}),
            "it holds a lambda",
        ),
        (
            lambda layer: layer["config"].update(
                activation={"class_name": "function", "config": "g", "module": "builtins"}
            ),
            "must tell activation, by name; got a function of its own",
        ),
    ],
)
def test_a_configuration_that_was_changed_is_refused(small, change, sentence):
    unreadable(configured(small, change), sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda store: store.move("layers/gru", "layers/lstm"), r"it holds no weights 'layers/gru/cell/vars'"),
        (lambda store: store.move("layers/gru/cell/vars/2", "layers/gru/cell/vars/bias"), "must be 3 arrays"),
        (lambda store: store.__delitem__("layers/gru/cell/vars/1"), "must be 3 arrays; there are 2"),
    ],
)
def test_weights_that_were_renamed_or_left_out_are_refused(small, change, sentence):
    unreadable(weighted(small, change), sentence)


def test_links_out_of_the_file_are_refused(small):
    import h5py

    def outside(store):
        del store["layers/gru/cell/vars/0"]
        store["layers/gru/cell/vars/0"] = h5py.ExternalLink("/etc/passwd", "x")

    def soft(store):
        store["layers/gru/cell/vars"].move("0", "/other")
        store["layers/gru/cell/vars/0"] = h5py.SoftLink("/other")

    def external(store):
        del store["layers/gru/cell/vars/0"]
        store.create_dataset("layers/gru/cell/vars/0", (3, 12), "f4", external=[("/etc/passwd", 0, 144)])

    def whole_numbers(store):
        del store["layers/gru/cell/vars/0"]
        store["layers/gru/cell/vars/0"] = np.zeros((3, 12), np.int32)

    for change, sentence in (
        (outside, "are a link to elsewhere"),
        (soft, "are a link to elsewhere"),
        (external, "lie in another file"),
        (whole_numbers, "must be floating numbers; they are int32"),
    ):
        unreadable(weighted(small, change), sentence)


def test_lambda_layers_and_classes_of_ones_own_are_refused(keras, tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Own(keras.layers.Layer):  # type: ignore[name-defined,misc]
        def call(self, x):
            return x

    for layer, sentence in (
        (keras.layers.Lambda(lambda x: x, output_shape=(5, 3)), "it holds a lambda"),
        (Own(), "'Own' in it is not Keras's own"),
    ):
        model = keras.Sequential([keras.Input((5, 3)), layer, keras.layers.GRU(4)])
        path = tmp_path / "own.keras"
        model.save(path)
        unreadable(path, sentence)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda L: L.LSTM(4), InputTypeError, "source must be keras.layers.GRU, .*; got LSTM"),
        (lambda L: L.Bidirectional(L.LSTM(4)), InputTypeError, "must run a GRU or a SimpleRNN both ways; got a LSTM"),
        (
            lambda L: L.RNN(L.LSTMCell(4)),
            InputTypeError,
            "source must run keras.layers.GRUCell or Simple.*; got LSTMCell",
        ),
        (
            lambda L: L.RNN([L.GRUCell(4), L.LSTMCell(4)]),
            InputTypeError,
            "source must run keras.layers.GRUCell or SimpleRNNCell; got LSTMCell",
        ),
        (
            lambda L: L.Bidirectional(L.RNN([L.GRUCell(4), L.GRUCell(4)])),
            InputTypeError,
            "must run one cell in each direction; got 2, which are stacked inside",
        ),
        (lambda L: L.RNN(L.GRUCell(4), go_backwards=True), InputValueError, "only runs backwards"),
        (
            lambda L: L.RNN([L.GRUCell(4), L.SimpleRNNCell(4)]),
            InputValueError,
            "must be of one kind to be one layer; got a GRU .* and a simple RNN",
        ),
        (lambda L: L.Dense(4), InputTypeError, "got Dense"),
        (lambda L: L.GRU(4, go_backwards=True), InputValueError, "only runs backwards"),
        (
            lambda L: L.GRU(4, recurrent_activation="hard_sigmoid"),
            InputValueError,
            "must have sigmoid gates; .* 'hard_sigmoid'",
        ),
        (
            lambda L: L.GRU(4, activation="elu"),
            InputValueError,
            'one of "tanh", "relu", "sigmoid", "linear" .*; got .elu',
        ),
        (lambda L: L.Bidirectional(L.GRU(4), merge_mode="sum"), InputValueError, "side by side .*has 'sum'"),
        (
            lambda L: L.Bidirectional(L.GRU(4), backward_layer=L.GRU(5, go_backwards=True)),
            InputValueError,
            "alike in both directions; .* differs in units",
        ),
    ],
)
def test_keras_layers_that_nothing_here_equals_are_refused(keras, make, error, sentence):
    layer = make(keras.layers)
    layer.build((None, 5, 3))
    no(layer, error, sentence)


def test_a_layer_that_was_not_built_a_subclass_and_a_mixed_stack_are_refused(keras):
    @keras.saving.register_keras_serializable("mine")
    class Mine(keras.layers.GRU):  # type: ignore[name-defined,misc]
        pass

    class MyCell(keras.layers.GRUCell):  # type: ignore[name-defined,misc]
        pass

    def built(layer, size):
        layer.build((None, 5, size))
        return layer

    L = keras.layers
    no(L.GRU(4), InputValueError, "must have been built")
    no(built(Mine(4), 3), InputTypeError, "got Mine")
    no(built(L.Bidirectional(Mine(4)), 3), InputTypeError, "must run a GRU or a SimpleRNN both ways; got a Mine")
    no(built(L.RNN(MyCell(4)), 3), InputTypeError, "must run keras.layers.GRUCell or SimpleRNNCell; got MyCell")
    no(L.RNN(L.GRUCell(4)), InputValueError, "must have been built")
    stacks: list[tuple[list, str]] = [
        ([built(L.GRU(4), 3), built(L.GRU(5), 4)], "one hidden size to be one layer; layer 0 has 4, layer 1 has 5"),
        ([built(L.GRU(4), 3), built(L.SimpleRNN(4), 4)], "of one kind to be one layer"),
        ([built(L.GRU(4), 3), built(L.GRU(4, reset_after=False), 4)], "of one reset_after"),
        ([built(L.GRU(4), 3), built(L.GRU(4, use_bias=False), 4)], "of one use_bias"),
        ([built(L.GRU(4), 3), built(L.GRU(4, activation="relu"), 4)], "of one activation"),
        ([built(L.GRU(4), 3), built(L.Bidirectional(L.GRU(4)), 4)], "of one direction"),
        (
            [built(L.GRU(4), 3), built(L.GRU(4), 7)],
            r"layer 1: kernel must be \(4, 12\) where the input has 4 .*got \(7, 12\)",
        ),
    ]
    for stack, sentence in stacks:
        no(stack, InputValueError, sentence)


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (lambda L: L.RNN(L.GRUCell(4), return_sequences=True), 1),
        (lambda L: L.RNN(L.GRUCell(4, reset_after=False, activation="relu"), return_sequences=True), 1),
        (lambda L: L.RNN(L.SimpleRNNCell(4, use_bias=False), return_sequences=True), 1),
        (lambda L: L.RNN([L.GRUCell(4), L.GRUCell(4), L.GRUCell(4)], return_sequences=True), 3),
        (lambda L: L.Bidirectional(L.RNN(L.GRUCell(4), return_sequences=True)), 1),
    ],
)
def test_an_rnn_of_cells_is_the_layer_that_it_amounts_to(keras, tmp_path, make, layers):
    model = filled(keras.Sequential([keras.Input((7, 3)), make(keras.layers)]))
    layer = from_keras(model.layers[0], batch_first=True)
    assert layer.num_layers == layers
    x = np.random.default_rng(1).standard_normal((2, 7, 3)).astype(np.float32)
    with torch.no_grad():
        assert np.abs(layer(torch.from_numpy(x))[0].numpy() - model(x).numpy()).max() < 1e-6
    for one, other in zip(tg.convert.to_keras(layer), model.get_weights(), strict=True):
        assert np.array_equal(one, other)
    path = tmp_path / "cells.keras"
    model.save(path)
    read = from_keras(read_keras_file(path)).state_dict()
    assert all(torch.equal(tensor, read[name]) for name, tensor in layer.state_dict().items())


def test_what_is_said_beside_a_keras_layer_must_agree_with_it(keras):
    layer = keras.layers.GRU(4)
    layer.build((None, 5, 3))
    assert from_keras(layer, reset="after", activation="tanh", bias=True, bidirectional=False).reset == "after"
    said: dict[str, Any]
    for said in ({"reset": "before"}, {"activation": "relu"}, {"bias": False}, {"bidirectional": True}):
        no(layer, InputValueError, "as the layer itself tells; got", **said)


def test_what_concerns_training_alone_does_not_matter(keras, tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Own(keras.losses.Loss):  # type: ignore[name-defined,misc]
        def call(self, y_true, y_pred):
            return y_pred

    model = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4, dropout=0.1, kernel_regularizer="l2")])
    model.compile(loss=Own(), optimizer="adam")
    (layer,) = read_keras_file(saved(model, tmp_path / "trained.keras"))
    assert from_keras(layer).hidden_size == 4


# ----------------------------------------------------------------------------------------------------------------------
# The doctor


def test_the_doctor_lists_what_keras_saved_and_looks_at_the_layer_that_takes_the_data(keras, tmp_path):
    L = keras.layers
    model = keras.Sequential(
        [
            keras.Input((25, 3)),
            L.GRU(4, return_sequences=True),
            L.Bidirectional(L.GRU(5, return_sequences=True, reset_after=False)),
            L.LSTM(6, return_sequences=True),
            L.SimpleRNN(2, activation="relu"),
        ]
    )
    path = saved(model, tmp_path / "a.keras")
    x = np.random.default_rng(0).standard_normal((2, 25, 3)).astype(np.float32)
    found = tg.doctor(path, x)
    after, before, lstm, simple = found.layers
    assert [(one.kind, one.variant) for one in found.layers] == [
        ("GRU", "GRU with the reset after the product, tanh"),
        ("GRU", "GRU with the reset before the product, tanh"),
        ("LSTM", None),
        ("SimpleRNN", "simple RNN, relu"),
    ]
    assert after.layout == (
        "Keras: update, reset (relevance), candidate; z = 1 - update is stored; units are columns; two biases for "
        "each, the candidate's second one inside the reset gate"
    )
    assert before.layout is not None
    assert before.layout.endswith("one bias for each")
    assert lstm.backend == "nothing here: Tidegate does not have it"
    (health,) = after.health
    (expected,) = tg.gate_health(from_keras(read_keras_file(path)[0], batch_first=True), torch.from_numpy(x))
    assert (health.steps, health.sequences, health.update) == (25, 2, expected.update)
    assert simple.unseen is not None
    assert "the data went to 'layers/gru'" in simple.unseen


def test_the_doctor_refuses_lambda_layers_and_damaged_files(keras, small, tmp_path):
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.Lambda(lambda x: x * 2), keras.layers.GRU(4)])
    path = saved(model, tmp_path / "lambda.keras")
    assert_refused(lambda: tg.doctor(path), FileError, "(?i)lambda")
    for share in (0, 0.5, 0.99):
        data = small.read_bytes()
        (tmp_path / "cut.keras").write_bytes(data[: int(len(data) * share)])
        assert_refused(lambda: tg.doctor(tmp_path / "cut.keras"), FileError, r"cut\.keras'")
