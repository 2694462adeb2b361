"""ONNX files read: ONNX's own test cases pass, and whole graphs run as ONNX Runtime runs them."""

import copy
import pickle
import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.case.node as node_cases
import pytest
import torch
from onnx.backend.test.loader import load_node_model_tests
from torch import Tensor

import tidegate as tg
from tests.layer_helpers import draw_
from tests.onnx_helpers import node_file, run
from tidegate.convert import OnnxModel, from_onnx
from tidegate.convert.onnx.operators import OPERATORS
from tidegate.errors import InputTypeError, InputValueError

I, H = 3, 4


def tensor_of(value: Any) -> Tensor:
    """A test case's array, or tensor of a file, in torch."""
    array = onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


# ---------------------------------------------------------------------------------------------------------------------
# ONNX's own test cases


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    """Every case of the node tests that ONNX ships, made anew: it keeps no files of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own arithmetic
        made = load_node_model_tests()
    assert node_cases is not None
    return made


def of_operators(cases: list[Any], *operators: str) -> list[Any]:
    """The cases that are one node of one of these operators."""
    return [case for case in cases if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in operators]


def passes(case: Any, model: OnnxModel, inputs: list[Any], expected: list[Any]) -> None:
    with torch.no_grad():
        found = model(*(tensor_of(one) for one in inputs))
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, tensor_of(theirs), rtol=1e-5, atol=1e-6, equal_nan=True, msg=case.name)


def with_constants(model: Any, inputs: list[Any]) -> tuple[Any, list[Any]]:
    """The model with its weights in the file instead of among its inputs, and the inputs that are left."""
    model, left = copy.deepcopy(model), []
    for value, given in zip(list(model.graph.input), inputs, strict=True):
        if value.name in ("W", "R", "B"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(given, value.name))
            model.graph.input.remove(value)
        else:
            left.append(given)
    return model, left


def test_every_case_of_a_gru_and_of_an_rnn_passes(cases):
    """With the weights as the cases have them, among the inputs, and in the file, where they become a layer."""
    recurrent = of_operators(cases, "GRU", "RNN")
    assert Counter(case.model.graph.node[0].op_type for case in recurrent) == {"GRU": 6, "RNN": 6}
    for case in recurrent:
        ((inputs, expected),) = case.data_sets
        passes(case, from_onnx(case.model).model(), inputs, expected)
        model, left = with_constants(case.model, inputs)
        read = from_onnx(model)
        (record,) = read.layers
        assert isinstance(record.layer, tg.GRU | tg.RNN), case.name
        assert record.hidden_size == record.layer.hidden_size == tensor_of(inputs[2]).shape[2]
        passes(case, read.model(), left, expected)


def test_no_case_of_an_lstm_becomes_a_layer(cases):
    for case in of_operators(cases, "LSTM"):
        read = from_onnx(case.model)
        (record,) = read.layers
        assert record.layer is None
        assert "is an LSTM, which no layer of Tidegate is" in str(record.refusal)
        with pytest.raises(InputValueError, match="LSTM"):
            read.model()


#: Cases of operators that are known, of which something is refused only when it runs.
REFUSED_WHEN_RUN = {
    "training_mode of a": {"test_batchnorm_example_training_mode", "test_batchnorm_epsilon_training_mode"}
    | {
        f"test_training_dropout{end}"
        for end in ("_default", "_default_mask", "", "_mask", "_zero_ratio", "_zero_ratio_mask")
    },
    "Expected reduction dim": {
        "test_reduce_max_empty_set",
        "test_reduce_max_empty_set_bool",
        "test_reduce_min_empty_set",
    },
}


def test_every_case_of_the_other_operators_passes_or_is_refused_by_name(cases):
    late = {name: sentence for sentence, names in REFUSED_WHEN_RUN.items() for name in names}
    passed: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for case in of_operators(cases, *OPERATORS):
        operator = case.model.graph.node[0].op_type
        read = from_onnx(case.model)
        if read.refusal is not None:
            assert read.refusal.startswith("the graph cannot be run: ")
            refused[operator] += 1
            continue
        for inputs, expected in case.data_sets:
            if case.name in late:
                with pytest.raises(InputValueError, match=late[case.name]):
                    passes(case, read.model(), inputs, expected)
                refused[operator] += 1
            else:
                passes(case, read.model(), inputs, expected)
                passed[operator] += 1
    assert set(passed) == set(OPERATORS), "an operator without a case of its own that passes"
    assert passed.total() >= 425
    # dtypes that torch does not have (float8, int4, unsigned ones), operators in training, maxima of nothing
    assert set(refused) <= {
        "Add", "BatchNormalization", "Cast", "CastLike", "Div", "Dropout", "Equal", "Greater", "GreaterOrEqual",
        "Identity", "Less", "LessOrEqual", "Max", "Min", "Mul", "Pow", "ReduceMax", "ReduceMin", "Sub",
    }  # fmt: skip


def test_a_wrong_answer_would_not_pass(cases):
    case = of_operators(cases, "GRU")[0]
    ((inputs, expected),) = case.data_sets
    with pytest.raises(AssertionError):
        passes(case, from_onnx(case.model).model(), inputs, [one + 1e-3 for one in expected])


# ---------------------------------------------------------------------------------------------------------------------
# Nodes beside ONNX Runtime


def weights(operator: str, ways: int = 1, *, bias: bool = True) -> dict[str, Tensor]:
    rows = 3 * H if operator == "GRU" else H
    made = {"W": torch.randn(ways, rows, I), "R": torch.randn(ways, rows, H)}
    return made | ({"B": torch.randn(ways, 2 * rows)} if bias else {})


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", ["GRU", "RNN"])
def test_lengths_and_initial_states_beside_onnx_runtime(operator, direction):
    ways = 2 if direction == "bidirectional" else 1
    inputs = {
        "X": torch.randn(7, 3, I),
        "sequence_lens": torch.tensor([7, 1, 4], dtype=torch.int32),
        "initial_h": torch.randn(ways, 3, H),
    }
    proto = node_file(operator, weights(operator, ways), inputs, direction=direction, hidden_size=H)
    read = from_onnx(proto)
    assert "is given lengths, which the layer takes as lengths" in read.layers[0].notes
    for found, expected in zip(read.model()(*inputs.values()), run(proto, **inputs), strict=True):
        torch.testing.assert_close(found.detach(), expected, atol=2e-6, rtol=2e-6)


ACTIVATIONS: list[dict[str, Any]] = [
    {"activations": ["Sigmoid"]},
    {"activations": ["Relu"]},
    {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.25]},
    {"activations": ["Affine"], "activation_alpha": [1.0], "activation_beta": [0.0]},
    {"activations": ["LeakyRelu"], "activation_alpha": [0.3]},
    {"activations": ["LeakyRelu"]},
    {"activations": ["ThresholdedRelu"], "activation_alpha": [0.4]},
    {"activations": ["ScaledTanh"], "activation_alpha": [0.8], "activation_beta": [0.6]},
    {"activations": ["HardSigmoid"], "activation_alpha": [0.3], "activation_beta": [0.4]},
    {"activations": ["HardSigmoid"]},
    {"activations": ["Elu"], "activation_alpha": [0.7]},
    {"activations": ["Softsign"]},
    {"activations": ["Softplus"]},
]


@pytest.mark.parametrize(
    "attributes", ACTIVATIONS, ids=lambda one: "-".join(str(part) for told in one.values() for part in told)
)
@pytest.mark.parametrize("operator", ["GRU", "RNN"])
def test_activations_beside_onnx_runtime(operator, attributes):
    told = dict(attributes)
    if operator == "GRU":
        told["activations"] = ["Sigmoid", *told["activations"]]
    inputs = {"X": 0.5 * torch.randn(4, 2, I)}
    proto = node_file(operator, weights(operator), inputs, hidden_size=H, **told)
    with torch.no_grad():
        found = from_onnx(proto).model()(inputs["X"])
    for ours, theirs in zip(found, run(proto, **inputs), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_an_affine_activation_that_changes_nothing_is_the_identity():
    told: dict[str, Any] = {"activations": ["Affine"] * 2, "activation_alpha": [1.0] * 2, "activation_beta": [0.0] * 2}
    proto = node_file("RNN", weights("RNN", 2), {"X": torch.randn(2, 2, I)}, direction="bidirectional", **told)
    layer = from_onnx(proto).layers[0].layer
    assert layer is not None
    assert layer.activation == "identity"


def test_the_names_of_activations_may_be_small():
    layer = (
        from_onnx(node_file("RNN", weights("RNN"), {"X": torch.randn(4, 2, I)}, activations=["relu"])).layers[0].layer
    )
    assert isinstance(layer, tg.RNN)
    assert (layer.activation, layer.nonlinearity) == ("relu", "relu")


def test_alphas_go_to_the_activations_that_have_one_in_turn():
    told: dict[str, Any] = {
        "activations": ["Sigmoid", "LeakyRelu"] * 2,
        "activation_alpha": [0.3, 0.3],
        "direction": "bidirectional",
    }
    inputs = {"X": torch.randn(4, 2, I)}
    proto = node_file("GRU", weights("GRU", 2), inputs, hidden_size=H, **told)
    for ours, theirs in zip(from_onnx(proto).model()(inputs["X"]), run(proto, **inputs), strict=True):
        torch.testing.assert_close(ours.detach(), theirs, atol=1e-5, rtol=1e-5)


def test_an_rnn_that_clips_beside_onnx_runtime():
    inputs = {"X": 2 * torch.randn(6, 2, I)}
    proto = node_file("RNN", weights("RNN"), inputs, hidden_size=H, clip=0.4)
    found, plain = from_onnx(proto).model()(inputs["X"]), from_onnx(node_file("RNN", weights("RNN"), inputs))
    for ours, theirs in zip(found, run(proto, **inputs), strict=True):
        torch.testing.assert_close(ours.detach(), theirs, atol=2e-6, rtol=2e-6)
    assert found[0].abs().max() <= torch.tanh(torch.tensor(0.4)) + 1e-6
    assert plain.layers[0].layer is not None


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_a_batch_that_comes_first_is_the_same_turned(direction):
    ways = 2 if direction == "bidirectional" else 1
    constants = weights("GRU", ways)
    x, h_0 = torch.randn(6, 3, I), torch.randn(ways, 3, H)
    options: dict[str, Any] = {"direction": direction, "hidden_size": H}
    inputs = {"X": x, "initial_h": h_0}
    turned = {"X": x.transpose(0, 1).contiguous(), "initial_h": h_0.transpose(0, 1).contiguous()}
    y, y_h = from_onnx(node_file("GRU", constants, inputs, **options)).model()(*inputs.values())
    read = from_onnx(node_file("GRU", constants, turned, layout=1, **options))
    y_turned, h_turned = read.model()(*turned.values())
    assert torch.equal(y_turned, y.permute(2, 0, 1, 3))
    assert torch.equal(h_turned, y_h.transpose(0, 1))
    assert "has the batch as its first axis (layout 1); the layer has time" in read.layers[0].notes


def test_weights_that_the_graph_lays_out_anew_are_still_a_layers():
    """As exporters write them: cut, turned and put together from other tensors."""
    constants = weights("GRU")
    proto = node_file("GRU", constants, {"X": torch.randn(2, 2, I)}, hidden_size=H)
    graph = proto.graph
    kept = [tensor for tensor in graph.initializer if tensor.name != "W"]
    del graph.initializer[:]
    turned = onnx.numpy_helper.from_array(constants["W"][0].T.contiguous().numpy(), "W_columns")
    graph.initializer.extend([*kept, turned])
    node = graph.node[0]
    del graph.node[:]
    graph.node.extend(
        [
            onnx.helper.make_node("Transpose", ["W_columns"], ["W_rows"], perm=[1, 0]),
            onnx.helper.make_node("Constant", [], ["axes"], value_ints=[0]),
            onnx.helper.make_node("Unsqueeze", ["W_rows", "axes"], ["W"]),
            node,
        ]
    )
    read, x = from_onnx(proto), torch.randn(5, 2, I)
    assert isinstance(read.layers[0].layer, tg.GRU)
    for ours, theirs in zip(read.model()(x), run(proto, X=x), strict=True):
        torch.testing.assert_close(ours.detach(), theirs, atol=2e-6, rtol=2e-6)


# ---------------------------------------------------------------------------------------------------------------------
# What a model that was read can do


@pytest.fixture
def read_model() -> OnnxModel:
    inputs = {"X": torch.randn(4, 2, I)}
    return from_onnx(node_file("GRU", weights("GRU"), inputs, hidden_size=H, linear_before_reset=1)).model()


def test_its_layers_are_the_records_own_and_are_traced_like_any_other():
    proto = node_file("GRU", weights("GRU"), {"X": torch.randn(4, 2, I)}, hidden_size=H, linear_before_reset=1)
    read = from_onnx(proto)
    (record,), model = read.layers, read.model()
    layer = record.layer
    assert isinstance(layer, tg.GRU)
    assert any(part is layer for part in model.modules())
    assert read.model() is model
    x = torch.randn(5, 2, I)
    assert torch.equal(tg.trace(model, x).update, tg.trace(layer, x).update)


def test_it_trains(read_model):
    x = torch.randn(4, 2, I)
    before = [parameter.detach().clone() for parameter in read_model.parameters()]
    assert len(before) == 4
    optimizer = torch.optim.SGD(read_model.parameters(), lr=0.1)
    read_model(x)[0].sum().backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, read_model.parameters(), strict=True))


def test_it_is_copied_pickled_saved_and_turned_into_float64(read_model):
    x = torch.randn(4, 2, I)
    expected = read_model(x)[0]
    assert torch.equal(copy.deepcopy(read_model)(x)[0], expected)
    assert torch.equal(pickle.loads(pickle.dumps(read_model))(x)[0], expected)
    other = draw_(copy.deepcopy(read_model))
    other.load_state_dict(read_model.state_dict(), strict=True)
    assert torch.equal(other(x)[0], expected)


def test_inputs_go_by_position_or_by_name_and_are_checked(read_model, as_users_run_it):
    x = torch.randn(4, 2, I)
    assert read_model.input_names == ("X",)
    assert torch.equal(read_model(X=x)[0], read_model(x)[0])
    for arguments, named, error, sentence in [
        ((), {}, InputTypeError, "^the model needs X; got nothing"),
        ((x, x), {}, InputTypeError, "^the model takes 1 inputs, X; got 2"),
        ((x,), {"X": x}, InputTypeError, "^X must be given once; got it by position and by name"),
        ((), {"Y": x}, InputTypeError, "^the inputs are called X; got 'Y'"),
        ((x.double(),), {}, InputTypeError, "^X must be torch.float32; got torch.float64"),
        ((x.numpy(),), {}, InputTypeError, "^X must be a torch.Tensor; got ndarray"),
        ((x[0],), {}, InputValueError, r"^X must be \(\?, \?, \?\); got \(2, 3\)"),
    ]:
        with pytest.raises(error, match=sentence):
            read_model(*arguments, **named)
