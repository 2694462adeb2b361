"""Stream: one step at a time is the whole sequence, for every layer, kind of signal and backend."""

import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tidegate as tg
from tidegate.errors import InputTypeError, InputValueError

LAYERS = {
    "gru": lambda **o: tg.GRU(13, 100, **o),
    "gru of two layers, reset before": lambda **o: tg.GRU(13, 20, 2, reset="before", **o),
    "update-only": lambda **o: tg.GRU(13, 7, reset=None, **o),
    "rnn of three layers": lambda **o: tg.RNN(13, 33, 3, nonlinearity="relu", **o),
    "wide": lambda **o: tg.GRU(13, 512, **o),
}


def sequence(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y: torch.Tensor = layer.eval()(x)[0]
    return y


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("shape", [(9, 13), (9, 1, 13), (9, 5, 13)], ids=str)
def test_step_by_step_is_the_whole_sequence_to_the_bit(kind, shape):
    layer, x = LAYERS[kind](backend="cpu"), torch.randn(shape)
    expected = sequence(layer, x)
    stream = tg.Stream(layer)
    assert torch.equal(torch.stack([stream(x_t) for x_t in x]), expected)
    stream = tg.Stream(layer)
    assert np.array_equal(np.stack([stream(x_t) for x_t in x.numpy()]), expected.numpy())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_a_wide_layer_is_shared_out_and_the_same(threads, reset):
    layer, x = tg.GRU(100, 460, reset=reset, backend="cpu"), torch.randn(20, 100)
    expected = sequence(layer, x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        stream = tg.Stream(layer)
        assert torch.equal(torch.stack([stream(x_t) for x_t in x]), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dtypes_and_the_reference_backend(dtype):
    every: list[dict[str, Any]] = [{"backend": "reference"}, {"activation": lambda values: torch.tanh(values) / 2}, {}]
    for options in every:
        layer, x = tg.GRU(3, 5, 2, dtype=dtype, **options), torch.randn(6, 4, 3, dtype=dtype)
        stream = tg.Stream(layer)
        y = torch.stack([stream(x_t) for x_t in x])
        torch.testing.assert_close(y, sequence(layer, x), rtol=0, atol=1e-6)
        assert y.dtype == dtype


def test_torchs_own_layers_and_cells():
    x = torch.randn(7, 2, 3)
    for layer in (nn.GRU(3, 5, 2, dropout=0.5), nn.RNN(3, 5)):
        stream = tg.Stream(layer)
        torch.testing.assert_close(torch.stack([stream(x_t) for x_t in x]), sequence(layer, x), rtol=0, atol=1e-6)
    cell = nn.GRUCell(3, 5)
    stream, h = tg.Stream(cell), torch.zeros(2, 5)
    for x_t in x:
        h = cell(x_t, h)
        torch.testing.assert_close(stream(x_t), h.detach(), rtol=0, atol=1e-6)


def test_a_learned_initial_state_is_where_it_begins():
    layer = tg.GRU(3, 5, 2, learn_h_0=True)
    assert isinstance(layer.h_0, nn.Parameter)
    nn.init.normal_(layer.h_0)
    x = torch.randn(4, 3)
    stream = tg.Stream(layer)
    assert tg.Stream(layer).state is None
    y = torch.stack([stream(x_t) for x_t in x])
    torch.testing.assert_close(y, sequence(layer, x), rtol=0, atol=1e-6)
    assert stream.state is not None
    assert torch.equal(stream.state[-1], y[-1])
    assert stream.state.shape == (2, 5)


def test_what_was_returned_stays_what_it_was():
    stream, x = tg.Stream(tg.GRU(3, 5)), np.ones(3, np.float32)
    first = stream(x)
    kept = first.copy()
    assert not np.array_equal(stream(x), kept)
    assert np.array_equal(first, kept)
    assert first.flags.writeable
    one = stream(torch.ones(3))
    same = one.clone()
    stream(torch.ones(3))
    assert torch.equal(one, same)
    assert not one.requires_grad


def test_with_out_nothing_is_allocated():
    stream, x, out = tg.Stream(tg.GRU(30, 50)), np.ones(30, np.float32), np.empty(50, np.float32)
    assert stream(x, out) is out
    for _ in range(100):
        stream(x, out)
    tracemalloc.start()
    try:
        stream(x, out)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(1000):
            stream(x, out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1000, "not a byte a step"
    assert peak - before < 3000, "Python's frames, and no array"
    given = torch.empty(50)
    assert stream(torch.ones(30), given) is given


def test_weights_are_those_of_the_first_step_until_it_is_reset():
    layer, x = tg.GRU(3, 5), torch.randn(3)
    stream, other, same = tg.Stream(layer), tg.Stream(layer), tg.Stream(layer)
    first, _ = stream(x), same(x)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(2)
    assert not torch.equal(other(x), first)
    assert torch.equal(same(x), stream(x))
    stream.reset()
    assert torch.equal(stream(x), sequence(layer, x.unsqueeze(0))[0])
    stream.reset()
    assert stream(torch.randn(4, 3)).shape == (4, 5)


def test_a_reset_takes_the_layers_dtype_anew():
    layer = tg.GRU(3, 5)
    stream = tg.Stream(layer)
    stream(np.ones(3, np.float32))
    layer.double()
    stream.reset()
    y = stream(np.ones(3))
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, sequence(layer, torch.ones(1, 3, dtype=torch.float64))[0].numpy(), atol=1e-12)


def test_a_dtype_that_numpy_lacks_streams_as_torch(as_users_run_it):
    layer = tg.GRU(3, 5, dtype=torch.bfloat16)
    stream, x = tg.Stream(layer), torch.randn(4, 3, dtype=torch.bfloat16)
    y = torch.stack([stream(x_t) for x_t in x])
    torch.testing.assert_close(y, sequence(layer, x), rtol=0, atol=1e-2)
    with pytest.raises(InputTypeError, match=r"x must be a torch tensor, torch\.bfloat16 on cpu; got a NumPy"):
        stream(np.ones(3, np.float32))


@pytest.mark.parametrize("view", ["every second", "from the end", "a column", "read-only"])
def test_any_layout_of_a_step(view):
    layer, x = tg.GRU(3, 5, backend="cpu"), np.random.default_rng(0).standard_normal((4, 2, 3), dtype=np.float32)
    wide = np.repeat(x, 2, axis=2)
    turned = {
        "every second": wide[..., ::2], "from the end": x[..., ::-1].copy()[..., ::-1],
        "a column": np.asfortranarray(x), "read-only": np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
    }[view]  # fmt: skip
    stream, expected = tg.Stream(layer), sequence(layer, torch.from_numpy(x)).numpy()
    assert np.array_equal(np.stack([stream(x_t) for x_t in turned]), expected)


def test_a_stream_begun_without_gradients_altogether_goes_on_outside():
    stream = tg.Stream(tg.GRU(3, 5))
    with torch.inference_mode():
        stream(torch.ones(3))
    stream(torch.ones(3))
    stream(np.ones(3, np.float32))
    assert stream.state is not None


class Louder(tg.GRU):
    def forward(self, *arguments, **options):
        y, h_n = super().forward(*arguments, **options)
        return y * 100, h_n


def test_a_layer_with_a_forward_of_its_own_is_one_sentence(as_users_run_it):
    with pytest.raises(
        InputTypeError, match="layer must be one whose steps are known: Louder has a forward of its own"
    ):
        tg.Stream(Louder(3, 5))


def test_a_refused_step_leaves_the_stream_as_it_was(as_users_run_it):
    stream = tg.Stream(tg.GRU(3, 5))
    read_only = np.empty((2, 5), np.float32)
    read_only.flags.writeable = False
    for out in (np.empty(5, np.float32), read_only):
        with pytest.raises(InputTypeError, match="out must be a NumPy array"):
            stream(np.ones((2, 3), np.float32), out)
    y = stream(np.ones(3, np.float32))  # not bound to two signals
    assert np.array_equal(y, tg.Stream(stream._layer)(np.ones(3, np.float32)))
    with pytest.raises(InputValueError, match=r"x must be \(I,\) or \(B, I\) with I = 3; got \(\)"):
        stream(np.array(1, np.float32))
    stream.reset()
    with pytest.raises(InputValueError, match=r"x must be \(I,\) or \(B, I\) with I = 3; got \(\)"):
        stream(np.array(1, np.float32))


def test_threads_that_share_a_stream_take_turns():
    layer = tg.GRU(3, 16)
    stream, x = tg.Stream(layer), np.ones(3, np.float32)
    stream(x)

    def call() -> None:
        for _ in range(200):
            stream(x)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = tg.Stream(layer)
    for _ in range(801):
        y = expected(x)
    assert stream.state is not None
    assert np.array_equal(stream.state[-1].numpy(), y)


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        ([1.0, 2.0, 3.0], InputTypeError, "x must be a NumPy array or a torch tensor; got list"),
        (np.ones(3), InputTypeError, "x must have the dtype of the layer, float32; got float64"),
        (torch.ones(3).double(), InputTypeError, "x must be torch.float32 on cpu like the layer; got torch.float64 on"),
        (np.ones(4, np.float32), InputValueError, r"x must be \(I,\) or \(B, I\) with I = 3; got \(4,\)"),
        (np.ones((1, 1, 3), np.float32), InputValueError, r"x must be \(I,\) or \(B, I\) with I = 3"),
        (np.ones((0, 3), np.float32), InputValueError, r"x must be \(I,\) or \(B, I\) with I = 3"),
    ],
)
def test_a_signal_that_does_not_fit_is_one_sentence(as_users_run_it, x, error, sentence):
    stream = tg.Stream(tg.GRU(3, 5))
    with pytest.raises(error, match=sentence):
        stream(x)
    good = stream(np.ones(3, np.float32))
    with pytest.raises(error, match=sentence):
        stream(x)
    assert good.shape == (5,)


def test_another_number_of_signals_or_an_out_that_does_not_fit_is_one_sentence(as_users_run_it):
    stream = tg.Stream(tg.GRU(3, 5))
    stream(np.ones((2, 3), np.float32))
    with pytest.raises(InputValueError, match=r"x must be what it was in the first step, = \(2, 3\); got \(3, 3\)"):
        stream(np.ones((3, 3), np.float32))
    for out in (np.empty(5, np.float32), np.empty((2, 5)), torch.empty(2, 5), "out"):
        with pytest.raises(
            InputTypeError, match=r"out must be a NumPy array \(2, 5\) of float32 like x, to write to; got "
        ):
            stream(np.ones((2, 3), np.float32), out)  # type: ignore[type-var]


def test_a_layer_that_runs_backwards_or_is_none_is_one_sentence(as_users_run_it):
    with pytest.raises(InputValueError, match="layer must run one way"):
        tg.Stream(tg.GRU(3, 5, bidirectional=True))
    with pytest.raises(InputTypeError, match="the layer must be a GRU, an RNN or one of their cells; got Linear"):
        tg.Stream(nn.Linear(3, 5))
