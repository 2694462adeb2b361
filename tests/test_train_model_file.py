"""A model in one file: what is loaded is what was saved, and damage is refused."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.refusals import assert_refused
from tidegate.data.sequences import Feature
from tidegate.errors import FileError, FileMissingError
from tidegate.train.model import ModelConfig, SequenceModel, Variant
from tidegate.train.model_file import load_model, save_model
from tidegate.train.tasks import Task

TASK = Task("classify", "animal", "cross-entropy", ("cat", "dog", "<none>"))


def model(variant: Variant = "gru") -> SequenceModel:
    features = tuple(Feature(f"x{place}") for place in range(6))
    made = SequenceModel(ModelConfig(features, (False,) * 6, 3, per_step=False, variant=variant, hidden_size=5))
    made.encoder.mean.normal_()
    return made


@pytest.mark.parametrize("variant", get_args(Variant))
def test_a_loaded_model_is_the_saved_one_to_the_bit(tmp_path, variant):
    saved, x = model(variant), torch.randn(9, 4, 6)
    save_model(saved, TASK, tmp_path / "model.safetensors")
    assert [one.name for one in tmp_path.iterdir()] == ["model.safetensors"]
    loaded, task = load_model(tmp_path / "model.safetensors")
    assert loaded.config == saved.config
    assert task == TASK
    assert not loaded.training
    assert torch.equal(loaded(x)[0], saved.eval()(x)[0])


@pytest.fixture
def path(tmp_path):
    save_model(model(), TASK, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def spoil(path, *, weights=None, header=None):
    """Change the tensors, or the JSON in the header."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    if weights is not None:
        weights(tensors)
    if header is not None:
        told = json.loads(metadata["tidegate"])
        header(told)
        metadata["tidegate"] = json.dumps(told)
    save_file(tensors, path, metadata)


def test_the_file_is_safetensors_with_names_that_others_know(path):
    assert {"layer.weight_ih_l0", "layer.bias_hh_l0", "head.weight"} <= set(load_file(path))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(path, bad):
    spoil(path, weights=lambda tensors: tensors["layer.weight_hh_l0"].__setitem__((2, 1), bad))
    words = r"must hold finite numbers; layer\.weight_hh_l0 holds NaN or infinity"
    assert_refused(lambda: load_model(path), FileError, words)


def test_weights_of_another_shape_or_name_are_refused(path):
    spoil(path, weights=lambda tensors: tensors.update({"head.bias": torch.zeros(4)}))
    assert_refused(
        lambda: load_model(path), FileError, r"does not hold a model of this version of Tidegate: .*head\.bias"
    )
    spoil(path, weights=lambda tensors: tensors.pop("head.bias"))
    assert_refused(lambda: load_model(path), FileError, r"Missing key.*head\.bias")


def test_truncated_files_are_refused(path):
    whole = path.read_bytes()
    for kept in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert_refused(lambda: load_model(path), FileError, "is truncated or not a safetensors file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": None}, "does not hold a model of this version"),
        ({"task": {}}, "does not hold a model of this version"),
        ({"config": {"hidden_size": 5}}, "a model must have features, "),
        ({"format": "other"}, "is not a checkpoint of the format"),
    ],
)
def test_a_header_that_is_none_of_ours_is_refused(path, change, words):
    spoil(path, header=lambda told: told.update(change))
    assert_refused(lambda: load_model(path), FileError, words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("categories", [], "categories must be a list of names"),
        ("categories", "zzz", "categories must be a list of names"),
        ("categories", ["one"], "it gives numbers, 3 a sequence, but is asked for 1 a sequence"),
        ("categories", None, "it gives numbers, 3 a sequence, but is asked for 1 a sequence"),
        ("name", "label-steps", "it gives numbers, 3 a sequence, but is asked for 3 a step"),
        ("name", 5, "name must be one of"),
        ("mean", "zzz", "mean must be a number"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_a_question_that_is_not_the_models_is_refused(path, name, value, words):
    spoil(path, header=lambda told: told["task"].update({name: value}))
    assert_refused(lambda: load_model(path), FileError, words)


@pytest.mark.parametrize("layers", [2, 2**40, 10**30])
def test_more_layers_than_there_are_weights_are_refused_before_they_are_made(path, layers):
    spoil(path, header=lambda told: told["config"].update(num_layers=layers))
    assert_refused(lambda: load_model(path), FileError, "does not hold a model of this version")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variant", "lstm"),
        ("hidden_size", "many"),
        ("hidden_size", 0),
        ("outputs", -1),
        ("hidden_size", True),
        ("per_step", "zzz"),
    ],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_a_configuration_with_a_wrong_value_is_refused(path, name, value):
    spoil(path, header=lambda told: told["config"].update({name: value}))
    assert_refused(
        lambda: load_model(path), FileError, f"does not hold a model of this version of Tidegate: {name} must"
    )


def test_no_file_is_one_sentence(tmp_path):
    assert_refused(lambda: load_model(tmp_path / "none"), FileMissingError, "there is no file '.*none'")


def test_a_full_disk_leaves_what_was_there(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert_refused(
        lambda: save_model(model(), replace(TASK, label="other"), path), FileError, "No space left on device"
    )
    assert path.read_bytes() == before
