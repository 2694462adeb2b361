"""What gates are taught in training: the losses that are added, what comes of them, and that nothing else changes."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.refusals import assert_refused
from tests.train_helpers import first_symbol, fitting_settings, in_parts
from tidegate.errors import InputValueError
from tidegate.gates import losses
from tidegate.train.batches import Batches
from tidegate.train.fingerprint import difference, fingerprint
from tidegate.train.fitting import fit_model, new_model
from tidegate.train.run import load_run, train
from tidegate.train.tasks import task_for
from tidegate.train.teaching import GateUse, Teaching

GATED = ("update-only", "gru", "gru-reset-before", "gru-layer-norm")


def with_held(sequences: Any, *, known: bool = True) -> Any:
    """Held where the noise is far above its mean; not known where it is missing."""
    noise = sequences.values[:, 1]
    held = np.where(np.isnan(noise), np.nan, noise > 7)
    object.__setattr__(sequences, "held", held if known else np.full_like(held, np.nan))
    return sequences


def fitted(sequences=None, **changed):
    settings = fitting_settings(**{"hold": "advert", **changed})
    sequences = with_held(first_symbol()) if sequences is None else sequences
    parts = in_parts(sequences)
    task = task_for(sequences, parts.train)
    return fit_model(new_model(sequences, parts, task, settings), sequences, parts, task, settings)


@pytest.mark.parametrize(
    "changed", [{}, {"num_layers": 2, "bidirectional": True}, {"variant": "gru-reset-before"}, {"recompute": True}]
)
def test_the_losses_are_means_over_layers_and_directions(changed):
    settings = fitting_settings(hold="advert", hold_weight=0.5, write_budget=0.1, budget_weight=3.0, **changed)
    sequences = with_held(first_symbol())
    parts = in_parts(sequences)
    model = new_model(sequences, parts, task_for(sequences, parts.train), settings)
    teaching = Teaching.of(settings)
    assert teaching is not None
    batch = next(iter(Batches(sequences, parts.train, 8)))
    answers, seen = model.traced(batch.values, batch.lengths)
    assert_close(answers, model(batch.values, batch.lengths)[0])
    ways = [way for layer in seen.layers for way in (layer, layer.reverse) if way is not None]
    assert len(ways) == settings.num_layers * (1 + settings.bidirectional)
    steps = torch.zeros(len(batch.values), 8, dtype=torch.bool)
    for place, number in enumerate(batch.numbers):
        own = sequences.held[sequences.rows(int(number))]
        steps[: len(own), place] = torch.from_numpy(own == 1)
    held, budget = (term.weight * term.loss for term in teaching.terms(seen, batch))
    assert_close(held, 0.5 * torch.stack([losses.hold(way, steps) for way in ways]).mean())
    assert_close(budget, 3.0 * torch.stack([losses.write_budget(way, 0.1) for way in ways]).mean())


@pytest.mark.parametrize("variant", ["update-only", "gru", "gru-reset-before"])
def test_gates_are_taught_on_the_kernels(variant):
    """With gradients for every weight, those of reference."""
    settings = fitting_settings(variant=variant, hold="advert", write_budget=0.05)
    sequences = with_held(first_symbol())
    parts = in_parts(sequences)
    batch = next(iter(Batches(sequences, parts.train, 8)))
    found = []
    for backend in ("cpu", "reference"):
        model = new_model(sequences, parts, task_for(sequences, parts.train), settings)
        model.layer.backend = backend  # type: ignore[assignment]  # one that cannot run it raises
        _, seen = model.traced(batch.values, batch.lengths)
        teaching = Teaching.of(settings)
        assert teaching is not None
        torch.stack([term.weight * term.loss for term in teaching.terms(seen, batch)]).sum().backward()
        found.append({name: torch.as_tensor(weight.grad) for name, weight in model.layer.named_parameters()})
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0, name
        assert_close(gradient, found[1][name], msg=name)


@pytest.mark.parametrize("chunk", [None, 4])
def test_batches_say_which_steps_are_held(chunk):
    sequences = with_held(first_symbol())
    found: dict[int, list[Any]] = {number: [] for number in range(len(sequences))}
    for batch in Batches(sequences, np.arange(len(sequences)), 8, chunk=chunk):
        assert batch.held is not None
        for place, (number, length) in enumerate(zip(batch.numbers, batch.lengths, strict=True)):
            found[int(number)].append(batch.held[:length, place].numpy())
            assert batch.held[length:, place].isnan().all()
    for number, pieces in found.items():
        np.testing.assert_array_equal(np.concatenate(pieces), sequences.held[sequences.rows(number)])


@pytest.mark.parametrize(
    "changed",
    [
        *({"variant": variant} for variant in GATED),
        {"num_layers": 2, "bidirectional": True},
        {"chunk": 4},
        {"chunk": 4, "num_layers": 2, "zoneout": 0.1},
    ],
    ids=str,
)
def test_what_is_held_is_written_less(changed):
    told = [fitted(hold_weight=weight, epochs=12, **changed).history[-1] for weight in (0.0, 1.0)]
    held, others = "validation_gate_held", "validation_gate_others"
    assert held not in told[0]  # of no weight, nothing is looked at
    assert told[1][held] < 0.8 * told[1][others]
    assert told[1]["validation_gate_loss"] > 0


def test_steps_of_a_label_too():
    history = fitted(with_held(first_symbol(per_step=True)), epochs=12).history
    assert history[-1]["validation_gate_held"] < 0.8 * history[-1]["validation_gate_others"]


def test_a_budget_keeps_gates_shut():
    free = fitted(first_symbol(), hold=None, write_budget=0.9, memory_steps="0", epochs=12).history[-1]
    tight = fitted(
        first_symbol(), hold=None, write_budget=0.05, budget_weight=100, memory_steps="0", epochs=12
    ).history[-1]
    assert "validation_gate_held" not in tight
    assert tight["validation_gate"] < 0.5 * free["validation_gate"]
    assert free["validation_gate_loss"] == 0


def test_steps_that_are_not_known_are_not_counted():
    teaching = Teaching(1.0, None, 0.0)
    sequences = with_held(first_symbol())
    parts = in_parts(sequences)
    model = new_model(sequences, parts, task_for(sequences, parts.train), fitting_settings())
    every: list[list[torch.Tensor]] = [[], []]
    use, steps = GateUse(teaching), 0
    with torch.no_grad():
        for batch in Batches(sequences, parts.train, 8):
            _, seen = model.traced(batch.values, batch.lengths)
            use.count(seen, batch)
            steps += int(batch.lengths.sum())
            for kind in (0, 1):
                every[kind] += [seen.update[batch.held == kind].double().mean(-1)]
    told = use.told()
    others, held = (float(torch.cat(pieces).mean()) for pieces in every)
    assert_close([told["gate_others"], told["gate_held"]], [others, held])
    counted = sum(len(piece) for pieces in every for piece in pieces)
    assert counted < steps


def test_where_nothing_is_asked_nothing_changes():
    plain = fitted(hold=None)
    held = fitted(hold_weight=0.0)
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, held.model.state_dict()[name]), name
    assert "validation_gate" not in plain.history[0]


def test_nothing_held_in_training_is_refused():
    words = "hold must be true at some step of the training part; it is at none"
    assert_refused(lambda: fitted(with_held(first_symbol(), known=False)), InputValueError, words)


def test_other_held_steps_are_other_data():
    settings, sequences = fitting_settings(hold="advert"), with_held(first_symbol())
    before = fingerprint(sequences, in_parts(sequences), settings)
    sequences.held[3] = 1 - np.nan_to_num(sequences.held[3])
    now = fingerprint(sequences, in_parts(sequences), settings)
    assert difference(before, now) == "data must be those of the run that is resumed; they differ"
    moved = fingerprint(sequences, in_parts(sequences), fitting_settings(hold_edl="there.edl"))
    assert moved["options"] == fingerprint(sequences, in_parts(sequences), fitting_settings(hold_edl="x"))["options"]


# ------------------------------------------------------------------------------------------ from a file to a folder


def write_table(folder: Path) -> Path:
    """Signals that an advert interrupts, which a column says."""
    rng = np.random.default_rng(0)
    path = folder / "signals.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "x", "loud", "advert", "which"])
        for number in range(40):
            which, start = number % 2, int(rng.integers(2, 5))
            for step in range(10):
                advert = start <= step < start + 3
                x = 3 * which - 1.5 if step == 0 else rng.normal()
                out.writerow([number, x, 2.0 * advert, int(advert) if rng.random() > 0.1 else "", "ab"[which]])
    return path


def settings_for(path: Path, **changed):
    return fitting_settings(
        **{"data": (str(path),), "id": "id", "label": "which", "hold": "advert", "epochs": 3, **changed}
    )


def test_a_column_of_a_table(tmp_path):
    """The report is in the history and the scores; later data need no such column."""
    run = train(settings_for(write_table(tmp_path), epochs=15), tmp_path / "run")
    assert [one.name for one in run.model.config.features] == ["x", "loud"]
    for part in ("validation", "test"):
        assert run.facts[part]["gate_held"] < 0.7 * run.facts[part]["gate_others"]
    (tmp_path / "later.csv").write_text("id,x,loud\n1,0.5,0\n1,1,2\n")
    told = load_run(tmp_path / "run").predict([str(tmp_path / "later.csv")])
    assert list(told["id"]) == ["1"]


def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path):
    settings = settings_for(write_table(tmp_path), chunk=4, write_budget=0.1, zoneout=0.1, weight_dropout=0.1)
    whole = train(settings, tmp_path / "whole")

    def interrupt(moment):
        if moment.epoch == 0 and moment.scores is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", progress=interrupt)
    resumed = train(settings, tmp_path / "run", resume=True)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert resumed.facts["history"] == whole.facts["history"]


# ------------------------------------------------------------------------------------------ dropouts

DROPOUTS = ("recurrent_dropout", "input_dropout", "candidate_dropout", "weight_dropout", "zoneout")


@pytest.mark.parametrize("variant", ["rnn", *GATED])
@pytest.mark.parametrize("name", DROPOUTS)
def test_every_dropout_changes_what_is_learned(variant, name):
    """And is no longer drawn when the model answers."""
    runs = [fitted(hold=None, epochs=2, variant=variant, **{name: p}) for p in (0.0, 0.3)]
    weights = [run.model.state_dict()["layer.weight_hh_l0"] for run in runs]
    assert not torch.equal(*weights)
    values = torch.from_numpy(first_symbol().values[:6]).unsqueeze(1)
    assert torch.equal(runs[1].model(values)[0], runs[1].model(values)[0])


@pytest.mark.parametrize("name", DROPOUTS)
def test_a_dense_layer_has_nothing_recurrent_to_drop(name):
    words = f"nothing recurrent to drop; got {name}=0.1"
    assert_refused(lambda: fitted(hold=None, variant="dense", **{name: 0.1}), InputValueError, words)
