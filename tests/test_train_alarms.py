"""Alarms about gates and gradients while a network learns: when, what, and each but once."""

from typing import Any

import numpy as np
import pytest
import torch

import tidegate as tg
from tests.train_helpers import first_symbol
from tidegate.train.alarms import alarms, is_looked_at
from tidegate.train.fitting import fit_model, new_model
from tidegate.train.settings import Settings
from tidegate.train.split import split
from tidegate.train.tasks import task_for


def begun(steps: int = 40, **options):
    settings = Settings(label="label", hidden_size=8, threads=1, **options)
    sequences = first_symbol(40, steps)
    parts = split(sequences, validation=0.25, test=0, seed=0)
    task = task_for(sequences, parts.train)
    return new_model(sequences, parts, task, settings), sequences, parts, task, settings


def test_gates_that_never_open_are_told_with_advice():
    model, sequences, parts, *_ = begun()
    tg.init.update_bias_(model.layer, -20.0)
    told = dict(alarms(model, sequences, parts.validation))
    assert "update gate never open" in told
    assert "8 of 8 units" in told["update gate never open"]
    assert "lower the learning rate" in told["update gate never open"]


def test_layers_and_directions_are_named_where_there_are_several():
    model, sequences, parts, *_ = begun(num_layers=2, bidirectional=True)
    tg.init.update_bias_(model.layer, 20.0)
    kinds = [kind for kind, _ in alarms(model, sequences, parts.validation)]
    for place in ("layer 0", "layer 0 backward", "layer 1", "layer 1 backward"):
        assert f"{place}: update gate always open" in kinds


def test_nothing_is_said_of_a_dense_layer():
    model, sequences, parts, *_ = begun(variant="dense")
    assert alarms(model, sequences, parts.validation) == []


def test_looking_changes_nothing():
    model, sequences, parts, *_ = begun(dropout=0.5)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    alarms(model, sequences, parts.validation)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_it_looks_often_at_first_and_seldom_later():
    assert [epoch for epoch in range(1, 301) if is_looked_at(epoch)] == [1, 2, 5, 10, 20, 50, 100, 200, 300]


@pytest.mark.parametrize("listening", [True, False])
def test_each_alarm_is_told_once_and_the_weights_are_the_same_without_anybody_to_tell(listening):
    model, sequences, parts, task, settings = begun(epochs=12, memory_steps="0")
    moments: list[Any] = []
    fitted = fit_model(model, sequences, parts, task, settings, progress=moments.append if listening else None)
    told = [(moment.epoch, line) for moment in moments for line in moment.alarms]
    if listening:
        assert {epoch for epoch, _ in told} <= {0, 1, 4, 9}
        kinds = [line.partition(":")[0] for _, line in told]
        assert any("gradient shrinks" in line for _, line in told)
        assert len(kinds) == len(set(kinds))
    again = begun(epochs=12, memory_steps="0")
    same = fit_model(*again)
    for name, tensor in fitted.model.state_dict().items():
        assert np.array_equal(tensor.numpy(), same.model.state_dict()[name].numpy()), name
