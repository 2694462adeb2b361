"""Graphs that say something odd: refused by name, when read or when they run, and never another error."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import tidegate as tg
from tests.onnx_helpers import node_file
from tests.refusals import assert_refused
from tidegate.convert import from_onnx, to_onnx
from tidegate.errors import FileError, InputTypeError, InputValueError

I, H = 2, 3
REFUSALS = (FileError, InputTypeError, InputValueError)


def recurrent_file(operator: str = "GRU", **attributes: Any) -> Any:
    rows = 3 * H if operator == "GRU" else H
    weights = {"W": torch.ones(1, rows, I), "R": torch.ones(1, rows, H), "B": torch.ones(1, 2 * rows)}
    return node_file(operator, weights, {"X": torch.zeros(1, 1, I)}, **attributes)


def followed_by(*nodes: Any, **constants: Any) -> Any:
    """A GRU whose `Y` other nodes read, the last of which makes `Z`."""
    proto = recurrent_file()
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(
        numpy_helper.from_array(torch.as_tensor(value).numpy(), name) for name, value in constants.items()
    )
    proto.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, None))
    return proto


# ---------------------------------------------------------------------------------------------------------------------
# Attributes, inputs and outputs of nodes


@pytest.mark.parametrize("operator", ["GRU", "RNN"])
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("clip", "high", "must be a FLOAT; got a STRING"),
        ("hidden_size", "three", "must be an INT; got a STRING"),
        ("hidden_size", 3.0, "must be an INT; got a FLOAT"),
        ("activations", 3, "must be STRINGS; got an INT"),
        ("activations", "Tanh", "must be STRINGS; got a STRING"),
        ("activations", [1, 2], "must be STRINGS; got INTS"),
        ("activation_alpha", "q", "must be FLOATS; got a STRING"),
        ("activation_beta", 3.0, "must be FLOATS; got a FLOAT"),
        ("direction", [1, 2], "must be a STRING; got INTS"),
        ("layout", "batch", "must be an INT; got a STRING"),
        ("linear_before_reset", 1.5, "must be an INT; got a FLOAT"),
    ],
)
def test_an_attribute_of_another_type_is_refused(operator, name, value, sentence):
    read = from_onnx(recurrent_file(operator, **{name: value}))
    assert read.layers[0].layer is None
    assert read.refusal == f"the graph cannot be run: attribute {name!r} of node 'recurrent' ({operator}) {sentence}"


def twice_an_attribute() -> Any:
    proto = recurrent_file(hidden_size=H)
    proto.graph.node[0].attribute.append(proto.graph.node[0].attribute[0])
    return proto


def three_outputs() -> Any:
    proto = recurrent_file()
    proto.graph.node[0].output.append("third")
    proto.graph.output.append(helper.make_tensor_value_info("third", TensorProto.FLOAT, None))
    return proto


def whole_numbers(name: str) -> Any:
    """An update-only GRU of Tidegate's own, one of whose weights holds whole numbers."""
    proto = to_onnx(tg.GRU(I, H, reset=None), states=False)
    (held,) = [one for one in proto.graph.initializer if one.name.endswith(name)]
    held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held).astype("int64"), held.name))
    return proto


node = helper.make_node
WHEN_READ: dict[str, tuple[Callable[[], Any], str]] = {
    "attribute twice": (twice_an_attribute, r"node 'recurrent' \(GRU\) has the attribute 'hidden_size' twice$"),
    "three outputs": (three_outputs, r"node 'recurrent' \(GRU\) must have at most 2 outputs; got 3$"),
    "own function": (lambda: whole_numbers("R0"), "R must be a floating tensor; got torch.int64$"),
    "own function's input": (lambda: whole_numbers("W0"), "W must be a floating tensor; got torch.int64$"),
    "layout": (lambda: recurrent_file(layout=2), r"layout of node 'recurrent' \(GRU\) must be 0 or 1; got 2$"),
    "axis of text": (
        lambda: followed_by(node("Concat", ["Y", "Y"], ["Z"], axis="last")),
        r"attribute 'axis' of node 1 \(Concat\) must be an INT; got a STRING$",
    ),
    "no axis": (
        lambda: followed_by(node("Concat", ["Y", "Y"], ["Z"])),
        r"node 1 \(Concat\) must have the attribute 'axis'$",
    ),
    "cast": (
        lambda: followed_by(node("Cast", ["Y"], ["Z"], to=[1])),
        r"attribute 'to' of node 1 \(Cast\) must be an INT; got INTS$",
    ),
    "nothing to read": (
        lambda: followed_by(node("Relu", [""], ["Z"])),
        r"node 1 \(Relu\) must be given its first 1 inputs; got \[''\]$",
    ),
    "a gap": (
        lambda: followed_by(node("Where", ["", "Y", "Y"], ["Z"])),
        r"node 1 \(Where\) must be given its first 3 inputs; got \['', 'Y', 'Y'\]$",
    ),
    "no constant to read": (
        lambda: followed_by(node("Identity", [""], ["Z"])),
        r"node 1 \(Identity\) must be given its first 1 inputs",
    ),
    "any number, none": (lambda: followed_by(node("Max", [], ["Z"])), r"\(Max\) must be given at least 1 inputs?; got"),
    "any number, a gap": (lambda: followed_by(node("Max", ["Y", ""], ["Z"])), r"\(Max\) must be given its first 2 inp"),
    "more outputs": (
        lambda: followed_by(node("Relu", ["Y"], ["Q", "Z"])),
        r"node 1 \(Relu\) must have at most 1 outputs; got 2$",
    ),
    "no value": (
        lambda: followed_by(node("Constant", [], ["Z"])),
        r"node 1 \(Constant\) cannot be computed: a Constant node must have one value; got none$",
    ),
    "two values": (
        lambda: followed_by(node("Constant", [], ["Z"], value_int=1, value_float=2.0)),
        "a Constant node must have one value; got value_float, value_int$",
    ),
    "no axes": (
        lambda: followed_by(node("Unsqueeze", ["k"], ["Z"]), k=[1.0]),
        r"\(Unsqueeze\) cannot be computed: axes of an Unsqueeze node must be given$",
    ),
}


@pytest.mark.parametrize("case", WHEN_READ)
def test_a_node_that_is_not_in_order_is_refused_when_it_is_read(case):
    make, sentence = WHEN_READ[case]
    assert_refused(from_onnx(make()).model, InputValueError, f"^the graph cannot be run: .*{sentence}")


WHEN_RUN: dict[str, tuple[Callable[[], Any], str]] = {
    "gather": (
        lambda: followed_by(node("Gather", ["Y", "i"], ["Z"], axis=9, name="far"), i=[0]),
        r"^node 'far' \(Gather\) cannot be computed: axis must lie in -4..3; got 9$",
    ),
    "flatten": (lambda: followed_by(node("Flatten", ["Y"], ["Z"], axis=17)), r"axis must lie in -4..4; got 17$"),
    "layer norm": (
        lambda: followed_by(node("LayerNormalization", ["Y", "k"], ["Z"], axis=17), k=[1.0, 2.0, 3.0]),
        r"axis must lie in -4..3; got 17$",
    ),
    "squeeze": (
        lambda: followed_by(node("Squeeze", ["Y", "a"], ["Z"]), a=[9]),
        r"\(Squeeze\) cannot be computed: axis must lie in -4..3; got 9$",
    ),
    "unsqueeze": (
        lambda: followed_by(node("Unsqueeze", ["Y", "a"], ["Z"]), a=[9]),
        r"\(Unsqueeze\) cannot be computed: axis must lie in -5..4; got 9$",
    ),
    "softmax": (lambda: followed_by(node("Softmax", ["Y"], ["Z"], axis=17)), r"\(Softmax\) cannot be computed: "),
    "transpose": (lambda: followed_by(node("Transpose", ["Y"], ["Z"], perm=[0, 0, 0, 0])), r"\(Transpose\) cannot be"),
    "split": (lambda: followed_by(node("Split", ["Y"], ["Z", "Q"], num_outputs=9)), r"\(Split\) cannot be computed: "),
    "shape of floats": (
        lambda: followed_by(node("Reshape", ["Y", "s"], ["Z"]), s=[float("nan")]),
        r"\(Reshape\) cannot be computed: ",
    ),
    "range": (
        lambda: followed_by(node("Range", ["a", "b", "c"], ["Z"]), a=0, b=5, c=0),
        r"\(Range\) cannot be computed: delta of a Range node must not be 0$",
    ),
    "gelu": (
        lambda: followed_by(node("Gelu", ["Y"], ["Z"], approximate="rough")),
        r"\(Gelu\) cannot be computed: ",
    ),
    "no memory": (
        lambda: followed_by(node("ConstantOfShape", ["s"], ["Z"]), s=[2**60]),
        r"\(ConstantOfShape\) cannot be computed: ",
    ),
}


@pytest.mark.parametrize("case", WHEN_RUN)
def test_a_node_that_cannot_be_computed_is_told_by_name(case, as_users_run_it):
    make, sentence = WHEN_RUN[case]
    model = from_onnx(make()).model()
    assert_refused(lambda: model(torch.zeros(4, 2, I)), InputValueError, sentence)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("sequence_lens", torch.tensor([3], dtype=torch.int32), r"lengths must be \(B,\) = \(2,\); got \(1,\)"),
        ("sequence_lens", torch.tensor([9, 3], dtype=torch.int32), r"lengths must lie in 0..T = 0..4; got 9"),
        ("initial_h", torch.zeros(2, 2, H), r"must be \(L?\*?D, B, H\) = \(1, 2, 3\); got \(2, 2, 3\)"),
    ],
)
def test_what_a_recurrent_node_is_given_when_it_runs_is_checked(direction, name, value, sentence):
    weights = {"W": torch.ones(1, 3 * H, I), "R": torch.ones(1, 3 * H, H)}
    proto = node_file("GRU", weights, {"X": torch.zeros(1, 1, I), name: value}, direction=direction)
    model = from_onnx(proto).model()
    assert_refused(lambda: model(torch.zeros(4, 2, I), value), InputValueError, sentence)


# ---------------------------------------------------------------------------------------------------------------------
# The file around them


def with_tensor(**told: Any) -> Any:
    proto = recurrent_file()
    proto.graph.initializer.add(name="more", **told)
    return proto


def with_note(key: str, value: str) -> Any:
    proto = recurrent_file()
    proto.metadata_props.add(key=key, value=value)
    return proto


def twice(field: str) -> Any:
    proto = recurrent_file()
    held = getattr(proto.graph, field)
    held.append(held[0])
    return proto


def unnamed_input() -> Any:
    proto = recurrent_file()
    proto.graph.input.append(helper.make_tensor_value_info("", TensorProto.FLOAT, [1]))
    return proto


def spoilt_text() -> bytes:
    """The name of a node, in bytes that are no UTF-8."""
    content: bytes = recurrent_file().SerializeToString()
    return content.replace(b"recurrent", b"recur\xff\xfent")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: with_tensor(data_type=1, dims=[0, 2**62, 4], raw_data=b""),
            "^tensor 'more' of the model must have sizes that can be counted; it has ",
        ),
        (
            lambda: with_tensor(data_type=2, dims=[1], int32_data=[300]),
            "^tensor 'more' of the model must hold numbers of its dtype, torch.uint8; it holds 300$",
        ),
        (lambda: with_tensor(data_type=5, dims=[1], int32_data=[-70000]), "its dtype, torch.int16; it holds -70000$"),
        (lambda: with_tensor(data_type=9, dims=[1], int32_data=[2]), "its dtype, torch.bool; it holds 2$"),
        (lambda: twice("initializer"), "^the model must make every value once; 'W' is an initializer twice$"),
        (lambda: twice("input"), "^the model must make every value once; 'X' is an input twice$"),
        (unnamed_input, "^the model must name its inputs; one has no name$"),
        (spoilt_text, "^the file is damaged: its name is not text$"),
    ],
)
def test_a_damaged_file_is_refused(make, sentence):
    assert_refused(lambda: from_onnx(make()), FileError, sentence)


@pytest.mark.parametrize("value", ["[" * 100_000, "1" * 10_000, "{", '{"a": 1}', "[1]"])
def test_notes_that_are_not_tidegates_are_no_records(value):
    read = from_onnx(with_note("tidegate.layers", value))
    assert read.written == ()
    assert read.layers[0].layer is not None


def whole_model() -> bytes:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = tg.GRU(I, H, bidirectional=True)
            self.own, self.head = tg.GRU(2 * H, H, reset=None), nn.Linear(H, 2)

        def forward(self, x: Tensor, lengths: Tensor) -> Any:
            return torch.softmax(self.head(self.own(self.both(x, lengths=lengths)[0])[0]), -1)

    content: bytes = to_onnx(Model(), inputs=(torch.zeros(4, 2, I), torch.tensor([4, 2]))).SerializeToString()
    return content


def test_bytes_that_were_changed_or_cut_never_escape_as_another_error():
    content, generator = whole_model(), random.Random(0)
    spoilt = [content[:length] for length in range(0, len(content), 50)]
    for number in range(600):
        changed = bytearray(content)
        for _ in range(1 + number % 4):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        spoilt.append(bytes(changed))
    told = []
    for one in spoilt:
        try:
            read = from_onnx(one)
            if read.refusal is None:
                read.model()
        except REFUSALS as error:
            told.append(str(error))
    assert len(told) > 200
    assert not any("\n" in sentence for sentence in told)


def test_the_whole_model_is_read_as_it_was():
    model = from_onnx(whole_model()).model()
    assert model(torch.zeros(4, 2, I), torch.tensor([4, 2]))[0].shape == (4, 2, 2)
