"""The layers are torch.nn's classes to all that handles modules: constructors, files, copies, dtypes, devices."""
# mypy: allow-untyped-calls

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call

import tidegate as tg
from tests.layer_helpers import CELLS, KINDS, SYSTEMS, layer, twins
from tidegate.errors import BackendError
from tidegate.ops import backends

T, B, I, H = 5, 4, 3, 6
BOTH = {**{f"{kind}-layer": twin for kind, twin in KINDS.items()}, **{f"{kind}-cell": CELLS[kind] for kind in CELLS}}
OWN: dict[str, Callable[..., Any]] = {
    "gru": lambda **options: tg.GRU(I, H, **options),
    "gru-stack": lambda **options: tg.GRU(I, H, 2, bidirectional=True, learn_h_0=True, **options),
    "reset-before": lambda **options: tg.GRU(I, H, reset="before", **options),
    "update-only": lambda **options: tg.GRU(I, H, 2, reset=None, **options),
    "rnn": lambda **options: tg.RNN(I, H, 2, activation="sigmoid", **options),
    "dense": lambda **options: tg.Dense(I, H, **options),
    "gru-cell": lambda **options: tg.GRUCell(I, H, **options),
    "update-only-cell": lambda **options: tg.GRUCell(I, H, reset=None, **options),
    "rnn-cell": lambda **options: tg.RNNCell(I, H, nonlinearity="relu", **options),
}


def output(module, x):
    """The output for (T, B, I), of a cell for the first step."""
    return module(x[0]) if isinstance(module, nn.RNNCellBase) else module(x)[0]


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"bidirectional": True}, {"num_layers": 3}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_layer_loads_torchs_state_dict_and_torch_loads_the_layers(kind, options):
    theirs, ours = twins(KINDS, kind, I, H, **options)
    fresh = type(theirs)(I, H, **KINDS[kind][2], **options)
    assert fresh.load_state_dict(ours.state_dict(), strict=True).missing_keys == []
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, weight in theirs.state_dict().items():
        assert fresh.state_dict()[name].equal(weight)


@pytest.mark.parametrize("kind", CELLS)
def test_cell_loads_torchs_state_dict_and_torch_loads_the_cells(kind):
    theirs, ours = twins(CELLS, kind, I, H)
    fresh = type(theirs)(I, H, **CELLS[kind][2])
    fresh.load_state_dict(ours.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(fresh.state_dict()[name].equal(weight) for name, weight in theirs.state_dict().items())


@pytest.mark.parametrize("kind", BOTH)
def test_the_same_seed_draws_torchs_weights_to_the_bit(kind):
    theirs_class, ours_class, options = BOTH[kind]
    drawn = []
    for module_class in (theirs_class, ours_class):
        torch.manual_seed(3)
        drawn.append(module_class(I, H, **options).state_dict())
    assert all(drawn[1][name].equal(weight) for name, weight in drawn[0].items())
    assert drawn[0].keys() == drawn[1].keys()


def test_a_stack_draws_torchs_weights_to_the_bit_with_a_learned_state_too():
    torch.manual_seed(3)
    theirs = nn.GRU(I, H, 2, bidirectional=True)
    after_theirs = torch.rand(1)
    torch.manual_seed(3)
    ours = tg.GRU(I, H, 2, bidirectional=True, learn_h_0=True)
    assert torch.rand(1).equal(after_theirs), "the generator is not where torch.nn leaves it"
    assert all(ours.state_dict()[name].equal(weight) for name, weight in theirs.state_dict().items())


def test_drawing_the_weights_anew_leaves_a_learned_state_at_zero():
    gru: Any = tg.GRU(I, H, learn_h_0=True)
    gru.reset_parameters()
    assert gru.h_0.eq(0).all()


@pytest.mark.parametrize("kind", BOTH)
def test_a_layer_is_an_instance_of_torchs_class(kind):
    theirs_class, ours_class, _ = BOTH[kind]
    assert isinstance(theirs_class, type)
    assert isinstance(ours_class(I, H), theirs_class)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (tg.GRU(3, 4, 2, False, True, 0.1, True), nn.GRU(3, 4, 2, False, True, 0.1, True)),
        (tg.RNN(3, 4, 2, "relu", False, True, 0.1, True), nn.RNN(3, 4, 2, "relu", False, True, 0.1, True)),
        (tg.GRU(input_size=3, hidden_size=4, bias=False), nn.GRU(input_size=3, hidden_size=4, bias=False)),
        (tg.GRU(3, 4), nn.GRU(3, 4)),
        (tg.RNN(3, 4), nn.RNN(3, 4)),
        (tg.GRUCell(3, 4, False), nn.GRUCell(3, 4, False)),
        (tg.GRUCell(3, 4), nn.GRUCell(3, 4)),
        (tg.RNNCell(3, 4, False, "relu"), nn.RNNCell(3, 4, False, "relu")),
    ],
    ids=lambda module: f"{type(module).__module__.partition('.')[0]}-{module}",
)
def test_positional_arguments_and_the_printed_form_are_torchs(ours, theirs):
    assert repr(ours) == repr(theirs)
    for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "nonlinearity", "mode"):
        assert getattr(ours, name, None) == getattr(theirs, name, None)


def test_device_and_dtype_are_positional_where_torch_has_them():
    assert tg.GRU(3, 4, 1, True, False, 0.0, False, "cpu", torch.float64).weight_ih_l0.dtype == torch.float64
    assert tg.GRUCell(3, 4, True, "cpu", torch.float64).weight_ih.dtype == torch.float64
    assert tg.RNNCell(3, 4, True, "tanh", "cpu", torch.float64).weight_ih.dtype == torch.float64


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (tg.GRU(3, 4, reset=None), "reset=None"),
        (tg.GRU(3, 4, reset="before"), "reset='before'"),
        (tg.GRU(3, 4, activation="relu"), "activation='relu'"),
        (tg.GRU(3, 4, learn_h_0=True), "learn_h_0=True"),
        (tg.GRU(3, 4, backend="reference"), "backend='reference'"),
        (tg.RNN(3, 4, activation="identity"), "activation='identity'"),
        (tg.RNN(3, 4, learn_h_0=True), "learn_h_0=True"),
        (tg.GRUCell(3, 4, reset=None), "reset=None"),
        (tg.GRUCell(3, 4, activation="relu"), "activation='relu'"),
        (tg.RNNCell(3, 4, activation="identity"), "activation='identity'"),
        (tg.Dense(3, 4, activation="relu"), "activation='relu'"),
        (tg.Dense(3, 4, bias=False), "bias=False"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_printed_form_says_what_differs_from_torchs(module, said):
    assert said in repr(module)


@pytest.mark.parametrize("kind", OWN)
def test_a_deep_copy_and_a_pickle_give_the_same_results_and_share_nothing(kind):
    module = OWN[kind]()
    x = torch.randn(T, B, I)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert output(twin, x).equal(output(module, x))
        assert repr(twin) == repr(module)
        with torch.no_grad():
            next(iter(twin.parameters())).add_(1)
        assert not output(twin, x).equal(output(module, x))


@pytest.mark.parametrize("kind", OWN)
def test_a_saved_state_dict_gives_the_same_results_to_the_bit(kind):
    module, fresh = OWN[kind](), OWN[kind]()
    x = torch.randn(T, B, I)
    assert not output(fresh, x).equal(output(module, x))
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert output(fresh, x).equal(output(module, x))


@pytest.mark.parametrize("kind", OWN)
def test_functional_call_uses_the_weights_it_is_given_and_leaves_the_modules_own(kind):
    module, other = OWN[kind](), OWN[kind]()
    x = torch.randn(T, B, I)
    before = output(module, x)
    one = x[0] if isinstance(module, nn.RNNCellBase) else x
    result = functional_call(module, dict(other.named_parameters()), (one,))
    assert (result[0] if isinstance(result, tuple) else result).equal(output(other, x))
    assert output(module, x).equal(before)


@pytest.mark.parametrize("kind", OWN)
def test_a_module_can_be_built_on_the_meta_device_and_filled_later(kind):
    module, real = OWN[kind](device="meta"), OWN[kind]()
    assert all(parameter.is_meta for parameter in module.parameters())
    assert {name: p.shape for name, p in module.named_parameters()} == {
        name: p.shape for name, p in real.named_parameters()
    }
    module.load_state_dict(real.state_dict(), assign=True)
    x = torch.randn(T, B, I)
    assert output(module, x).equal(output(real, x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", OWN)
def test_a_module_computes_in_its_own_dtype_near_float32(kind, dtype):
    module = OWN[kind]()
    x = torch.randn(T, B, I)
    expected = output(module, x)
    found = output(module.to(dtype), x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=0.05 if dtype == torch.bfloat16 else 1e-5, rtol=0)
    found.float().sum().backward()
    assert all(parameter.grad.dtype == dtype for parameter in module.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("kind", OWN)
def test_weights_cast_after_construction_are_the_ones_used(kind):
    module = OWN[kind]().double()
    assert output(module, torch.randn(T, B, I, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("system", SYSTEMS)
def test_gradients_can_be_differentiated_again(system):
    gru = layer(system, 2, 2, 1, bidirectional=True)
    x = torch.randn(3, 1, 2, dtype=torch.float64, requires_grad=True)
    h_0 = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gru, (x, h_0))
    assert torch.autograd.gradgradcheck(lambda *inputs: gru(*inputs)[0].square(), (x, h_0))


@pytest.mark.parametrize("kind", OWN)
def test_a_named_backend_gives_the_result_and_an_unknown_one_is_refused(kind):
    module, named = OWN[kind](), OWN[kind](backend="reference")
    named.load_state_dict(module.state_dict())
    x = torch.randn(T, B, I)
    torch.testing.assert_close(output(named, x), output(module, x), atol=1e-6, rtol=0)
    with pytest.raises(BackendError, match=r"^backend must be one of .*; got 'abacus'$"):
        OWN[kind](backend="abacus")


class Refusing:
    """A backend that never can, and fails if it is asked to."""

    @staticmethod
    def unsupported(call):
        return "it is a Tuesday"

    @staticmethod
    def run(call):
        raise AssertionError("a backend that said that it cannot was run")


@pytest.mark.parametrize("kind", OWN)
def test_a_named_backend_that_cannot_raises_with_its_reason_and_auto_takes_the_next(kind, monkeypatch):
    monkeypatch.setattr(backends, "BACKENDS", {"picky": Refusing, **backends.BACKENDS})
    module, x = OWN[kind](backend="picky"), torch.randn(T, B, I)
    with pytest.raises(BackendError, match=r"^backend \"picky\" cannot run this layer: it is a Tuesday$"):
        output(module, x)
    with pytest.raises(BackendError, match="it is a Tuesday"):
        tg.explain(module, x)
    automatic = OWN[kind]()
    assert output(automatic, x).isfinite().all()
    assert "not picky: it is a Tuesday" in tg.explain(automatic, x)


def test_explain_names_the_backend_of_every_layer_and_direction_and_computes_nothing():
    def explode(values):
        raise AssertionError("explain computed something")

    stack = tg.GRU(I, H, 2, bidirectional=True, activation=explode, backend="reference")
    lines = tg.explain(stack, torch.randn(T, B, I), lengths=[5, 3, 0, 1], pins=tg.Pins(update=0.0)).splitlines()
    assert lines == [
        "layer 0: reference (it was asked for)",
        "layer 0, backward: reference (it was asked for)",
        "layer 1: reference (it was asked for)",
        "layer 1, backward: reference (it was asked for)",
    ]
    automatic = tg.explain(tg.GRU(I, H, backend="auto"), torch.randn(T, B, I))
    assert automatic.startswith("layer 0: ")
    assert automatic.count("\n") == 0
    assert "fastest" in automatic


def test_explain_reads_torchs_own_layers_and_every_form_of_input():
    assert tg.explain(nn.GRU(I, H, batch_first=True), torch.randn(B, T, I)).startswith("layer 0: ")
    assert tg.explain(nn.RNN(I, H), torch.randn(T, I)).startswith("layer 0: ")
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, I), torch.randn(2, I)])
    assert tg.explain(tg.GRU(I, H), packed).startswith("layer 0: ")
