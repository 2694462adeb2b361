"""Models written to ONNX: ONNX Runtime gives what the model gives, whole or piece by piece."""

import copy
import json
import re
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import tidegate as tg
from tests.layer_helpers import draw_
from tests.onnx_helpers import onnx_runtime, run
from tests.refusals import assert_refused
from tidegate.convert import from_onnx, to_onnx
from tidegate.errors import FileError, InputTypeError, InputValueError

I, H = 3, 5
TOLERANCE = 2e-6

#: Every system, direction and activation that a file can hold, as layers of one model, so that one file has them all.
LAYERS: dict[str, Any] = {
    "gru": lambda: tg.GRU(I, H, backend="reference"),
    "gru_two": lambda: tg.GRU(I, H, 2, bidirectional=True, backend="reference"),
    "gru_no_bias": lambda: tg.GRU(I, H, bias=False, backend="reference"),
    "gru_relu": lambda: tg.GRU(I, H, 2, activation="relu", backend="reference"),
    "gru_identity": lambda: tg.GRU(I, H, activation="identity", bidirectional=True, backend="reference"),
    "before": lambda: tg.GRU(I, H, reset="before", backend="reference"),
    "before_two": lambda: tg.GRU(
        I, H, 2, reset="before", bidirectional=True, activation="sigmoid", backend="reference"
    ),
    "update_only": lambda: tg.GRU(I, H, reset=None, backend="reference"),
    "update_only_two": lambda: tg.GRU(I, H, 2, reset=None, bidirectional=True, backend="reference"),
    "update_only_no_bias": lambda: tg.GRU(I, H, reset=None, bias=False, activation="relu", backend="reference"),
    "rnn": lambda: tg.RNN(I, H, backend="reference"),
    "rnn_two": lambda: tg.RNN(I, H, 2, nonlinearity="relu", bidirectional=True, backend="reference"),
    "rnn_sigmoid": lambda: tg.RNN(I, H, activation="sigmoid", bias=False, backend="reference"),
    "learned": lambda: tg.GRU(I, H, 2, learn_h_0=True, bidirectional=True, backend="reference"),
    "dense": lambda: tg.Dense(I, H, backend="reference"),
    "torch_gru": lambda: nn.GRU(I, H, 2, bidirectional=True),
    "torch_rnn": lambda: nn.RNN(I, H, nonlinearity="relu"),
}


class Everything(nn.Module):
    """Every layer on the same input, with or without lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: make() for name, make in LAYERS.items()})

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Any:
        found = {}
        for name, layer in self.layers.items():
            if name.startswith("torch"):
                if lengths is not None:
                    continue
                found[name], found[f"{name}.h_n"] = layer(x)
            else:
                found[name], found[f"{name}.h_n"] = layer(x, lengths=lengths)
        return found


@pytest.fixture(scope="module")
def everything() -> Any:
    torch.manual_seed(0)
    return draw_(Everything()).eval()


@pytest.fixture(scope="module")
def file(everything) -> Any:
    return to_onnx(everything, inputs=torch.randn(4, 2, I))


@pytest.fixture(scope="module")
def file_with_lengths(everything) -> Any:
    return to_onnx(everything, inputs={"x": torch.randn(4, 2, I), "lengths": torch.tensor([4, 1])})


@pytest.fixture(scope="module")
def whole(everything, file) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the model gives for a sequence, and what ONNX Runtime gives."""
    x = torch.randn(9, 7, I, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = everything(x)
    return expected, dict(zip((one.name for one in file.graph.output), run(file, x=x), strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_onnx_runtime_gives_what_the_layer_gives(whole, name):
    expected, found = whole
    for key in (name, f"{name}.h_n"):
        torch.testing.assert_close(found[key], expected[key], atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(
        found[f"state_out.layers.{name}"], expected[f"{name}.h_n"], atol=TOLERANCE, rtol=TOLERANCE
    )


def test_the_comparison_can_fail(whole):
    expected, found = whole
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found["gru"] + 1e-5, expected["gru"], atol=TOLERANCE, rtol=TOLERANCE)
    assert not torch.allclose(expected["gru"], expected["before"], atol=0.1)


@pytest.mark.parametrize("name", [name for name in LAYERS if not name.startswith("torch")])
def test_lengths_end_each_sequence_even_at_once(everything, file_with_lengths, name):
    x, lengths = torch.randn(6, 5, I), torch.tensor([6, 0, 3, 1, 2])
    with torch.no_grad():
        expected = everything(x, lengths)
    session = onnx_runtime(file_with_lengths)
    names = [name, f"{name}.h_n"]
    found = session.run(names, {"x": x.numpy(), "lengths": lengths.numpy()})
    for key, one in zip(names, found, strict=True):
        torch.testing.assert_close(torch.from_numpy(one), expected[key], atol=TOLERANCE, rtol=TOLERANCE)


STREAMS = [name for name in LAYERS if not any(word in name for word in ("two", "identity", "learned", "torch_gru"))]


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 1, 4]], ids=["steps", "pieces"])
def test_states_that_are_fed_back_give_the_whole_sequence(everything, file, whole, pieces):
    x = torch.randn(9, 7, I, generator=torch.Generator().manual_seed(1))
    session = onnx_runtime(file)
    names = [one.name for one in file.graph.output]
    states: dict[str, Tensor] = {}
    outputs: dict[str, list[Tensor]] = {name: [] for name in STREAMS}
    for piece in x.split(pieces):
        found = dict(zip(names, session.run(None, {"x": piece.numpy(), **states}), strict=True))
        states = {
            name.replace("state_out", "state_in"): one for name, one in found.items() if name.startswith("state_out")
        }
        for name in STREAMS:
            outputs[name].append(torch.from_numpy(found[name]))
    for name in STREAMS:
        torch.testing.assert_close(torch.cat(outputs[name]), whole[0][name], atol=TOLERANCE, rtol=TOLERANCE)


def test_a_state_that_is_given_is_where_the_layer_begins(everything, file):
    x, names = torch.randn(3, 4, I), ["gru_two", "learned", "update_only_two"]
    states = {name: torch.randn(4, 4, H) for name in names}
    found = onnx_runtime(file).run(
        names, {"x": x.numpy(), **{f"state_in.layers.{name}": state.numpy() for name, state in states.items()}}
    )
    for name, one in zip(names, found, strict=True):
        expected = everything.layers[name](x, states[name])[0].detach()
        torch.testing.assert_close(torch.from_numpy(one), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_the_file_read_again_gives_the_same(everything, file, file_with_lengths):
    x = torch.randn(6, 4, I)
    for proto, given in ((file, {}), (file_with_lengths, {"lengths": torch.tensor([6, 0, 3, 1])})):
        again = from_onnx(proto).model()
        with torch.no_grad():
            expected, found = everything(x, **given), dict(zip(again.outputs, again(x, **given), strict=True))
        for name, one in expected.items():
            torch.testing.assert_close(found[name], one, atol=TOLERANCE, rtol=TOLERANCE)


def test_the_metadata_says_the_variant_the_sizes_and_the_version(file):
    read = from_onnx(file)
    assert read.version == tg.__version__
    told = {record["name"]: record for record in read.written}
    assert len(told) == len(LAYERS)
    assert told["layers.before_two"] == {
        "name": "layers.before_two",
        "variant": "gru-reset-before",
        "activation": "sigmoid",
        "cell": False,
        "input_size": I,
        "hidden_size": H,
        "num_layers": 2,
        "directions": 2,
        "state_in": "state_in.layers.before_two",
        "state_out": "state_out.layers.before_two",
    }
    assert json.loads({one.key: one.value for one in file.metadata_props}["tidegate.layers"]) == list(read.written)


def test_axes_and_nodes_have_the_names_of_what_they_are(file):
    def sizes(value: onnx.ValueInfoProto) -> list[str | int]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    told = {value.name: sizes(value) for value in [*file.graph.input, *file.graph.output]}
    assert told["x"] == ["time", "batch", I]
    assert told["gru_two"] == ["time", "batch", 2 * H]
    assert told["state_in.layers.gru_two"] == [4, "batch_or_1", H]
    assert told["state_out.layers.gru_two"] == [4, "batch", H]
    nodes = {node.name: node for node in file.graph.node}
    assert nodes["layers.gru_two.layer1"].op_type == "GRU"
    assert nodes["layers.rnn.layer0"].op_type == "RNN"


def test_the_file_tells_nothing_of_the_machine_it_was_written_on(file):
    assert b".py" not in file.SerializeToString()
    assert b"/src/" not in file.SerializeToString()


# ---------------------------------------------------------------------------------------------------------------------
# Models


class Tagger(nn.Module):
    """Words in, a tag for each out: what surrounds a recurrent layer in real models."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6)
        self.rnn = tg.GRU(6, 4, 2, batch_first=True, dropout=0.5, bidirectional=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3), nn.LogSoftmax(-1))

    def forward(self, words: Tensor) -> Any:
        self.rnn.flatten_parameters()
        y, _ = self.rnn(self.words(words))
        assert self.rnn.hidden_size == 4
        return self.head(self.norm(y))


def test_a_model_with_its_usual_surroundings(tmp_path):
    model = draw_(Tagger()).train()
    before = copy.deepcopy(model.state_dict())
    words = torch.randint(0, 20, (3, 6))
    to_onnx(model, tmp_path / "tagger.onnx", words, output_names=["tags"])
    assert [path.name for path in tmp_path.iterdir()] == ["tagger.onnx"]
    proto = onnx.load(tmp_path / "tagger.onnx")
    assert [value.name for value in proto.graph.input] == ["words", "state_in"]
    assert [value.name for value in proto.graph.output] == ["tags", "state_out"]

    assert model.training
    assert "forward" not in vars(model.rnn)
    assert list(model.rnn.children()) == []
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())

    model.eval()
    words = torch.randint(0, 20, (5, 11))
    expected = model(words).detach()
    torch.testing.assert_close(run(proto, words=words)[0], expected, atol=TOLERANCE, rtol=TOLERANCE)
    again = from_onnx(tmp_path / "tagger.onnx")
    assert [(one.name, one.variant, one.direction) for one in again.layers] == [
        ("rnn.layer0", "gru", "bidirectional"),
        ("rnn.layer1", "gru", "bidirectional"),
    ]
    torch.testing.assert_close(again.model()(words)[0], expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_cells_and_states_of_the_models_own():
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = tg.GRUCell(I, H), nn.RNNCell(H, H)

        def forward(self, x: Tensor, h: Tensor) -> Any:
            h = self.first(x, h)
            return self.second(h), h

    model = draw_(Steps())
    proto = to_onnx(model, inputs=(torch.randn(2, I), torch.randn(2, H)))
    assert [value.name for value in proto.graph.input] == ["x", "h", "state_in"]
    x, h, state = torch.randn(5, I), torch.randn(5, H), torch.randn(1, 5, H)
    y, h_n, state_out = run(proto, x=x, h=h, state_in=state)
    expected = model.first(x, h)
    torch.testing.assert_close(h_n, expected.detach(), atol=TOLERANCE, rtol=TOLERANCE)
    expected = model.second(expected, state[0]).detach()
    torch.testing.assert_close(y, expected, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(state_out[0], expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_an_unbatched_model_in_float64_without_states():
    layer = draw_(tg.RNN(I, H, 2, learn_h_0=True, dtype=torch.float64))
    proto = to_onnx(layer, inputs=torch.randn(4, I, dtype=torch.float64), states=False)
    assert [value.name for value in proto.graph.input] == ["input"]
    assert [value.name for value in proto.graph.output] == ["output", "h_n"]
    onnx.checker.check_model(proto, full_check=True)
    x = torch.randn(7, I, dtype=torch.float64)
    for found, expected in zip(from_onnx(proto).model()(x), layer(x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("opset", [18, 23])
def test_the_first_and_the_last_version_of_the_operators(opset):
    layers = nn.ModuleList([tg.GRU(I, H, 2), tg.GRU(H, H, reset=None), tg.RNN(H, H, activation="identity")])

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Any:
            for layer in self.layers:
                x = torch.nn.functional.gelu(layer(x)[0])
            return x

    proto = to_onnx(Stack(), inputs=torch.randn(4, 2, I), opset=opset)
    assert proto.opset_import[0].version == opset
    x = torch.randn(6, 3, I)
    with torch.no_grad():
        expected = Stack()(x)
    torch.testing.assert_close(run(proto, x=x)[0], expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_a_bfloat16_layer_is_written_and_read_again():
    layer = tg.GRU(I, H, dtype=torch.bfloat16, learn_h_0=True)
    assert_refused(
        lambda: to_onnx(layer), InputValueError, "^opset must be at least 22 for module '' of torch.bfloat16"
    )
    proto = to_onnx(layer, opset=22)
    onnx.checker.check_model(proto, full_check=True)
    (record,) = from_onnx(proto).layers
    assert record.layer is not None
    assert all(torch.equal(one, layer.state_dict()[name]) for name, one in record.layer.state_dict().items())
    x = torch.randn(5, 2, I, dtype=torch.bfloat16)
    assert torch.equal(from_onnx(proto).model()(x)[0], layer(x)[0])


def test_axes_that_are_named_vary_and_the_others_do_not():
    layer = tg.GRU(I, H, batch_first=True)
    proto = to_onnx(layer, inputs=torch.randn(1, 4, I), axes=[[None, "frames", None]])
    (value, _) = proto.graph.input
    assert [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] == [1, "frames", I]
    assert run(proto, input=torch.randn(1, 9, I))[0].shape == (1, 9, H)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


class Holding(nn.Module):
    """A model that gives its layer something."""

    def __init__(self, layer: nn.Module, **given: Any) -> None:
        super().__init__()
        self.layer, self.given = layer, given

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, **self.given)[0]


class Packing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = tg.GRU(I, H)

    def forward(self, x: Tensor) -> Any:
        return self.layer(nn.utils.rnn.pack_sequence([x[:, 0], x[:, 1]]))[1]


def zoned() -> tg.GRU:
    return tg.GRU(I, H, recurrent_dropout=tg.Dropouts(zoneout=0.1))


class OwnForward(tg.GRU):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class Unwritable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.odd = tg.GRU(I, H), Odd()

    def forward(self, x: Tensor) -> Any:
        return self.odd(self.layer(x)[0])


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return torch.special.bessel_j0(x)


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = tg.GRU(I, H)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)[0] + torch.ones(4, 1, H)


X = torch.zeros(4, 2, I)


@pytest.mark.parametrize(
    ("model", "inputs", "error", "sentence"),
    [
        (
            lambda: Holding(tg.GRU(I, H)),
            None,
            InputValueError,
            "^inputs must be an example of what the model takes; got None",
        ),
        (lambda: "gru", X, InputTypeError, "^model must be a torch.nn.Module; got str"),
        (lambda: tg.GRU(I, H), [], InputValueError, "^inputs must hold at least one tensor; got none"),
        (lambda: tg.GRU(I, H), [1], InputTypeError, "^input must be a torch.Tensor; got int"),
        (lambda: tg.GRU(I, H), 1, InputTypeError, "^inputs must be a tensor, tensors or tensors by name; got int"),
        (lambda: tg.GRU(I, H), X[:1], InputValueError, r"^input must hold at least 2 along axis 0, .*got \(1, 2, 3\)"),
        (lambda: tg.GRU(I, H), X[..., :1], InputValueError, r"^input must be \(T, B, I\)"),
        (lambda: tg.GRU(I, H, activation=torch.sin), X, InputValueError, "^module '' must have one of the activations"),
        (
            lambda: tg.GRU(I, H, layer_norm=True),
            X,
            InputValueError,
            "^module '' cannot be .* gru-layer-norm, which ONNX",
        ),
        (lambda: Holding(zoned()), X, InputValueError, "^module 'layer' cannot be .*zoneout scales its update gate"),
        (lambda: OwnForward(I, H), X, InputTypeError, "^module '' cannot be written to ONNX: OwnForward has a forward"),
        (Packing, X, InputTypeError, "^module 'layer' is given a PackedSequence, for which ONNX takes lengths"),
        (lambda: Holding(tg.GRU(I, H), mask=torch.ones(4, 2, dtype=torch.bool)), X, InputValueError, "is given mask"),
        (lambda: Holding(tg.GRU(I, H), pins=tg.Pins(update=1.0)), X, InputValueError, "^module 'layer' is given pins"),
        (
            lambda: Holding(tg.GRU(I, H), lengths=[4, 2]),
            X,
            InputTypeError,
            "^module 'layer' must be given lengths as a",
        ),
        (lambda: nn.Sequential(nn.LSTM(I, H)), X, InputValueError, "^states must be False: .* '0', an LSTM"),
        (Unwritable, X, InputValueError, "^model cannot be written to ONNX: module 'odd' calls aten.special_bessel_j0"),
        (
            Fixed,
            X,
            InputValueError,
            "^model cannot be traced by .*axis 0 of x is to vary, but the model takes it to be 4",
        ),
    ],
)
def test_a_model_that_cannot_be_written_is_refused(model, inputs, error, sentence, tmp_path, as_users_run_it):
    assert_refused(lambda: to_onnx(model(), tmp_path / "model.onnx", inputs), error, sentence)
    assert list(tmp_path.iterdir()) == []


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = tg.GRU(I, I)

    def forward(self, x: Tensor) -> Any:
        return self.layer(self.layer(x)[0])[0]


def test_a_layer_that_runs_twice_has_no_one_state():
    assert_refused(
        lambda: to_onnx(Twice(), inputs=X), InputValueError, "^states must be False: .* 'layer' runs 2 times"
    )
    model, x = Twice(), torch.randn(5, 3, I)
    found = run(to_onnx(model, inputs=X, states=False), x=x)
    torch.testing.assert_close(found[0], model(x).detach(), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"opset": 17}, InputValueError, "^opset must be 18 to"),
        ({"opset": 99}, InputValueError, "^opset must be 18 to"),
        ({"axes": [None, None]}, InputValueError, "^axes must name the axes of 1 inputs; got 2"),
        ({"axes": [["time"]]}, InputValueError, "^axes of input must be 3 names or None; got 1"),
        ({"output_names": ["a", "b"]}, InputValueError, r"^output_names must be 1 different names; got \['a', 'b'\]"),
        (
            {"path": "nowhere/model.onnx"},
            FileError,
            "^path must be a file that can be written; 'nowhere/model.onnx' can",
        ),
    ],
)
def test_an_argument_that_cannot_be_is_refused(options, error, sentence):
    assert_refused(lambda: to_onnx(tg.GRU(I, H), **options), error, sentence)


@pytest.mark.parametrize("path", ["", "/", "a\0b", "a" * 4000, "/dev/null/model.onnx"])
def test_a_path_that_no_file_can_have_is_refused(path):
    sentence = "^path must be a file that can be written; .* cannot: "
    assert_refused(lambda: to_onnx(tg.GRU(I, H), path), FileError, sentence)


def test_a_refused_file_leaves_the_one_that_was_there(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(InputValueError):
        to_onnx(Unwritable(), path, X)
    assert path.read_bytes() == b"mine"
    assert not re.search("part", " ".join(one.name for one in tmp_path.iterdir()))
