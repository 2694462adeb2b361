"""Training on several processes, started by torchrun or as srun starts them: what one process learns, they learn."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.several_processes import CASES, curve, fitted
from tests.train_helpers import first_symbol
from tidegate.errors import InputValueError
from tidegate.train.batches import Batches
from tidegate.train.processes import ALONE, processes_here
from tidegate.train.run import load_run

ROOT = Path(__file__).parents[1]


def environment(**more):
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "100", **more}


def torchrun(*words, count=2):
    """What torchrun is told to start so many processes, on a port that is free."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    return [*command, *map(str, words)]


def done(command, *, code=0):
    finished = subprocess.run(command, check=False, env=environment(), capture_output=True, text=True, timeout=300)
    assert finished.returncode == code, finished.stdout + finished.stderr
    return finished


def seen(folder, count):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def assert_alike(one, several):
    """The same curve to 1e-4, the same best epoch."""
    assert one["best_epoch"] == several["best_epoch"]
    for mine, theirs in zip([*one["history"], one["test"]], [*several["history"], several["test"]], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4, rel=0)


# ---------------------------------------------------------------------------------------------------------------------
# two processes for real


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes saw."""
    folder = tmp_path_factory.mktemp("two")
    done(torchrun("tests.several_processes", folder, "all"))
    return seen(folder, 2)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(two, name):
    one = curve(*CASES[name]())
    assert len(one["history"]) > 1
    for told in two:
        assert told["size"] == 2
        assert_alike(one, told[name])


def test_two_processes_go_on_to_the_bit(two):
    first, second = (told["resumed"] for told in two)
    assert first["same"]
    assert second["same"]
    assert first["weights"] == second["weights"]
    assert first["epochs"] == 4


def test_each_process_draws_its_own_dropout(two):
    first, second = (told["resumed"]["seeds"] for told in two)
    assert len(first) == len(second) > 4
    drawn = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    assert len(drawn) >= len(first) - 2, "only the first weights are drawn from the seed alone"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("_other_data", "InputValueError: data and options must be the same for every process; process 1 got others"),
        ("_full_disk", "FileError: the disk of the first is full"),
        ("_refused_by_the_last", "FileError: the last one has no such file"),
        ("_another_number", "InputValueError: processes must be that of the run that is resumed, 1; got 2"),
        ("_known_to_nobody", "none"),
    ],
)
def test_what_one_refuses_all_refuse(two, name, words):
    assert two[0][name].startswith(words)
    assert two[1][name] == two[0][name]


def test_cores_are_divided(two):
    cores = len(os.sched_getaffinity(0))
    assert [told["threads"] for told in two] == [max(1, cores // 2)] * 2


@pytest.mark.slow
def test_three_processes_go_on_to_the_bit(tmp_path):
    done(torchrun("tests.several_processes", tmp_path, "large", count=3))
    assert [told["resumed"]["same"] for told in seen(tmp_path, 3)] == [True] * 3


@pytest.mark.slow
def test_tasks_of_slurm_are_processes(tmp_path):
    """As srun starts two tasks on one host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tasks = []
    for rank in range(2):
        told = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2"}
        told |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
        told |= {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "tests.several_processes", str(tmp_path), "short"]
        tasks.append(subprocess.Popen(command, env=environment(**told)))
    assert [task.wait(300) for task in tasks] == [0, 0]
    for told in seen(tmp_path, 2):
        assert told["size"] == 2
        assert_alike(curve(*CASES["classify"]()), told["classify"])


# ---------------------------------------------------------------------------------------------------------------------
# on the command line


def table(path, *, label=None):
    """Sequences of many lengths as a table; `label` instead of theirs."""
    sequences = first_symbol(48, 9)
    assert sequences.label is not None
    rows = ["id,time,x,answer"]
    for number, values in enumerate(sequences):
        told = label or "ab"[int(sequences.label.values[number])]
        rows += [f"s{number},{step},{value},{told}" for step, value in enumerate(values[:, 0])]
    path.write_text("\n".join(rows) + "\n")
    return path


OPTIONS = ["--label", "answer", "--id", "id", "--time", "time", "--hidden-size", 8, "--batch-size", 4, "--threads", 1]


def training(folder, *words, resume=False):
    told = ["--resume"] if resume else [table(folder / "table.csv"), *OPTIONS, *words]
    return torchrun("tidegate", "train", *told, "--out", folder / "run")


@pytest.mark.slow
def test_a_refusal_comes_once_and_leaves_nothing(tmp_path):
    data = table(tmp_path / "table.csv", label="always")
    finished = done(torchrun("tidegate", "train", data, *OPTIONS, "--out", tmp_path / "run"), code=1)
    assert finished.stderr.count("tidegate: ") == 1
    assert "tidegate: label 'answer' must vary in the training part; it is always the same" in finished.stderr
    assert "exitcode  : 2" in finished.stderr
    assert not (tmp_path / "run").exists()


def begun(folder):
    """A run of two processes with an epoch behind it, and the processes themselves."""
    process = subprocess.Popen(
        training(folder, "--epochs", 2000, "--patience", 2000, "--dropout", 0.2),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "run" / "checkpoints" / "last.safetensors").is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no epoch was finished"
        time.sleep(0.1)
    return process


def children(process):
    """The processes that torchrun started."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(map(int, listed))


def goes_on(folder):
    """Whether the run in a folder can be gone on with: it is, until it is killed."""
    before = (folder / "run" / "checkpoints" / "last.safetensors").read_bytes()
    process = subprocess.Popen(training(folder, resume=True), env=environment(), start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while (folder / "run" / "checkpoints" / "last.safetensors").read_bytes() == before:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        workers = children(process) if process.poll() is None else []
        for one in (process.pid, *workers):  # torchrun first, or it would tell of them; each has a session of its own
            os.kill(one, signal.SIGKILL)
        process.wait()
    return True


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_run_goes_on(tmp_path, rank):
    process = begun(tmp_path)
    workers = children(process)
    assert len(workers) == 2
    os.kill(workers[rank], signal.SIGKILL)
    told = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert told.count("Traceback") <= 1, told  # torchrun's own
    assert goes_on(tmp_path)


@pytest.mark.slow
def test_an_interrupt_ends_all_and_the_run_goes_on(tmp_path):
    process = begun(tmp_path)
    workers = children(process)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    told = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert told.count("Interrupted; --resume goes on after the last whole epoch.") == 1, told
    assert goes_on(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# what is divided


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("size", [2, 3, 9])
def test_parts_of_batches_are_whole_together(chunk, size):
    sequences = first_symbol(50, 14, per_step=True)
    options = {"chunk": chunk, "shuffle": 1}
    whole = list(Batches(sequences, np.arange(50), 4, **options))
    parts = [list(Batches(sequences, np.arange(50), 4, **options, part=(rank, size))) for rank in range(size)]
    assert {len(part) for part in parts} == {len(whole)}
    for batch, *shares in zip(whole, *parts, strict=True):
        assert {share.start for share in shares} == {batch.start}
        assert {share.last for share in shares} == {batch.last}
        assert batch.label is not None
        known = torch.cat([share.label[~share.label.isnan()] for share in shares if share.label is not None])
        assert sorted(known.tolist()) == sorted(batch.label[~batch.label.isnan()].tolist())
        for place, number in enumerate(batch.numbers):
            (mine,) = (share for share in shares if number in share.numbers and not _is_lent(share, batch, shares))
            at = mine.numbers.tolist().index(number)
            count = int(batch.lengths[place])
            assert int(mine.lengths[at]) == count
            assert torch.equal(mine.values[:count, at].nan_to_num(), batch.values[:count, place].nan_to_num())


def _is_lent(share, batch, shares):
    """Whether a part has no sequence of its own."""
    return next(at for at, one in enumerate(shares) if one is share) >= len(batch.numbers)


# ---------------------------------------------------------------------------------------------------------------------
# which processes are there


@pytest.fixture
def fresh(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    processes_here.cache_clear()
    yield monkeypatch
    processes_here.cache_clear()


def test_one_process_is_alone(fresh):
    assert processes_here() is ALONE
    assert (ALONE.rank, ALONE.size, ALONE.part, ALONE.threads()) == (0, 1, (0, 1), None)


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1"}])
def test_a_script_of_slurm_without_srun_is_alone(fresh, step):
    told = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
    for name, value in (told | step).items():
        fresh.setenv(name, value)
    assert processes_here() is ALONE
    sequences, settings = CASES["classify"]()
    assert fitted(sequences, settings).history, "Lightning itself must not wait for the others either"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            {"SLURM_NTASKS": "4"},
            "srun must be told --ntasks-per-node, the processes of a host; got --ntasks alone",
        ),
        (
            {"SLURM_NTASKS": "3", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"},
            "every host must start as many processes; got 3 on 2 hosts of 2",
        ),
        (
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2"},
            "every host must start as many processes; got 2 here, and 3 in all",
        ),
    ],
)
def test_hosts_that_differ_are_refused(fresh, told, words):
    for name, value in ({"SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train"} | told).items():
        fresh.setenv(name, value)
    with pytest.raises(InputValueError, match=f"^{words}$"):
        processes_here()


@pytest.mark.slow
def test_a_run_of_two_processes_is_a_run(tmp_path):
    finished = done(training(tmp_path, "--epochs", 3))
    assert finished.stdout.count("Written to") == 1
    run = load_run(tmp_path / "run")
    assert run.facts["processes"] == 2
    assert len(run.facts["history"]) == 3
    assert (tmp_path / "run" / "logs").is_dir()
