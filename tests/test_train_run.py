"""Runs: a folder that another process can use, go on with after a kill, and that is never made for a refusal."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboardX.proto import event_pb2

from tests.refusals import assert_refused
from tests.train_files import READABLE, read
from tests.train_helpers import first_symbol, fitting_settings
from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.train import run as runs
from tidegate.train.checkpoint import read_checkpoint, unfinished
from tidegate.train.run import load_run, train

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _reading(monkeypatch):
    monkeypatch.setattr(runs, "read", read)


def settings_for(name="symbols.csv", **changed):
    return fitting_settings(**{"data": (name,), "label": "answer", "epochs": 2, "patience": 30, **changed})


def names(folder) -> list[str]:
    """The files of a run, but its logs, which bear the time in their names."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path) for path in files if path.parts[0] != "logs")


FILES = ["checkpoints/best.safetensors", "checkpoints/last.safetensors", "config.yaml", "model.safetensors", "run.json"]


@pytest.mark.parametrize("name", ["symbols.csv", "steps.csv", "sums.csv"])
def test_a_run_is_what_was_trained(tmp_path, name):
    run = train(settings_for(name), tmp_path / "run")
    assert names(tmp_path / "run") == FILES
    loaded = load_run(tmp_path / "run")
    assert (loaded.settings, loaded.task, loaded.facts) == (run.settings, run.task, json.loads(json.dumps(run.facts)))
    assert not loaded.model.training
    for key, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[key])
    assert run.facts["data"]["train"] + run.facts["data"]["validation"] + run.facts["data"]["test"] == 48
    assert run.facts["test"].keys() == run.facts["validation"].keys()
    sequences = loaded.read([name])
    assert sequences.label is None


def test_the_logs_say_what_the_history_says(tmp_path):
    run = train(settings_for(epochs=3), tmp_path / "run")
    (path,) = (tmp_path / "run" / "logs").glob("events.out.tfevents.*")
    told: dict[str, dict[int, float]] = {}
    for record in records(path.read_bytes()):
        event = event_pb2.Event.FromString(record)
        for value in event.summary.value:
            told.setdefault(value.tag, {})[event.step] = value.simple_value
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        expected = {one["epoch"]: pytest.approx(one[name], rel=1e-6) for one in run.facts["history"]}
        assert told[name] == expected


def records(content: bytes):
    """The records of a file of events: a length of 8 bytes, its checksum of 4, the record and its checksum."""
    while content:
        length = int.from_bytes(content[:8], "little")
        yield content[12 : 12 + length]
        content = content[16 + length :]


def test_a_folder_that_holds_a_run_is_left_alone_and_told_of_resume(tmp_path):
    train(settings_for(), tmp_path / "run")
    with pytest.raises(
        InputValueError, match=r"out must be new or empty; .* \(--resume goes on with a run that was cut"
    ):
        train(settings_for(), tmp_path / "run")


def test_other_test_data(tmp_path):
    run = train(settings_for(test_data=("others.csv",)), tmp_path / "run")
    assert run.facts["data"]["test"] == 16
    assert run.facts["data"]["train"] + run.facts["data"]["validation"] == 48


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": ()}, "data must name files to learn from; got none"),
        ({"label": None}, "label must name a column of the data; got None"),
        ({"task": "regress"}, "task must be 'classify'"),
        ({"loss": "mse"}, "loss must be cross-entropy"),
        ({"variant": "dense", "num_layers": 2}, "variant 'dense' has one layer"),
        ({"validation": 0.99, "test": 0.005}, "data must hold more sequences"),
        ({"test_data": ("sums.csv",)}, "label 'answer' must be of the kind that was trained on, classify"),
    ],
)
def test_whatever_is_refused_leaves_no_folder(tmp_path, changed, words):
    assert_refused(lambda: train(settings_for(**changed), tmp_path / "run"), InputValueError, words)
    assert names(tmp_path) == []
    assert not (tmp_path / "run").exists()


def test_an_unknown_label_in_the_test_part_is_no_score(tmp_path, monkeypatch):
    def unlabelled():
        sequences = first_symbol(16)
        assert sequences.label is not None
        sequences.label.values[:] = math.nan
        return sequences

    monkeypatch.setitem(READABLE, "others.csv", unlabelled)
    run = train(settings_for(test_data=("others.csv",)), tmp_path / "run")
    assert run.facts["test"] == {}
    json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=pytest.fail)


def test_a_folder_that_holds_files_is_refused(tmp_path):
    (tmp_path / "mine").write_text("")
    assert_refused(lambda: train(settings_for(), tmp_path), InputValueError, "out must be new or empty")
    assert names(tmp_path) == ["mine"]


def cut(folder, at=0, **changed):
    def interrupt(moment):
        if moment.epoch == at and moment.scores is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings_for(**changed), folder, progress=interrupt)


def test_a_run_that_was_cut_off_goes_on(tmp_path):
    whole = train(settings_for(), tmp_path / "whole")
    cut(tmp_path / "run")
    assert_refused(lambda: load_run(tmp_path / "run"), FileMissingError, "holds a run that was cut off: go on with it")
    assert_refused(lambda: train(settings_for(), tmp_path / "run"), InputValueError, "out must be new or empty")
    words = "epochs must be that of the run that is resumed, 2; got 3"
    assert_refused(lambda: train(settings_for(epochs=3), tmp_path / "run", resume=True), InputValueError, words)
    resumed = train(settings_for(), tmp_path / "run", resume=True)
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[key])
    words = "holds a run that is finished; there is nothing to resume"
    assert_refused(lambda: train(settings_for(), tmp_path / "run", resume=True), InputValueError, words)


def test_the_same_data_may_lie_elsewhere(tmp_path, monkeypatch):
    cut(tmp_path / "run")
    monkeypatch.setitem(READABLE, "moved.csv", READABLE["symbols.csv"])
    assert train(settings_for("moved.csv"), tmp_path / "run", resume=True).facts["best_epoch"] >= 0


def test_other_data_are_refused(tmp_path, monkeypatch):
    cut(tmp_path / "run")
    monkeypatch.setitem(READABLE, "symbols.csv", lambda: first_symbol(48, 9, seed=1))
    words = "data must be those of the run that is resumed; they differ"
    assert_refused(lambda: train(settings_for(), tmp_path / "run", resume=True), InputValueError, words)


def test_there_must_be_a_run_to_resume(tmp_path):
    for out in (tmp_path, tmp_path / "none"):
        words = "there is no run to resume"
        assert_refused(partial(train, settings_for(), out, resume=True), FileMissingError, words)


def test_what_a_kill_leaves_before_the_first_file_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    unfinished(tmp_path / "run" / "config.yaml").write_text("half")
    train(settings_for(), tmp_path / "run")
    assert names(tmp_path / "run") == FILES


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "run.json"])
def test_damaged_files_are_refused(tmp_path, name):
    train(settings_for(epochs=1), tmp_path)
    whole = (tmp_path / name).read_bytes()
    for kept in (0, 1, len(whole) // 2):
        (tmp_path / name).write_bytes(b"[" + whole[:kept])
        assert_refused(lambda: load_run(tmp_path), FileError, f"{name}' ")
    (tmp_path / name).unlink()
    assert_refused(lambda: load_run(tmp_path), FileMissingError, "there is no file|cut off")
    assert_refused(lambda: load_run(tmp_path / "none"), FileMissingError, "there is no folder")


@pytest.mark.slow
def test_ten_kills_cost_nothing(tmp_path):
    """SIGKILL at ten random moments, each time resumed: the weights of a run that was left alone, to the bit."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}

    def started(folder):
        config = folder / "config.yaml"
        how = "resume" if config.is_file() else "new"
        command = [sys.executable, "-m", "tests.killed_training", str(folder), how]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as told:
            assert told.readline() == "begun\n"
        return process

    before = time.monotonic()
    assert started(tmp_path / "whole").wait() == 0
    seconds = float(json.loads((tmp_path / "whole" / "run.json").read_text())["seconds"])
    assert seconds < time.monotonic() - before
    moments = random.Random(0)
    kills = []
    for _ in range(10):
        process = started(tmp_path / "cut")
        time.sleep(moments.uniform(0, seconds / 8))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was over before it was killed"
        last = tmp_path / "cut" / "checkpoints" / "last.safetensors"
        kills.append(read_checkpoint(last).state["epoch"] if last.is_file() else 0)
    assert started(tmp_path / "cut").wait() == 0
    assert kills == sorted(kills)
    assert len(set(kills)) > 3, f"the kills must fall into different epochs; they fell into {kills}"
    for name in ("model.safetensors", "checkpoints/last.safetensors", "checkpoints/best.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    facts = [json.loads((tmp_path / folder / "run.json").read_text()) for folder in ("whole", "cut")]
    assert facts[0]["history"] == facts[1]["history"]
    assert names(tmp_path / "cut") == FILES
    print("epochs at the kills:", kills)  # noqa: T201
