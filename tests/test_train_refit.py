"""A validation part that is too small to choose an epoch: all epochs, then once more with what validated."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.train_files import READABLE, read
from tests.train_helpers import first_symbol, fitting_settings, in_parts, sums
from tidegate.data.sequences import Label
from tidegate.train import run as runs
from tidegate.train.batches import Batches
from tidegate.train.fitting import evaluate, fit_model, new_model
from tidegate.train.keeper import Moment
from tidegate.train.refit import FEWEST, fit_all, too_few
from tidegate.train.run import load_run, train
from tidegate.train.split import Split
from tidegate.train.tasks import task_for


@pytest.fixture(autouse=True)
def _reading(monkeypatch):
    monkeypatch.setattr(runs, "read", read)


def asked(sequences, settings=None, validation=None):
    parts = in_parts(sequences)
    if validation is not None:
        parts = replace(parts, validation=np.arange(validation))
    settings = settings or fitting_settings()
    return sequences, parts, task_for(sequences, parts.train), settings


@pytest.mark.parametrize(("count", "few"), [(FEWEST - 1, True), (FEWEST, False)])
def test_thirty_sequences_can_choose(count, few):
    assert too_few(*asked(first_symbol(80, 5), validation=count)) is few


def test_those_of_no_known_class_do_not_count():
    sequences = first_symbol(80, 5)
    assert sequences.label is not None
    values = np.where(np.arange(80) < 5, np.nan, sequences.label.values)
    sequences = replace(sequences, label=Label("answer", values, False, ("a", "b")))
    assert too_few(*asked(sequences, validation=FEWEST + 4))
    assert not too_few(*asked(sequences, validation=FEWEST + 5))


@pytest.mark.parametrize(
    "found",
    [
        lambda: asked(sums(40, 5)),
        lambda: asked(first_symbol(40, 5, per_step=True)),
        lambda: asked(first_symbol(40, 5), fitting_settings(patience=30)),
    ],
    ids=["numbers", "steps", "patience is given"],
)
def test_others_choose_by_their_loss(found):
    assert not too_few(*found())


def test_all_epochs_are_learned_and_then_the_validation_part_too():
    sequences, parts, task, settings = asked(first_symbol(48, 9), fitting_settings(epochs=5, learning_rate=0.2))
    told: list[Moment] = []
    fitted = fit_all(
        new_model(sequences, parts, task, settings), sequences, parts, task, settings, progress=told.append
    )
    assert fitted.again
    assert (len(fitted.history), fitted.best_epoch) == (5, 4)
    epochs = [(moment.again, moment.epoch) for moment in told if moment.scores is not None]
    assert epochs == [*((False, epoch) for epoch in range(5)), *((True, epoch) for epoch in range(5))]
    assert fitted.validation["loss"] == fitted.history[-1]["validation_loss"]
    whole = Split(np.sort([*parts.train, *parts.validation]), parts.validation, parts.test)
    alone = fit_model(
        new_model(sequences, whole, task, settings), sequences, whole, task, settings, to_the_end=True
    )  # fmt: skip
    for name, tensor in alone.model.state_dict().items():
        assert torch.equal(tensor, fitted.model.state_dict()[name]), name


def test_who_diverges_keeps_the_last_weights_that_are_numbers():
    sequences, parts, task, settings = asked(first_symbol(48, 9), fitting_settings(epochs=6))

    def broken(moment):
        if moment.epoch == 2 and moment.scores is not None:
            with torch.no_grad():
                model.head.weight.fill_(torch.nan)

    model = new_model(sequences, parts, task, settings)
    fitted = fit_model(model, sequences, parts, task, settings, progress=broken, to_the_end=True)
    assert (len(fitted.history), fitted.best_epoch) == (4, 2)
    assert all(bool(parameter.isfinite().all()) for parameter in fitted.model.parameters())


@pytest.mark.parametrize(("again", "epoch"), [(False, 0), (False, 2), (True, 0), (True, 1)])
def test_both_times_go_on_where_they_were_cut_off(tmp_path, again, epoch):
    settings = fitting_settings(data=("symbols.csv",), label="answer", epochs=3, dropout=0.3)
    whole = train(settings, tmp_path / "whole")

    def interrupt(moment):
        if (moment.again, moment.epoch) == (again, epoch) and moment.scores is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", progress=interrupt)
    resumed = train(settings, tmp_path / "run", resume=True)
    assert resumed.facts["history"] == whole.facts["history"]
    for name in ("model.safetensors", "checkpoints/last.safetensors", "checkpoints/again/last.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_scores_of_the_folder_are_of_a_network_that_had_not_seen_them(tmp_path):
    settings = fitting_settings(data=("symbols.csv",), label="answer", epochs=3)
    run = train(settings, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["again"] is True
    sequences = READABLE["symbols.csv"]()
    task = run.task
    parts = runs._parts_and_task(sequences, settings, test=settings.test)[0]
    first = fit_model(
        new_model(sequences, parts, task, settings), sequences, parts, task, settings, to_the_end=True
    )  # fmt: skip
    assert facts["validation"] == pytest.approx(dict(first.validation))
    batches = Batches(sequences, parts.test, 8)
    assert facts["test"] == pytest.approx(evaluate(load_run(tmp_path / "run").model, task, batches, settings))
