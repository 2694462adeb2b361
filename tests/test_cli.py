"""The command line as a person meets it: help, refusals in one sentence, an interrupt that leaves nothing behind."""

import dataclasses
import functools
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console, Group

from tests.sample_records import sample_record
from tests.test_video import CLIPS
from tidegate import __version__
from tidegate.cli import app
from tidegate.cli.demo import table
from tidegate.cli.doctor import _parts
from tidegate.diagnosis import doctor
from tidegate.diagnosis.records import place_of
from tidegate.train.demo import DEMO_SYSTEMS, TRAINING_STEPS


def tidegate(*arguments, **options):
    command = [sys.executable, "-m", "tidegate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def interruptible(command, **options) -> subprocess.Popen[str]:
    """A process that hears of Ctrl-C even where whoever runs the tests had it ignored, as a shell's background job."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, preexec_fn=heard, **pipes)  # noqa: PLW1509 - no threads here


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(done) -> str:
    """The one sentence of a refusal."""
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    lines: list[str] = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("demo", "--help"), ("doctor", "--help")])
def test_help_tells_what_there_is(arguments):
    done = tidegate(*arguments)
    assert "Usage: tidegate" in done.stdout
    assert (arguments[0] if len(arguments) > 1 else "demo") in done.stdout
    assert len(arguments) > 1 or "doctor" in done.stdout


def help_of_demo(width: int) -> str:
    environment = {**os.environ, "COLUMNS": str(width), "TERM": "dumb", "NO_COLOR": "1"}
    told: str = tidegate("demo", "--help", env=environment).stdout
    return told


def test_the_help_tells_the_defaults_as_one_would_type_them():
    assert app._STEPS == TRAINING_STEPS
    told = help_of_demo(200)
    assert f"[default: {TRAINING_STEPS}]" in told
    assert "[default: 0]" in told
    assert "(" not in told
    assert "instead of the two that come with Tidegate." in told


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_paragraphs_of_the_help_are_as_wide_as_the_terminal(width):
    paragraphs = re.split(r"\n\s*\n", help_of_demo(width).partition("╭")[0])
    paragraph = next(text for text in paragraphs if "Trains a dense" in text)
    lines = [line.strip() for line in paragraph.strip().splitlines()]
    for line, following in itertools.pairwise(lines):
        assert len(f" {line} {following.split()[0]} ") > width, line  # the next word would not have fitted


def test_a_seed_too_large_for_what_draws_from_it_is_refused_with_the_usage(tmp_path):
    out = tmp_path / "run"
    for seed in (2**63, 99999999999999999999999):
        done = tidegate("demo", "--out", out, "--seed", seed)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "Invalid value for '--seed'" in done.stderr
    assert names(tmp_path) == []


def test_the_largest_seed_is_one_that_numpy_and_torch_take():
    np.random.default_rng(app._LARGEST_SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(app._LARGEST_SEED)


def test_the_version_is_the_packages():
    assert tidegate("--version").stdout.strip() == f"tidegate {__version__}"


@pytest.mark.parametrize(
    "arguments", [("demos",), ("demo", "--nonsense"), ("demo", "--seed", "-1"), ("demo", "--steps", "0"), ("demo", "x")]
)
def test_wrong_words_are_refused_with_the_usage(arguments):
    done = tidegate(*arguments)
    assert done.returncode == 2
    assert "Usage: tidegate" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_out_that_holds_files_is_refused_before_any_work(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    start = time.perf_counter()
    sentence = refusal(tidegate("demo", "--out", tmp_path))
    assert re.fullmatch(
        r"tidegate: out must be new or empty; .* holds files \(--overwrite replaces its results\)", sentence
    )
    assert time.perf_counter() - start < 30
    assert names(tmp_path) == ["mine.txt"]


def test_an_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "out must be a folder" in refusal(tidegate("demo", "--out", tmp_path / "file"))
    sentence = refusal(tidegate("demo", "--out", "file/sub", cwd=tmp_path))
    assert sentence == "tidegate: out must be a folder that can be written; 'file/sub' cannot: 'file' is a file"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc to be refused by")
def test_an_out_that_cannot_be_written_is_refused_by_the_name_that_was_typed():
    sentence = refusal(tidegate("demo", "--out", "/proc/tidegate/run"))
    assert re.fullmatch(
        r"tidegate: out must be a folder that can be written; '/proc/tidegate/run' cannot: [\w ]+", sentence
    )


def test_the_table_fits_a_terminal_of_80_columns():
    console = Console(width=80, file=io.StringIO(), legacy_windows=False)
    titles = {system.key: system.title for system in DEMO_SYSTEMS}
    sample = sample_record()
    largest: dict[str, Any] = {
        "parameters": 165_258,
        "accuracy": 1.0,
        "seconds": 100.0,
        "memory_rest": 1.0,
        "gradient": 3.2e-17,
    }
    systems = tuple(dataclasses.replace(row, title=titles[row.system], **largest) for row in sample.systems)
    record = dataclasses.replace(sample, systems=systems)
    console.print(table(record))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for row in systems:
        line = next(line for line in text.splitlines() if line.startswith(row.title + " "))
        for number in (f"{row.parameters:,}", f"{row.accuracy:.1%}", f"{row.memory_rest:.1%}", f"{row.gradient:.1e}"):
            assert number in line


def test_missing_and_truncated_clips_are_refused_and_nothing_is_written(tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "run"
    clips.mkdir()
    assert "there is no video file" in refusal(tidegate("demo", "--out", out, "--clips", clips))
    for name in ("programme.mp4", "advert.mp4"):
        (clips / name).write_bytes((CLIPS / name).read_bytes()[:60_000])
    assert re.search(
        r"programme\.mp4' (is truncated|cannot be decoded)", refusal(tidegate("demo", "--out", out, "--clips", clips))
    )
    assert names(tmp_path) == ["clips"]


@pytest.mark.parametrize("package", ["typer", "av", "lightning", "plotly", "safetensors"])
def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, package):
    code = f"import sys; sys.modules[{package!r}] = None; from tidegate.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--out", str(tmp_path / "run"), "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(rf"needs the package '{package}': pip install 'tidegate\[\w+\]'", last)
    assert names(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-m", "tidegate", "demo", "--out", str(tmp_path / "run")]
    process = interruptible(command)
    deadline = time.monotonic() + 120
    while not names(tmp_path):  # the staging folder: training begins
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Interrupted; nothing was written." in output
    assert "Traceback" not in output
    assert names(tmp_path) == []


# ----------------------------------------------------------------------------------------------------------------------
# doctor

MODELS = """
import time
import torch
import tidegate as tg

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(tg.GRU(4, 20, num_layers=2, bidirectional=True))

def fails():
    raise RuntimeError("no weights here")

def nothing():
    pass

def slow():
    print("waiting", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with models, data and files that are neither."""
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "wrong.pt").write_text("no weights")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((30, 3, 4)))
    np.save(tmp_path / "wide.npy", np.ones((30, 3, 5)))
    return tmp_path


def test_the_doctor_without_a_model_tells_its_usage():
    done = tidegate("doctor")
    assert done.returncode == 2
    assert "Usage: tidegate doctor" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("wrong.pt",), "'wrong.pt' is truncated or not a file of torch.save"),
        (("model.h5",), "'model.h5' must be saved by Keras 3 as .keras"),
        ((".",), "'.' must be a file called .pt, "),
        (("absent_module:make",), "'absent_module:make': there is no module absent_module here"),
        (("models:fails",), "'models:fails' fails when called without arguments: RuntimeError: no weights here"),
        (("models:nothing",), "'models:nothing' must return a torch.nn.Module; got NoneType"),
        (("models:make", "--data", "wide.npy"), r"the model cannot be run on data of \(30, 3, 5\), torch.float32: "),
        (("models:make", "--data", "wrong.pt"), "'wrong.pt' must hold numbers"),
    ],
)
def test_what_the_doctor_cannot_look_at_is_one_sentence(models, arguments, sentence):
    assert re.match(f"tidegate: {sentence}", refusal(tidegate("doctor", *arguments, cwd=models)))


def test_the_doctor_prints_json_and_nothing_else(models):
    done = tidegate("doctor", "models:make", "--data", "x.npy", "--json", cwd=models)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["source"] == "'models:make'"
    assert [len(layer["health"]) for layer in record["layers"]] == [4]
    assert record["layers"][0]["health"][0]["findings"][0].keys() == {"kind", "sentence", "advice"}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_the_doctor_prints_fits_the_terminal_and_is_all_there(width):
    layer: Any = torch.nn.GRU(4, 200, num_layers=2, bidirectional=True)
    with torch.no_grad():
        layer.bias_ih_l0[200:400] = -9.0
    found = doctor(layer, np.random.default_rng(0).standard_normal((30, 3, 4)))
    console = Console(width=width, file=io.StringIO(), legacy_windows=False)
    console.print(Group(*_parts(found, width)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for health in found.layers[0].health:
        assert place_of(health) in words
        assert f"{health.gradient_per_step:.3g}" in words
        for finding in health.findings:
            assert finding.sentence in words
            assert finding.advice in words
    assert ("200 / 0 / 0" in words) is (width >= 80)
    assert found.layers[0].backend in words


def test_an_interrupted_doctor_ends_with_130(models):
    command = [sys.executable, "-m", "tidegate", "doctor", "models:slow"]
    process = interruptible(command, cwd=models)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
