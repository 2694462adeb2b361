"""Fitting: it learns; the same seed gives the same bits; interrupted and resumed is never interrupted."""

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from tests.refusals import assert_refused
from tests.train_helpers import first_symbol, fitting_settings, in_parts, sequences_of, sums
from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.train.batches import Batches
from tidegate.train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from tidegate.train.fitting import evaluate, fit_model, new_model
from tidegate.train.keeper import Moment
from tidegate.train.settings import Settings
from tidegate.train.split import Split
from tidegate.train.tasks import known_values, task_for


def fit(sequences, settings, **options):
    parts = options.pop("parts", None) or in_parts(sequences)
    task = task_for(sequences, parts.train, loss=settings.loss, class_weights=settings.class_weights)
    return fit_model(new_model(sequences, parts, task, settings), sequences, parts, task, settings, **options)


def same_bits(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    return True


def scores_of(fitted, sequences, settings):
    batches = Batches(sequences, in_parts(sequences).test, settings.batch_size, chunk=settings.chunk)
    return evaluate(fitted.model, fitted.task, batches, settings)


# ---------------------------------------------------------------------------------------------------------------------
# it learns

LEARN = {"hidden_size": 12, "epochs": 25, "learning_rate": 0.03, "memory_steps": "0"}


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "rnn"},
        {"variant": "update-only"},
        {"variant": "gru"},
        {"variant": "gru-reset-before"},
        {"variant": "gru-layer-norm"},
        {"bidirectional": True},
        {"num_layers": 2, "dropout": 0.1, "recurrent_dropout": 0.1},
        {"precision": "bf16"},
        {"recompute": True, "schedule": "cosine", "weight_decay": 0.01, "class_weights": "balanced"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_which_symbol_came_first_is_learned(options):
    sequences = first_symbol(160, 5)
    settings = fitting_settings(**LEARN, **options)
    fitted = fit(sequences, settings)
    assert scores_of(fitted, sequences, settings)["accuracy"] > 0.85
    assert not fitted.model.training
    losses = [record["train_loss"] for record in fitted.history]
    assert losses[-1] < 0.7 * losses[0]


def test_without_a_memory_it_is_not():
    sequences = first_symbol(160, 5)
    settings = fitting_settings(**LEARN, variant="dense")
    assert scores_of(fit(sequences, settings), sequences, settings)["accuracy"] < 0.75


@pytest.mark.parametrize("chunk", [None, 2])
def test_labels_of_steps_are_learned(chunk):
    sequences = first_symbol(160, 5, per_step=True)
    settings = fitting_settings(**LEARN, chunk=chunk)
    assert scores_of(fit(sequences, settings), sequences, settings)["accuracy"] > 0.85


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_numbers_far_from_zero_are_learned(loss, per_step):
    sequences = sums(160, 5, per_step=per_step)
    settings = fitting_settings(**LEARN, loss=loss)
    assert scores_of(fit(sequences, settings), sequences, settings)["rmse"] < 0.5 * float(
        known_values(sequences, np.arange(160)).std()
    )


def test_one_step_beside_five_thousand():
    rng = np.random.default_rng(0)
    lengths = [1, 5000, 1, 2, 1, 1, 700, 1]
    pieces = [rng.normal(size=(length, 1)) for length in lengths]
    sequences = sequences_of(pieces, label=[0, 1] * 4, categories=("a", "b"))
    parts = Split(train=np.arange(4), validation=np.array([4, 5]), test=np.array([6, 7]))
    for chunk in (None, 300):
        fitted = fit(sequences, fitting_settings(epochs=2, batch_size=4, chunk=chunk), parts=parts)
        assert all(math.isfinite(record["train_loss"]) for record in fitted.history)


# ---------------------------------------------------------------------------------------------------------------------
# what an epoch is

HARD: dict[str, dict[str, Any]] = {
    "plain": {},
    "chunks": {"chunk": 3},
    "everything": {
        "chunk": 5,
        "num_layers": 2,
        "dropout": 0.3,
        "recurrent_dropout": 0.2,
        "class_weights": "balanced",
        "schedule": "cosine",
        "weight_decay": 0.1,
    },
}


@pytest.fixture
def seen(monkeypatch):
    """Which sequences each training step saw, in their order."""
    from tidegate.train.learner import Learner  # noqa: PLC0415

    steps: list[tuple[tuple[int, ...], int]] = []
    real = Learner.training_step

    def watched(self, batch, batch_index):
        steps.append((tuple(batch.numbers.tolist()), batch.start))
        return real(self, batch, batch_index)

    monkeypatch.setattr(Learner, "training_step", watched)
    return steps


@pytest.mark.parametrize("chunk", [None, 3])
def test_every_epoch_takes_the_batches_of_its_own_number(seen, chunk):
    sequences = first_symbol(100, 40)
    settings = fitting_settings(epochs=4, batch_size=2, chunk=chunk)
    fit(sequences, settings)
    batches = Batches(sequences, in_parts(sequences).train, 2, chunk=chunk, shuffle=settings.seed)
    wanted, counts = [], set()
    for epoch in range(4):
        batches.epoch = epoch
        one = [(tuple(batch.numbers.tolist()), batch.start) for batch in batches]
        counts.add(len(one))
        wanted += one
    assert seen == wanted
    assert chunk is None or len(counts) > 1, "the test must meet epochs of different lengths"


def test_progress_is_told_in_order():
    told: list[Moment] = []
    sequences = first_symbol(40, 9)
    fit(sequences, fitting_settings(epochs=3, chunk=4), progress=told.append)
    batches = Batches(sequences, in_parts(sequences).train, 8, chunk=4, shuffle=3)
    for epoch in range(3):
        batches.epoch = epoch
        mine = [moment for moment in told if moment.epoch == epoch]
        assert [moment.batch for moment in mine] == [*range(1, len(batches) + 1), len(batches)]
        assert {moment.batches for moment in mine} == {len(batches)}
        assert [moment.scores is not None for moment in mine] == [False] * len(batches) + [True]
        assert (mine[-1].scores or {}).keys() == {"loss", "accuracy", "f1"}
    assert sum(moment.best for moment in told) >= 1


def test_the_best_weights_are_those_of_the_best_epoch():
    sequences = first_symbol(60, 9)
    settings = fitting_settings(epochs=12, learning_rate=0.2, patience=100)
    fitted = fit(sequences, settings)
    losses = [record["validation_loss"] for record in fitted.history]
    assert len(losses) == 12
    assert fitted.best_epoch == int(np.argmin(losses)) < 11, "the last epoch must not be the best one here"
    again = evaluate(fitted.model, fitted.task, Batches(sequences, in_parts(sequences).validation, 8), settings)
    assert again == pytest.approx(fitted.validation, rel=1e-6)
    assert again["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_patience_is_counted_from_the_best_epoch():
    fitted = fit(first_symbol(60, 9), fitting_settings(epochs=100, learning_rate=0.2, patience=3))
    assert len(fitted.history) == fitted.best_epoch + 1 + 3 < 100


def test_what_is_around_is_left_as_it_was():
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    before = torch.get_num_threads()
    fit(first_symbol(30), fitting_settings(epochs=1, threads=2, dropout=0.5))
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(3), wanted)


# ---------------------------------------------------------------------------------------------------------------------
# to the bit


@pytest.mark.parametrize("options", HARD.values(), ids=HARD)
def test_the_same_seed_gives_the_same_bits(options):
    sequences = first_symbol(40, 14)
    first = fit(sequences, fitting_settings(**options))
    torch.rand(5)
    np.random.default_rng().random()
    second = fit(sequences, fitting_settings(**options))
    assert same_bits(first.model.state_dict(), second.model.state_dict())
    assert first.history == second.history
    other = fit(sequences, fitting_settings(**options, seed=4) if "seed" not in options else fitting_settings())
    assert other.history != first.history


class Interrupting:
    """Interrupts when epoch and batch have come, and every epoch's end with `batch=None`."""

    def __init__(self, epoch, batch):
        self.wanted = (epoch, batch)

    def __call__(self, moment):
        here = (moment.epoch, None if moment.scores is not None else moment.batch)
        if here == self.wanted:
            raise KeyboardInterrupt


@pytest.mark.parametrize("moment", [(0, 1), (0, None), (1, 2), (2, None), (3, 1), (3, None)], ids=str)
@pytest.mark.parametrize("options", HARD.values(), ids=HARD)
def test_interrupted_and_resumed_is_never_interrupted(tmp_path, options, moment):
    sequences, settings = first_symbol(40, 14), fitting_settings(**options)
    whole = fit(sequences, settings, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(sequences, settings, folder=tmp_path / "cut", progress=Interrupting(*moment))
    begun = (tmp_path / "cut" / "last.safetensors").is_file()
    assert begun == (moment > (0, 1) if moment[1] else True)
    torch.rand(9)
    resumed = fit(sequences, settings, folder=tmp_path / "cut", resume=begun)
    assert same_bits(whole.model.state_dict(), resumed.model.state_dict())
    assert whole.history == resumed.history
    assert (whole.best_epoch, whole.validation) == (resumed.best_epoch, resumed.validation)
    for name in ("last.safetensors", "best.safetensors"):
        one, other = (read_checkpoint(tmp_path / folder / name) for folder in ("whole", "cut"))
        assert same_bits(one.tensors, other.tensors)
        assert one.state == other.state
    assert any(name.startswith("optimizer/") for name in one.tensors) or name == "best.safetensors"


def test_interrupted_after_every_epoch(tmp_path):
    sequences, settings = first_symbol(40, 14), fitting_settings(**HARD["everything"], epochs=5)
    whole = fit(sequences, settings)
    for epoch in range(5):
        with pytest.raises(KeyboardInterrupt):
            fit(sequences, settings, folder=tmp_path, resume=epoch > 0, progress=Interrupting(epoch, None))
    resumed = fit(sequences, settings, folder=tmp_path, resume=True)
    assert same_bits(whole.model.state_dict(), resumed.model.state_dict())
    assert whole.history == resumed.history


def test_a_crash_between_the_two_checkpoints_costs_nothing(tmp_path, monkeypatch):
    """`best` is then of an epoch that `last` does not know yet."""
    sequences, settings = first_symbol(40, 14), fitting_settings(dropout=0.3, epochs=5)
    whole = fit(sequences, settings, folder=tmp_path / "whole")
    improved = [at for at, record in enumerate(whole.history) if at and record["validation_loss"] < min(
        earlier["validation_loss"] for earlier in whole.history[:at])]  # fmt: skip
    assert improved
    written: Counter[str] = Counter()

    def crashing(checkpoint, path):
        written[path.name] += 1
        if path.name == "last.safetensors" and written[path.name] == improved[0] + 1:
            raise KeyboardInterrupt
        write_checkpoint(checkpoint, path)

    monkeypatch.setattr("tidegate.train.keeper.write_checkpoint", crashing)
    with pytest.raises(KeyboardInterrupt):
        fit(sequences, settings, folder=tmp_path / "cut")
    monkeypatch.undo()
    resumed = fit(sequences, settings, folder=tmp_path / "cut", resume=True)
    assert same_bits(whole.model.state_dict(), resumed.model.state_dict())
    assert whole.history == resumed.history


def test_a_finished_run_is_not_trained_on(tmp_path):
    sequences, settings = first_symbol(40), fitting_settings()
    whole = fit(sequences, settings, folder=tmp_path)
    told: list[object] = []
    again = fit(sequences, settings, folder=tmp_path, resume=True, progress=told.append)
    assert not told
    assert same_bits(whole.model.state_dict(), again.model.state_dict())
    assert whole.history == again.history


def begun(folder):
    sequences = first_symbol(40)
    with pytest.raises(KeyboardInterrupt):
        fit(sequences, fitting_settings(), folder=folder, progress=Interrupting(1, None))
    return sequences


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0.1), ("seed", 9), ("epochs", 5), ("threads", 2), ("chunk", 3), ("dropout", 0.5)],
)
def test_other_options_are_no_resumption(tmp_path, name, value):
    sequences = begun(tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    words = f"^{name} must be that of the run that is resumed, .*; got {value}"
    changed = fitting_settings(**{name: value})
    assert_refused(lambda: fit(sequences, changed, folder=tmp_path, resume=True), InputValueError, words)
    assert (tmp_path / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize("part", ["a value", "a label", "the parts", "a category"])
def test_other_data_are_no_resumption(tmp_path, part):
    sequences = begun(tmp_path)
    parts = in_parts(sequences)
    if part == "a value":
        sequences.values[-1, 1] += 1e-9
    elif part == "a label":
        assert sequences.label is not None
        sequences.label.values[-1] = 1 - sequences.label.values[-1]
    elif part == "the parts":
        parts = Split(parts.train, parts.test, parts.validation)
    else:
        object.__setattr__(sequences.features[0], "categories", ("a", "other"))
    assert_refused(
        lambda: fit(sequences, fitting_settings(), folder=tmp_path, resume=True, parts=parts),
        InputValueError,
        "^data must be those of the run that is resumed; they differ",
    )


def test_damaged_checkpoints_are_refused(tmp_path):
    sequences = begun(tmp_path)

    def resumed():
        return fit(sequences, fitting_settings(), folder=tmp_path, resume=True)

    whole = (tmp_path / "last.safetensors").read_bytes()
    found = read_checkpoint(tmp_path / "last.safetensors")
    (tmp_path / "last.safetensors").write_bytes(whole[:100])
    assert_refused(resumed, FileError, "last.safetensors' is truncated")
    some = {name: tensor for name, tensor in found.tensors.items() if "head" not in name}
    for checkpoint in (
        Checkpoint(found.tensors, {}),
        Checkpoint(some, found.state),
        Checkpoint(found.tensors, {**found.state, "other": 1}),
        Checkpoint({**found.tensors, "optimizer/nowhere/step": torch.ones(1)}, found.state),
    ):
        write_checkpoint(checkpoint, tmp_path / "last.safetensors")
        assert_refused(resumed, FileError, "last.safetensors' does not hold a run of this version")
    (tmp_path / "last.safetensors").write_bytes(whole)
    best = (tmp_path / "best.safetensors").read_bytes()
    write_checkpoint(Checkpoint({"x": torch.ones(1)}, {}), tmp_path / "best.safetensors")
    assert_refused(resumed, FileError, "best.safetensors' does not hold a run of this version")
    (tmp_path / "best.safetensors").unlink()
    assert_refused(resumed, FileMissingError, "there is no file .*best.safetensors")
    (tmp_path / "best.safetensors").write_bytes(best)
    resumed()


def test_a_checkpoint_is_json_and_tensors(tmp_path):
    begun(tmp_path)
    state = read_checkpoint(tmp_path / "last.safetensors").state
    assert json.loads(json.dumps(dict(state), allow_nan=False)) == state


# ---------------------------------------------------------------------------------------------------------------------
# bad ends


def test_a_run_that_never_has_a_finite_loss_is_one_sentence(tmp_path):
    settings = fitting_settings(clip_norm=0, epochs=50)
    object.__setattr__(settings, "learning_rate", 1e38)  # settings refuse it
    words = "the validation loss must become finite in some epoch; it never did: lower learning_rate"
    sequences = sums(40)
    told: list[Moment] = []
    assert_refused(lambda: fit(sequences, settings, folder=tmp_path, progress=told.append), InputValueError, words)
    assert max(moment.epoch for moment in told) < 3, "weights that are NaN are not trained on"
    assert_refused(lambda: fit(sequences, settings, folder=tmp_path, resume=True), InputValueError, words)


def test_a_learning_rate_of_a_million_ends(tmp_path):
    settings = fitting_settings(learning_rate=999_999.0, epochs=5)
    told = ""
    try:
        loss = fit(sums(40), settings, folder=tmp_path).validation["loss"]
    except InputValueError as error:
        told = str(error)
    assert "lower learning_rate" in told if told else math.isfinite(loss)


def test_a_full_disk_ends_training_in_one_sentence(tmp_path, monkeypatch):
    sequences = begun(tmp_path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert_refused(
        lambda: fit(sequences, fitting_settings(), folder=tmp_path, resume=True), FileError, "No space left on device"
    )
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last.safetensors"]
    whole, resumed = (
        fit(sequences, fitting_settings()),
        fit(sequences, fitting_settings(), folder=tmp_path, resume=True),
    )
    assert same_bits(whole.model.state_dict(), resumed.model.state_dict())


def refused(sequences, words, *, parts=None, settings=None):
    parts = parts or in_parts(sequences)
    task = task_for(sequences, parts.train)
    assert_refused(lambda: new_model(sequences, parts, task, settings or Settings()), InputValueError, words)


def test_what_cannot_be_trained_on_is_refused_before_anything_is_written():
    sequences = first_symbol(40)
    every = np.arange(40)
    nobody = Split(every, np.array([], int), np.array([], int))
    refused(sequences, "label 'answer' must be known somewhere in the validation part", parts=nobody)
    for other in ({"num_layers": 2}, {"bidirectional": True}, {"recurrent_dropout": 0.1}):
        settings = Settings(variant="dense", **other)
        refused(sequences, "variant 'dense' has one layer, one direction and nothing recurrent", settings=settings)
    unknown = first_symbol(40)
    assert unknown.label is not None
    unknown.label.values[in_parts(unknown).validation] = np.nan
    refused(unknown, "label 'answer' must be known somewhere in the validation part")
    missing = first_symbol(40)
    for number in in_parts(missing).train:
        missing.values[missing.rows(int(number)), 1] = np.nan
    refused(missing, "feature 'noise' must have a value somewhere in the training part; all are missing")


def test_long_memories_are_for_layers_with_gates():
    sequences = first_symbol(40, 30)
    parts = in_parts(sequences)
    task = task_for(sequences, parts.train)

    def bias(**options):
        torch.manual_seed(1)
        return new_model(sequences, parts, task, fitting_settings(**options)).layer.get_parameter("bias_ih_l0").clone()

    assert not torch.equal(bias(), bias(memory_steps="0"))
    assert torch.equal(bias(), bias(memory_steps=str(int(sequences.lengths[parts.train].max()))))
    assert torch.equal(bias(variant="rnn"), bias(variant="rnn", memory_steps="0"))


def test_an_unknown_label_in_a_batch_is_no_step():
    sequences = first_symbol(40)
    assert sequences.label is not None
    sequences.label.values[in_parts(sequences).train[2:]] = np.nan
    fitted = fit(sequences, fitting_settings(epochs=2, batch_size=2))
    assert all(math.isfinite(record["validation_loss"]) for record in fitted.history)


def scores_ofs_of_nothing_known_are_none():
    sequences = first_symbol(20)
    settings = fitting_settings(epochs=1)
    fitted = fit(sequences, settings)
    assert evaluate(fitted.model, fitted.task, Batches(sequences, [], 8), settings) == {}
