"""Folders of results: what is loaded is what was saved; damage is refused; a folder is filled whole or not at all."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.train.folders import check_out, load_classifier, save_classifier, staged
from tidegate.train.models import ClassifierConfig, SequenceClassifier


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


SYSTEMS = ["dense", "rnn", "update-only", "gru", "gru-reset-before"]


def classifier(system="gru"):
    model = SequenceClassifier(ClassifierConfig(system, 6, 5, ("cat", "dog", "<none>")))
    model.normalise_by(torch.randn(20, 6) * 3 + 1)
    return model


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_loaded_model_is_the_saved_one_to_the_bit(tmp_path, system):
    model, x = classifier(system), torch.randn(9, 4, 6)
    save_classifier(model, tmp_path / "run")
    loaded = load_classifier(tmp_path / "run")
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded(x), model(x))


def test_the_files_are_json_and_safetensors(tmp_path):
    save_classifier(classifier(), tmp_path)
    assert names(tmp_path) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["system"] == "gru"
    assert config["classes"] == ["cat", "dog", "<none>"]
    assert "layer.weight_ih_l0" in load_file(tmp_path / "model.safetensors")


def spoil_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    save_classifier(classifier(), tmp_path)
    spoil_weights(tmp_path, lambda weights: weights["layer.weight_hh_l0"].__setitem__((2, 1), bad))
    with pytest.raises(FileError, match=r"must hold finite numbers; layer\.weight_hh_l0 holds NaN or infinity"):
        load_classifier(tmp_path)


def test_weights_of_another_shape_or_name_are_refused(tmp_path):
    save_classifier(classifier(), tmp_path)
    spoil_weights(tmp_path, lambda weights: weights.update({"head.bias": torch.zeros(4)}))
    with pytest.raises(FileError, match=r"must hold head\.bias of \(3,\); it holds \(4,\)"):
        load_classifier(tmp_path)
    spoil_weights(tmp_path, lambda weights: weights.pop("head.bias"))
    with pytest.raises(FileError, match=r"must hold head\.bias of \(3,\); it holds None"):
        load_classifier(tmp_path)


def test_truncated_weights_are_refused(tmp_path):
    save_classifier(classifier(), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for kept in (0, 5, 200, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:kept])
        with pytest.raises(FileError, match="truncated or not a safetensors file"):
            load_classifier(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": "other"}', '{"format": "tidegate.classifier/1", "system": "gru"}', "\x00\xff"],
)
def test_a_configuration_that_is_none_is_refused(tmp_path, text):
    save_classifier(classifier(), tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(FileError, match=r"config\.json' is not "):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system", "lstm"),
        ("hidden_size", "many"),
        ("hidden_size", 0),
        ("input_size", -1),
        ("classes", 3),
        ("classes", []),
        ("hidden_size", True),
    ],
)
def test_a_configuration_with_a_wrong_value_is_refused(tmp_path, key, value):
    save_classifier(classifier(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(FileError, match="is not a classifier's configuration"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_one_sentence(tmp_path, missing):
    save_classifier(classifier(), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FileMissingError, match=f"there is no file '.*{missing}'"):
        load_classifier(tmp_path)


def write_two(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "one.txt").write_text("new")
    (folder / "two.txt").write_text("new")


def test_a_staged_folder_appears_when_all_is_done(tmp_path):
    out = tmp_path / "new" / "run"
    with staged(out) as folder:
        write_two(folder)
        assert not out.exists()
    assert (out / "deep" / "one.txt").read_text() == "new"
    assert names(out.parent) == ["run"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupt_leaves_nothing_behind(tmp_path, stop):
    def interrupted():
        with staged(tmp_path / "run") as folder:
            write_two(folder)
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert names(tmp_path) == []


def test_a_folder_that_holds_files_is_refused_unless_they_may_be_replaced(tmp_path):
    (tmp_path / "two.txt").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputValueError, match=r"out must be new or empty; .* holds files"), staged(tmp_path):
        pass
    with staged(tmp_path, overwrite=True) as folder:
        write_two(folder)
    assert (tmp_path / "two.txt").read_text() == "new"
    assert (tmp_path / "mine.txt").read_text() == "mine"  # what is not written anew is left alone


def test_an_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputValueError, match=r"out must be a folder; .* is a file"):
        check_out(tmp_path / "file", overwrite=True)
