"""The main job: the demo's record is whole and honest, and, trained in full, the expected finding comes out of it."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import tidegate as tg
from tidegate.data.film import Film, open_film
from tidegate.report import film_page
from tidegate.train import demo
from tidegate.train.demo import DEMO_SYSTEMS, Demo, metrics, run_demo
from tidegate.train.loop import fit_quietly
from tidegate.train.model_file import load_model

KEYS = ["dense", "rnn", "update-only", "gru", "gru-default-init"]


@pytest.fixture(scope="module")
def film():
    return open_film()


@pytest.fixture(scope="module")
def short(film) -> Demo:
    return run_demo(film, seed=0, steps=3, test_sequences=40)


def test_every_system_has_a_row_in_order(short):
    assert [row.system for row in short.record.systems] == KEYS
    assert [system.key for system in DEMO_SYSTEMS] == KEYS
    assert list(short.models) == KEYS


def test_the_metrics_are_the_promised_ones(short):
    written = json.loads(json.dumps(metrics(short.record)))
    assert written["chance"] == 0.1
    promised = {"system", "accuracy", "update_on_advert", "update_on_opening", "memory_opening", "memory_advert"}
    promised |= {"memory_rest", "gradient", "seconds", "parameters"}
    promised |= {"untrained_update_on_advert", "untrained_update_on_opening"}
    for row in written["systems"]:
        assert set(row) == promised
        assert all(isinstance(row[name], int | float) for name in promised - {"system"})


def test_shares_and_gates_are_what_the_systems_are(short):
    rows = {row.system: row for row in short.record.systems}
    for row in rows.values():
        initial = row.memory[0].mean()
        assert 0 <= row.memory_opening + row.memory_advert + row.memory_rest <= 1 + 1e-5
        np.testing.assert_allclose(row.memory.sum(0), 1, atol=1e-5)
        assert initial >= 0
    for key in ("dense", "rnn"):
        assert rows[key].update_on_advert == rows[key].update_on_opening == 1
        assert rows[key].memory_rest == pytest.approx(1)
    assert rows["dense"].gradient == 0
    assert rows["gru"].parameters == rows["gru-default-init"].parameters > rows["update-only"].parameters
    chrono, default = rows["gru"].update.mean(), rows["gru-default-init"].update.mean()
    assert chrono < 0.15 < default  # barely trained, the gates are still near where the initialisation put them


def test_the_same_seed_gives_the_same_networks_and_leaves_the_callers_random_numbers_alone(film, short):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = run_demo(film, seed=0, steps=3, test_sequences=40)
    assert torch.equal(torch.rand(3), expected)
    for key, model in short.models.items():
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.models[key].state_dict()[name]), (key, name)


def test_progress_tells_every_step_of_every_system(film):
    told = []
    run_demo(film, steps=2, test_sequences=16, progress=lambda *step: told.append(step))
    assert [(key, step) for key, step, _, _ in told] == [(key, step) for key in KEYS for step in (1, 2)]
    assert all(loss > 0 and 0 <= right <= 1 for _, _, loss, right in told)


def test_the_record_makes_a_page(short):
    page = film_page(short.record)
    assert page.lstrip().lower().startswith("<!doctype html>")
    for row in short.record.systems:
        assert row.title in page


def test_every_network_sees_the_same_batches_of_training_films_and_is_tested_on_films_of_test_frames(film, monkeypatch):
    drawn, batches = [], []
    draw = Film.draw

    def spied_draw(self, rng, part, batch, **options):
        drawn.append((part, batch, options))
        return draw(self, rng, part, batch, **options)

    def spied_fit(trainer, learner, given):
        batches.append(list(given))
        fit_quietly(trainer, learner, iter(batches[-1]))

    monkeypatch.setattr(Film, "draw", spied_draw)
    monkeypatch.setattr(demo, "fit_quietly", spied_fit)
    run_demo(film, steps=2, test_sequences=16)
    assert drawn == [("train", 64, {"any_advert": True})] * 2 + [("test", 16, {})]
    assert len(batches) == 5
    for given in batches[1:]:
        for batch, first in zip(given, batches[0], strict=True):
            assert torch.equal(batch.values, first.values)
            assert torch.equal(batch.label, first.label)


def test_each_training_film_is_tinted_the_same_in_all_its_frames(film, monkeypatch):
    seen = []

    def spied(trainer, learner, given):
        seen.append(list(given))
        fit_quietly(trainer, learner, iter(seen[-1]))

    monkeypatch.setattr(demo, "fit_quietly", spied)
    run_demo(film, seed=4, steps=1, test_sequences=16)
    rng = np.random.default_rng(4)
    plain = torch.from_numpy(film.features[film.draw(rng, "train", 64, any_advert=True).index])
    tint = seen[0][0].values - plain
    torch.testing.assert_close(tint, tint[:1].expand_as(tint), atol=1e-6, rtol=0)
    assert tint[0].std() == pytest.approx(0.3 * film.features.std(0).mean(), rel=0.2)
    assert (tint[0, 0] - tint[0, 1]).abs().max() > 0.05


@pytest.fixture(scope="module")
def partly(film) -> Demo:
    """Trained enough for answers that differ, and tested on more films than are traced at once."""
    return run_demo(film, seed=1, steps=40, test_sequences=300)


@pytest.mark.parametrize("key", KEYS)
def test_a_row_says_what_an_independent_count_says(film, partly, key):
    tests = film.draw(np.random.default_rng(demo._TESTS_SEED), "test", 300)
    row = next(row for row in partly.record.systems if row.system == key)
    x = torch.from_numpy(film.features)[tests.index]
    model = partly.models[key]
    with torch.no_grad():
        answers = model(x)[0].argmax(-1).numpy()
        seen = tg.trace(model.layer, ((x - model.encoder.mean) * model.encoder.scale).float())
    assert row.accuracy == pytest.approx((answers == tests.label).mean())
    assert row.answer == film.shots[answers[0]]
    update, memory = seen.update.mean(-1).numpy(), seen.memory()[1:].mean(-1).numpy()
    assert row.update_on_opening == pytest.approx(update[:5].mean(), rel=1e-4)
    assert row.update_on_advert == pytest.approx(update[5:9].mean(), rel=1e-4)
    assert row.memory_opening == pytest.approx(memory[:5].sum(0).mean(), rel=1e-3, abs=1e-7)
    assert row.memory_advert == pytest.approx(memory[5:9].sum(0).mean(), rel=1e-3, abs=1e-7)
    assert row.memory_rest == pytest.approx(memory[9:].sum(0).mean(), rel=1e-3)
    assert row.gradient == pytest.approx(row.gradient_norms[5], rel=1e-6)
    assert row.gradient_norms[-1] == pytest.approx(1)


def test_the_gates_before_training_are_those_of_the_initialisation(film, partly):
    rows = {row.system: row for row in partly.record.systems}
    for key in ("dense", "rnn"):
        assert rows[key].untrained_update_on_advert == rows[key].untrained_update_on_opening == 1
    for key in ("update-only", "gru"):
        assert 0.02 < rows[key].untrained_update_on_advert < 0.12
        assert rows[key].untrained_update_on_opening != rows[key].update_on_opening
    assert rows["gru-default-init"].untrained_update_on_opening == pytest.approx(0.5, abs=0.05)


def test_elimination_is_what_one_reaches_who_knows_only_the_rest(film):
    tests = film.draw(np.random.default_rng(0), "test", 4000)
    rng, right = np.random.default_rng(1), 0
    for number in range(4000):
        rest = set(tests.shot[9:, number])
        right += rng.choice([shot for shot in range(10) if shot not in rest]) == tests.label[number]
    assert demo.by_elimination(tests, 10) == pytest.approx(right / 4000, abs=0.02)
    assert demo.by_elimination(tests, 10) > 1 / 9


def test_the_frames_of_the_training_part_have_length_4(film, short):
    frames = film.features[np.concatenate([np.arange(*piece) for shot in film.pieces["train"] for piece in shot])]
    seen = short.models["gru"].encoder(torch.from_numpy(frames).unsqueeze(1))[:, 0]
    torch.testing.assert_close(seen.mean(0), torch.zeros(297), atol=1e-5, rtol=0)
    assert seen.square().sum(-1).mean().sqrt() == pytest.approx(4, rel=0.01)


def test_the_gradient_is_clipped(film, monkeypatch):
    norms: list[torch.Tensor] = []

    def spied(trainer, learner, given):
        with torch.no_grad():
            learner.model.head.weight.mul_(1000)  # and the gradient of what is below it
        fit_quietly(trainer, learner, given)
        norms.append(sum(one.grad.square().sum() for one in learner.model.parameters()).sqrt())

    monkeypatch.setattr(demo, "fit_quietly", spied)
    run_demo(film, steps=1, test_sequences=16)
    assert [float(norm) for norm in norms] == pytest.approx([1] * len(KEYS), rel=1e-3)


@pytest.mark.slow
def test_trained_in_full_the_gated_systems_remember_and_the_others_do_not(tmp_path):
    out = tmp_path / "run"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tidegate", "demo", "--out", out], check=True, timeout=600)
    assert time.perf_counter() - start < 180
    assert (out / "report.html").stat().st_size > 100_000
    written = json.loads((out / "metrics.json").read_text())
    rows = {row["system"]: row for row in written["systems"]}
    for key in ("update-only", "gru"):
        assert rows[key]["accuracy"] >= 0.95
        assert rows[key]["update_on_advert"] < rows[key]["update_on_opening"]
        assert rows[key]["memory_advert"] < rows[key]["memory_opening"]
        assert rows[key]["gradient"] > 100 * rows["rnn"]["gradient"]
    for key in ("dense", "rnn", "gru-default-init"):
        assert rows[key]["accuracy"] < written["elimination"] + 0.05
    film = open_film()
    tests = film.draw(np.random.default_rng(5), "test", 500)
    with torch.no_grad():
        model, task = load_model(out / "gru" / "model.safetensors")
        answers = model(torch.from_numpy(film.features)[tests.index])[0].argmax(-1)
    assert task.categories == film.shots
    assert (answers.numpy() == tests.label).mean() >= 0.95
