"""The doctor: what it tells of every source, that it changes nothing, and that bad input is one sentence."""
# mypy: allow-untyped-calls

import copy
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tidegate as tg
from tests.onnx_helpers import node_file
from tests.refusals import assert_refused
from tidegate.diagnosis import Diagnosis, LayerDiagnosis
from tidegate.errors import FileError, FileMissingError, InputTypeError, InputValueError

T, B, I, H = 25, 3, 4, 5


class Model(nn.Module):
    """Three recurrent layers, one of them twice, a cell and what torch.nn alone has."""

    def __init__(self, kind: Any = tg):
        super().__init__()
        self.encoder: Any = kind.GRU(I, H, num_layers=2, bidirectional=True)
        self.again = self.encoder
        self.plain = nn.RNN(2 * H, H, nonlinearity="relu")
        self.cell = kind.GRUCell(H, H)
        self.long: Any = nn.LSTM(H, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.drop(self.plain(self.encoder(x)[0])[0])
        return self.long(torch.stack([self.cell(step) for step in y]))[0]


def layers(found: Diagnosis) -> dict[str, LayerDiagnosis]:
    return {layer.name: layer for layer in found.layers}


def no(source: Any, error: type[Exception], sentence: str, data: Any = None, **said: Any) -> None:
    """`doctor` refuses."""
    assert_refused(lambda: tg.doctor(source, data, **said), error, sentence)


def valid_json(found: Diagnosis) -> Any:
    """The record through JSON that knows no NaN."""
    return json.loads(json.dumps(found.record(), allow_nan=False))


def saved(module: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path)
    return path


# ----------------------------------------------------------------------------------------------------------------------
# Models


def test_every_recurrent_layer_of_a_model_is_listed_once_with_all_its_names():
    found = tg.doctor(Model())
    assert [(one.name, one.others, one.kind) for one in found.layers] == [
        ("encoder", ("again",), "GRU"),
        ("plain", (), "RNN"),
        ("cell", (), "GRUCell"),
        ("long", (), "LSTM"),
    ]
    encoder, plain, cell, long = found.layers
    assert encoder.sizes == "4 to 5, 2 layers, both ways"
    assert encoder.variant == "GRU with the reset after the product, tanh"
    assert encoder.layout == (
        "torch.nn: reset (relevance), update, candidate; z = 1 - update is stored; units are rows; "
        "two biases for each, the candidate's second one inside the reset gate"
    )
    assert plain.variant == "simple RNN, relu"
    assert plain.layout == "torch.nn: candidate; units are rows; two biases for each"
    assert plain.backend.startswith("torch.nn's own; ")
    assert cell.notes == ("the model calls it step by step",)
    assert (long.variant, long.layout) == (None, None)
    assert long.backend == "torch.nn's own; tg.accelerate(model) leaves it: it is an LSTM, which Tidegate does not have"
    assert all(one.health == () and one.unseen is None and one.findings == () for one in found.layers)


@pytest.mark.parametrize(
    ("layer", "variant", "layout"),
    [
        (tg.GRU(I, H, reset="before"), "GRU with the reset before the product, tanh", "two biases for each$"),
        (tg.GRU(I, H, reset=None), "GRU without a reset gate, tanh", "^torch.nn: update, candidate; z = 1 - update"),
        (tg.GRU(I, H, bias=False), "GRU with the reset after the product, tanh", "units are rows; no biases$"),
        (tg.GRU(I, H, layer_norm=True), "layer-normalised GRU, tanh", "^torch.nn: reset"),
        (tg.GRU(I, H, learn_h_0=True), "GRU with the reset after the product, tanh, a learned initial state", "z = 1"),
        (tg.RNN(I, H, activation=torch.sin), "simple RNN, an activation of its own", "^torch.nn: candidate; units"),
        (tg.Dense(I, H), "layer without a memory, tanh", "^torch.nn: candidate; units are rows; one bias for each$"),
    ],
)
def test_variants_and_layouts(layer, variant, layout):
    (found,) = tg.doctor(layer).layers
    assert found.variant == variant
    assert found.layout is not None
    assert re.search(layout, found.layout)


def test_the_backend_is_the_one_that_explain_tells():
    layer = tg.GRU(I, H)
    (found,) = tg.doctor(layer).layers
    assert tg.explain(layer, torch.zeros(1, 1, I)) == f"layer 0: {found.backend}"
    (found,) = tg.doctor(tg.GRU(I, H, backend="reference")).layers
    assert found.backend.startswith("reference (")
    (found,) = tg.doctor(tg.RNN(I, H, activation=torch.sin)).layers
    assert found.backend.startswith("reference (not cpu: ")
    (found,) = tg.doctor(tg.GRU(I, H, recurrent_dropout=tg.Dropouts(state=0.3))).layers
    assert "; in training reference (" in found.backend
    theirs = nn.GRU(I, H)
    (found,) = tg.doctor(theirs).layers
    assert found.backend == f"torch.nn's own; after tg.accelerate(model) it {tg.accelerate(theirs).changed[0].reason}"


def test_layers_that_are_not_what_they_seem_are_listed_and_not_looked_into():
    class Own(nn.GRU):
        def forward(self, *given):
            return super().forward(*given)

    class OwnOurs(tg.GRU):
        def forward(self, *given):  # type: ignore[override]
            return super().forward(*given)

    for kind in (Own, OwnOurs):
        model = nn.Sequential(kind(I, H))
        (found,) = tg.doctor(model, torch.randn(T, B, I)).layers
        assert found.variant is None
        assert re.match(r"its own code[:;] .*a forward of its own", found.backend)
        assert found.unseen == "what it computes is not known"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frozen", [False, True])
def test_script_modules_are_listed(frozen):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(I, H)

        def forward(self, x):
            return self.gru(x)[0]

    scripted = torch.jit.script(Plain().eval())
    model = torch.jit.freeze(scripted) if frozen else scripted
    found = tg.doctor(model, torch.randn(T, B, I))
    if not frozen:  # a frozen one has no layers any more
        assert [one.backend for one in found.layers] == [
            "torch.nn's own; tg.accelerate(model) leaves it: it is a ScriptModule, whose code is fixed"
        ]
        assert found.layers[0].unseen == "what it computes is not known"
    else:
        assert found.layers == ()


def test_circles_and_shared_modules_end():
    model = Model()
    model.child = nn.ModuleList([model, model.cell])
    found = tg.doctor(model, torch.randn(T, B, I))
    assert [one.name for one in found.layers] == ["encoder", "plain", "cell", "long"]
    assert len(found.layers[0].health) == 4
    assert "child.1" in found.layers[2].others


def test_meta_models_are_told_without_data_and_refused_with_it():
    model = Model().to("meta")
    assert len(tg.doctor(model).layers) == 4
    no(model, InputValueError, "some are on the meta device", torch.randn(T, B, I))
    no(tg.GRU(I, H, device="meta"), InputValueError, "some are on the meta device", torch.randn(T, B, I))


def test_a_model_in_data_parallel_is_looked_into():
    found = layers(tg.doctor(nn.DataParallel(Model()), torch.randn(T, B, I)))
    assert len(found["module.encoder"].health) == 4


def test_a_model_without_recurrent_layers_has_none():
    found = tg.doctor(nn.Linear(2, 2))
    assert found.layers == ()
    assert str(found) == "the model, of class Linear: 0 recurrent layers"
    assert tg.doctor(nn.Linear(2, 2), torch.ones(3, 2)).layers == ()


# ----------------------------------------------------------------------------------------------------------------------
# Data


def test_the_health_is_that_of_gate_health_and_what_was_not_looked_at_says_why():
    model, x = Model(), torch.randn(T, B, I)
    found = tg.doctor(model, x)
    for layer in ("encoder", "plain"):
        expected = tg.gate_health(model, x, layer=layer)
        assert [one.update for one in layers(found)[layer].health] == [one.update for one in expected]
        assert [one.findings for one in layers(found)[layer].health] == [one.findings for one in expected]
        assert layers(found)[layer].unseen is None
    assert layers(found)["cell"].unseen == "it is a cell, which the model calls step by step"
    assert layers(found)["long"].unseen == "what it computes is not known"
    alone = tg.doctor(model, x, layer="plain")
    assert [len(one.health) for one in alone.layers] == [0, 1, 0, 0]
    assert [one.unseen for one in alone.layers] == [None] * 4


def test_a_layer_that_runs_twice_or_never_says_so():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.never = tg.GRU(I, I), tg.GRU(I, I)

        def forward(self, x):
            return self.twice(self.twice(x)[0])

    found = layers(tg.doctor(Twice(), torch.randn(T, B, I)))
    assert found["twice"].unseen == "layer 'twice' must run once in the model's forward; it ran 2 times"
    assert found["never"].unseen == "layer 'never' must run once in the model's forward; it ran 0 times"


@pytest.mark.parametrize("make", [tg.GRU, nn.GRU, tg.RNN, nn.RNN, tg.GRUCell, nn.GRUCell, tg.Dense])
def test_a_layer_alone_takes_data(make):
    layer, x = make(I, H), np.random.default_rng(0).standard_normal((T, B, I))
    (found,) = tg.doctor(layer, x).layers
    (one,) = found.health
    assert (one.steps, one.sequences, one.units) == (T, B, H)
    no(layer, InputValueError, "input must", x[..., :3])
    no(layer, InputValueError, r"input must .*; got", x[:0])


def test_numbers_go_to_a_model_as_it_needs_them():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.gru = nn.Embedding(10, I), tg.GRU(I, H, dtype=torch.float64)

        def forward(self, x):
            return self.gru(self.embed(x).double())[0]

    words = np.random.default_rng(0).integers(0, 10, (T, B)).astype(">u2")
    assert len(tg.doctor(Words(), words).layers[0].health) == 1
    double = nn.Sequential(tg.GRU(I, H, dtype=torch.float64))
    for x in (np.ones((T, B, I), ">f4"), torch.ones(T, B, I, dtype=torch.float16), np.ones((T, B, I))):
        assert len(tg.doctor(double, x).layers[0].health) == 1
    assert len(tg.doctor(tg.GRU(I, H), np.ones((T, B, I), int)).layers[0].health) == 1


@pytest.mark.usefixtures("as_users_run_it")
def test_wrong_arguments_are_refused():
    x = torch.randn(T, B, I)
    no(Model(), InputTypeError, "data must be a tensor or an array; got list", [1, 2])
    no(Model(), InputTypeError, "data must be real numbers; got object", np.array([None]))
    no(Model(), InputTypeError, "data must be real numbers; got complex128", np.ones((T, B, I), complex))
    no(Model(), InputValueError, r"the model cannot be run on data of \(25, 3, 2\), torch.float32: ", x[..., :2])
    no(
        Model(),
        InputValueError,
        r"layer must be one of the recurrent layers, 'encoder', 'plain', .*; got 'x'",
        layer="x",
    )
    no(Model(), InputValueError, "layer must be left out where there are no data", layer="plain")
    no(nn.Linear(1, 1), InputValueError, "layer must be one of the recurrent layers, none; got 'x'", x, layer="x")
    no(3, InputTypeError, "source must be a torch.nn.Module, a path or module:function; got int")
    no(Model(), InputValueError, "batch_first must be left out but for a state dict", batch_first=True)


def test_a_model_that_fails_is_one_sentence_with_its_own_error():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = tg.GRU(I, H)

        def forward(self, x):
            raise KeyError("first line\nsecond line")

    no(
        Fails(),
        InputValueError,
        r"cannot be run on data of \(25, 3, 4\), torch.float32: KeyError: ",
        torch.ones(T, B, I),
    )


def test_weights_that_are_not_finite_are_found_without_data():
    model = Model()
    with torch.no_grad():
        model.encoder.weight_hh_l1[0, 0] = math.nan
        model.long.bias_ih_l0[0] = math.inf
    found = layers(tg.doctor(model))
    (finding,) = found["encoder"].findings
    assert finding.kind == "not finite"
    assert finding.sentence == "weight_hh_l1 hold NaN or infinite numbers"
    assert found["plain"].findings == ()
    assert [one.kind for one in found["long"].findings] == ["not finite"]
    told = tg.doctor(model, torch.randn(T, B, I))
    assert "not finite" in {one.kind for one in layers(told)["encoder"].health[2].findings}
    assert valid_json(told)["layers"][0]["health"][2]["gradient_per_step"] is None


# ----------------------------------------------------------------------------------------------------------------------
# Nothing is changed


class Stateful(Model):
    """A model that changes whatever a forward can, and has hooks, modes and parametrizations of its own."""

    seen: torch.Tensor

    def __init__(self):
        super().__init__(nn)
        self.calls = 0
        self.kept: Any = None
        self.norm = nn.utils.parametrizations.spectral_norm(nn.Linear(I, I))
        self.old = nn.utils.spectral_norm(nn.Linear(I, I))
        self.batch = nn.BatchNorm1d(I)
        self.register_buffer("seen", torch.tensor([0.0, math.nan]))
        self.register_buffer("replaced", torch.zeros(2), persistent=False)

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        self.replaced = torch.ones(2)
        self.kept = x + torch.rand(())
        self.fresh = x
        y = self.old(self.norm(x))
        return super().forward(self.batch(y.transpose(1, 2)).transpose(1, 2))

    def train(self, mode: bool = True):
        if hasattr(self, "seen"):
            self.seen += 100
        return super().train(mode)


def snapshot(model: nn.Module) -> Any:
    """All that can be seen of a model, to the bit."""
    names = dict(model.named_modules())
    return {
        "classes": {name: type(part) for name, part in names.items()},
        "modes": {name: part.training for name, part in names.items()},
        "attributes": {name: {key: id(value) for key, value in vars(part).items()} for name, part in names.items()},
        "hooks": {
            name: [list(value) for key, value in vars(part).items() if key.endswith("hooks")]
            for name, part in names.items()
        },
        "tensors": {
            name: (id(tensor), tensor.dtype, tensor.detach().numpy().tobytes(), tensor.requires_grad)
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        },
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "random": torch.get_rng_state().numpy().tobytes(),
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("data", [False, True])
def test_the_model_is_left_as_it_was(data, fails):
    model = Stateful().train()
    model.drop.eval()
    model.plain.register_forward_hook(lambda *_: None)
    nn.utils.parametrizations.weight_norm(model.encoder, "weight_hh_l0")
    if fails:
        model.long.register_forward_pre_hook(lambda *_: 1 / 0)
    before = snapshot(model)
    if fails and data:
        no(model, InputValueError, "ZeroDivisionError", torch.randn(T, B, I))
        torch.set_rng_state(torch.frombuffer(bytearray(before["random"]), dtype=torch.uint8))
    else:
        x = torch.ones(T, B, I)
        found = tg.doctor(model, x if data else None)
        assert bool(layers(found)["encoder"].health) is data
    assert snapshot(model) == before


def test_a_graph_that_waits_for_its_gradients_still_gets_them():
    model = Stateful().train()
    loss = model(torch.randn(T, B, I)).sum()
    tg.doctor(model, torch.randn(T, B, I))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.plain.parameters())


# ----------------------------------------------------------------------------------------------------------------------
# Files


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".PT"])
def test_state_dicts(suffix, tmp_path):
    model = Model()
    del model.again
    path = saved(model, tmp_path / f"a{suffix}")
    for source in (path, str(path)):
        found = tg.doctor(source)
        assert found.source == repr(str(path))
        assert {name: (one.kind, one.sizes) for name, one in layers(found).items()} == {
            "encoder": ("GRU", "4 to 5, 2 layers, both ways"),
            "plain": ("RNN", "10 to 5"),
            "cell": ("GRUCell", "5 to 5"),
            "long": ("LSTM", "5 to 3"),
        }
        assert layers(found)["long"].backend == "nothing here: Tidegate does not have it"
        assert layers(found)["encoder"].backend == tg.doctor(model).layers[0].backend
        assert "does not tell" in layers(found)["plain"].notes[0]


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_data_of_a_file_go_to_the_layer_that_takes_them(batch_first, tmp_path):
    model = Model()
    x = torch.randn(T, B, I)
    path = saved(model, tmp_path / "a.pt")
    state = model.state_dict()
    torch.save({name: one for name, one in state.items() if not name.startswith("again")}, path)
    found = layers(tg.doctor(path, x.transpose(0, 1) if batch_first else x, batch_first=batch_first))
    expected = tg.gate_health(model, x, layer="encoder")
    assert [one.update for one in found["encoder"].health] == [one.update for one in expected]
    assert found["plain"].unseen == "the data went to 'encoder', and the file does not tell what reaches this one"
    no(path, InputValueError, r"layer must say which one the data are for, 'cell', .*|must have as many", x[..., :1])
    no(
        path,
        InputValueError,
        r"data must have as many numbers a step as a layer takes, 'encoder' 4, 'plain' 10",
        x[..., :3],
    )
    no(path, InputValueError, "as a layer takes", torch.tensor(3.0))
    assert len(layers(tg.doctor(path, torch.randn(T, B, H), layer="cell"))["cell"].health) == 1
    no(path, InputValueError, "data must be left out: the file holds no layer", torch.randn(T, B, H), layer="long")


def test_two_layers_that_take_the_data_have_to_be_told_apart(tmp_path):
    path = saved(nn.ModuleDict({"a": nn.GRU(I, H), "b": nn.RNN(I, H)}), tmp_path / "a.pt")
    x = torch.randn(T, B, I)
    no(path, InputValueError, "layer must say which one the data are for, 'a', 'b'; got None", x)
    found = layers(tg.doctor(path, x, layer="b"))
    assert len(found["b"].health) == 1
    assert found["a"].unseen == "the data went to 'b', and the file does not tell what reaches this one"


def test_a_state_dict_without_recurrent_weights_says_what_it_has(tmp_path):
    found = tg.doctor(saved(nn.Linear(2, 2), tmp_path / "a.pt"))
    assert found.layers == ()
    assert found.notes == ("no weights are called weight_ih or weight_hh; its 2 tensors are weight, bias",)
    found = tg.doctor(saved(nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))), tmp_path / "a.pt"))
    assert found.notes[0].endswith("its 6 tensors are 0.weight, 0.bias, 1.weight, ...")


def test_files_with_wrong_weights_are_refused_as_a_whole(tmp_path):
    state = {f"x.{name}": tensor for name, tensor in nn.GRU(I, H).state_dict().items()}
    good = {f"a.{name}": tensor for name, tensor in nn.GRU(I, H).state_dict().items()}
    del state["x.weight_hh_l0"]
    torch.save({**good, **state}, tmp_path / "a.pt")
    no(tmp_path / "a.pt", FileError, r"a\.pt' holds weights that fit no layer: x must have weight_hh_l0; it has")


def gru_file(path: Path, **attributes: Any) -> Path:
    """An ONNX file of one GRU."""
    weights = {"W": torch.randn(1, 3 * H, I), "R": torch.randn(1, 3 * H, H), "B": torch.randn(1, 6 * H)}
    proto = node_file("GRU", weights, {"X": torch.randn(T, B, I)}, hidden_size=H, **attributes)
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("after", [0, 1])
def test_onnx_files(after, tmp_path):
    path = gru_file(tmp_path / "a.onnx", linear_before_reset=after)
    (one,) = tg.doctor(path, torch.randn(T, B, I)).layers
    assert (one.kind, one.sizes) == ("GRU", "4 to 5")
    assert one.variant == f"GRU with the reset {'after' if after else 'before'} the product, tanh"
    assert one.layout is not None
    assert one.layout.startswith("ONNX: update, reset (relevance), candidate; z = 1 - update is stored; units are rows")
    assert one.layout.endswith("the candidate's second one inside the reset gate") is bool(after)
    assert len(one.health) == 1


def test_an_onnx_file_that_tidegate_wrote(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = tg.GRU(I, H, reset=None)

        def forward(self, x):
            return self.gru(x)[0]

    model, x = Net().eval(), torch.randn(T, B, I)
    tg.convert.to_onnx(model, tmp_path / "a.onnx", x)
    found = tg.doctor(tmp_path / "a.onnx", x)
    assert found.notes == (f"written by Tidegate {tg.__version__}",)
    (one,) = found.layers
    assert one.variant == "GRU without a reset gate, tanh"
    (health,) = one.health
    expected: Any = tg.gate_health(model, x)[0].update
    assert health.update is not None
    assert health.update.mean == pytest.approx(expected.mean, rel=1e-4)


def test_onnx_files_with_unknown_operators_give_their_layers_and_say_why_they_do_not_run(tmp_path):
    path = gru_file(tmp_path / "a.onnx")
    proto = onnx.load(path)
    proto.graph.node.append(onnx.helper.make_node("Mystery", ["X"], ["out"], domain="of.mine"))
    proto.opset_import.append(onnx.helper.make_opsetid("of.mine", 1))
    onnx.save(proto, path)
    found = tg.doctor(path)
    assert len(found.layers) == 1
    assert "Mystery" in found.notes[0]
    assert len(tg.doctor(path, torch.randn(T, B, I)).layers[0].health) == 1  # the layer alone can be run


def test_damaged_and_missing_files_of_every_kind_are_refused(tmp_path):
    whole = {".pt": saved(nn.GRU(I, H), tmp_path / "a.pt"), ".onnx": gru_file(tmp_path / "a.onnx")}
    for suffix, path in whole.items():
        held = path.read_bytes()
        for end in (0, 1, len(held) // 2, len(held) - 1):
            (tmp_path / f"b{suffix}").write_bytes(held[:end])
            no(tmp_path / f"b{suffix}", FileError, rf"b\{suffix}'")
    for suffix in (".pt", ".safetensors", ".keras", ".onnx"):
        (tmp_path / f"c{suffix}").write_bytes(b"not what it is called")
        no(tmp_path / f"c{suffix}", FileError, rf"c\{suffix}'")
        (tmp_path / f"folder{suffix}").mkdir()
        no(tmp_path / f"folder{suffix}", FileError, rf"folder\{suffix}'")
        with pytest.raises(FileMissingError, match="there is no file"):
            tg.doctor(tmp_path / f"none{suffix}")
    for name in ("a.h5", "a.hdf5"):
        no(tmp_path / name, FileError, "must be saved by Keras 3 as .keras: its older files are not read")
    for name in ("a.tflite", "a", "."):
        no(
            tmp_path / name,
            FileError,
            r"must be a file called .pt, .*, .onnx, or module:function, which returns a model",
        )


# ----------------------------------------------------------------------------------------------------------------------
# module:function

MODULE = """
import torch
from torch import nn
import tidegate as tg

def make():
    return nn.Sequential(tg.GRU(4, 5))

def needs(width):
    return make()

def fails():
    raise RuntimeError("no weights here\\nat all")

def nothing():
    pass

class nested:
    deeper = make()

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module, that one works in."""
    (tmp_path / "of_mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import torch\nimport nowhere_to_be_found\n")
    (tmp_path / "wrong.py").write_text("def (:\n")
    (tmp_path / "raises.py").write_text("raise SystemError('cannot start')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ("of_mine", "broken", "wrong", "raises"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("source", ["of_mine:make", "of_mine:nested.deeper"])
def test_a_model_of_ones_own_code(here, source):
    path = list(sys.path)
    found = tg.doctor(source, torch.randn(T, B, I))
    assert found.source == repr(source)
    assert len(layers(found)["0"].health) == 1
    assert sys.path == path


@pytest.mark.parametrize(
    ("source", "error", "sentence"),
    [
        ("of_mine:absent", InputValueError, "'of_mine:absent': of_mine has no absent"),
        ("of_mine:nested.absent", InputValueError, "of_mine has no nested.absent"),
        ("of_mine:needs", InputValueError, r"fails when called without arguments: TypeError: needs\(\) missing 1"),
        ("of_mine:fails", InputValueError, r"RuntimeError: no weights here \(.*of_mine.py:13\)"),
        ("of_mine:nothing", InputTypeError, "'of_mine:nothing' must return a torch.nn.Module; got NoneType"),
        ("of_mine:number", InputTypeError, "must be a function that returns a model; got int"),
        ("absent_too:make", InputValueError, "'absent_too:make': there is no module absent_too here"),
        ("of_mine.sub:make", InputValueError, "'of_mine.sub:make': "),
        ("broken:make", InputValueError, r"No module named 'nowhere_to_be_found' \(.*broken.py:2\)"),
        ("wrong:make", InputValueError, "cannot be imported: SyntaxError: "),
        ("raises:make", InputValueError, r"cannot be imported: SystemError: cannot start \(.*raises.py:1\)"),
        ("of_mine:", InputValueError, "must be module:function, such as package.models:make; got 'of_mine:'"),
        (":make", InputValueError, "must be module:function"),
        ("of_mine:a b", InputValueError, "must be module:function"),
        ("of_mine.py:make", InputValueError, "'of_mine.py:make'"),
    ],
)  # fmt: skip
def test_code_that_gives_no_model_is_refused(here, source, error, sentence):
    path = list(sys.path)
    no(source, error, sentence)
    assert sys.path == path


# ----------------------------------------------------------------------------------------------------------------------
# Records


def test_the_record_is_json_and_the_text_has_all_of_it():
    model, x = Model(), torch.randn(T, B, I)
    with torch.no_grad():
        model.encoder.bias_ih_l0[H : 2 * H] = -9.0
    found = tg.doctor(model, x)
    record = valid_json(found)
    assert record["source"] == "the model, of class Model"
    encoder = record["layers"][0]
    assert encoder["others"] == ["again"]
    assert [(one["depth"], one["reverse"]) for one in encoder["health"]] == [
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    ]
    assert encoder["health"][0]["update"]["always_open"] == H
    assert len(encoder["health"][0]["half_life"]) == H
    text = str(found)
    assert repr(found) == text
    for layer in found.layers:
        assert layer.backend in text
        for finding in (finding for one in layer.health for finding in one.findings):
            assert finding.sentence in text
            assert finding.advice in text
    assert "encoder, also again: GRU 4 to 5, 2 layers, both ways" in text
    assert "layer 1, backward: T=25, B=3; update gate 0." in text
    assert "gates not looked at: it is a cell" in text


def test_numbers_without_end_are_none_in_the_record():
    layer: Any = tg.GRU(I, H)
    with torch.no_grad():
        layer.bias_ih_l0[H : 2 * H] = 200.0  # exactly shut: the half-life is infinite
    found = tg.doctor(layer, torch.randn(T, B, I))
    assert found.layers[0].health[0].half_life.isinf().all()
    assert valid_json(found)["layers"][0]["health"][0]["half_life"] == [None] * H


def test_a_copy_of_the_model_is_told_the_same():
    model, x = Model(), torch.randn(T, B, I)
    assert str(tg.doctor(copy.deepcopy(model), x)) == str(tg.doctor(model, x))
