"""Bad input to ops.gru, ops.rnn, trace, gradient_flow, counterfactual and explain is refused with one sentence."""
# mypy: allow-untyped-calls
# mypy: disable-error-code="arg-type"

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import tidegate as tg
from tests.refusals import assert_refused
from tidegate import ops
from tidegate.errors import BackendError, InputTypeError, InputValueError

T, B, I, H = 5, 3, 4, 6
VALUE, TYPE = InputValueError, InputTypeError
OPS = {"gru": (ops.gru, 3, {}), "update-only": (ops.gru, 2, {"reset": None}), "rnn": (ops.rnn, 1, {})}


def arguments(blocks):
    """Good arguments of ops.gru or ops.rnn."""
    return {
        "x": torch.randn(T, B, I),
        "h_0": torch.randn(B, H),
        "weight_ih": torch.randn(blocks * H, I),
        "weight_hh": torch.randn(blocks * H, H),
        "bias_ih": torch.randn(blocks * H),
        "bias_hh": torch.randn(blocks * H),
    }


mask = torch.ones(T, B, dtype=torch.bool)
#: The argument to spoil, how, the error and the sentence.
OP_CALLS = {
    "x-rank": ("x", lambda x: x[0], VALUE, r"^x must be \(T, B, I\) .*; got \(3, 4\)$"),
    "x-rank-4": ("x", lambda x: x[None], VALUE, r"^x must be \(T, B, I\) .*; got \(1, 5, 3, 4\)$"),
    "x-features": ("x", lambda x: x[..., :3], VALUE, r"^(x|weight_ih) must be .*; got"),
    "x-no-step": ("x", lambda x: x[:0], VALUE, r"^x must .*at least one step.*; got \(0, 3, 4\)$"),
    "x-no-sequence": ("x", lambda x: x[:, :0], VALUE, r"^x must .*one sequence; got \(5, 0, 4\)$"),
    "x-integers": ("x", lambda x: x.long(), TYPE, r"^x must be a floating tensor; got torch\.int64$"),
    "x-dtype": ("x", lambda x: x.double(), TYPE, r"must have the dtype of .*; got torch\.float"),
    "x-device": ("x", lambda x: x.to("meta"), TYPE, r"must be on the device of .*; got"),
    "x-list": ("x", lambda x: x.tolist(), TYPE, r"^x must be a torch\.Tensor; got list$"),
    "h_0-batch": ("h_0", lambda h: h[:2], VALUE, r"^h_0 must be \(B, H\) = \(3, 6\); got \(2, 6\)$"),
    "h_0-one-for-all": ("h_0", lambda h: h[:1], VALUE, r"^h_0 must be .* = \(3, 6\); got \(1, 6\)$"),
    "h_0-width": ("h_0", lambda h: h[:, :5], VALUE, r"^(h_0|weight_ih|weight_hh) must be .*; got"),
    "h_0-rank": ("h_0", lambda h: h[None], VALUE, r"^h_0 must be \(B, H\); got \(1, 3, 6\)$"),
    "h_0-no-unit": ("h_0", lambda h: h[:, :0], VALUE, r"^h_0 must be \(B, H\) with at least one unit; got \(3, 0\)$"),
    "h_0-none": ("h_0", lambda h: None, TYPE, r"^h_0 must be a torch\.Tensor; got NoneType$"),
    "h_0-dtype": (
        "h_0",
        lambda h: h.double(),
        TYPE,
        r"^h_0 must have the dtype of x, torch\.float32; got torch\.float64$",
    ),
    "h_0-device": ("h_0", lambda h: h.to("meta"), TYPE, r"^h_0 must be on the device of x, cpu; got meta$"),
    "weight_ih-rows": ("weight_ih", lambda w: w[:-1], VALUE, r"^weight_ih must be \(G\*H, I\) = .*; got"),
    "weight_ih-rank": ("weight_ih", lambda w: w[0], VALUE, r"^weight_ih must be .*; got \(4,\)$"),
    "weight_ih-none": ("weight_ih", lambda w: None, TYPE, r"^weight_ih must be a torch\.Tensor; got NoneType$"),
    "weight_hh-columns": ("weight_hh", lambda w: w[:, :1], VALUE, r"^weight_hh must be \(G\*H, H\) = .*; got"),
    "weight_hh-none": ("weight_hh", lambda w: None, TYPE, r"^weight_hh must be a torch\.Tensor; got NoneType$"),
    "weight_hh-dtype": (
        "weight_hh",
        lambda w: w.double(),
        TYPE,
        r"^weight_hh must have the dtype of x, .*; got torch\.float64$",
    ),
    "bias_ih-one": ("bias_ih", lambda b: b[:1], VALUE, r"^bias_ih must be \(G\*H,\) = .*; got \(1,\)$"),
    "bias_hh-rank": ("bias_hh", lambda b: b[None], VALUE, r"^bias_hh must be .*; got \(1, \d+\)$"),
    "bias_hh-device": ("bias_hh", lambda b: b.to("meta"), TYPE, r"^bias_hh must be on the device of x, cpu; got meta$"),
    "bias_ih-number": ("bias_ih", lambda b: 0.0, TYPE, r"^bias_ih must be a torch\.Tensor; got float$"),
    "activation": ("activation", lambda _: "swish", VALUE, r"^activation must be one of .*; got 'swish'$"),
    "activation-none": ("activation", lambda _: None, TYPE, r"^activation must be a name or a function; got NoneType$"),
    "mask-shape": ("mask", lambda _: mask.T, VALUE, r"^mask must be \(T, B\) = \(5, 3\); got \(3, 5\)$"),
    "mask-one-sequence": ("mask", lambda _: mask[:, :1], VALUE, r"^mask must be .*; got \(5, 1\)$"),
    "mask-integers": ("mask", lambda _: mask.long(), TYPE, r"^mask must be a bool tensor.*; got torch\.int64$"),
    "mask-device": ("mask", lambda _: mask.to("meta"), TYPE, r"^mask must be on the device of .*; got meta$"),
    "pins-step": ("pins", lambda _: [tg.Pins(update=0.0, steps=5)], VALUE, r"^pins steps must lie in 0\.\.4; got 5$"),
    "pins-units": (
        "pins",
        lambda _: [tg.Pins(update=torch.zeros(1))],
        VALUE,
        r"^pins update must have shape \(6,\) here",
    ),
    "pins-number": ("pins", lambda _: 0.0, TYPE, r"^pins must be .*; got float$"),
    "pins-numbers": ("pins", lambda _: [0.0], TYPE, r"^pins must be .*; got float$"),
    "pins-layer": ("pins", lambda _: [tg.Pins(update=0.0, layer=1)], VALUE, r"^pins layer must .*; got 1$"),
    "pins-direction": ("pins", lambda _: [tg.Pins(update=0.0, direction="reverse")], VALUE, r"^pins direction must"),
    "backend": ("backend", lambda _: "abacus", BackendError, r"^backend must be one of .*; got 'abacus'$"),
}

x, h_0 = torch.randn(T, B, I), torch.randn(1, B, H)
LOOKS: dict[str, Callable[..., Any]] = {
    "trace": tg.trace,
    "gradient_flow": tg.gradient_flow,
    "explain": tg.explain,
    "counterfactual": lambda model, x, hx=None, **named: tg.counterfactual(model, x, 1, hx, **named),
}
MODULES = {
    "torch-gru": lambda: nn.GRU(I, H),
    "torch-rnn": lambda: nn.RNN(I, H),
    "tidegate-gru": lambda: tg.GRU(I, H),
    "dense": lambda: tg.Dense(I, H),
}
LOOK_CALLS: dict[str, tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = {
    "rank": (VALUE, r"^input must be .*; got \(4,\)$", (x[0, 0],), {}),
    "features": (VALUE, r"^input must be .* I = 4; got \(5, 3, 3\)$", (x[..., :3],), {}),
    "no-step": (VALUE, r"^input must .*; got T = 0", (x[:0],), {}),
    "no-sequence": (VALUE, r"^input must .*; got .*B = 0$", (x[:, :0],), {}),
    "integers": (TYPE, r"^input must be a floating tensor; got torch\.int64$", (x.long(),), {}),
    "dtype": (TYPE, r"^input must have the dtype of the weights", (x.double(),), {}),
    "device": (TYPE, r"^input must be on the device of the weights, cpu; got meta$", (x.to("meta"),), {}),
    "list": (TYPE, r"^input must be a torch\.Tensor; got list$", (x.tolist(),), {}),
    "hx": (VALUE, r"^hx \(h_0\) must be .* = \(1, 3, 6\); got \(1, 1, 6\)$", (x, h_0[:, :1]), {}),
    "hx-dtype": (TYPE, r"^hx \(h_0\) must have the dtype of", (x, h_0.double()), {}),
}
STEERED_CALLS = {
    "lengths-long": (VALUE, r"^lengths must lie in 0\.\.T = 0\.\.5; got 6$", {"lengths": [3, 6, 2]}),
    "lengths-floats": (TYPE, r"^lengths must be ints; got torch\.float32$", {"lengths": torch.ones(B)}),
    "mask-shape": (VALUE, r"^mask must be \(T, B\) = \(5, 3\); got \(3, 5\)$", {"mask": mask.T}),
    "mask-floats": (TYPE, r"^mask must be a bool tensor.*; got torch\.float32$", {"mask": mask.float()}),
    "pins-number": (TYPE, r"^pins must be tidegate\.Pins or several of them; got float$", {"pins": 0.0}),
    "pins-layer": (VALUE, r"^pins layer must lie in 0\.\.0; got 1$", {"pins": tg.Pins(update=0.0, layer=1)}),
    "pins-step": (VALUE, r"^pins steps must lie in 0\.\.4; got 5$", {"pins": tg.Pins(update=0.0, steps=5)}),
}
gru = nn.GRU(I, H)
OTHERS = {
    "flow-norm": (
        VALUE,
        r"^norm must be \"spectral\" or \"frobenius\"; got 'nuclear'$",
        lambda: tg.gradient_flow(gru, x, norm="nuclear"),
    ),
    "flow-depth": (VALUE, r"^depth must lie in -1\.\.0; got 1$", lambda: tg.gradient_flow(gru, x, depth=1)),
    "flow-depth-before": (VALUE, r"^depth must lie in -1\.\.0; got -2$", lambda: tg.gradient_flow(gru, x, depth=-2)),
    "flow-reverse": (
        VALUE,
        r"^reverse must be False for a layer of one direction; got True$",
        lambda: tg.gradient_flow(gru, x, reverse=True),
    ),
    "counterfactual-steps": (VALUE, r"^pins steps must lie in 0\.\.4; got 5$", lambda: tg.counterfactual(gru, x, 5)),
    "counterfactual-no-steps": (
        VALUE,
        r"^pins steps must name at least one of 5",
        lambda: tg.counterfactual(gru, x, []),
    ),
    "counterfactual-plane": (VALUE, r"^pins steps must be \(T, B\)", lambda: tg.counterfactual(gru, x, mask.T)),
    "trace-lstm": (TYPE, r"LSTM has none$", lambda: tg.trace(nn.LSTM(I, H), x)),
    "explain-linear": (TYPE, r"^the layer must be a GRU, .*; got Linear$", lambda: tg.explain(nn.Linear(I, H), x)),
    "explain-function": (TYPE, r"^the layer must be a GRU, .*; got", lambda: tg.explain(torch.tanh, x)),
    "trace-function": (TYPE, r"^the model must .*; got|^the model must .* has none", lambda: tg.trace(torch.tanh, x)),
    "flow-none": (TYPE, r"^the model must", lambda: tg.gradient_flow(None, x)),
    "counterfactual-none": (TYPE, r"^the model must", lambda: tg.counterfactual(None, x, 1)),
    "ops-reset": (VALUE, r"^reset must be .*; got 'never'$", lambda: ops.gru(**arguments(3), reset="never")),
    "ops-rows-of-the-other-variant": (
        VALUE,
        r"^weight_ih must be .* = \(12, 4\); got \(18, 4\)$",
        lambda: ops.gru(**arguments(3), reset=None),
    ),
}


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("case", OP_CALLS)
@pytest.mark.parametrize("kind", OPS)
def test_an_operator_refuses(kind, case):
    function, blocks, options = OPS[kind]
    argument, spoil, error, sentence = OP_CALLS[case]
    given = arguments(blocks) | options
    given[argument] = spoil(given.get(argument))
    assert_refused(lambda: function(**given), error, sentence)


@pytest.mark.parametrize("kind", OPS)
def test_what_the_operator_table_spoils_is_accepted_unspoilt(kind):
    function, blocks, options = OPS[kind]
    steps = function(**arguments(blocks), **options, mask=mask, pins=[tg.Pins(update=0.5, steps=4)], gates=True)
    assert all(part is not None and part.shape == (T, B, H) for part in steps)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("case", LOOK_CALLS)
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_into_a_layer_refuses(look, kind, case):
    error, sentence, given, named = LOOK_CALLS[case]
    assert_refused(lambda: LOOKS[look](MODULES[kind](), *given, **named), error, sentence)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("case", STEERED_CALLS)
@pytest.mark.parametrize("inside", [False, True], ids=["bare", "inside"])
@pytest.mark.parametrize("look", ["trace", "gradient_flow"])
def test_a_steered_look_refuses_also_inside_a_model(look, inside, case):
    error, sentence, named = STEERED_CALLS[case]
    layer = nn.GRU(I, H)
    model = nn.Sequential(nn.Identity(), layer) if inside else layer
    assert_refused(lambda: LOOKS[look](model, x, **named), error, sentence)
    assert "forward" not in vars(layer)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(("error", "sentence", "call"), OTHERS.values(), ids=OTHERS.keys())
def test_a_function_refuses(error, sentence, call):
    assert_refused(call, error, sentence)
