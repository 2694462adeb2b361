"""The weights of ONNX's nodes: to layers and back to the bit, and ONNX's own evaluator runs what the layers run."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import tidegate as tg
from tests.layer_helpers import draw_
from tests.onnx_helpers import node_file, run
from tests.refusals import assert_refused
from tidegate.convert import OnnxNode, from_onnx, from_onnx_nodes, to_onnx_nodes
from tidegate.errors import InputTypeError, InputValueError

LAYERS: dict[str, Any] = {
    "gru": tg.GRU,
    "gru-reset-before": partial(tg.GRU, reset="before"),
    "rnn": tg.RNN,
    "rnn-relu": partial(tg.RNN, nonlinearity="relu"),
    "torch-gru": nn.GRU,
    "torch-rnn": nn.RNN,
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors hold the same bits, so that -0.0 is not 0.0."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.equal(one.detach().view(torch.uint8), other.detach().view(torch.uint8))


@every_layer
@given(
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)),
    bias=st.booleans(),
    bidirectional=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_a_layer_that_went_to_nodes_comes_back_to_the_bit(kind, sizes, bias, bidirectional, dtype):
    layer = draw_(LAYERS[kind](*sizes, bias=bias, bidirectional=bidirectional, dtype=dtype))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.view(-1)[0] = -0.0
    again = from_onnx_nodes(to_onnx_nodes(layer))
    assert again.system == ("rnn" if "rnn" in kind else "gru-reset-before" if "before" in kind else "gru")
    assert again.activation == ("relu" if "relu" in kind else "tanh")
    assert list(again.state_dict()) == list(layer.state_dict())
    assert all(same_bits(again.state_dict()[name], tensor) for name, tensor in layer.state_dict().items())
    assert repr(again) == repr(layer).replace("torch.nn.", "")


@given(data=st.data(), before=st.booleans(), gated=st.booleans(), bias=st.booleans(), ways=st.integers(1, 2))
def test_nodes_that_went_to_a_layer_come_back_to_the_bit(data, before, gated, bias, ways):
    I, H = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    rows = 3 * H if gated else H
    node = OnnxNode(
        "GRU" if gated else "RNN",
        torch.randn(ways, rows, I),
        torch.randn(ways, rows, H),
        torch.randn(ways, 2 * rows) if bias else None,
        "bidirectional" if ways == 2 else "forward",
        gated and not before,
    )
    (again,) = to_onnx_nodes(from_onnx_nodes(node))
    assert (again.operator, again.direction, again.linear_before_reset) == (
        node.operator,
        node.direction,
        node.linear_before_reset,
    )
    assert all(same_bits(getattr(again, name), getattr(node, name)) for name in "WRB")


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("operator", ["GRU", "RNN"])
@pytest.mark.parametrize("bias", [True, False])
def test_onnx_runtime_and_onnxs_own_evaluator_run_what_the_layer_runs(operator, before, direction, bias):
    I, H, ways = 3, 4, 2 if direction == "bidirectional" else 1
    rows = 3 * H if operator == "GRU" else H
    weights = {"W": torch.randn(ways, rows, I), "R": torch.randn(ways, rows, H)}
    if bias:
        weights["B"] = torch.randn(ways, 2 * rows)
    inputs = {"X": torch.randn(6, 2, I), "initial_h": torch.randn(ways, 2, H)}
    attributes = {"linear_before_reset": before} if operator == "GRU" else {}
    proto = node_file(operator, weights, inputs, direction=direction, hidden_size=H, **attributes)
    read = from_onnx(proto)
    (record,) = read.layers
    assert (record.direction, record.input_size, record.hidden_size) == (direction, I, H)
    with torch.no_grad():
        found = read.model()(*inputs.values())
    named = {name: tensor.numpy() for name, tensor in inputs.items()}
    evaluated = [torch.from_numpy(one) for one in ReferenceEvaluator(proto).run(None, named)]
    for ours, runtime, evaluator in zip(found, run(proto, **inputs), evaluated, strict=True):
        torch.testing.assert_close(ours, runtime, atol=2e-6, rtol=2e-6)
        torch.testing.assert_close(ours, evaluator, atol=2e-6, rtol=2e-6)


def test_the_two_ways_to_reset_differ():
    node = to_onnx_nodes(draw_(tg.GRU(3, 4)))[0]
    other = OnnxNode(node.operator, node.W, node.R, node.B, node.direction, False)
    x = torch.randn(5, 2, 3)
    assert not torch.allclose(from_onnx_nodes(node)(x)[0], from_onnx_nodes(other)(x)[0], atol=1e-2)


@pytest.mark.parametrize(
    ("layer", "error", "sentence"),
    [
        (lambda: nn.Linear(2, 2), InputTypeError, "^the layer must be a GRU, an RNN or one of their cells; got Linear"),
        (lambda: tg.GRU(2, 2, reset=None), InputValueError, "got update-only: to_onnx writes it"),
        (lambda: tg.Dense(2, 2), InputValueError, "got dense: to_onnx writes it"),
        (lambda: tg.GRU(2, 2, layer_norm=True), InputValueError, "is a gru-layer-norm, which ONNX does not have"),
        (
            lambda: tg.GRU(2, 2, recurrent_dropout=tg.Dropouts(zoneout=0.1)),
            InputValueError,
            "zoneout scales its update",
        ),
    ],
)
def test_a_layer_that_is_no_node_is_refused(layer, error, sentence):
    assert_refused(lambda: to_onnx_nodes(layer()), error, sentence)


def gru_node(**changed: Any) -> OnnxNode:
    parts = {"operator": "GRU", "W": torch.zeros(1, 6, 3), "R": torch.zeros(1, 6, 2), "B": torch.zeros(1, 12)}
    return OnnxNode(**(parts | changed))


@pytest.mark.parametrize(
    ("nodes", "error", "sentence"),
    [
        (list, InputValueError, "^nodes must hold at least one node; got none"),
        (lambda: gru_node(operator="LSTM"), InputValueError, '^operator must be "GRU" or "RNN"; got \'LSTM\''),
        (lambda: gru_node(direction="up"), InputValueError, "^direction must be one of \"forward\", .*; got 'up'"),
        (lambda: gru_node(activation="sine"), InputValueError, "^activation must be one of"),
        (lambda: gru_node(W=torch.zeros(1, 5, 3)), InputValueError, r"^W must be \(D, G\*H, I\) = \(1, 6, 3\)"),
        (
            lambda: gru_node(W=torch.zeros(6, 3)),
            InputValueError,
            r"^W must be \(D, G\*H, I\) and R \(D, G\*H, H\); got \(6",
        ),
        (lambda: gru_node(R=torch.zeros(2, 6, 2)), InputValueError, r"^R must be .* = \(1, 6, 2\); got \(2, 6, 2\)"),
        (lambda: gru_node(R=torch.zeros(1, 6, 0)), InputValueError, "^W and R must hold a column each"),
        (lambda: gru_node(B=torch.zeros(1, 6)), InputValueError, r"^B must be \(D, 2\*G\*H\) = \(1, 12\)"),
        (lambda: gru_node(B=torch.zeros(1, 12).double()), InputTypeError, "^B must have the dtype of R"),
        (lambda: gru_node(direction="reverse"), InputValueError, r'^nodes\[0\] must run "forward" or "bidirectional"'),
        (lambda: [gru_node(), gru_node()], InputValueError, r"^nodes\[1\].W must be .* = \(1, 6, 2\); got \(1, 6, 3\)"),
        (lambda: [gru_node(), gru_node(B=None)], InputValueError, r"^nodes\[1\] must hold B if nodes\[0\] does"),
        (
            lambda: [gru_node(), gru_node(linear_before_reset=True)],
            InputValueError,
            r"^nodes\[1\] must have the system of nodes\[0\], 'gru-reset-before'; got 'gru'",
        ),
    ],
)
def test_nodes_that_are_no_layer_are_refused(nodes, error, sentence, as_users_run_it):
    assert_refused(lambda: from_onnx_nodes(nodes()), error, sentence)
