"""`tidegate compare`: runs side by side, the best first, with every score that one of them has."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import tidegate as tg
from tidegate.cli import runs

pytestmark = pytest.mark.usefixtures("as_users_run_it")

NAN = float("nan")


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    signals, which = rng.normal(size=(40, 6, 2)), np.arange(40) % 2
    return tg.fit(signals, np.where(which, "up", "down"), hidden_size=4, epochs=1, threads=1)


def with_facts(run, *, test, **data):
    """The same run with another score of its test part."""
    facts = {**run.facts, "test": test, "validation": test, "data": {**run.facts["data"], **data}}
    return replace(run, facts=facts)


def compared(monkeypatch, tmp_path, **several) -> list[str]:
    """What is printed of these runs, line by line."""
    for name in several:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(runs, "load_run", lambda folder: several[folder.name])
    console = Console(width=300, record=True, quiet=False)
    runs.run_compare(console, [tmp_path / name for name in several])
    return console.export_text().splitlines()


def order(lines, names):
    """The runs as their rows stand."""
    return [name for line in lines for name in names if f"/{name} " in line and "│" in line]


def test_the_best_is_first_and_no_number_last(monkeypatch, tmp_path, trained):
    scores = {"a": NAN, "b": 0.5, "c": None, "d": 0.9, "e": 0.7}
    told = {name: with_facts(trained, test={"loss": 1.0, "accuracy": score}) for name, score in scores.items()}
    assert order(compared(monkeypatch, tmp_path, **told), told) == ["d", "e", "b", "a", "c"]


def test_scores_that_only_some_runs_have_are_shown(monkeypatch, tmp_path, trained):
    plain = with_facts(trained, test={"loss": 1.0, "accuracy": 0.5})
    taught = with_facts(trained, test={"loss": 1.0, "accuracy": 0.6, "gate_held": 0.125, "gate_loss": 0.25})
    lines = compared(monkeypatch, tmp_path, plain=plain, taught=taught)
    assert any("accuracy" in line and "gate_held" in line and "gate_loss" in line for line in lines)
    (row,) = [line for line in lines if "/taught " in line]
    assert "0.1250" in row
    assert "0.2500" in row
    (row,) = [line for line in lines if "/plain " in line]
    assert "nan" not in row


def test_parts_of_other_steps_are_said_so(monkeypatch, tmp_path, trained):
    other = with_facts(trained, test=trained.facts["test"], test_steps=trained.facts["data"]["test_steps"] + 1)
    lines = compared(monkeypatch, tmp_path, one=trained, other=other)
    assert "The runs were not scored on the same steps: their scores do not compare exactly." in lines
    assert not any(
        "not scored on the same" in line for line in compared(monkeypatch, tmp_path, three=trained, four=trained)
    )
