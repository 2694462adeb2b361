"""A recurrent layer inside a model is found by name, run once, and left exactly as it was."""
# mypy: allow-untyped-calls

import threading

import pytest
import torch
from torch import nn

import tidegate as tg
from tests.layer_helpers import draw_, torch_gates
from tidegate.errors import InputTypeError, InputValueError
from tidegate.gates import recurrent_layers

T, B, I, H = 5, 3, 4, 6


class Reader(nn.Module):
    """A model as people write them: something before, a recurrent layer, something after its last state."""

    def __init__(self, recurrent):
        super().__init__()
        self.before = nn.Linear(2, I)
        self.recurrent = recurrent
        self.after = nn.Linear(H, 2)

    def forward(self, x):
        _, h_n = self.recurrent(self.before(x))
        return self.after(h_n[-1])


class Two(nn.Module):
    """Two recurrent layers."""

    def __init__(self):
        super().__init__()
        self.low = nn.GRU(2, I)
        self.high = tg.RNN(I, H)

    def forward(self, x):
        return self.high(self.low(x)[0])[0]


class Repeats(Reader):
    """A model that runs its layer as often as it is told."""

    times = 2

    def forward(self, x):
        outputs = [self.recurrent(self.before(x))[1][-1] for _ in range(self.times)]
        return self.after(sum(outputs, torch.zeros(x.shape[1], H)))


class Scaled(nn.GRU):
    """A GRU whose own forward does more than torch.nn's."""

    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


class ScaledTide(tg.GRU):
    """The same of Tidegate's."""

    def forward(self, input, hx=None, **given):
        return super().forward(2 * input, hx, **given)


def without_step_1(model, x, **named):
    return tg.counterfactual(model, x, 1, **named)


LAYERS = {
    "torch-gru": lambda: nn.GRU(I, H, 2),
    "torch-rnn": lambda: nn.RNN(I, H, nonlinearity="relu"),
    "tidegate-gru": lambda: tg.GRU(I, H, reset=None),
    "tidegate-rnn": lambda: tg.RNN(I, H),
    "dense": lambda: tg.Dense(I, H),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_trace_of_a_model_is_the_trace_of_its_layer_on_what_it_was_fed(kind):
    model, x = Reader(LAYERS[kind]()), torch.randn(T, B, 2)
    found, expected = tg.trace(model, x), tg.trace(model.recurrent, model.before(x))
    for name in ("update", "reset", "candidate", "hidden", "h_n"):
        assert getattr(found, name).equal(getattr(expected, name))
    assert len(found.layers) == len(expected.layers)


def test_trace_of_a_torch_model_is_one_minus_z_by_hand():
    model, x = draw_(Reader(nn.GRU(I, H))).double(), torch.randn(T, B, 2, dtype=torch.float64)
    expected = torch_gates(model.recurrent, model.before(x))[0][0][0]
    torch.testing.assert_close(tg.trace(model, x).update, expected, atol=1e-13, rtol=0)


def test_steering_reaches_the_layer_inside():
    model, x = Reader(nn.GRU(I, H)), torch.randn(T, B, 2)
    assert tg.trace(model, x, pins=tg.Pins(update=0.25)).update.eq(0.25).all()
    assert tg.trace(model, x, lengths=[2, 5, 1]).update[1:, 2].eq(0).all()
    assert tg.trace(model, x, mask=torch.zeros(T, B, dtype=torch.bool)).h_n.eq(0).all()


def test_gradients_of_a_trace_reach_the_model_around_the_layer():
    model, x = Reader(nn.GRU(I, H)), torch.randn(T, B, 2)
    tg.trace(model, x).update.sum().backward()
    assert model.before.weight.grad is not None
    assert model.before.weight.grad.ne(0).any()


def test_one_of_several_layers_is_named():
    model, x = Two(), torch.randn(T, B, 2)
    assert tg.trace(model, x, layer="low").update.shape == (T, B, I)
    assert tg.trace(model, x, layer="high").update.eq(1).all()
    nested = nn.ModuleDict({"part": model})
    assert list(recurrent_layers(nested)) == ["part.low", "part.high"]


@pytest.mark.parametrize(
    ("model", "layer", "error", "sentence"),
    [
        (Two(), None, InputValueError, r"^layer must name one of .*: low, high; got None$"),
        (Two(), "middle", InputValueError, r"^layer must be one of low, high; got 'middle'$"),
        (nn.GRU(2, H), "low", InputValueError, r"^layer must be None, .*; got 'low'$"),
        (nn.Linear(2, 3), None, InputTypeError, r"^the model must contain a GRU or RNN layer; Linear has none$"),
        (nn.LSTM(2, H), None, InputTypeError, r"LSTM has none$"),
        (Repeats(nn.GRU(I, H)), None, InputValueError, r"^layer 'recurrent' must run once .*; it ran 2 times$"),
        (Scaled(2, H), None, InputTypeError, r"^the layer cannot be looked into: Scaled has a forward of its own"),
        (ScaledTide(2, H), None, InputTypeError, r"^the layer cannot .*: ScaledTide has a forward of its own"),
        (Reader(Scaled(I, H)), None, InputTypeError, r"^layer 'recurrent' cannot .*: Scaled has a forward of its own"),
        (Reader(ScaledTide(I, H)), None, InputTypeError, r"^layer 'recurrent' cannot .*: ScaledTide has a forward"),
    ],
    ids=[
        "several", "unknown-name", "name-for-a-bare-layer", "none", "lstm", "twice",
        "own-forward", "own-forward-of-tidegates", "own-forward-inside", "own-forward-of-tidegates-inside",
    ],
)  # fmt: skip
@pytest.mark.parametrize("look", [tg.trace, tg.gradient_flow, without_step_1])
def test_a_model_that_cannot_be_looked_into_is_refused_with_the_reason(look, model, layer, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        look(model, torch.randn(T, B, 2), layer=layer)
    assert "\n" not in str(caught.value)
    assert all("forward" not in vars(module) for module in model.modules())


def test_a_layer_that_never_runs_is_refused():
    model = Repeats(nn.GRU(I, H))
    model.times = 0
    with pytest.raises(InputValueError, match=r"it ran 0 times$"):
        tg.trace(model, torch.randn(T, B, 2))


def test_an_initial_state_for_a_model_is_refused():
    with pytest.raises(InputValueError, match=r"^hx must be None for a model"):
        tg.trace(Reader(nn.GRU(I, H)), torch.randn(T, B, 2), torch.zeros(1, B, H))


def test_steering_that_the_model_gives_itself_is_refused():
    class Masks(Reader):
        """A model that masks by itself."""

        def forward(self, x):
            return self.recurrent(self.before(x), mask=x[..., 0] > 0)[0]

    model, x = Masks(tg.GRU(I, H)), torch.randn(T, B, 2)
    assert tg.trace(model, x).layers[0].mask is not None
    with pytest.raises(InputValueError, match=r"^mask must be None here: .*'recurrent'$"):
        tg.trace(model, x, mask=torch.ones(T, B, dtype=torch.bool))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_model_is_left_as_it_was(kind):
    model, x = Reader(LAYERS[kind]()), torch.randn(T, B, 2)
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    expected = model(x)
    tg.trace(model, x, pins=tg.Pins(update=0.0))
    tg.gradient_flow(model, x)
    tg.counterfactual(model, x, 2)
    assert {name: vars(module).keys() for name, module in model.named_modules()} == {
        name: values.keys() for name, values in before.items()
    }
    assert all(module.training for module in model.modules())
    assert all(model.state_dict()[name].equal(weight) for name, weight in weights.items())
    assert model(x).equal(expected)


@pytest.mark.parametrize("where", ["before", "recurrent", "after"])
def test_a_model_is_left_as_it_was_when_something_inside_raises(where):
    model = Reader(nn.GRU(I, H)).train()

    def explode(*_):
        raise RuntimeError("boom")

    handle = getattr(model, where).register_forward_hook(explode)
    for look in (tg.trace, tg.gradient_flow, without_step_1):
        with pytest.raises(RuntimeError, match="boom"):
            look(model, torch.randn(T, B, 2))
        assert "forward" not in vars(model.recurrent)
        assert all(module.training for module in model.modules())
    handle.remove()
    assert type(model.recurrent).forward is nn.GRU.forward


def test_a_forward_that_someone_else_put_on_the_layer_is_still_there_afterwards():
    model, x = Reader(nn.GRU(I, H)), torch.randn(T, B, 2)
    original = model.recurrent.forward

    def watched(*given, **named):
        return original(*given, **named)

    model.recurrent.forward = watched
    with pytest.raises(InputTypeError, match="'recurrent' cannot be looked into: its forward has been replaced"):
        tg.trace(model, x)
    assert vars(model.recurrent).get("forward") is watched


def test_hooks_on_the_layer_still_run():
    model, seen = Reader(nn.GRU(I, H)), []
    model.recurrent.register_forward_hook(lambda module, given, output: seen.append(output[0].shape))
    tg.trace(model, torch.randn(T, B, 2))
    assert seen == [(T, B, H)]


@pytest.mark.parametrize("look", [tg.trace, tg.gradient_flow, without_step_1])
@pytest.mark.parametrize("layer", [nn.GRU(I, H), tg.GRU(I, H)], ids=["torch", "tidegate"])
def test_hooks_on_a_bare_layer_still_run(look, layer):
    seen = []
    with layer.register_forward_pre_hook(lambda module, given: seen.append(len(given))):
        look(layer, torch.randn(T, B, I))
    assert seen
    assert set(seen) == {1}


def test_a_pre_hook_changes_what_a_bare_layer_is_seen_to_take():
    layer, x = tg.GRU(I, H), torch.randn(T, B, I)
    expected = tg.trace(layer, 2 * x).update
    layer.register_forward_pre_hook(lambda module, given: (2 * given[0], *given[1:]))
    assert tg.trace(layer, x).update.equal(expected)


def test_a_layer_that_a_model_holds_under_two_names_is_one_layer():
    model = Reader(tg.GRU(I, H))
    model.alias = model.recurrent
    x = torch.randn(T, B, 2)
    found = [tg.trace(model, x, layer=name).update for name in (None, "recurrent", "alias")]
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])


def test_a_subclass_with_its_own_forward_runs_as_a_subclass_of_torchs_would():
    x = torch.randn(T, B, 2)
    ours, theirs = ScaledTide(2, H), Scaled(2, H)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], atol=1e-6, rtol=0)


def test_threads_may_look_and_run_at_once_and_leave_the_model_as_it_was():
    model = Reader(tg.GRU(I, H)).train()
    xs = [torch.randn(T, B, 2) for _ in range(4)]
    expected = [(model(x).detach(), tg.trace(model, x).update.detach()) for x in xs]
    wrong: list[object] = []

    def work(number: int) -> None:
        x, (output, update) = xs[number], expected[number]
        for _ in range(20):
            if not tg.trace(model, x).update.equal(update):
                wrong.append(("trace", number))
            if not model(x).equal(output):
                wrong.append(("run", number))
            if not tg.counterfactual(model, x, 1).output.equal(output):
                wrong.append(("counterfactual", number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert "forward" not in vars(model.recurrent)
    assert all(module.training for module in model.modules())
