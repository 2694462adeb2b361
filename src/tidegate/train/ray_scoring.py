"""What a trained model says of new sequences, worked out on a Ray cluster: the same pieces as `predict.answers` gives.

One process, where the data lie, reads them and lends whole sequences out; Ray Data has the others answer for them.
"""

import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError, ProcessError
from tidegate.extras import require
from tidegate.train.predict import Columns, answers
from tidegate.train.run import load_run, run_files

__all__ = ["answers_of_cluster"]

#: Steps that are lent out together, unless there are too few for everybody; one sequence is never divided.
_STEPS = 2**18
#: Pieces for each core, so that one who is slow, or dies, does not hold up all.
_PIECES = 4
#: Seconds in which an address must answer, on a machine that has other work too.
_PATIENCE = 30.0


def answers_of_cluster(folder: Path, data: Sequence[str], address: str) -> Iterator[Columns]:
    """What the run in `folder` says of the sequences in `data`: the rows of `answers`, in its order.

    The files are read on this machine alone. Others get the run's files and, piece by piece, whole sequences; they need
    no files of ours, only Tidegate. What a process or machine was at when it died, another does again.

    Args:
        folder: a finished run.
        data: files, folders or patterns.
        address: "local" to use the cores of this machine, "auto" for the cluster that it belongs to, or host:port of
            the head of that.

    Raises:
        InputValueError, FileError: as `Run.read`; or the address is none of these.
        ProcessError: no cluster is there, or it went away.
    """
    ray = require("ray", "ray")
    require("ray.data", "ray")
    with _quiet(), _connected(ray, address), _told(ray):
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        # no core of its own, for it mostly waits; several threads, for several may ask at once
        lender = (
            ray.remote(_Lender)
            .options(num_cpus=0, scheduling_strategy=here, max_concurrency=8)
            .remote(run_files(folder), list(data), str(Path.cwd()))
        )
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        pieces = ray.get(lender.pieces.remote(cores))
        if not pieces:
            return
        numbers = ray.data.from_items(list(range(pieces)), override_num_blocks=pieces)
        answered = numbers.map_batches(
            _Answerer,
            fn_constructor_args=(lender,),
            batch_size=1,
            num_cpus=1,
            concurrency=min(cores, pieces),
        )
        for table in answered.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield {name: table.column(name).to_numpy() for name in table.column_names}


class _Lender:
    """An actor beside the data: reads them once, and hands out whole sequences, a piece by its number."""

    def __init__(self, files: Mapping[str, bytes], data: list[str], folder: str) -> None:
        self._files, self._data, self._folder = dict(files), data, folder
        self._starts: list[int] = []

    def files(self) -> dict[str, bytes]:
        """The run's."""
        return self._files

    def pieces(self, cores: int) -> int:
        """Read, and tell how many pieces there are for so many cores."""
        os.chdir(self._folder)  # for the data may be named from there
        self._sequences: Sequences = _run_of(self._files).read(self._data)
        self._starts = _starts(self._sequences.lengths, cores)
        return len(self._starts) - 1

    def piece(self, number: int) -> Sequences:
        """Some whole sequences, in memory."""
        return self._sequences.only(range(self._starts[number], self._starts[number + 1]))


class _Answerer:
    """An actor of Ray Data's: loads the run once, and answers for the pieces that it is given the numbers of."""

    def __init__(self, lender: Any) -> None:
        self._run, self._lender = _run_of(require("ray", "ray").get(lender.files.remote())), lender

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Iterator[Any]:
        ray, arrow = require("ray", "ray"), require("pyarrow", "train")
        settings = replace(self._run.settings, threads=1)  # the cores are divided among actors
        for number in batch["item"].tolist():
            sequences = ray.get(self._lender.piece.remote(number))
            for columns in answers(self._run.model, self._run.task, settings, sequences):
                yield arrow.table({name: values.tolist() for name, values in columns.items()})


def _run_of(files: Mapping[str, bytes]) -> Any:
    """A run from the content of its files; they are loaded as any run is."""
    with TemporaryDirectory(prefix="tidegate-run-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return load_run(folder)


def _starts(lengths: np.ndarray, cores: int) -> list[int]:
    """The first sequence of each piece, and the number of all."""
    most = min(_STEPS, math.ceil(int(lengths.sum()) / (_PIECES * cores)))
    starts, steps = [0], 0
    for number, length in enumerate(lengths.tolist()):
        if steps and steps + length > most:
            starts.append(number)
            steps = 0
        steps += length
    return [*starts, len(lengths)] if len(lengths) else [0]


@contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    """A connection to a cluster, for a while; one that there is already is used and left."""
    if ray.is_initialized():
        yield
        return
    _check(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers; there is no argument for it
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ProcessError(f"ray must be the address of a cluster; got {address!r}: {_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Raise unless the address can be one, and somebody is there: Ray itself would try for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputValueError(f"ray must be local, auto or host:port of a cluster of this machine's; got {address!r}")
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
        command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        healthy = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False).returncode == 0
    except OSError as error:
        raise ProcessError(f"ray must be the address of a cluster; nobody answers at {address!r}: {error}") from error
    except subprocess.TimeoutExpired:
        healthy = False
    if not healthy:
        raise ProcessError(f"ray must be the address of a cluster; what answers at {address!r} is not the head of one")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's remarks off the terminal."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _told(ray: ModuleType) -> Iterator[None]:
    """What goes wrong elsewhere as what it is here; rows in their order, and no bars."""
    context = ray.data.DataContext.get_current()
    kept = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if type(error.cause).__module__.startswith("tidegate."):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise ProcessError(f"the Ray cluster did not go on: {_line(cause or error)}") from error
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = kept


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
