"""What Flax and Equinox can be and a layer here cannot is refused; a cell alone is a layer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tidegate as tg
from tests.refusals import assert_refused
from tidegate.convert import from_equinox, from_flax, to_flax
from tidegate.errors import InputTypeError, InputValueError


def no(convert: Callable[..., Any], source: Any, error: type[Exception], sentence: str, **said: Any) -> None:
    """`convert` refuses the source."""
    assert_refused(lambda: convert(source, **said), error, sentence)


@pytest.fixture
def nnx() -> Any:
    from flax import nnx

    return nnx


def test_a_flax_cell_has_no_second_bias(nnx):
    """Its formula shows b_hn; should a version have it, the record must change."""
    cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
    assert cell.dense_h.bias is None or cell.dense_h.bias[...] is None


def test_a_cell_alone_is_a_layer(nnx):
    cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
    layer, x, h = from_flax(cell), np.ones((2, 3), np.float32), np.full((2, 4), 0.5, np.float32)
    with torch.no_grad():
        ours = layer(torch.from_numpy(x).unsqueeze(0), torch.from_numpy(h).unsqueeze(0))[1][0]
    assert np.abs(ours.numpy() - np.asarray(cell(h, x)[0])).max() < 1e-6
    both = from_flax([cell, cell], bidirectional=True)
    assert both.bidirectional
    assert both.num_layers == 1


def test_a_layer_without_biases_becomes_a_flax_cell_with_zeros(nnx):
    layer = tg.GRU(3, 4, bias=False)
    cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
    nnx.update(cell, to_flax(layer)[0])
    x, h = np.ones((2, 3), np.float32), np.full((2, 4), 0.5, np.float32)
    with torch.no_grad():
        ours = layer(torch.from_numpy(x).unsqueeze(0), torch.from_numpy(h).unsqueeze(0))[1][0]
    assert np.abs(ours.numpy() - np.asarray(cell(h, x)[0])).max() < 1e-6


def test_other_flax_modules_are_refused(nnx):
    rngs = nnx.Rngs(0)

    class Mine(nnx.GRUCell):  # type: ignore[name-defined,misc]
        pass

    def ways():
        return [nnx.RNN(nnx.GRUCell(3, 4, rngs=rngs)) for _ in range(2)]

    cases: list[tuple[Any, type[Exception], str]] = [
        (nnx.LSTMCell(3, 4, rngs=rngs), InputTypeError, "got LSTMCell"),
        (nnx.RNN(nnx.LSTMCell(3, 4, rngs=rngs)), InputTypeError, "got LSTMCell"),
        (Mine(3, 4, rngs=rngs), InputTypeError, "got Mine"),
        (nnx.SimpleCell(3, 4, residual=True, rngs=rngs), InputValueError, "must not be residual"),
        (nnx.GRUCell(3, 4, gate_fn=nnx.relu, rngs=rngs), InputTypeError, "must have sigmoid gates"),
        (nnx.GRUCell(3, 4, activation_fn=nnx.elu, rngs=rngs), InputTypeError, "must have one of nnx.tanh"),
        (nnx.RNN(nnx.GRUCell(3, 4, rngs=rngs), reverse=True), InputValueError, "reverse=True alone"),
        (nnx.Bidirectional(*ways(), merge_fn=lambda a, b: a + b), InputValueError, "side by side"),
        ([ways()[0], nnx.Bidirectional(*ways())], InputValueError, "of one direction"),
        (
            [nnx.SimpleCell(3, 4, rngs=rngs), nnx.SimpleCell(4, 4, activation_fn=nnx.relu, rngs=rngs)],
            InputValueError,
            "of one activation",
        ),
    ]
    for source, error, sentence in cases:
        no(from_flax, source, error, sentence)
    said: list[dict[str, Any]] = [{"activation": "relu"}, {"bidirectional": True}]
    for keywords in said:
        no(from_flax, ways()[0], InputValueError, "as the layer itself tells", **keywords)


def test_other_equinox_modules_are_refused():
    import equinox
    import jax

    class Mine(equinox.nn.GRUCell):  # type: ignore[misc]
        pass

    key = jax.random.key(0)
    for source in (equinox.nn.LSTMCell(3, 4, key=key), Mine(3, 4, key=key)):
        no(from_equinox, source, InputTypeError, "must be equinox.nn.GRUCell")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_dtypes_of_jax_come_as_they_are(nnx, dtype):
    lecun = nnx.initializers.lecun_normal()  # the usual one is not made in half precision
    cell = nnx.GRUCell(3, 4, param_dtype=dtype, recurrent_kernel_init=lecun, rngs=nnx.Rngs(0))
    layer = from_flax(cell)
    assert layer.weight_ih_l0.dtype == getattr(torch, dtype)
    (state,) = to_flax(layer)
    assert np.array_equal(state["dense_i"]["kernel"], np.asarray(cell.dense_i.kernel[...]))
