"""Scoring on a Ray cluster: the rows of one process in their order, whoever dies on the way."""

import importlib.util
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pyarrow.csv import read_csv
from pyarrow.parquet import read_table as read_parquet
from typer.testing import CliRunner

from tests.refusals import assert_refused
from tests.slow_answers import LOG, SlowAnswerer
from tests.train_helpers import first_symbol, fitting_settings
from tidegate.cli.app import app
from tidegate.errors import FileError, FileMissingError, InputValueError, ProcessError
from tidegate.train import ray_scoring
from tidegate.train.predict import answers, write_table
from tidegate.train.ray_scoring import answers_of_cluster
from tidegate.train.run import load_run, train

pytestmark = pytest.mark.ray

MISSING = "not installed: ray (make test-ray installs it)"


@pytest.fixture(autouse=True, scope="module")
def _ray_is_there(request):
    if importlib.util.find_spec("ray") is None:
        if request.config.getoption("--require-ray"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)


def table(path, count, seed=0, *, per_step):
    """Rows of many sequences, shuffled, as a CSV file."""
    sequences = first_symbol(count, 12, seed=seed)
    label = sequences.label
    assert label is not None
    rows = []
    for number, values in enumerate(sequences):
        for step, (symbol, noise) in enumerate(values):
            told = symbol if per_step else label.values[number]
            seen = "" if np.isnan(noise) else noise
            rows.append(f"s{number},{step},{'ab'[int(symbol)]},{seen},{'ab'[int(told)]}")
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    path.write_text("\n".join(["id,time,symbol,noise,answer", *(rows[at] for at in shuffled)]) + "\n")
    return str(path)


def new_run(folder, *, per_step):
    """The folder of a run, and new sequences for it."""
    data = table(folder / "known.csv", 40, per_step=per_step)
    settings = fitting_settings(data=(data,), id="id", time="time", label="answer", epochs=2)
    train(settings, folder / "run")
    return folder / "run", table(folder / "new.csv", 90, 5, per_step=per_step)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that labels steps, and new sequences."""
    return new_run(tmp_path_factory.mktemp("trained"), per_step=True)


def pieces_here(folder, data):
    run = load_run(folder)
    return answers(run.model, run.task, run.settings, run.read([data]))


def rows(pieces):
    """The columns, each whole."""
    several = list(pieces)
    return {name: np.concatenate([piece[name] for piece in several]) for name in several[0]}


def assert_same_rows(one, other):
    assert list(one) == list(other)
    for name, column in one.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(column, other[name], rtol=0, atol=1e-6)
        else:
            assert column.tolist() == other[name].tolist(), name


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Where slow actors say what they are at."""
    path = tmp_path_factory.mktemp("log") / "log.txt"
    os.environ[LOG] = str(path)
    yield path
    del os.environ[LOG]


@pytest.fixture(scope="module")
def cluster(log):
    """Two nodes of a core each, the second one of which can be taken away."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - it may not be there

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"num_cpus": 1, "object_store_memory": 2**27}
    started = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    started.second = started.add_node(**node)
    yield started
    started.shutdown()


@pytest.mark.parametrize("per_step", [False, True], ids=["classify", "label-steps"])
def test_a_cluster_answers_as_one_process(tmp_path, cluster, per_step):
    folder, data = new_run(tmp_path, per_step=per_step)
    assert load_run(folder).task.per_step is per_step
    assert_same_rows(rows(pieces_here(folder, data)), rows(answers_of_cluster(folder, [data], cluster.address)))


def series(path, seed):
    """Rows of some series at uneven times, a value missing here and there, as a CSV file."""
    rng = np.random.default_rng(seed)
    lines = ["id,time,load,heat"]
    for number, length in enumerate((40, 13, 70, 2, 55, 9, 31)):
        now = 0.0
        for step in range(length):
            now += rng.uniform(1, 9)
            load = "" if rng.random() < 0.1 else f"{100 + 20 * np.sin(step / 4) + rng.normal():.3f}"
            lines.append(f"s{number},{now:.3f},{load},{rng.normal():.3f}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_cluster_forecasts_as_one_process(tmp_path, cluster):
    """What is made of other inputs, how the target changed and the time between steps, is there once, as here."""
    settings = fitting_settings(
        data=(series(tmp_path / "known.csv", 0),),
        id="id",
        time="time",
        label="load",
        task="forecast",
        horizon=3,
        epochs=2,
    )
    run = train(settings, tmp_path / "run")
    assert [one.name for one in run.model.config.features] == ["load", "heat", "change of load", "time gap"]
    data = series(tmp_path / "new.csv", 5)
    there = rows(answers_of_cluster(tmp_path / "run", [data], cluster.address))
    assert len(there["ahead"]) == 7 * 3
    assert_same_rows(rows(pieces_here(tmp_path / "run", data)), there)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_command_writes_the_same_file(trained, cluster, tmp_path, suffix, as_users_run_it):
    folder, data = trained
    words = ["predict", folder, data, "--out", tmp_path / f"there{suffix}", "--ray", cluster.address]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    write_table(pieces_here(folder, data), tmp_path / f"here{suffix}")
    read = read_csv if suffix == ".csv" else read_parquet
    there, here = (read(tmp_path / f"{where}{suffix}") for where in ("there", "here"))
    columns = [{name: table[name].to_numpy() for name in table.column_names} for table in (there, here)]
    assert "step" in columns[0]
    assert_same_rows(*columns)


def begun(log):
    """The processes that are at work and their pieces, once there are two."""
    deadline = time.monotonic() + 120
    while True:
        said = [tuple(map(int, line.split())) for line in log.read_text().splitlines()] if log.is_file() else []
        if len({process for process, _ in said}) > 1:
            return said
        assert time.monotonic() < deadline, f"two processes should be at work; there are {said}"
        time.sleep(0.1)


@pytest.mark.parametrize("what", ["process", "node"])
def test_who_dies_half_way_is_replaced(trained, cluster, log, monkeypatch, what):
    folder, data = trained
    monkeypatch.setattr(ray_scoring, "_Answerer", SlowAnswerer)
    log.unlink(missing_ok=True)
    pieces = answers_of_cluster(folder, [data], cluster.address)
    reader = ThreadPoolExecutor(1)
    told = reader.submit(rows, pieces)
    said = begun(log)
    if what == "process":
        killed = {said[-1][0]}
        os.kill(said[-1][0], signal.SIGKILL)
    else:
        cluster.remove_node(cluster.second, allow_graceful=False)
        deadline = time.monotonic() + 60
        while not (killed := {process for process, _ in begun(log) if not Path(f"/proc/{process}").exists()}):
            assert time.monotonic() < deadline, "a process of the second node must have been at work"
            time.sleep(0.1)
    answered = told.result(timeout=300)
    reader.shutdown()
    if what == "node":
        cluster.second = cluster.add_node(num_cpus=1, object_store_memory=2**27)
    assert_same_rows(rows(pieces_here(folder, data)), answered)
    after = begun(log)
    done_again = {piece for process, piece in after if process in killed}
    done_again &= {piece for process, piece in after if process not in killed}
    assert done_again, f"some piece must have been begun by one that was killed, {killed}, and done by another: {after}"


# ---------------------------------------------------------------------------------------------------------------------
# refusals


def test_bad_data_are_refused_as_by_one_process(trained, cluster, tmp_path):
    folder, data = trained
    (tmp_path / "bad.csv").write_text(Path(data).read_text().replace("symbol", "other"))
    with pytest.raises(InputValueError) as here:
        rows(pieces_here(folder, str(tmp_path / "bad.csv")))
    words = f"^{here.value}$".replace("(", r"\(").replace(")", r"\)")
    assert_refused(
        lambda: rows(answers_of_cluster(folder, [str(tmp_path / "bad.csv")], cluster.address)), InputValueError, words
    )
    assert_refused(
        lambda: rows(answers_of_cluster(folder, ["nowhere.csv"], cluster.address)),
        FileMissingError,
        "^there is no file 'nowhere.csv'$",
    )
    assert issubclass(FileMissingError, FileError)


@pytest.mark.parametrize("address", ["", "nine", "ray://head:10001", "head:port", "head:70000", ":6379", "LOCAL"])
def test_what_is_no_address_is_refused(tmp_path, address):
    words = "^ray must be local, auto or host:port of a cluster of this machine's; got"
    assert_refused(lambda: rows(answers_of_cluster(tmp_path, ["x.csv"], address)), InputValueError, words)


@pytest.mark.parametrize("listening", [False, True])
def test_where_no_cluster_is_ends_soon(tmp_path, monkeypatch, listening):
    monkeypatch.setattr(ray_scoring, "_PATIENCE", 5.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listening:
            other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        words = f"^ray must be the address of a cluster; .*{address}"
        begun = time.monotonic()
        with pytest.raises(ProcessError, match=words) as told:
            rows(answers_of_cluster(tmp_path, ["x.csv"], address))
        assert "\n" not in str(told.value)
        assert time.monotonic() - begun < 60


@pytest.mark.parametrize(("lengths", "cores"), [([], 2), ([5], 4), ([1] * 100, 3), ([9, 1, 1, 500, 1], 2)])
def test_pieces_hold_every_sequence_once(lengths, cores):
    starts = ray_scoring._starts(np.array(lengths, int), cores)
    assert starts[-1] == len(lengths)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    most = -(-sum(lengths) // (4 * cores))
    for start, stop in pairwise(starts):
        assert stop - start == 1 or sum(lengths[start:stop]) <= most
