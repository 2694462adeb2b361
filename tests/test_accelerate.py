"""accelerate and restore: what changes is the class of a layer, and nothing that anybody holds of it."""
# mypy: allow-untyped-calls

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pack_padded_sequence

import tidegate as tg
from tests.layer_helpers import assert_same, everything
from tests.refusals import assert_refused
from tidegate.errors import BackendError, InputTypeError

T, B, I, H = 5, 4, 3, 6
x = torch.randn(T, B, I, generator=torch.Generator().manual_seed(0))
KINDS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "GRU": (nn.GRU, tg.GRU),
    "RNN": (nn.RNN, tg.RNN),
    "GRUCell": (nn.GRUCell, tg.GRUCell),
    "RNNCell": (nn.RNNCell, tg.RNNCell),
}


class OwnInit(nn.GRU):
    """A subclass that computes what its parent does."""

    def __init__(self, width: int) -> None:
        super().__init__(I, width)

    def width(self) -> int:
        """Its own."""
        return self.hidden_size


class OwnCell(nn.RNNCell):
    """Nothing of its own."""


class OwnForward(nn.GRU):
    """A subclass that computes something else."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(2 * input, hx)


class OwnCheck(nn.GRU):
    def check_forward_args(self, *arguments: Any) -> None:
        pass


class Half(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


class Tagger(nn.Module):
    """The small real model: embedding, two layers both ways, head."""

    def __init__(self, words: int = 50, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 16)
        self.recurrent = nn.GRU(16, 24, num_layers=2, bidirectional=True, batch_first=True, dropout=dropout)
        self.head = nn.Linear(48, 5)

    def forward(self, words: Tensor) -> Tensor:
        result: Tensor = self.head(self.recurrent(self.embedding(words))[0])
        return result


def arguments_of(module: nn.Module) -> tuple[Tensor, ...]:
    return (x[0],) if isinstance(module, nn.RNNCellBase) else (x,)


def told(module: nn.Module) -> dict[str, Any]:
    """Everything that Python holds of a module, by identity."""
    registers = ("_parameters", "_buffers", "_modules")
    return {**vars(module), **{name: dict(vars(module)[name]) for name in registers}}


# ---------------------------------------------------------------------------------------------------------------------
# Results


@given(
    kind=st.sampled_from(["GRU", "RNN-tanh", "RNN-relu"]),
    depth=st.integers(1, 3),
    bias=st.booleans(),
    bidirectional=st.booleans(),
    form=st.sampled_from(["time-major", "batch-first", "unbatched", "packed"]),
    training=st.booleans(),
    dropout=st.sampled_from([0.0, 0.4]),
    empty=st.booleans(),
)
def test_a_layer_computes_what_it_did(kind, depth, bias, bidirectional, form, training, dropout, empty):
    options: dict[str, Any] = {"nonlinearity": kind[4:]} if kind != "GRU" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dropout has nothing to do in one layer
        layer = KINDS[kind[:3]][0](
            I, H, depth, bias=bias, bidirectional=bidirectional, batch_first=form == "batch-first", dropout=dropout,
            dtype=torch.float64, **options,
        ).train(training)  # fmt: skip
    data = x.double()[:, :0] if empty and form != "packed" and form != "unbatched" else x.double()
    if form == "unbatched":
        data = data[:, 0]
    data = data.transpose(0, 1) if form == "batch-first" else data
    pack = (lambda one: pack_padded_sequence(one, [2, 5, 1, 4], enforce_sorted=False)) if form == "packed" else None

    def run() -> dict[str, Any]:
        torch.manual_seed(3)
        return everything(layer, data, None, pack)

    expected = run()
    tg.accelerate(layer)
    assert_same(run(), expected, 1e-12)
    tg.restore(layer)
    assert_same(run(), expected, 1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"nonlinearity": "relu"}, {"bias": False}], ids=str)
@pytest.mark.parametrize("kind", ["GRUCell", "RNNCell"])
def test_a_cell_computes_what_it_did(kind, options, dtype):
    if kind == "GRUCell":
        options = {name: value for name, value in options.items() if name == "bias"}
    cell = KINDS[kind][0](I, H, dtype=dtype, **options)
    expected = everything(cell, x[0].to(dtype))
    tg.accelerate(cell)
    assert isinstance(cell, KINDS[kind][1])
    assert_same(everything(cell, x[0].to(dtype)), expected, 1e-6 if dtype == torch.float32 else 1e-12)
    assert cell(x[0, :0].to(dtype)).shape == (0, H)


def losses(model: Tagger, steps: int, optimizer: torch.optim.Optimizer | None = None) -> list[float]:
    """Train the model to tell of each word which class the word before it was of."""
    draw = torch.Generator().manual_seed(1)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=3e-3)
    found = []
    for _ in range(steps):
        words = torch.randint(0, 50, (8, 12), generator=draw)
        target = words.roll(1, 1) % 5
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(words).flatten(0, 1), target.flatten())
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_small_real_model_trains_along_the_same_curve(dropout):
    curves = []
    for accelerated in (False, True):
        torch.manual_seed(7)
        model = Tagger(dropout=dropout)
        if accelerated:
            assert [layer.backend for layer in tg.accelerate(model).changed] == ["cpu"]
        curves.append(losses(model, 200))
    theirs, ours = curves
    assert theirs[-1] < 0.8 * theirs[0], "it learns"
    assert max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) < 1e-4
    assert ours != theirs, "they were computed by different code"


def test_the_optimizer_goes_on_where_it_was():
    torch.manual_seed(7)
    plain, changing = Tagger(), Tagger()
    changing.load_state_dict(plain.state_dict())
    optimizers = [torch.optim.Adam(model.parameters(), lr=3e-3) for model in (plain, changing)]
    for change in (lambda model: None, tg.accelerate, tg.restore):
        change(changing)
        expected, found = (
            losses(model, 10, optimizer) for model, optimizer in zip((plain, changing), optimizers, strict=True)
        )
        assert found == pytest.approx(expected, abs=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# What stays


@pytest.mark.parametrize("kind", KINDS)
def test_the_object_keeps_all_that_it_held_and_gives_it_back(kind):
    theirs, ours = KINDS[kind]
    model = nn.ModuleDict({"layer": theirs(I, H), "head": nn.Linear(H, 1)})
    layer, before = model["layer"], told(model["layer"])
    state, keys, drawn = {name: one.clone() for name, one in model.state_dict().items()}, list(model.state_dict()), None
    drawn = torch.get_rng_state()
    assert [one.name for one in tg.accelerate(model).changed] == ["layer"]
    assert torch.equal(torch.get_rng_state(), drawn), "nothing was drawn"
    assert model["layer"] is layer
    assert type(layer) is ours
    assert isinstance(layer, theirs)
    assert list(model.state_dict()) == keys
    assert all(model.state_dict()[name].equal(one) for name, one in state.items())
    kept = told(layer)
    for name, value in before.items():
        if isinstance(value, dict):
            assert value.items() <= kept[name].items()
        else:
            assert kept[name] is value
    tg.restore(model)
    assert type(layer) is theirs
    after = told(layer)
    assert after.keys() == before.keys()
    assert all(
        after[name] == value if isinstance(value, dict) else after[name] is value for name, value in before.items()
    )


def test_a_bare_layer_is_its_own_model():
    layer = nn.GRU(I, H)
    (only,) = tg.accelerate(layer).changed
    assert (only.name, only.kind, only.backend) == ("", "GRU", "cpu")
    assert isinstance(layer, tg.GRU)
    assert tg.explain(layer, x).startswith("layer 0: cpu")


def test_hooks_run_as_before():
    layer, seen = nn.GRU(I, H), []
    layer.register_forward_hook(lambda module, given, result: seen.append("forward"))
    layer.register_forward_pre_hook(lambda module, given: seen.append("before"))
    layer.register_full_backward_hook(lambda module, given, result: seen.append("backward"))
    for change in (tg.accelerate, tg.restore):
        change(layer)
        seen.clear()
        layer(x.clone().requires_grad_())[0].sum().backward()
        assert seen == ["before", "forward", "backward"]


def test_tied_weights_stay_tied():
    model = nn.ModuleList([nn.GRU(H, H), nn.GRU(H, H)])
    model[1].weight_hh_l0 = model[0].weight_hh_l0
    tg.accelerate(model)
    assert model[1].weight_hh_l0 is model[0].weight_hh_l0
    assert len(list(model.parameters())) == 7
    both = sum(layer(torch.randn(T, B, H))[0].sum() for layer in model)
    assert isinstance(both, Tensor)
    both.backward()
    assert model[0].weight_hh_l0.grad is not None


@pytest.mark.parametrize("base", [nn.GRU, OwnInit], ids=["torch.nn's", "a subclass"])
def test_parametrizations_stay_and_can_come_and_go(base):
    torch.manual_seed(0)
    layer = base(I, H) if base is nn.GRU else base(H)
    parametrize.register_parametrization(layer, "weight_hh_l0", Half())
    nn.utils.parametrizations.spectral_norm(layer, "weight_ih_l0")  # in training, moves its buffers whenever asked
    state = {name: one.clone() for name, one in layer.state_dict().items()}
    assert tg.accelerate(layer).changed[0].kind == base.__name__
    assert all(layer.state_dict()[name].equal(one) for name, one in state.items()), "looking at it changed it"
    tg.restore(layer)
    expected = layer.eval()(x)[0]
    tg.accelerate(layer)
    assert isinstance(layer, tg.GRU)
    assert isinstance(layer, base)
    assert type(layer).__name__ == f"Parametrized{base.__name__}"
    torch.testing.assert_close(layer(x)[0], expected, atol=1e-6, rtol=0)
    parametrize.register_parametrization(layer, "bias_hh_l0", Half())
    parametrize.remove_parametrizations(layer, "weight_ih_l0")
    found = layer(x)[0]
    tg.restore(layer)
    assert not isinstance(layer, tg.GRU)
    torch.testing.assert_close(layer(x)[0], found, atol=1e-6, rtol=0)
    parametrize.remove_parametrizations(layer, "weight_hh_l0")
    parametrize.remove_parametrizations(layer, "bias_hh_l0")
    assert type(layer) is base


def test_a_copy_of_a_parametrized_layer_is_not_changed_with_it():
    layer = nn.GRU(I, H)
    parametrize.register_parametrization(layer, "weight_hh_l0", Half())
    other = copy.deepcopy(layer)
    assert type(other) is type(layer), "torch's copies share their class"
    tg.accelerate(layer)
    assert not isinstance(other, tg.GRU)
    torch.testing.assert_close(layer(x), other(x), atol=1e-6, rtol=0)
    assert isinstance(copy.deepcopy(layer), tg.GRU)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_norms_of_the_old_style_stay_and_can_be_removed(norm):
    layer = getattr(nn.utils, norm)(nn.GRU(I, H), "weight_hh_l0")
    for _ in range(20):
        layer(x)  # in training the norm finds its vectors
    layer.eval()
    expected = layer(x)
    tg.accelerate(layer)
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=0)
    getattr(nn.utils, f"remove_{norm}")(layer, "weight_hh_l0")
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=0)
    tg.restore(layer)
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "make",
    [lambda: nn.GRU(I, H), lambda: nn.RNNCell(I, H), lambda: OwnInit(H), lambda: OwnCell(I, H)],
    ids=["GRU", "RNNCell", "OwnInit", "OwnCell"],
)
def test_copies_and_pickles_are_accelerated_and_can_be_restored(make):
    layer = make()
    plain, arguments = type(layer), arguments_of(layer)
    tg.accelerate(layer)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (
        copy.deepcopy(layer),
        copy.copy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ):
        assert type(other) is type(layer)
        assert repr(other) == repr(layer)
        assert all(a.equal(b) for a, b in zip(other(*arguments), layer(*arguments), strict=True))
        tg.restore(other)
        assert type(other) is plain
    assert type(layer) is not plain


def test_a_subclass_stays_what_it_is():
    layers = nn.ModuleList([OwnInit(H), OwnInit(H)])
    assert [one.kind for one in tg.accelerate(layers).changed] == ["OwnInit", "OwnInit"]
    first, second = layers
    assert type(first) is type(second)
    assert type(first).__name__ == "OwnInit"
    assert issubclass(type(first), OwnInit)
    assert issubclass(type(first), tg.GRU)
    assert first.width() == H  # type: ignore[operator]


def test_training_and_evaluation_and_moves_work_on():
    model = Tagger(dropout=0.5)
    tg.accelerate(model)
    words = torch.arange(10).unsqueeze(0)
    assert not torch.equal(model(words), model(words))
    model.eval()
    assert torch.equal(model(words), model(words))
    assert model.double()(words).dtype == torch.float64
    tg.restore(model)
    assert model.recurrent.training is False
    assert model(words).dtype == torch.float64


# ---------------------------------------------------------------------------------------------------------------------
# Where layers are


def test_a_shared_layer_is_changed_once_and_told_with_all_its_names():
    layer = nn.GRU(I, H)
    encoder = nn.ModuleDict({"layer": layer})
    model = nn.ModuleDict({"encoder": encoder, "again": layer, "whole": encoder})
    (only,) = tg.accelerate(model).changed
    assert (only.name, only.others) == ("encoder.layer", ("again",))
    assert str(only).startswith("encoder.layer, also again: GRU 3 to 6: runs on cpu (")
    assert len(tg.restore(model).changed) == 1


def test_a_circle_of_modules_is_walked_once():
    model = nn.Module()
    model.child = nn.Module()
    model.child.parent = model
    model.child.layer = nn.GRU(I, H)
    assert [one.name for one in tg.accelerate(model).changed] == ["child.layer"]
    assert [one.name for one in tg.restore(model).changed] == ["child.layer"]


def test_a_traced_graph_is_reached():
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.GRU(I, H)))
    expected = graph(x)
    assert [one.name for one in tg.accelerate(graph).changed] == ["0"]
    torch.testing.assert_close(graph(x), expected, atol=1e-6, rtol=0)


def test_no_recurrent_layer_is_no_error():
    changes = tg.accelerate(nn.Linear(2, 2))
    assert changes.changed == changes.left == ()
    assert str(changes) == "changed 0, left 0"


# ---------------------------------------------------------------------------------------------------------------------
# What is left, and refused


def replaced() -> nn.Module:
    layer = nn.GRU(I, H)
    layer.forward = lambda *arguments: arguments  # type: ignore[method-assign]
    return layer


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.GRU(I, H)), {nn.GRU})
    return model


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.GRU(I, H)))


def wrong_nonlinearity() -> nn.Module:
    return nn.RNNCell(I, H, nonlinearity="sigmoid")


LEFT = {
    "own forward": (lambda: OwnForward(I, H), "OwnForward has a forward of its own"),
    "own check": (lambda: OwnCheck(I, H), "OwnCheck has a check_forward_args of its own"),
    "replaced": (replaced, "its forward has been replaced"),
    "quantized": (quantized, "it is quantized"),
    "scripted": (scripted, "it is a ScriptModule"),
    "LSTM": (lambda: nn.LSTM(I, H, proj_size=2), "it is an LSTM"),
    "LSTMCell": (lambda: nn.LSTMCell(I, H), "it is an LSTM"),
    "Tidegate's": (lambda: tg.GRU(I, H), "it is Tidegate's already"),
    "Dense": (lambda: tg.Dense(I, H), "it is Tidegate's already"),
    "nonlinearity": (wrong_nonlinearity, "its nonlinearity is 'sigmoid'"),
}


@pytest.mark.parametrize("make", LEFT)
def test_what_cannot_be_changed_is_left_and_says_why(make):
    model, (_, sentence) = LEFT[make][0](), LEFT[make]
    kind, before = type(model), dict(vars(model))
    changes = tg.accelerate(model)
    assert changes.changed == ()
    (only,) = changes.left
    assert only.backend is None
    assert sentence in only.reason
    assert sentence in str(changes)
    assert "\n" not in str(only)
    assert type(model) is kind
    assert dict(vars(model)) == before


def test_a_layer_is_not_accelerated_twice():
    layer = nn.GRU(I, H)
    tg.accelerate(layer, backend="reference")
    (only,) = tg.accelerate(layer).left
    assert "accelerated before" in only.reason
    assert layer.backend == "reference"


def test_restore_leaves_what_was_made_as_tidegates_and_what_torch_cannot():
    model = nn.ModuleDict({"made": tg.GRU(I, H), "set": nn.GRU(I, H), "back": nn.GRU(I, H), "other": nn.LSTM(I, H)})
    tg.accelerate(model)
    model["set"].activation = "relu"  # type: ignore[assignment]
    model["back"].recompute = True  # type: ignore[assignment]
    changes = tg.restore(model)
    assert [one.name for one in changes.changed] == ["back"]
    assert {one.name: one.reason for one in changes.left} == {
        "made": "it was made as Tidegate's",
        "set": "its activation has been changed since, to what torch.nn's does not have",
    }
    assert isinstance(model["set"], tg.GRU)
    assert "recompute" not in vars(model["back"])
    learning = nn.GRU(I, H)
    tg.accelerate(learning)
    learning.h_0 = nn.Parameter(torch.zeros(1, H))
    assert "its h_0 has been changed" in tg.restore(learning).left[0].reason


@pytest.mark.parametrize("change", [tg.accelerate, tg.restore])
@pytest.mark.parametrize("model", [None, 3, "model", nn.GRU, torch.zeros(1), {"layer": 1}], ids=repr)
def test_what_is_no_module_is_refused(change, model, as_users_run_it):
    assert_refused(lambda: change(model), InputTypeError, r"^model must be a torch\.nn\.Module; got \w+$")


def test_a_backend_is_honoured_or_refused_before_anything_changes():
    model = nn.ModuleDict({"first": nn.GRU(I, H), "second": nn.GRU(I, H, dtype=torch.bfloat16)})
    assert_refused(lambda: tg.accelerate(model, backend="abacus"), BackendError, "^backend must be one of")
    sentence = r'^backend "cpu" cannot run this layer: .*bfloat16 \(layer \'second\'\)$'
    assert_refused(lambda: tg.accelerate(model, backend="cpu"), BackendError, sentence)
    assert {type(layer) for layer in model.values()} == {nn.GRU}
    changes = tg.accelerate(model)
    assert [(one.name, one.backend) for one in changes.changed] == [("first", "cpu")]
    assert [one.name for one in changes.left] == ["second"]
    assert changes.left[0].reason.startswith("torch.nn's own is faster here (not cpu: its kernels calculate in float32")
    assert "not cpu: its kernels calculate in float32 and float64" in str(changes)
    tg.restore(model)
    tg.accelerate(model, backend="reference")
    assert [layer.backend for layer in model.values()] == ["reference", "reference"]


def test_what_was_done_reads_as_one_line_a_layer():
    model = nn.ModuleDict({"encoder": nn.GRU(I, H, 2, bidirectional=True), "old": nn.LSTM(I, H)})
    changes = tg.accelerate(model)
    assert repr(changes) == str(changes)
    first, second, third = str(changes).splitlines()
    assert first == "changed 1, left 1"
    assert second.startswith("  changed  encoder: GRU 3 to 6, 2 layers, both ways: runs on cpu (")
    assert third == "  left     old: LSTM 3 to 6: it is an LSTM, which Tidegate does not have"
    assert str(tg.restore(model)).endswith("  changed  encoder: GRU 3 to 6, 2 layers, both ways: torch.nn's again")
