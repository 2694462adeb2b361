"""State dicts in files: every kind of layer comes back to the bit, other files are refused, and none runs code."""
# mypy: allow-untyped-calls

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader

import tidegate as tg
from tests.refusals import assert_refused
from tidegate.convert import layers_of, read_state_dict
from tidegate.errors import FileError, FileMissingError, InputValueError, MissingExtraError

I, H = 3, 4

#: Every kind of layer, and what a state dict makes of it.
LAYERS: dict[str, tuple[Callable[[], nn.Module], type[nn.Module]]] = {
    "torch GRU": (lambda: nn.GRU(I, H), tg.GRU),
    "torch GRU, deep, both ways": (lambda: nn.GRU(I, H, num_layers=3, bidirectional=True), tg.GRU),
    "torch GRU, no bias": (lambda: nn.GRU(I, H, bias=False, num_layers=2), tg.GRU),
    "torch GRU, one unit": (lambda: nn.GRU(I, 1), tg.GRU),
    "torch GRU, double": (lambda: nn.GRU(I, H, dtype=torch.float64), tg.GRU),
    "torch GRU, bfloat16": (lambda: nn.GRU(I, H, dtype=torch.bfloat16), tg.GRU),
    "torch RNN": (lambda: nn.RNN(I, H, bidirectional=True), tg.RNN),
    "torch LSTM": (lambda: nn.LSTM(I, H, num_layers=2), nn.LSTM),
    "torch LSTM, projected, both ways": (lambda: nn.LSTM(I, H, 2, proj_size=2, bidirectional=True), nn.LSTM),
    "torch LSTM, projected to one": (lambda: nn.LSTM(I, H, proj_size=1), nn.LSTM),
    "torch LSTM, projected to three": (lambda: nn.LSTM(I, 6, proj_size=3, bias=False), nn.LSTM),
    "torch GRUCell": (lambda: nn.GRUCell(I, H), tg.GRUCell),
    "torch RNNCell, no bias": (lambda: nn.RNNCell(I, H, bias=False), tg.RNNCell),
    "torch LSTMCell": (lambda: nn.LSTMCell(I, H), nn.LSTMCell),
    "GRU": (lambda: tg.GRU(I, H, num_layers=2, bidirectional=True), tg.GRU),
    "GRU, learned state": (lambda: tg.GRU(I, H, num_layers=2, learn_h_0=True), tg.GRU),
    "GRU, layer-normalised": (lambda: tg.GRU(I, H, num_layers=2, layer_norm=True), tg.GRU),
    "update-only": (lambda: tg.GRU(I, H, num_layers=2, reset=None), tg.GRU),
    "update-only, both ways, no bias": (lambda: tg.GRU(I, H, reset=None, bidirectional=True, bias=False), tg.GRU),
    "RNN, learned state": (lambda: tg.RNN(I, H, learn_h_0=True), tg.RNN),
    "GRUCell, update-only": (lambda: tg.GRUCell(I, H, reset=None), tg.GRUCell),
    "GRUCell, layer-normalised": (lambda: tg.GRUCell(I, H, layer_norm=True), tg.GRUCell),
    "RNNCell": (lambda: tg.RNNCell(I, H), tg.RNNCell),
    "Dense": (lambda: tg.Dense(I, H), tg.Dense),
    "Dense, no bias": (lambda: tg.Dense(I, H, bias=False), tg.Dense),
}


def same_bits(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].contiguous().view(torch.uint8).equal(tensor.contiguous().view(torch.uint8)), name


def no_file(path: Path, sentence: str, **said: Any) -> None:
    assert_refused(lambda: read_state_dict(path, **said), FileError, sentence)


def no_layers(state: Any, sentence: str) -> None:
    assert_refused(lambda: layers_of(state), InputValueError, sentence)


# ----------------------------------------------------------------------------------------------------------------------
# Round trips


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("form", ["pt", "legacy", "safetensors"])
def test_every_kind_of_layer_comes_back_to_the_bit(kind, form, tmp_path):
    make, expected = LAYERS[kind]
    module, path = make(), tmp_path / "weights"
    state = {f"a.b.{name}": tensor for name, tensor in module.state_dict().items()}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "pt")
    (found,) = layers_of(read_state_dict(path))
    assert (found.name, found.kind, type(found.layer)) == ("a.b", expected.__name__, expected)
    assert found.refusal is None
    assert found.layer is not None
    assert not found.layer.training
    same_bits(found.layer.state_dict(), module.state_dict())


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if "bfloat16" not in kind])
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_comes_back_computes_the_same(kind):
    module = LAYERS[kind][0]().eval()
    (found,) = layers_of(module.state_dict())
    assert found.layer is not None
    like = next(module.parameters())
    x = torch.randn(*(() if "Cell" in kind else (5,)), 2, I, dtype=like.dtype)
    with torch.no_grad():
        ours, theirs = found.layer(x), module(x)
    ours, theirs = (one[0] if isinstance(one, tuple) else one for one in (ours, theirs))
    torch.testing.assert_close(ours, theirs)


def test_the_layers_of_a_model_come_in_its_order_with_the_rest_left_out():
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(5, I),
            "z": nn.GRU(I, H),
            "norm": nn.LayerNorm(H),
            "a": nn.ModuleDict({"cell": nn.LSTMCell(H, 2)}),
            "head": nn.Linear(H, 2),
        }
    )
    assert [(one.name, one.kind) for one in layers_of(model.state_dict())] == [("z", "GRU"), ("a.cell", "LSTMCell")]
    assert layers_of(nn.Linear(2, 2).state_dict()) == ()
    (alone,) = layers_of(nn.GRU(I, H).state_dict())
    assert alone.name == ""


def test_a_cell_and_a_layer_under_one_name_are_two():
    state = {**nn.GRU(I, H).state_dict(), **nn.RNNCell(I, H).state_dict()}
    assert [one.kind for one in layers_of(state)] == ["GRU", "RNNCell"]


def test_what_names_and_shapes_do_not_tell_is_said():
    notes = {kind: " ".join(layers_of(make().state_dict())[0].notes) for kind, (make, _) in LAYERS.items()}
    for kind, told in notes.items():
        assert ("reset" in told) is ("GRU" in kind and "update-only" not in kind and "layer-norm" not in kind), kind
        assert ("activation" in told) is ("LSTM" not in kind), kind
        assert ("batch" in told) is ("LSTM" not in kind and "Cell" not in kind), kind


# ----------------------------------------------------------------------------------------------------------------------
# Where in a file

GRU = nn.GRU(I, H).state_dict()
OTHER = nn.RNN(2, 2).state_dict()
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    "held",
    [
        GRU,
        {"state_dict": GRU, "epoch": 3, "global_step": 10, "optimizer_states": [OPTIMIZER], "hyper_parameters": {}},
        {"epoch": 3, "optimizer": OPTIMIZER, "model": GRU},
        {"model": {"state_dict": GRU}, "ema": {"weight": torch.zeros(2)}},
        {"best": torch.tensor(0.5), "model_state_dict": GRU},
        {"ema": OTHER, "net": GRU},
        {"model": OTHER, "state_dict": GRU},
        {"loss": torch.tensor(0.5), "the_network": GRU},
        {"optimizer": {"state": {"weight": {"exp_avg": torch.zeros(2)}}}, "mine": {"deeper": GRU}},
    ],
)
def test_the_models_dict_is_found_in_a_checkpoint(held, tmp_path):
    torch.save(held, tmp_path / "a.ckpt")
    same_bits(read_state_dict(tmp_path / "a.ckpt"), GRU)


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_that_lightning_wrote_is_read(tmp_path):
    lightning: Any = pytest.importorskip("lightning")

    class Task(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"units": H})
            self.gru = nn.GRU(I, H)

        def training_step(self, batch):
            return self.gru(batch)[0].sum()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    task = Task()
    trainer = lightning.Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(
        task,
        DataLoader(torch.randn(2, 5, I), batch_size=2),  # type: ignore[arg-type]
    )
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    (found,) = layers_of(read_state_dict(tmp_path / "a.ckpt"))
    assert found.layer is not None
    same_bits(found.layer.state_dict(), task.gru.state_dict())


@pytest.mark.parametrize("depth", [4, 5])
def test_dicts_are_entered_to_a_depth_and_circles_end(depth, tmp_path):
    held: Any = GRU
    for _ in range(depth):
        held = {"it": held}
    circle: dict[str, Any] = {"deep": held}
    circle |= {f"again{number}": circle for number in range(200)}
    torch.save(circle if depth == 5 else held, tmp_path / "a.pt")
    if depth == 5:
        no_file(tmp_path / "a.pt", r"must hold a state dict, tensors by name; it holds a dict of deep, again0")
    else:
        same_bits(read_state_dict(tmp_path / "a.pt"), GRU)


# ----------------------------------------------------------------------------------------------------------------------
# Files that are something else


class Runs:
    """A pickle that makes a folder when it is loaded as pickles are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "inside"])
def test_a_pickle_that_would_run_code_does_not_run_it(form, tmp_path):
    path, proof = tmp_path / "a.pt", tmp_path / "it ran"
    held = {"state_dict": GRU, "extra": Runs(proof)} if form == "inside" else Runs(proof)
    if form == "pickle":
        path.write_bytes(pickle.dumps(held))
    else:
        torch.save(held, path, _use_new_zipfile_serialization=form != "legacy")
    no_file(path, r"a\.pt' (must be a state dict|is truncated or not)")
    assert not proof.exists()
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert proof.exists()  # it would have


def test_programs_models_and_optimizers_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(nn.GRU(I, H), path)
    no_file(
        path, r"must be a state dict \(torch.save\(model.state_dict\(\), ...\)\), .*; it holds an object of torch.nn"
    )
    torch.jit.script(nn.GRU(I, H)).save(str(path))
    no_file(path, r"it is a program \(TorchScript or torch.export\)")
    torch.export.save(torch.export.export(nn.Linear(I, H), (torch.ones(1, I),)), str(tmp_path / "b.pt2"))
    no_file(tmp_path / "b.pt2", r"it is a program \(TorchScript or torch.export\)")
    model = nn.GRU(I, H)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 1, I))[0].sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), path)
    no_file(path, "must hold a state dict, tensors by name; it holds a dict of state, param_groups")
    for held, told in ((torch.ones(3), "a Tensor"), ([GRU], "a list"), ({}, "a dict of nothing"), (3, "an? int")):
        torch.save(held, path)
        no_file(path, f"it holds {told}")


@pytest.mark.parametrize("name", ["code.pt", "models.pt", "constants.pt"])
def test_a_state_dict_called_like_a_part_of_a_program_is_none(name, tmp_path):
    torch.save(GRU, tmp_path / name)
    same_bits(read_state_dict(tmp_path / name), GRU)


@pytest.mark.parametrize(
    "held", [b"", b"{", b"PK\x03\x04", b"\x80\x02}q\x00.", b"not a model", b"\x00" * 100, b"\x08" + 7 * b"\0" + b"{}"]
)
def test_files_of_other_kinds_are_refused(held, tmp_path):
    (tmp_path / "a.pt").write_bytes(held)
    no_file(tmp_path / "a.pt", r"a\.pt' (is truncated or not a|must hold a state dict)")


def test_paths_that_are_no_files_are_refused(tmp_path):
    with pytest.raises(FileMissingError, match="there is no file"):
        read_state_dict(tmp_path / "none.pt")
    no_file(tmp_path, "must be a file")
    no_file(tmp_path / ("x" * 300), r"cannot be read: File name too long|there is no file")


@pytest.mark.usefixtures("as_users_run_it")
def test_files_that_are_larger_than_allowed_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(GRU, path)
    size = path.stat().st_size
    no_file(path, rf"must hold at most max_bytes = {size - 1}; it holds {size}", max_bytes=size - 1)
    same_bits(read_state_dict(path, max_bytes=size), GRU)
    for wrong in (0, -1, 1.5, True, None):
        given: Any = wrong
        no_bytes = partial(read_state_dict, path, max_bytes=given)
        assert_refused(no_bytes, InputValueError, "max_bytes must be")


@pytest.mark.usefixtures("as_users_run_it")
def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path):
    torch.save({"gru.weight": torch.zeros(1_000_000)}, tmp_path / "large.pt")
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(tmp_path / "large.pt") as given, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for name in given.namelist():
            made.writestr(name, given.read(name))
    assert packed.stat().st_size < 100_000
    no_file(packed, r"must hold at most max_bytes = 100000; unpacked it holds 40\d{5}", max_bytes=100_000)


def damaged(form: str) -> bytes:
    """A whole file, to be damaged."""
    state = {"gru." + name: tensor for name, tensor in GRU.items()}
    file = io.BytesIO()
    if form == "safetensors":
        return bytes(save(state))
    torch.save(state, file, _use_new_zipfile_serialization=form == "pt")
    return file.getvalue()


WHOLE = {form: damaged(form) for form in ("pt", "legacy", "safetensors")}


@pytest.mark.parametrize("form", WHOLE)
def test_a_truncated_file_is_refused_wherever_it_ends(form, tmp_path):
    path, whole = tmp_path / "a.pt", WHOLE[form]
    for end in sorted({*range(40), *range(0, len(whole), 37), len(whole) - 1}):
        path.write_bytes(whole[:end])
        # a legacy file that ends within the name of what it needs names that
        no_file(path, r"a\.pt' (is truncated or not a|must be a state dict .* it holds an object of )")
    path.write_bytes(whole)
    assert len(layers_of(read_state_dict(path))) == 1


@settings(max_examples=300)
@given(
    form=st.sampled_from(list(WHOLE)),
    places=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_file_with_wrong_bytes_is_read_or_refused(form, places, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"damaged.{form}"
    whole = bytearray(WHOLE[form])
    for place, value in places:
        whole[place % len(whole)] = value
    path.write_bytes(whole)
    with suppress(FileError, InputValueError):
        layers_of(read_state_dict(path))


def test_without_safetensors_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.safetensors").write_bytes(WHOLE["safetensors"])
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tidegate\[doctor\]'"):
        read_state_dict(tmp_path / "a.safetensors")


# ----------------------------------------------------------------------------------------------------------------------
# Weights that fit no layer


def changed(kind: str = "GRU", **changes: Any) -> dict[str, torch.Tensor]:
    """A layer's state dict with other tensors in it, or without those that are None."""
    state = {**LAYERS[kind][0]().state_dict(), **changes}
    return {f"gru.{name}": tensor for name, tensor in state.items() if tensor is not None}


HALF = torch.zeros(3 * H, H, dtype=torch.float16)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (changed("torch GRU", weight_hh_l0=None), "gru must have weight_hh_l0; it has weight_ih_l0, bias_ih_l0"),
        (changed("torch GRU", weight_ih_l0=None), "gru must have weight_ih_l0; it has weight_hh_l0"),
        (changed("torch GRU", bias_hh_l0=None), "must have the weights of one layer; bias_hh_l0 is missing"),
        (changed("torch GRU", bias_ih_l1=torch.zeros(12)), "weight_ih_l1, .*missing"),
        (changed("torch GRU", weight_hr_l0=torch.zeros(2, H)), r"weight_hh_l0 of gru must be \(12, 2\)"),
        (changed("torch GRU", weight_ih_l0=torch.zeros(12)), r"weight_ih_l0 of gru must be a matrix; got \(12,\)"),
        (changed("torch GRU", weight_ih_l0=torch.zeros(12, 0)), r"must be a matrix; got \(12, 0\)"),
        (changed("torch GRU", weight_ih_l0=torch.zeros(2, I)), r"weight_ih_l0 of gru must be|3 blocks of rows"),
        (changed("torch GRU", weight_ih_l0=torch.zeros(15, I)), r"must be \(15, 5\) to go .*; got \(12, 4\)"),
        (changed("torch GRU", weight_hh_l0=torch.zeros(13, 4)), r"weight_hh_l0 of gru must be \(G\*H, H\) with"),
        (changed("torch GRU", weight_hh_l0=torch.zeros(20, 4)), r"4 \(LSTM\); got \(20, 4\)"),
        (changed("torch GRU", bias_hh_l0=torch.zeros(11)), r"bias_hh_l0 of gru must be \(12,\) to go .*; got \(11,\)"),
        (changed("torch GRU", bias_hh_l0=torch.zeros(())), r"bias_hh_l0 of gru must be \(12,\) to go .*; got \(\)"),
        (changed("torch GRU", weight_hh_l0=HALF), "dense, of one dtype with the others; got torch.float16"),
        (changed("torch GRU", bias_ih_l0=torch.zeros(12, dtype=torch.int8)), "floating numbers, .*; got torch.int8"),
        (changed("torch GRU", bias_ih_l0=torch.zeros(12, dtype=torch.complex64)), "got torch.complex64"),
        (changed("torch GRU", weight_hh_l0=torch.zeros(12, 4).to_sparse()), "torch.float32, torch.sparse_coo"),
        ({name: one.to(torch.float8_e4m3fn) for name, one in changed().items()}, "got torch.float8_e4m3fn"),
        (changed("torch GRU", weight_ih_l9999=torch.zeros(12, 4)), "layers must be numbered from 0 on; got 0, 9999"),
        (changed("torch GRU", **{f"weight_ih_l{10**17}": torch.zeros(12, 4)}), f"got 0, {10**17}"),
        (changed("torch GRU", weight_ih_l00=torch.zeros(12, 4)), "weight_ih_l00 is unknown"),
        (changed("torch GRU", weight_ih_l0_reverse=torch.zeros(12, I)), "bias_ih_l0_reverse, .*missing|is missing"),
        (changed("GRU, learned state", h_0=torch.ones(2, H, dtype=torch.int64)), "h_0 of gru must hold floating"),
        (changed("GRU, learned state", h_0=torch.ones(3, H)), r"h_0 of gru must be \(2, 4\)"),
        (changed("GRU, layer-normalised", gain_hh_l0=None), "gain_hh_l0 is missing"),
        (changed("torch LSTM", weight_hh_l1=torch.zeros(12, 4)), r"weight_hh_l1 of gru must be \(16, 4\)"),
        (changed("torch LSTM, projected, both ways", weight_hr_l0=torch.zeros(2)), "must be a matrix"),
        (changed("torch GRUCell", bias_hh=None), "bias_hh is missing"),
        (changed("torch GRUCell", weight_ih=None), "gru must have weight_ih"),
    ],
)  # fmt: skip
def test_weights_that_fit_no_layer_are_refused_in_a_sentence(state, sentence):
    no_layers(state, sentence)


def test_renamed_weights_are_refused_or_none_at_all():
    renamed = {f"gru.weight_ih_layer{number}": torch.zeros(12, 3) for number in range(2)}
    assert layers_of(renamed) == ()
    no_layers({**renamed, "gru.weight_hh_l0": torch.zeros(12, 4)}, "gru must have weight_ih_l0; it has weight_hh_l0")


@pytest.mark.parametrize("at", [None, "gru"])
@pytest.mark.parametrize("name", ["weight_hh_l0", "weight_ih_l0", "bias_ih_l0"])
@pytest.mark.parametrize("how", ["parametrized", "old", "spectral", "pruned"])
@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_computed_from_others_are_named_and_not_guessed(at, name, how):
    module = nn.GRU(I, H)
    if name.startswith("bias"):
        if how in ("parametrized", "spectral", "old"):
            pytest.skip("a vector has no such norm")
        prune.l1_unstructured(module, name, 0.5)
    elif how == "parametrized":
        nn.utils.parametrizations.weight_norm(module, name)
    elif how == "old":
        nn.utils.weight_norm(module, name)
    elif how == "spectral":
        nn.utils.spectral_norm(module, name)
    else:
        prune.l1_unstructured(module, name, 0.5)
    model = nn.ModuleDict({"gru": module}) if at else module
    (found,) = layers_of(model.state_dict())
    assert (found.name, found.layer, found.kind) == (at or "", None, "recurrent layer")
    assert found.refusal == f"its {name} is computed from other parameters, in a way that the file does not tell"
    cell = nn.GRUCell(I, H)
    nn.utils.parametrizations.weight_norm(cell, "weight_hh")
    assert [one.kind for one in layers_of(cell.state_dict())] == ["recurrent cell"]
