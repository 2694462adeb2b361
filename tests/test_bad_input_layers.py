"""Bad input to a layer or cell, or to their constructors, is refused with one sentence: what must be, and what came."""
# mypy: allow-untyped-calls
# mypy: disable-error-code="arg-type"

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import tidegate as tg
from tests.refusals import assert_refused
from tidegate.errors import BackendError, InputTypeError, InputValueError

T, B, I, H = 5, 3, 4, 6
LAYERS: dict[str, Callable[..., Any]] = {
    "gru": lambda **options: tg.GRU(I, H, **options),
    "update-only": lambda **options: tg.GRU(I, H, reset=None, **options),
    "rnn": lambda **options: tg.RNN(I, H, **options),
    "dense": lambda **options: tg.Dense(I, H, **options),
}
CELLS = {"gru-cell": lambda: tg.GRUCell(I, H), "rnn-cell": lambda: tg.RNNCell(I, H)}
VALUE, TYPE = InputValueError, InputTypeError
x, h_0, mask = torch.randn(T, B, I), torch.randn(1, B, H), torch.ones(T, B, dtype=torch.bool)
other = {"device": "meta"}

#: A call of a time-major layer with one thing wrong: error, sentence, arguments.
LAYER_CALLS: dict[str, tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = {
    "rank-1": (VALUE, r"^input must be \(T, B, I\) or, unbatched, \(T, I\) with I = 4; got \(4,\)$", (x[0, 0],), {}),
    "rank-4": (VALUE, r"^input must be .*; got \(1, 5, 3, 4\)$", (x[None],), {}),
    "features": (VALUE, r"^input must be .* I = 4; got \(5, 3, 3\)$", (x[..., :3],), {}),
    "one-feature": (VALUE, r"^input must be .* I = 4; got \(5, 3, 1\)$", (x[..., :1],), {}),
    "unbatched-features": (VALUE, r"^input must be .* I = 4; got \(5, 5\)$", (torch.randn(5, 5),), {}),
    "no-sequence": (VALUE, r"^input must .*at least .*one sequence; got .*B = 0$", (x[:, :0],), {}),
    "no-step": (VALUE, r"^input must .*at least one step.*; got T = 0", (x[:0],), {}),
    "unbatched-no-step": (VALUE, r"^input must .*at least one step.*; got T = 0", (x[:0, 0],), {}),
    "integers": (TYPE, r"^input must be a floating tensor; got torch\.int64$", (x.long(),), {}),
    "complex": (TYPE, r"^input must be a floating tensor; got torch\.complex64$", (x.to(torch.complex64),), {}),
    "dtype": (
        TYPE,
        r"^input must have the dtype of the weights, torch\.float32; got torch\.float64$",
        (x.double(),),
        {},
    ),
    "half": (TYPE, r"^input must have the dtype of .*; got torch\.float16$", (x.half(),), {}),
    "device": (TYPE, r"^input must be on the device of the weights, cpu; got meta$", (x.to("meta"),), {}),
    "list": (TYPE, r"^input must be a torch\.Tensor; got list$", (x.tolist(),), {}),
    "array": (TYPE, r"^input must be a torch\.Tensor; got ndarray$", (x.numpy(),), {}),
    "none": (TYPE, r"^input must be a torch\.Tensor; got NoneType$", (None,), {}),
    "hx-batch": (VALUE, r"^hx \(h_0\) must be \(L\*D, B, H\) = \(1, 3, 6\); got \(1, 2, 6\)$", (x, h_0[:, :2]), {}),
    "hx-one-for-all": (VALUE, r"^hx \(h_0\) must be .* = \(1, 3, 6\); got \(1, 1, 6\)$", (x, h_0[:, :1]), {}),
    "hx-width": (VALUE, r"^hx \(h_0\) must be .* = \(1, 3, 6\); got \(1, 3, 1\)$", (x, h_0[..., :1]), {}),
    "hx-layers": (VALUE, r"^hx \(h_0\) must be .* = \(1, 3, 6\); got \(2, 3, 6\)$", (x, h_0.repeat(2, 1, 1)), {}),
    "hx-rank": (VALUE, r"^hx \(h_0\) must be .* = \(1, 3, 6\); got \(3, 6\)$", (x, h_0[0]), {}),
    "hx-unbatched": (VALUE, r"^hx \(h_0\) must be \(L\*D, H\) = \(1, 6\); got \(1, 1, 6\)$", (x[:, 0], h_0[:, :1]), {}),
    "hx-tuple": (TYPE, r"^hx \(h_0\) must be a torch\.Tensor; got tuple$", (x, (h_0, h_0)), {}),
    "hx-number": (TYPE, r"^hx \(h_0\) must be a torch\.Tensor; got float$", (x, 0.0), {}),
    "hx-integers": (TYPE, r"^hx \(h_0\) must be a floating tensor; got torch\.int64$", (x, h_0.long()), {}),
    "hx-dtype": (TYPE, r"^hx \(h_0\) must have the dtype of .*float32; got torch\.float64$", (x, h_0.double()), {}),
    "hx-device": (TYPE, r"^hx \(h_0\) must be on the device of .*, cpu; got meta$", (x, h_0.to("meta")), {}),
    "lengths-negative": (VALUE, r"^lengths must lie in 0\.\.T = 0\.\.5; got -1$", (x,), {"lengths": [3, -1, 2]}),
    "lengths-long": (VALUE, r"^lengths must lie in 0\.\.T = 0\.\.5; got 6$", (x,), {"lengths": [3, 6, 2]}),
    "lengths-few": (VALUE, r"^lengths must be \(B,\) = \(3,\); got \(2,\)$", (x,), {"lengths": [3, 2]}),
    "lengths-one": (VALUE, r"^lengths must be \(B,\) = \(3,\); got \(1,\)$", (x,), {"lengths": torch.tensor([3])}),
    "lengths-scalar": (VALUE, r"^lengths must be \(B,\) = \(3,\); got \(\)$", (x,), {"lengths": torch.tensor(3)}),
    "lengths-rank": (VALUE, r"^lengths must be \(B,\) = \(3,\); got \(3, 1\)$", (x,), {"lengths": [[3], [2], [1]]}),
    "lengths-floats": (TYPE, r"^lengths must be ints; got torch\.float", (x,), {"lengths": [3.0, 2.0, 1.0]}),
    "lengths-float-tensor": (TYPE, r"^lengths must be ints; got torch\.float32$", (x,), {"lengths": torch.ones(B)}),
    "lengths-bools": (TYPE, r"^lengths must be ints; got torch\.bool$", (x,), {"lengths": [True] * B}),
    "lengths-number": (TYPE, r"^lengths must .*; got int$", (x,), {"lengths": 3}),
    "lengths-word": (TYPE, r"^lengths must be ints; got", (x,), {"lengths": "abc"}),
    "lengths-nothing": (TYPE, r"^lengths must be ints; got", (x,), {"lengths": [3, None, 1]}),
    "mask-shape": (VALUE, r"^mask must be \(T, B\) = \(5, 3\); got \(3, 5\)$", (x,), {"mask": mask.T}),
    "mask-one-sequence": (VALUE, r"^mask must be .* = \(5, 3\); got \(5, 1\)$", (x,), {"mask": mask[:, :1]}),
    "mask-one-step": (VALUE, r"^mask must be .* = \(5, 3\); got \(1, 3\)$", (x,), {"mask": mask[:1]}),
    "mask-rank": (VALUE, r"^mask must be .* = \(5, 3\); got \(5,\)$", (x,), {"mask": mask[:, 0]}),
    "mask-unbatched": (VALUE, r"^mask must be \(T,\) = \(5,\); got \(5, 1\)$", (x[:, 0],), {"mask": mask[:, :1]}),
    "mask-floats": (TYPE, r"^mask must be a bool tensor.*; got torch\.float32$", (x,), {"mask": mask.float()}),
    "mask-integers": (TYPE, r"^mask must be a bool tensor.*; got torch\.int64$", (x,), {"mask": mask.long()}),
    "mask-list": (TYPE, r"^mask must be a bool tensor.*; got list$", (x,), {"mask": mask.tolist()}),
    "mask-device": (TYPE, r"^mask must be on the device of .*, cpu; got meta$", (x,), {"mask": mask.to("meta")}),
    "pins-number": (TYPE, r"^pins must be tidegate\.Pins or several of them; got float$", (x,), {"pins": 0.0}),
    "pins-numbers": (TYPE, r"^pins must be tidegate\.Pins or several of them; got float$", (x,), {"pins": [0.0]}),
    "pins-dict": (TYPE, r"^pins must be tidegate\.Pins.*; got (str|dict)$", (x,), {"pins": {"update": 0.0}}),
    "pins-layer": (VALUE, r"^pins layer must lie in 0\.\.0; got 1$", (x,), {"pins": tg.Pins(update=0.0, layer=1)}),
    "pins-layer-before": (VALUE, r"^pins layer .* 0\.\.0; got -1$", (x,), {"pins": tg.Pins(update=0.0, layer=-1)}),
    "pins-direction": (
        VALUE,
        r"^pins direction must be .*\"reverse\"",
        (x,),
        {"pins": tg.Pins(update=0.0, direction="reverse")},
    ),
    "pins-step": (VALUE, r"^pins steps must lie in 0\.\.4; got 5$", (x,), {"pins": tg.Pins(update=0.0, steps=5)}),
    "pins-slice": (
        VALUE,
        r"^pins steps must lie in 0\.\.4; got",
        (x,),
        {"pins": tg.Pins(update=0.0, steps=slice(3, 9))},
    ),
    "pins-units": (
        VALUE,
        r"^pins update must have shape \(6,\) here; got \(1,\)$",
        (x,),
        {"pins": tg.Pins(update=torch.zeros(1))},
    ),
    "pins-later": (
        VALUE,
        r"^pins units must lie in 0\.\.5; got 6$",
        (x,),
        {"pins": [tg.Pins(update=0.0), tg.Pins(update=0.0, units=6)]},
    ),
}
CELL_CALLS: dict[str, tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = {
    "rank-0": (VALUE, r"^input must be \(B, I\) or \(I,\) with I = 4; got \(\)$", (torch.tensor(1.0),), {}),
    "rank-3": (VALUE, r"^input must be \(B, I\) or \(I,\) with I = 4; got \(5, 3, 4\)$", (x,), {}),
    "features": (VALUE, r"^input must be .* I = 4; got \(3, 3\)$", (x[0, :, :3],), {}),
    "no-sequence": (VALUE, r"^input must .*at least .*one sequence; got .*B = 0$", (x[0, :0],), {}),
    "integers": (TYPE, r"^input must be a floating tensor; got torch\.int64$", (x[0].long(),), {}),
    "dtype": (TYPE, r"^input must have the dtype of the weights.*float32; got torch\.float64$", (x[0].double(),), {}),
    "device": (TYPE, r"^input must be on the device of the weights, cpu; got meta$", (x[0].to("meta"),), {}),
    "list": (TYPE, r"^input must be a torch\.Tensor; got list$", (x[0].tolist(),), {}),
    "hx-batch": (VALUE, r"^hx.* must be \(B, H\) = \(3, 6\); got \(2, 6\)$", (x[0], h_0[0, :2]), {}),
    "hx-one-for-all": (VALUE, r"^hx.* must be .* = \(3, 6\); got \(1, 6\)$", (x[0], h_0[0, :1]), {}),
    "hx-layer": (VALUE, r"^hx.* must be .* = \(3, 6\); got \(1, 3, 6\)$", (x[0], h_0), {}),
    "hx-unbatched": (VALUE, r"^hx.* must be \(H,\) = \(6,\); got \(1, 6\)$", (x[0, 0], h_0[0, :1]), {}),
    "hx-dtype": (TYPE, r"^hx.* must have the dtype of .*float32; got torch\.float64$", (x[0], h_0[0].double()), {}),
    "hx-device": (TYPE, r"^hx.* must be on the device of .*, cpu; got meta$", (x[0], h_0[0].to("meta")), {}),
    "hx-tuple": (TYPE, r"^hx.* must be a torch\.Tensor; got tuple$", (x[0], (h_0[0],)), {}),
    "mask-shape": (VALUE, r"^mask must be .*\(3,\); got \(2,\)$", (x[0],), {"mask": mask[0, :2]}),
    "mask-one-for-all": (VALUE, r"^mask must be .*\(3,\); got \(1,\)$", (x[0],), {"mask": mask[0, :1]}),
    "mask-unbatched": (VALUE, r"^mask must be .*\(\); got \(1,\)$", (x[0, 0],), {"mask": mask[0, :1]}),
    "mask-floats": (TYPE, r"^mask must be a bool tensor.*; got torch\.float32$", (x[0],), {"mask": mask[0].float()}),
    "mask-list": (TYPE, r"^mask must be a bool tensor.*; got list$", (x[0],), {"mask": [True] * B}),
    "mask-bool": (TYPE, r"^mask must be a bool tensor.*; got bool$", (x[0, 0],), {"mask": True}),
    "pins-step": (VALUE, r"^pins steps must lie in 0\.\.0; got 1$", (x[0],), {"pins": tg.Pins(update=0.0, steps=1)}),
    "pins-layer": (VALUE, r"^pins layer must lie in 0\.\.0; got 1$", (x[0],), {"pins": tg.Pins(update=0.0, layer=1)}),
    "pins-number": (TYPE, r"^pins must be tidegate\.Pins or several of them; got float$", (x[0],), {"pins": 0.0}),
}
#: Other things wrong with one kind of layer only.
OTHER_CALLS = {
    "batch-first-features": (
        VALUE,
        r"^input must be \(B, T, I\) .* I = 4; got \(5, 3, 3\)$",
        lambda: tg.GRU(I, H, batch_first=True)(x[..., :3]),
    ),
    "batch-first-mask": (
        VALUE,
        r"^mask must be \(B, T\) = \(5, 3\); got \(3, 5\)$",
        lambda: tg.GRU(I, H, batch_first=True)(x, mask=mask.T),
    ),
    "batch-first-no-sequence": (VALUE, r"; got T = 3, B = 0$", lambda: tg.GRU(I, H, batch_first=True)(x[:0])),
    "two-way-hx": (VALUE, r"= \(4, 3, 6\); got \(1, 3, 6\)$", lambda: tg.GRU(I, H, 2, bidirectional=True)(x, h_0)),
    "pins-deep-layer": (
        VALUE,
        r"^pins layer must lie in 0\.\.1; got 2$",
        lambda: tg.GRU(I, H, 2)(x, pins=tg.Pins(update=0.0, layer=2)),
    ),
    "pins-layer-word": (
        TYPE,
        r"^pins layer must .*; got",
        lambda: tg.GRU(I, H)(x, pins=tg.Pins(update=0.0, layer="0")),
    ),
    "pins-reset-of-dense": (
        VALUE,
        r"^pins reset must be None for a dense layer",
        lambda: tg.Dense(I, H)(x, pins=tg.Pins(reset=0.0)),
    ),
    "packed-with-lengths": (
        VALUE,
        r"^lengths must be None with a PackedSequence",
        lambda: tg.GRU(I, H)(pack_padded_sequence(x, [5, 3, 2]), lengths=[5, 3, 2]),
    ),
    "packed-features": (
        VALUE,
        r"^input must hold steps of I = 4; got packed \(10, 3\)$",
        lambda: tg.GRU(I, H)(pack_padded_sequence(x[..., :3], [5, 3, 2])),
    ),
    "packed-dtype": (
        TYPE,
        r"^input must have the dtype of the weights",
        lambda: tg.RNN(I, H)(pack_padded_sequence(x.double(), [5, 3, 2])),
    ),
    "packed-integers": (
        TYPE,
        r"^input must be a floating tensor; got torch\.int64$",
        lambda: tg.RNN(I, H)(pack_padded_sequence(x.long(), [5, 3, 2])),
    ),
    "packed-hx": (
        VALUE,
        r"^hx \(h_0\) must be .* = \(1, 3, 6\); got \(1, 2, 6\)$",
        lambda: tg.GRU(I, H)(pack_padded_sequence(x, [5, 3, 2]), h_0[:, :2]),
    ),
    "packed-mask": (
        VALUE,
        r"^mask must be \(T, B\) = \(5, 3\); got \(3, 5\)$",
        lambda: tg.GRU(I, H)(pack_padded_sequence(x, [5, 3, 2]), mask=mask.T),
    ),
    "cell-packed": (
        TYPE,
        r"^input must be a torch\.Tensor; got PackedSequence$",
        lambda: tg.GRUCell(I, H)(pack_padded_sequence(x, [5, 3, 2])),
    ),
    "learned-state-hx": (VALUE, r"= \(1, 3, 6\); got \(1, 6\)$", lambda: tg.GRU(I, H, learn_h_0=True)(x, h_0[:, 0])),
}
CONSTRUCTORS = {
    "gru-hidden-0": (ValueError, r"^hidden_size must be .*0", lambda: tg.GRU(I, 0)),
    "gru-hidden-negative": (ValueError, r"^hidden_size must", lambda: tg.GRU(I, -1)),
    "gru-input-0": (ValueError, r"^input_size must", lambda: tg.GRU(0, H)),
    "gru-no-layers": (ValueError, r"^num_layers must", lambda: tg.GRU(I, H, 0)),
    "gru-dropout": (ValueError, r"^dropout (must|should)", lambda: tg.GRU(I, H, 2, dropout=1.5)),
    "rnn-hidden-0": (ValueError, r"^hidden_size must", lambda: tg.RNN(I, 0)),
    "gru-cell-hidden-0": (ValueError, r"hidden_size must .*; got .*0", lambda: tg.GRUCell(I, 0)),
    "rnn-cell-hidden-0": (ValueError, r"hidden_size must .*; got .*0", lambda: tg.RNNCell(I, 0)),
    "cell-input-0": (ValueError, r"input_size .*must .*; got .*0", lambda: tg.GRUCell(0, H)),
    "dense-hidden-0": (VALUE, r"^hidden_size must be at least 1; got 0$", lambda: tg.Dense(I, 0)),
    "dense-input-0": (VALUE, r"^input_size must be at least 1; got 0$", lambda: tg.Dense(0, H)),
    "hidden-word": (TypeError, r"^hidden_size must be an int; got str$", lambda: tg.GRU(I, "6")),
    "reset": (
        VALUE,
        r"^reset must be \"after\", \"before\" or None; got 'never'$",
        lambda: tg.GRU(I, H, reset="never"),
    ),
    "reset-false": (VALUE, r"^reset must be .*; got False$", lambda: tg.GRU(I, H, reset=False)),
    "cell-reset": (VALUE, r"^reset must be .*; got 'never'$", lambda: tg.GRUCell(I, H, reset="never")),
    "reset-list": (
        (ValueError, TypeError),
        r"^reset must be .*; got \['after'\]$",
        lambda: tg.GRU(I, H, reset=["after"]),
    ),
    "activation": (
        VALUE,
        r"^activation must be one of \"tanh\", .*; got 'swish'$",
        lambda: tg.GRU(I, H, activation="swish"),
    ),
    "activation-number": (
        TYPE,
        r"^activation must be a name or a function; got int$",
        lambda: tg.GRU(I, H, activation=3),
    ),
    "rnn-activation": (VALUE, r"^activation must be one of .*; got 'swish'$", lambda: tg.RNN(I, H, activation="swish")),
    "rnn-nonlinearity": (ValueError, r"^(Unknown )?nonlinearity.*swish", lambda: tg.RNN(I, H, nonlinearity="swish")),
    "rnn-cell-nonlinearity": (
        ValueError,
        r"^(Unknown )?nonlinearity.*swish",
        lambda: tg.RNNCell(I, H, nonlinearity="swish"),
    ),
    "rnn-cell-other-nonlinearity": (
        ValueError,
        r"^(Unknown )?nonlinearity.*sigmoid",
        lambda: tg.RNNCell(I, H, nonlinearity="sigmoid"),
    ),
    "cell-activation": (
        VALUE,
        r"^activation must be one of .*; got 'swish'$",
        lambda: tg.GRUCell(I, H, activation="swish"),
    ),
    "dense-activation": (
        VALUE,
        r"^activation must be one of .*; got 'swish'$",
        lambda: tg.Dense(I, H, activation="swish"),
    ),
    "backend": (
        BackendError,
        r"^backend must be one of \"auto\", .*; got 'abacus'$",
        lambda: tg.GRU(I, H, backend="abacus"),
    ),
    "backend-none": (BackendError, r"^backend must be one of .*; got None$", lambda: tg.RNN(I, H, backend=None)),
    "cell-backend": (
        BackendError,
        r"^backend must be one of .*; got 'abacus'$",
        lambda: tg.RNNCell(I, H, backend="abacus"),
    ),
    "dense-backend": (
        BackendError,
        r"^backend must be one of .*; got 'abacus'$",
        lambda: tg.Dense(I, H, backend="abacus"),
    ),
}


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("case", LAYER_CALLS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_refuses(kind, case):
    error, sentence, given, named = LAYER_CALLS[case]
    assert_refused(lambda: LAYERS[kind]()(*given, **named), error, sentence)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("case", CELL_CALLS)
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_refuses(kind, case):
    error, sentence, given, named = CELL_CALLS[case]
    assert_refused(lambda: CELLS[kind]()(*given, **named), error, sentence)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(("error", "sentence", "call"), OTHER_CALLS.values(), ids=OTHER_CALLS.keys())
def test_a_layer_also_refuses(error, sentence, call):
    assert_refused(call, error, sentence)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(("error", "sentence", "call"), CONSTRUCTORS.values(), ids=CONSTRUCTORS.keys())
def test_a_constructor_refuses(error, sentence, call):
    assert_refused(call, error, sentence)


WRONG_IN_THE_ANNOTATIONS_TOO = {
    "list",
    "array",
    "none",
    "hx-tuple",
    "hx-number",
    "lengths-floats",
    "lengths-number",
    "lengths-word",
    "lengths-nothing",
    "lengths-rank",
    "mask-list",
    "pins-number",
    "pins-numbers",
    "pins-dict",
}


@pytest.mark.parametrize("case", [case for case in LAYER_CALLS if case not in WRONG_IN_THE_ANNOTATIONS_TOO])
@pytest.mark.parametrize("kind", LAYERS)
def test_our_own_sentence_comes_before_the_check_of_shapes_inside(kind, case):
    error, sentence, given, named = LAYER_CALLS[case]
    assert_refused(lambda: LAYERS[kind]()(*given, **named), error, sentence)


@pytest.mark.parametrize("kind", LAYERS)
def test_what_the_tables_spoil_is_accepted_unspoilt(kind):
    y, h_n = LAYERS[kind]()(x, h_0, lengths=[3, 0, 5], mask=mask, pins=[tg.Pins(update=0.0, steps=4, layer=0)])
    assert y.shape == (T, B, H)
    assert h_n.shape == (1, B, H)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_refused_call_leaves_the_layer_usable(kind):
    module = LAYERS[kind]()
    expected = module(x)[0]
    with pytest.raises(InputValueError):
        module(x[..., :2])
    assert module(x)[0].equal(expected)
