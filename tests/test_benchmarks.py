"""The benchmarks: what they calculate with, what they print and write, and that they refuse to time wrong numbers."""

import json
import math
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

from benchmarks import cpu
from benchmarks.ceiling import Ceiling
from benchmarks.peers import Peer, present
from benchmarks.problem import Problem
from benchmarks.rounds import (
    Competitor,
    DisagreementError,
    Results,
    agreement,
    geometric_mean,
    paired_ratio,
    take_turns,
)
from benchmarks.settings import Settings
from benchmarks.shapes import OWN, STANDARD, Shape, read_shape
from benchmarks.table import digits, markdown
from benchmarks.torch_layers import tidegate_forward, tidegate_training, torch_forward, torch_training

ROOT = Path(__file__).parent.parent
SMALL = Shape(2, 5, 3, 4)


def benchmarks(*arguments, **options):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, **options)


def without(folder, *modules) -> dict[str, str]:
    """An environment whose Python does not find these modules."""
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


def refusal(*arguments) -> str:
    done = benchmarks(*arguments)
    assert done.returncode == 2, done
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    return str(line)


def test_a_geometric_mean_cancels_what_is_twice_and_half_as_fast():
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert geometric_mean([1.0, 10.0, 100.0]) == pytest.approx(10.0)


def test_a_ratio_is_taken_within_each_round_and_is_their_median():
    ours, theirs = [1.0, 10.0, 1.0], [2.0, 30.0, 4.0]  # the machine was slow in the second round, for both
    assert paired_ratio(ours, theirs) == 3.0
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        paired_ratio(ours, theirs[:2])


def test_everyone_has_a_turn_in_each_round_and_each_goes_first():
    turns: list[str] = []
    slow = 0.03  # longer than a sample has to be: one call each

    def competitor(name: str) -> Competitor:
        def call() -> None:
            turns.append(name)
            time.sleep(slow)

        return Competitor(name, call, lambda _: {})

    samples = take_turns([competitor("a"), competitor("b")], 2)
    assert turns == [*"aabb", *"ab", *"ba"]  # two calls each to see how long they take, then the rounds
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 2, "b": 2}
    assert all(slow <= seconds < 10 * slow for taken in samples.values() for seconds in taken)


def test_the_operations_are_those_of_the_products():
    B, T, I, H = SMALL
    inputs, past = 2 * 3 * H * I * T * B, 2 * 3 * H * H * T * B
    assert SMALL.forward_operations == inputs + past
    assert SMALL.training_operations == 2 * (inputs + past) + past


def test_the_shapes_are_the_nine_and_two_that_divide_nothing():
    assert len(STANDARD) == 9
    for shape in OWN:
        assert all(shape.units % vector for vector in (8, 16))
        assert shape.batch % 4
        assert shape.batch % 8


def test_a_shape_is_read_from_four_numbers():
    assert read_shape("32,100,128,256") == Shape(32, 100, 128, 256)
    for wrong in ("1,2,3", "1,2,3,0", "a,b,c,d", "1,2,3,-4", ""):
        with pytest.raises(ValueError, match="a shape must be B,T,I,H"):
            read_shape(wrong)


def test_a_table_is_markdown_that_also_reads_as_text():
    assert markdown(["shape", "ms"], [["(1, 2)", "3.00"], ["(10, 20)", "400"]]) == (
        "| shape    |   ms |\n| -------- | ---: |\n| (1, 2)   | 3.00 |\n| (10, 20) |  400 |\n"
    )
    with pytest.raises(ValueError, match="every row must have 2 cells"):
        markdown(["shape", "ms"], [["(1, 2)"]])


def test_times_have_three_digits_and_no_exponent():
    assert [digits(number) for number in (0.1234, 1.234, 12.34, 1234.5)] == ["0.12", "1.23", "12.3", "1234"]


@pytest.mark.parametrize(("kind", "name"), [("forward", "output"), ("training", "output"), ("training", "weight_hh")])
def test_a_peer_that_gives_wrong_numbers_is_refused_before_anyone_is_timed(kind, name, monkeypatch):
    def slightly_wrong(problem: Problem, threads: int) -> Competitor:
        right = (torch_forward if kind == "forward" else torch_training)(problem, threads)

        def results(given: Any) -> Results:
            arrays = dict(right.results(given))
            arrays[name] = arrays[name] + np.float32(1e-3)
            return arrays

        return Competitor("Wrong", right.call, results)

    monkeypatch.setattr(cpu, "take_turns", lambda *_: pytest.fail("it was timed"))
    settings = Settings(threads=1, rounds=1, quick=True, shapes=())
    with pytest.raises(DisagreementError, match=rf"^Wrong disagrees with torch in float64: {name} is off by \d"):
        cpu.measure(kind, SMALL, [Peer("Wrong", (), slightly_wrong)], settings)


def test_numbers_that_are_missing_not_finite_or_of_another_shape_are_refused():
    right = {"output": np.ones((2, 3))}
    for given in ({}, {"output": np.ones((2, 1))}, {"output": np.full((2, 3), math.nan)}):
        wrong = Competitor("Wrong", lambda: None, lambda _, given=given: given)  # type: ignore[misc]
        with pytest.raises(DisagreementError, match="Wrong"):
            agreement(wrong, right)


def test_every_peer_that_is_installed_gives_the_expected_numbers(tmp_path):
    file = tmp_path / "f.json"  # in a process of its own: what they start and change stays there
    done = benchmarks("cpu", "--quick", "--shapes", "3,7,5,9", "--threads", "1", "--rounds", "1", "--json", file)
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text())
    for kind, peers in (("forward", cpu.FORWARD), ("training", cpu.TRAINING)):
        (row,) = told[kind]["rows"]
        there = [peer.name for peer in peers if f"{peer.name} (" not in told[kind]["left_out"]]
        assert {"tidegate", "torch", *there} <= row["errors"].keys()
        assert all(error < 2e-6 for error in row["errors"].values())


def test_our_own_side_gives_the_expected_numbers():
    problem = Problem(Shape(3, 7, 5, 9))
    assert agreement(tidegate_forward(problem, 1), problem.output) < 2e-6
    assert agreement(tidegate_training(problem, 1), problem.training) < 2e-6


def test_the_ceiling_is_a_rate_that_a_core_can_have():
    ceiling = Ceiling()
    ceiling.measure(0.01)
    assert 1e8 < ceiling.rate < 1e12


def test_a_peer_that_is_not_there_is_left_out_and_told():
    there, absent = Peer("torch", ("torch",), agreement), Peer("Other", ("no_such_module",), agreement)
    found, told = present([there, absent])
    assert found == [there]
    assert told == "Left out: Other (no_such_module is not installed). `make bench` installs all."
    assert present([there]) == ([there], "")


def test_cpu_prints_a_table_and_writes_every_sample(tmp_path):
    file = tmp_path / "f.json"
    environment = without(tmp_path, "jax", "onnx", "onnxruntime", "openvino")
    done = benchmarks(
        "cpu", "--quick", "--shapes", "2,5,3,4", "--threads", "1", "--rounds", "2", "--json", file, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"torch {torch.__version__}" in lines[0]
    headers = [line for line in lines if line.startswith("| B, T, I, H")]
    assert [cell.strip() for cell in headers[0].strip("|").split("|")] == [
        "B, T, I, H", "tidegate ms", "torch ms", "÷ torch", "÷ fastest peer", "share of ceiling", "gates traced",
    ]  # fmt: skip
    assert len(headers) == 2
    assert len([line for line in lines if line.startswith("| (2, 5, 3, 4)")]) == 2
    assert done.stdout.count("Left out: JAX (jax is not installed)") == 2
    assert "OpenVINO (onnx, openvino is not installed)" in done.stdout
    told = json.loads(file.read_text())
    assert {"table", "machine", "packages", "date", "settings", "forward", "training", "ceiling"} <= told.keys()
    assert {"cpu", "cores", "threads", "os", "python"} == told["machine"].keys()
    for kind in ("forward", "training"):
        (row,) = told[kind]["rows"]
        assert row["shape"] == [2, 5, 3, 4]
        assert {name: len(taken) for name, taken in row["samples"].items()} == {"tidegate": 2, "torch": 2}
        assert all(error < 1e-5 for error in row["errors"].values())


def test_stream_prints_a_table(tmp_path):
    environment = without(tmp_path, "onnx", "onnxruntime", "openvino")
    arguments = ("--quick", "--shapes", "1,1,3,8", "--threads", "1", "--rounds", "2")
    done = benchmarks("stream", *arguments, env=environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| 3, 8 +\|( +[\d.]+ \|){2}( +[\d.]+× \|){2}$", done.stdout, re.MULTILINE)


def test_memory_of_one_step_is_told_by_a_fresh_process():
    command = [sys.executable, "-m", "benchmarks.peak", "torch", "64,64,16,64", "1", "check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    states = 64 * 64 * 64 * 4
    assert states < told["peak"] - told["before"] < 100 * states
    assert told["error"] < 1e-5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("gpus",), "table must be one of cpu, stream, memory; got 'gpus'"),
        (("cpu", "--shapes", "1,2"), "a shape must be B,T,I,H, four whole numbers from 1 on; got '1,2'"),
        (("cpu", "--rounds", "0"), "--rounds must be at least 1; got 0"),
        (("cpu", "--json", "no/such/f"), "--json must be in a folder that exists; got 'no/such/f'"),
        (
            ("stream", "--shapes", "2,1,3,4"),
            "--shapes must begin with 1,1 in stream, which is one step of one sequence",
        ),
        ((), "the following arguments are required: table"),
    ],
)
def test_wrong_words_are_one_sentence(arguments, sentence):
    assert refusal(*arguments) == f"benchmarks: {sentence}"


def test_more_threads_than_cores_are_refused():
    assert re.fullmatch(r"benchmarks: --threads must be 1 to \d+, .*; got 100000", refusal("cpu", "--threads", 100000))


def test_help_comes_without_loading_torch():
    code = "import sys; from benchmarks.__main__ import _parser; _parser().format_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
    assert "memory" in benchmarks("--help").stdout


@pytest.mark.skipif(os.name == "nt", reason="an interrupt is sent another way there")
def test_an_interrupt_ends_it_quietly():
    command = [sys.executable, "-m", "benchmarks", "cpu", "--rounds", "100000", "--shapes", "2,5,3,4"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert running.stderr is not None
    running.stderr.readline()  # the first shape is under way
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert err == "Interrupted; nothing was written.\n"
