"""to_onnx on odd models and with odd arguments: what can be written is right, the rest is one sentence."""

from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

import tidegate as tg
from tests.onnx_helpers import run
from tests.refusals import assert_refused
from tidegate.convert import to_onnx
from tidegate.errors import InputTypeError, InputValueError

I, H = 3, 4
TOLERANCE = 1e-6
X = torch.randn(4, 2, I, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    """A model around one layer."""

    def __init__(self, layer: nn.Module, **given: Any) -> None:
        super().__init__()
        self.layer, self.given = layer, given

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, **self.given)[0]


def assert_written(model: nn.Module, **inputs: Tensor) -> Any:
    """The model is written, and ONNX Runtime computes what it does."""
    proto = to_onnx(model, inputs=dict(inputs))
    with torch.no_grad():
        expected = model.eval()(**inputs)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(run(proto, **inputs)[0], expected, atol=TOLERANCE, rtol=TOLERANCE)
    return proto


# ---------------------------------------------------------------------------------------------------------------------
# What is written


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("kind", ["weight_norm", "prune", "parametrized"])
def test_weights_that_are_computed_are_written_as_they_are(kind):
    layer = nn.GRU(I, H)
    if kind == "weight_norm":
        nn.utils.weight_norm(layer, "weight_hh_l0")
    elif kind == "prune":
        torch.nn.utils.prune.l1_unstructured(layer, "weight_hh_l0", 0.5)
    else:
        nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    held, names = layer.weight_hh_l0, set(vars(layer))
    to_onnx(Around(layer), inputs=X)
    assert kind == "parametrized" or layer.weight_hh_l0 is held
    assert set(vars(layer)) == names
    assert_written(Around(layer), x=X)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_computed_weights_of_other_layers_too(norm):
    head = getattr(nn.utils, norm)(nn.Linear(H, 2))
    layer = nn.GRU(I, H)

    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = layer, head

        def forward(self, x: Tensor) -> Any:
            return self.head(self.layer(x)[0])

    model = Headed()
    model(X)
    assert_written(model, x=X)
    assert len(head._forward_pre_hooks) == 1


def test_a_tensor_that_is_given_twice_is_two_inputs():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(I, H)

        def forward(self, x: Tensor, z: Tensor) -> Any:
            return self.layer(x + 2 * z)[0]

    model = Sum()
    proto = to_onnx(model, inputs=[X, X])
    with torch.no_grad():
        expected = model(X, -X)
    torch.testing.assert_close(run(proto, x=X, z=-X)[0], expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_an_accelerated_model_and_one_with_hooks_are_written():
    model = Around(nn.GRU(I, H, 2, dropout=0.5))
    model.layer.register_forward_hook(lambda module, given, result: (2 * result[0], result[1]))
    tg.accelerate(model)
    assert_written(model, x=X)
    assert len(model.layer._forward_hooks) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_a_compiled_model_is_written_as_the_model_that_it_is(inside):
    layer = nn.GRU(I, H)
    model: Any = Around(layer)
    if inside:
        model.layer = torch.compile(layer)
    else:
        model = torch.compile(model)
    proto = to_onnx(model, inputs=X)
    with torch.no_grad():
        expected = layer(X)[0]
    torch.testing.assert_close(run(proto, x=X)[0], expected, atol=TOLERANCE, rtol=TOLERANCE)
    assert [one.name for one in proto.graph.input] == ["x", "state_in"]


@pytest.mark.parametrize("layers", [1, 2])
def test_a_state_that_is_given_to_a_bare_layer_varies_with_the_batch_alone(layers):
    layer = tg.GRU(I, H, layers)
    h_0 = torch.randn(layers, 2, H)
    proto = assert_written(layer, input=X, hx=h_0)
    sizes = [[dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in proto.graph.input]
    assert sizes == [["time", "batch", I], [layers, "batch", H]]


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def resetting() -> nn.Module:
    return Around(tg.GRU(I, H), reset_at=torch.ones(4, 2, dtype=torch.bool))


def circular() -> nn.Module:
    model = Around(nn.GRU(I, H))
    model.part = nn.Module()
    model.part.whole = model
    return model


def scripted() -> nn.Module:
    made: nn.Module = torch.jit.script(nn.Sequential(nn.GRU(I, H)))
    return made


def quantized() -> nn.Module:
    made: nn.Module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.GRU(I, H)), {nn.GRU})
    return made


class Named(nn.Module):
    """A model whose input has the name of a state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(I, H)

    def forward(self, state_in: Tensor) -> Any:
        return self.layer(state_in)[0]


class ByName(nn.Module):
    """A model whose output has the name of an input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(I, H)

    def forward(self, x: Tensor) -> Any:
        return {"x": self.layer(x)[0]}


MODELS = {
    "reset_at": (resetting, X, InputValueError, "^module 'layer' is given reset_at, which no node of ONNX takes"),
    "circular": (
        circular,
        X,
        InputTypeError,
        "^model must not hold itself, which torch.export cannot trace; its module 'part.whole' is one that holds it$",
    ),
    "scripted": (scripted, X, InputTypeError, "^module '0' cannot be written to ONNX: it is a ScriptModule"),
    "quantized": (quantized, X, InputTypeError, "^module '0' cannot be written to ONNX: it is quantized"),
    "meta": (
        lambda: nn.GRU(I, H, device="meta"),
        None,
        InputValueError,
        "^model must have its weights; 'weight_ih_l0' is on the meta device, without numbers$",
    ),
    "unknown input": (
        lambda: tg.GRU(I, H),
        {"inptu": X},
        InputTypeError,
        "^inputs must be what the model's forward takes: missing a required argument: 'input'$",
    ),
    "too many": (lambda: Around(tg.GRU(I, H)), [X, X], InputTypeError, "forward takes: too many positional arguments$"),
    "state's name": (Named, X, InputValueError, "^inputs must not be called 'state_in', the file's name of a state"),
    "output's name": (
        ByName,
        X,
        InputValueError,
        "^output_names must not be what an input or a state is called; .*'x'",
    ),
}


@pytest.mark.filterwarnings(
    "ignore:.*torch.ao.quantization is deprecated", "ignore:.*jit.script.*", "ignore:.*quantized"
)
@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_written_is_refused(case, as_users_run_it):
    make, inputs, error, sentence = MODELS[case]
    model = make()
    assert_refused(lambda: to_onnx(model, inputs=inputs), error, sentence)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"path": 3}, InputTypeError, "^path must be a str or a Path; got int$"),
        ({"path": b"model.onnx"}, InputTypeError, "^path must be a str or a Path; got bytes$"),
        ({"output_names": "y"}, InputTypeError, "^output_names must be a list of names; got str$"),
        ({"output_names": [1]}, InputTypeError, "^output_names must be a list of names; one is an int$"),
        ({"output_names": [""]}, InputValueError, r"^output_names must be 1 different names; got \[''\]$"),
        ({"output_names": ["input"]}, InputValueError, "^output_names must not be what an input or a state is called"),
        (
            {"output_names": ["state_in"]},
            InputValueError,
            "must not be what an input or a state is called; got 'state_",
        ),
        ({"axes": 3}, InputTypeError, "^axes must be a list, with an entry for each input; got int$"),
        ({"axes": "tbi"}, InputTypeError, "^axes must be a list, with an entry for each input; got str$"),
        ({"axes": ["tbi"]}, InputTypeError, "^axes of input must be a list of names or None; got str$"),
        ({"axes": [[1, 2, None]]}, InputTypeError, "^axes of input must be names or None; one is an int$"),
        ({"axes": [["n", "n", None]]}, InputValueError, "^axes of input must have a name each; got 'n' twice$"),
        (
            {"axes": [["time", "batch", "features"]]},
            InputValueError,
            "^model cannot be traced by torch.export: axis 2 of input is to vary, but the model takes it to be 3",
        ),
        (
            {"inputs": [X, torch.zeros(2, 2, H)], "axes": [[None, "batch", None], ["layers", "batch", None]]},
            InputValueError,
            "axis 0 of hx is to vary, but the model takes it to be 2",
        ),
    ],
)
def test_an_argument_that_cannot_be_is_refused(options, error, sentence, as_users_run_it):
    assert_refused(lambda: to_onnx(tg.GRU(I, H, 2 if "inputs" in options else 1), **options), error, sentence)
