"""The main job: the demo's record is whole and honest, and, trained in full, the expected finding comes out of it."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tidegate.data.film import open_film
from tidegate.report import film_page
from tidegate.train.demo import DEMO_SYSTEMS, Demo, metrics, run_demo
from tidegate.train.folders import load_classifier

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


@pytest.mark.slow
def test_trained_in_full_the_gated_systems_remember_and_the_others_do_not(tmp_path):
    out = tmp_path / "run"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tidegate", "demo", "--out", out], check=True, timeout=600)
    assert time.perf_counter() - start < 180
    assert (out / "report.html").stat().st_size > 100_000
    rows = {row["system"]: row for row in json.loads((out / "metrics.json").read_text())["systems"]}
    for key in ("update-only", "gru"):
        assert rows[key]["accuracy"] >= 0.95
        assert rows[key]["update_on_advert"] < rows[key]["update_on_opening"]
        assert rows[key]["memory_advert"] < rows[key]["memory_opening"]
        assert rows[key]["gradient"] > 100 * rows["rnn"]["gradient"]
    for key in ("dense", "rnn", "gru-default-init"):
        assert rows[key]["accuracy"] < 0.3
    film = open_film()
    tests = film.draw(np.random.default_rng(5), "test", 500)
    with torch.no_grad():
        answers = load_classifier(out / "gru")(torch.from_numpy(film.features)[tests.index]).argmax(-1)
    assert (answers.numpy() == tests.label).mean() >= 0.95
