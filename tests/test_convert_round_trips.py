"""What came from a framework goes back to it bit by bit, and what goes out owns its numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given

import tidegate as tg
from tests.convert_helpers import FORMATS, Shape, arrays_of, drawn, same_bits, shapes
from tests.layer_helpers import draw_
from tidegate.convert import from_torch, to_torch
from tidegate.convert.arrays import to_tensor

PAIRS = [(name, system) for name, one in FORMATS.items() for system in one.framework.systems]
every_pair = pytest.mark.parametrize(("format", "system"), PAIRS)


@every_pair
@given(shape=shapes)
def test_what_came_in_goes_out_to_the_bit(format, system, shape):
    form = FORMATS[format]
    arrays = form.form(arrays_of(form.framework.systems[system], shape))
    layer = form.take(arrays, bidirectional=shape.bidirectional, **form.told(system, shape))
    assert (layer.input_size, layer.hidden_size) == (shape.input_size, shape.hidden_size)
    assert (layer.num_layers, layer.bidirectional) == (shape.layers, shape.bidirectional)
    assert layer.system == system
    assert same_bits(form.give(layer), arrays)


@every_pair
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_and_so_in_every_dtype(format, system, dtype):
    if dtype == torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="NumPy has bfloat16 only with ml_dtypes, of the extra `frameworks`")
    form, shape = FORMATS[format], Shape(3, 4, layers=2, bidirectional=True)
    arrays = form.form(arrays_of(form.framework.systems[system], shape, lambda size: drawn(size, dtype)))
    layer = form.take(arrays, bidirectional=True, **form.told(system, shape))
    assert layer.weight_ih_l0.dtype == dtype
    assert same_bits(form.give(layer), arrays)


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
@given(shape=shapes)
def test_torchs_layers_come_and_go_to_the_bit(kind, shape):
    theirs = getattr(torch.nn, kind)(
        shape.input_size, shape.hidden_size, shape.layers, bias=shape.bias, bidirectional=shape.bidirectional
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(to_tensor("it", drawn(tuple(parameter.shape))))
    ours = from_torch(theirs)
    again = to_torch(ours)
    assert type(ours) is getattr(tg, kind)
    assert type(again) is type(theirs)
    for other in (ours, again):
        named = dict(other.named_parameters())
        assert list(named) == [name for name, _ in theirs.named_parameters()]
        for name, parameter in theirs.named_parameters():
            assert same_bits(named[name].detach().numpy(), parameter.detach().numpy())


def test_torchs_options_come_along():
    theirs = torch.nn.RNN(3, 4, 2, "relu", batch_first=True, dropout=0.25, dtype=torch.float64).eval()
    ours = from_torch(theirs)
    assert (ours.nonlinearity, ours.activation) == ("relu", "relu")
    for layer in (ours, to_torch(ours)):
        assert (layer.batch_first, layer.dropout, layer.training) == (True, 0.25, False)
        assert layer.weight_ih_l0.dtype == torch.float64
        x = torch.randn(2, 5, 3, dtype=torch.float64)
        assert torch.allclose(layer(x)[0], theirs(x)[0], atol=1e-12)


@pytest.mark.parametrize("kind", ["GRUCell", "RNNCell"])
def test_a_cell_is_a_layer_of_one(kind):
    cell = getattr(torch.nn, kind)(3, 4, dtype=torch.float64)
    layer, x, h = from_torch(cell), torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    assert torch.allclose(layer(x.unsqueeze(0), h.unsqueeze(0))[1][0], cell(x, h), atol=1e-12)
    assert same_bits(tg.convert.to_keras(cell), tg.convert.to_keras(layer))


@every_pair
def test_nothing_is_shared_and_no_random_number_is_drawn(format, system):
    form, shape = FORMATS[format], Shape(3, 4)
    cells = arrays_of(form.framework.systems[system], shape, lambda size: np.ones(size, np.float32))
    before = torch.random.get_rng_state()
    layer = form.take(form.form(cells), **form.told(system, shape))
    assert torch.equal(torch.random.get_rng_state(), before)
    out = form.give(layer)
    kept = form.give(layer)
    for cell in cells:
        for array in cell.values():
            array[:] = 7
    assert same_bits(form.give(layer), kept), "the layer looks at the arrays that it came from"
    draw_(layer)
    assert same_bits(out, kept), "the arrays look at the layer that they came from"
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in layer.parameters())


@every_pair
def test_a_layer_comes_back_as_the_same_function(format, system):
    """Biases may have been added up, which rounds once; the rest is the same to the bit."""
    form = FORMATS[format]
    layer = form.take(
        form.form(arrays_of(form.framework.systems[system], Shape(3, 4, 2, True), np.ones)),
        bidirectional=True,
        **form.told(system, Shape(3, 4)),
    )
    draw_(layer)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias_hh") and system == "gru" and format in ("flax", "notes"):
                parameter[8:] = 0
    again = form.take(form.give(layer), bidirectional=True, **form.told(system, Shape(3, 4)))
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(again(x)[0], layer(x)[0], atol=1e-14)
    for (name, one), (_, other) in zip(layer.named_parameters(), again.named_parameters(), strict=True):
        if name.startswith("weight"):
            assert torch.equal(one, other), name


def test_a_layer_without_biases_stays_so_where_the_framework_can():
    layer = tg.GRU(3, 4, bias=False)
    for format in ("keras", "equinox", "notes"):
        form = FORMATS[format]
        again = form.take(form.give(layer), **({"bias": False} if format == "keras" else {}))
        assert not again.bias
        assert all(torch.equal(*both) for both in zip(layer.parameters(), again.parameters(), strict=True))
    assert (tg.convert.to_flax(layer)[0]["dense_i"]["bias"] == 0).all()
