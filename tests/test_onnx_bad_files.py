"""Files that are truncated, too large, circular, of unknown operators: one sentence each, nothing half-converted."""

import copy
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

import tidegate as tg
from tests.onnx_helpers import node_file
from tests.refusals import assert_refused
from tidegate.convert import from_onnx
from tidegate.errors import FileError, FileMissingError, InputTypeError, InputValueError

I, H = 2, 3


def gru_file(**attributes: Any) -> Any:
    weights = {"W": torch.ones(1, 3 * H, I), "R": torch.ones(1, 3 * H, H), "B": torch.ones(1, 6 * H)}
    return node_file("GRU", weights, {"X": torch.zeros(1, 1, I)}, **attributes)


def changed(change: Callable[[Any], Any]) -> Any:
    proto = gru_file()
    change(proto)
    return proto


def initializer(proto: Any, name: str) -> Any:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def test_every_truncation_is_refused_or_leaves_the_layer_whole():
    proto = gru_file()
    proto.metadata_props.add(key="a", value="note that may be missing")
    content = proto.SerializeToString()
    (expected,) = from_onnx(content).layers
    assert expected.layer is not None
    whole = 0
    for length in range(len(content)):
        with suppress(FileError):
            (record,) = from_onnx(content[:length]).layers
            whole += 1
            assert record.layer is not None
            for name, tensor in expected.layer.state_dict().items():
                assert torch.equal(record.layer.state_dict()[name], tensor)
    assert 1 <= whole <= 2, "only what follows the graph and the version may be missing"


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04 a zip", b"\x80\x04\x95 a pickle", b"GIF89a" * 9])
def test_what_is_no_onnx_is_refused(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    assert_refused(lambda: from_onnx(content), FileError, "^the file is truncated or not an ONNX file")
    assert_refused(
        lambda: from_onnx(tmp_path / "model.onnx"), FileError, "model.onnx' is truncated or not an ONNX file"
    )


@pytest.mark.parametrize(
    ("source", "error", "sentence"),
    [
        ("nowhere.onnx", FileMissingError, "^there is no file 'nowhere.onnx'"),
        (Path(), FileError, "^'.' must be a file"),
        ("a" * 5000, FileError, "cannot be read"),
        (7, InputTypeError, "^source must be a path, bytes or an onnx.ModelProto; got int"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(source, error, sentence):
    assert_refused(lambda: from_onnx(source), error, sentence)


@pytest.mark.parametrize("limit", [0, -1, 1.5, None, True])
def test_a_limit_that_is_none_is_refused(limit, as_users_run_it):
    assert_refused(
        lambda: from_onnx(gru_file(), max_bytes=limit), InputValueError, "^max_bytes must be an int of at least"
    )


def test_a_file_over_the_limit_is_not_read(tmp_path):
    content = gru_file().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    for source in (content, path, gru_file()):
        assert from_onnx(source, max_bytes=2 * len(content)).refusal is None
        assert_refused(
            partial(from_onnx, source, max_bytes=100),
            FileError,
            "must hold at most max_bytes = 100; it holds",
        )


def test_constants_that_grow_beyond_the_limit_are_not_made():
    """Thirty times two: a small file that asks for a gigabyte."""
    proto = gru_file()
    doubling = [helper.make_node("Concat", [f"B{n}", f"B{n}"], [f"B{n + 1}"], axis=0) for n in range(30)]
    nodes = [helper.make_node("Identity", ["B"], ["B0"]), *doubling, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert_refused(
        lambda: from_onnx(proto, max_bytes=100_000), FileError, "at most max_bytes = 100000; what node .*Concat"
    )


def unknown_operator(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Frobnicate", ["Y"], ["Z"], name="last"))


def own_domain(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["Y"], ["Z"], domain="com.example"))


def unknown_attribute(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["Y"], ["Z"], slope=0.5))


def a_loop(proto: Any) -> None:
    body = helper.make_graph([], "body", [], [])
    proto.graph.node.append(helper.make_node("Loop", ["", "", "Y"], ["Z"], body=body))


def too_many_inputs(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["Y", "Y"], ["Z"]))


def to_text(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Cast", ["Y"], ["Z"], to=TensorProto.STRING))


def of_unsigned(proto: Any) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.UINT16, [1]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (unknown_operator, r"node 'last' \(Frobnicate\) has an operator that is not known here: Frobnicate$"),
        (own_domain, "not known here: Relu of the domain 'com.example'$"),
        (unknown_attribute, "has the attribute 'slope', which is not known here$"),
        (a_loop, "not known here: Loop$"),
        (too_many_inputs, "must have 1 to 1 inputs; got 2$"),
        (to_text, "must be to a dtype that torch has; got ONNX's number 8$"),
        (of_unsigned, "its input 'more' must be a tensor of a dtype that torch has$"),
    ],
)
def test_a_graph_that_is_not_simple_still_gives_its_layers_but_no_model(change, sentence):
    read = from_onnx(changed(change))
    assert isinstance(read.layers[0].layer, tg.GRU)
    assert_refused(read.model, InputValueError, f"^the graph cannot be run: .*{sentence}")


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"clip": 1.0}, r"clip of node 'recurrent' \(GRU\) must be absent, for no layer clips what its gates"),
        ({"direction": "sideways"}, "direction of .* must be one of forward, reverse, bidirectional; got 'sideways'"),
        ({"direction": "bidirectional"}, r"the weights of .* do not fit: R must be .* = \(2, 9, 3\); got \(1, 9, 3\)"),
        ({"hidden_size": 4}, r"R of .* must be \(D, G\*H, H\) with H = 4; got \(1, 9, 3\)"),
        ({"activations": ["Sigmoid"]}, "activations of .* must be 2; got"),
        ({"activations": ["Sigmoid", "Swish"]}, "activations of .* must be among Affine, .*; got 'Swish'"),
        ({"activations": ["HardSigmoid", "Tanh"]}, "its gates', must be Sigmoid; got 'HardSigmoid'"),
        ({"activation_alpha": [0.5]}, "activation_alpha and activation_beta of .* must be taken by its activations"),
        ({"momentum": 0.5}, "has the attribute 'momentum', which is not known"),
    ],
)
def test_a_node_that_is_no_layer_says_why(attributes, sentence):
    read = from_onnx(gru_file(**attributes))
    (record,) = read.layers
    assert record.layer is None
    assert record.refusal is not None
    assert_refused(read.model, InputValueError, f"^the graph cannot be run: .*{sentence}")


def test_activations_that_differ_between_directions_are_refused():
    weights = {"W": torch.ones(2, H, I), "R": torch.ones(2, H, H)}
    told: Any = {"direction": "bidirectional", "activations": ["Tanh", "Relu"]}
    read = from_onnx(node_file("RNN", weights, {"X": torch.zeros(1, 1, I)}, **told))
    assert "must be the same in both directions" in str(read.refusal)


def circular(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Add", ["Y", "P"], ["Q"], name="one"))
    proto.graph.node.append(helper.make_node("Relu", ["Q"], ["P"], name="two"))


def itself(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Add", ["Y", "P"], ["P"], name="one"))


def from_nowhere(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["nothing"], ["P"], name="one"))


def made_twice(proto: Any) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["X"], ["Y"], name="one"))


def never_made(proto: Any) -> None:
    proto.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, None))


def no_version(proto: Any) -> None:
    del proto.opset_import[:]


def far_future(proto: Any) -> None:
    proto.opset_import[0].version = 99


def short_tensor(proto: Any) -> None:
    initializer(proto, "R").raw_data = initializer(proto, "R").raw_data[:-4]


def wrong_sizes(proto: Any) -> None:
    initializer(proto, "R").dims[1] = 10**12


def negative_size(proto: Any) -> None:
    initializer(proto, "R").dims[1] = -9


def text(proto: Any) -> None:
    initializer(proto, "R").data_type = TensorProto.STRING


def typed_and_short(proto: Any) -> None:
    initializer(proto, "R").ClearField("raw_data")
    initializer(proto, "R").float_data.extend([1.0] * 26)


def sparse(proto: Any) -> None:
    proto.graph.sparse_initializer.add()


def no_text(proto: Any) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("direction", b"\xff\xfe"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (circular, r"circular or out of order: node 'one' \(Add\) reads 'P', which node 'two' \(Relu\) makes after it"),
        (itself, r"circular or out of order: node 'one' \(Add\) reads 'P', which node 'one' \(Add\) makes"),
        (from_nowhere, r"^node 'one' \(Relu\) of the model reads 'nothing', which nothing makes"),
        (made_twice, r"must make every value once; 'Y' is made anew by node 'one' \(Relu\)"),
        (never_made, "must make its output 'Z'; nothing does"),
        (no_version, "must say once which version"),
        (far_future, "must use ONNX's operators of version 1 to 28; got 99"),
        (short_tensor, r"^tensor 'R' of the model must hold 108 bytes for \[1, 9, 3\]; it holds 104"),
        (wrong_sizes, "must take at most max_bytes = 1073741824; tensor 'R' of the model goes beyond it"),
        (negative_size, r"^tensor 'R' of the model must have sizes of at least 0; it has \[1, -9, 3\]"),
        (text, "^tensor 'R' of the model must hold numbers of a dtype that torch has; it holds STRING"),
        (typed_and_short, "^tensor 'R' of the model must hold 27 numbers; it holds 26"),
        (sparse, "must hold its tensors whole; it holds sparse ones"),
        (no_text, "^attribute 'direction' of a GRU node of the model must be text"),
    ],
)
def test_a_damaged_file_is_refused(change, sentence):
    assert_refused(lambda: from_onnx(changed(change)), FileError, sentence)


def test_weights_of_the_wrong_dtype_or_shape_are_refused(as_users_run_it):
    def halves(proto: Any) -> None:
        initializer(proto, "B").CopyFrom(onnx.numpy_helper.from_array(torch.ones(1, 18).double().numpy(), "B"))

    def flat(proto: Any) -> None:
        initializer(proto, "W").CopyFrom(onnx.numpy_helper.from_array(torch.ones(9, 2).numpy(), "W"))

    for change, sentence in ((halves, "B must have the dtype of R"), (flat, r"W must be \(D, G\*H, I\) and R")):
        read = from_onnx(changed(change))
        assert read.layers[0].layer is None
        assert sentence.split(" must")[0] in str(read.refusal)
        assert_refused(read.model, InputValueError, sentence)


# ---------------------------------------------------------------------------------------------------------------------
# Tensors in other files


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A model whose tensors lie beside it."""
    folder = tmp_path / "models"
    folder.mkdir()
    onnx.save_model(
        gru_file(), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert (folder / "weights.bin").stat().st_size > 0
    return folder / "model.onnx"


def told(path: Path, **changes: str) -> Path:
    """The model with other words about where a tensor lies."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = changes.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


def test_tensors_beside_the_model_are_read(beside):
    (expected,), (found,) = from_onnx(gru_file()).layers, from_onnx(beside).layers
    assert expected.layer is not None
    assert found.layer is not None
    for name, tensor in expected.layer.state_dict().items():
        assert torch.equal(found.layer.state_dict()[name], tensor)


def test_they_count_against_the_limit(beside):
    weights = {"W": torch.ones(1, H, 500), "R": torch.ones(1, H, H)}
    proto = node_file("RNN", weights, {"X": torch.zeros(1, 1, 500)})
    options: Any = {"save_as_external_data": True, "location": "large.bin", "size_threshold": 0}
    onnx.save_model(proto, beside, **options)
    size = beside.stat().st_size
    assert size < 4 * H * 500
    assert_refused(lambda: from_onnx(beside, max_bytes=size), FileError, "must take at most max_bytes")


def test_bytes_have_no_folder(beside):
    assert_refused(
        lambda: from_onnx(beside.read_bytes()), FileError, "lies in another file, 'weights.bin'; give the path"
    )


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "", "inside/../../secret.bin"])
def test_no_other_folder_is_read(beside, location):
    (beside.parent.parent / "secret.bin").write_bytes(b"\0" * 4096)
    (beside.parent / "inside").mkdir()
    assert_refused(
        lambda: from_onnx(told(beside, location=location)), FileError, "must lie in the folder of the model or"
    )


def test_a_link_that_leads_out_is_not_followed(beside):
    (beside.parent.parent / "secret.bin").write_bytes(b"\0" * 4096)
    (beside.parent / "weights.bin").unlink()
    (beside.parent / "weights.bin").symlink_to(beside.parent.parent / "secret.bin")
    assert_refused(lambda: from_onnx(beside), FileError, "must lie in the folder of the model or below")


def test_what_lies_beside_must_be_there_and_long_enough(beside):
    original = copy.copy(beside.read_bytes())
    for changes, sentence in [
        ({"offset": "999999"}, "told are"),
        ({"length": "3"}, "told are 3, there"),
        ({"offset": "-4"}, "must be said to lie at a whole number of bytes; got '-4'"),
        ({"location": "gone.bin"}, "lies in 'gone.bin', which is not there"),
    ]:
        beside.write_bytes(original)
        told(beside, **changes)
        assert_refused(lambda: from_onnx(beside), FileError, sentence)


@pytest.mark.parametrize("location", ["a\0b", "w" * 5000, "loop"])
def test_a_place_that_no_file_can_have_is_refused(beside, location):
    (beside.parent / "loop").symlink_to("loop")
    assert_refused(lambda: from_onnx(told(beside, location=location)), FileError, "^tensor 'W' of .* cannot be read: ")
