"""What is set on a layer after it was made is honoured or refused, never passed over; and what repr() tells."""

import pickle
from typing import Any

import pytest
import torch
import torch.fx
from torch import nn

import tidegate as tg
from tests.refusals import assert_refused
from tidegate import ops
from tidegate.errors import InputTypeError, InputValueError

T, B, I, H = 5, 2, 3, 4
x = torch.randn(T, B, I, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [tg.GRU, tg.GRUCell])
@pytest.mark.parametrize(("name", "value"), [("reset", "before"), ("layer_norm", True)])
def test_the_variant_is_chosen_when_a_layer_is_made(make, name, value):
    layer = make(I, H)
    with pytest.raises(AttributeError, match=f"'{name}'"):
        setattr(layer, name, value)
    assert (layer.reset, layer.layer_norm) == ("after", False)


@pytest.mark.parametrize("make", [tg.GRU, tg.GRUCell])
@pytest.mark.parametrize("reset", ["after", "before", None])
def test_the_variant_is_what_runs(make, reset):
    layer = make(I, H, reset=reset)
    assert layer.reset == reset
    assert pickle.loads(pickle.dumps(layer)).reset == reset
    normed = make(I, H, layer_norm=True)
    assert (normed.reset, normed.layer_norm) == ("after", True)


def test_a_number_that_is_set_as_recurrent_dropout_is_read_as_the_argument_is():
    layer = tg.GRU(I, H)
    layer.recurrent_dropout = 0.5  # type: ignore[assignment]
    given = tg.GRU(I, H, recurrent_dropout=0.5)
    given.load_state_dict(layer.state_dict())
    found = []
    for one in (layer, given):
        torch.manual_seed(0)
        found.append(one(x)[0])
    assert torch.equal(*found)
    layer.recurrent_dropout = "much"  # type: ignore[assignment]
    assert_refused(
        lambda: layer(x), InputTypeError, "^recurrent_dropout must be a number or tidegate.Dropouts; got str$"
    )


@pytest.mark.parametrize("make", [lambda: tg.GRU(I, H), lambda: tg.RNN(I, H), lambda: tg.Dense(I, H)])
def test_an_activation_that_is_set_to_nothing_known_is_refused(make):
    layer: Any = make()
    layer.activation = "swish"
    assert_refused(lambda: layer(x), InputValueError, "^activation must be one of .*; got 'swish'$")


def test_a_learned_state_that_does_not_fit_is_refused():
    layer = tg.GRU(I, H, 2, learn_h_0=True)
    layer.h_0 = nn.Parameter(torch.zeros(1, H))
    assert_refused(lambda: layer(x), InputValueError, r"^the learned h_0 must be \(L\*D, H\) = \(2, 4\); got \(1, 4\)$")
    layer.h_0 = nn.Parameter(torch.zeros(2, H, dtype=torch.float64))
    assert_refused(
        lambda: layer(x), InputTypeError, "^the learned h_0 must have the dtype of the weights, torch.float32"
    )


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
@pytest.mark.parametrize("make", [tg.GRU, tg.RNN, nn.GRU])
def test_a_layer_without_one_of_its_weights_is_refused(make, name):
    """A kernel would read where there is nothing."""
    layer = make(I, H)
    delattr(layer, name)
    assert_refused(lambda: tg.trace(layer, x), InputTypeError, f"^the layer's {name} must be a tensor; there is none$")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_size": 5}, r"^weight_ih must be \(15, 3\); got \(12, 3\)$"),
        ({"weight_hh_l0": nn.Parameter(torch.zeros(3, 3))}, r"^weight_hh must be \(12, 4\); got \(3, 3\)$"),
        ({"bias_hh_l0": nn.Parameter(torch.zeros(2))}, r"^bias_hh must be \(12,\); got \(2,\)$"),
    ],
)
def test_weights_of_another_shape_are_refused_by_the_kernels(changes, sentence):
    layer = tg.GRU(I, H)
    for name, value in changes.items():
        setattr(layer, name, value)
    assert_refused(lambda: layer(x), InputValueError, sentence)


def test_a_symbolic_trace_of_torch_fx_is_refused_in_a_sentence(as_users_run_it):
    sentence = "^the layer's weight_ih_l0 must be a tensor; there is a Proxy$"
    assert_refused(lambda: torch.fx.symbolic_trace(nn.Sequential(tg.GRU(I, H))), InputTypeError, sentence)


@pytest.mark.parametrize("make", [tg.GRU, tg.RNN])
@pytest.mark.parametrize("name", ["learn_h_0", "recompute"])
def test_a_flag_is_a_bool(name, make, as_users_run_it):
    assert_refused(lambda: make(I, H, **{name: "yes"}), InputTypeError, f"^{name} must be a bool; got str$")


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype")
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (x.to_sparse, r"got torch\.sparse_coo$"),
        (lambda: torch.nested.nested_tensor([x[:, 0], x[:3, 1]]), "got a nested one$"),
    ],
)
def test_a_tensor_of_another_layout_is_refused(make, sentence):
    sentence = f"^input must be a tensor that is neither nested nor sparse; {sentence}"
    assert_refused(lambda: tg.GRU(I, H)(make()), InputTypeError, sentence)


@pytest.mark.parametrize(
    ("make", "printed"),
    [
        (lambda: tg.GRUCell(I, H, backend="reference"), "GRUCell(3, 4, backend='reference')"),
        (lambda: tg.RNNCell(I, H, backend="reference"), "RNNCell(3, 4, backend='reference')"),
        (lambda: tg.Dense(I, H, backend="reference"), "Dense(3, 4, backend='reference')"),
        (lambda: tg.GRU(I, H, backend="reference"), "GRU(3, 4, backend='reference')"),
        (lambda: tg.GRUCell(I, H, layer_norm=True), "GRUCell(3, 4, layer_norm=True)"),
        (lambda: tg.GRUCell(I, H, reset=None), "GRUCell(3, 4, reset=None)"),
        (
            lambda: tg.RNNCell(I, H, recurrent_dropout=tg.Dropouts(zoneout=0.1)),
            "RNNCell(3, 4, recurrent_dropout=Dropouts(zoneout=0.1))",
        ),
    ],
)
def test_every_layer_prints_what_differs_from_torchs(make, printed):
    assert repr(make()) == printed


# ---------------------------------------------------------------------------------------------------------------------
# The layer-normalised GRU as a function of its tensors


def test_gains_make_ops_gru_the_layer_normalised_one():
    layer: Any = tg.GRU(I, H, layer_norm=True)
    with torch.no_grad():
        for gain in (layer.gain_ih_l0, layer.gain_hh_l0):
            gain.uniform_(0.5, 1.5)
    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0)
    gains = {"gain_ih": layer.gain_ih_l0, "gain_hh": layer.gain_hh_l0}
    steps = ops.gru(x, torch.zeros(B, H), *weights, **gains)
    assert torch.equal(steps.hidden, layer(x)[0])
    steps.hidden.sum().backward()
    assert layer.gain_ih_l0.grad is not None
    assert not torch.allclose(ops.gru(x, torch.zeros(B, H), *weights).hidden, layer(x)[0])


@pytest.mark.parametrize(
    ("changed", "error", "sentence"),
    [
        ({"gain_ih": None}, InputValueError, "^gain_ih must be given with gain_hh; got None$"),
        ({"gain_hh": None}, InputValueError, "^gain_hh must be given with gain_ih; got None$"),
        ({"reset": "before"}, InputValueError, "^reset must be \"after\" with gains; got 'before'$"),
        ({"gain_hh": torch.ones(H)}, InputValueError, r"^gain_hh must be \(G\*H,\) = \(12,\); got \(4,\)$"),
        ({"gain_ih": torch.ones(3 * H).double()}, InputTypeError, "^gain_ih must have the dtype of x"),
        ({"gain_ih": 1.0}, InputTypeError, r"^gain_ih must be a torch\.Tensor; got float$"),
    ],
)
def test_gains_that_do_not_fit_are_refused(changed, error, sentence, as_users_run_it):
    gains: dict[str, Any] = {"gain_ih": torch.ones(3 * H), "gain_hh": torch.ones(3 * H)}
    weights = (torch.ones(3 * H, I), torch.ones(3 * H, H))
    assert_refused(lambda: ops.gru(x, torch.zeros(B, H), *weights, **gains | changed), error, sentence)
