"""The cache of compiled kernels: nothing is compiled twice, and no state of its folder does harm."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.ops.cpu.compiled import CACHE_VARIABLE, sources

PROGRAM = """
import json, sys, time
import torch, tidegate as tg
from tidegate import ops
torch.manual_seed(0)
layer, x = tg.RNN(3, 5, backend="cpu"), torch.randn(4, 2, 3)
start = time.perf_counter()
with torch.no_grad():
    y = layer(x)[0]
seconds = time.perf_counter() - start
expected = ops.rnn(x, torch.zeros(2, 5), *layer.parameters(), backend="reference").hidden
right = torch.allclose(y, expected, atol=1e-6)
print(json.dumps({"seconds": seconds, "numba": "numba" in sys.modules, "right": right}))
"""
#: A process whose only free memory is a gap of two pages high up, and what lies 8 GB below it.
CROWDED = """
import ctypes, mmap
import torch, tidegate as tg
from tidegate.ops.cpu.machine import machine
machine()  # loads LLVM
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
def take(size):
    return libc.mmap(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)  # not reserved
layer, x = tg.RNN(3, 5, backend="cpu"), torch.randn(4, 2, 3)
below = take(1 << 33)
while take(1 << 16) > below:
    pass
gap = take(8192)
below = take((1 << 33) + 4096)
while take(4096) > below:
    pass
assert libc.munmap(ctypes.c_void_p(gap), ctypes.c_size_t(8192)) == 0
layer(x)
print("right")
"""
SOURCE = Path(__file__).parents[1] / "src"


def start(folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, CACHE_VARIABLE: str(folder), "PYTHONPATH": str(SOURCE)}
    program = [sys.executable, "-c", PROGRAM]
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: "subprocess.Popen[str]") -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    told: dict = json.loads(out)
    assert told["right"]
    return told


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Path:
    """A folder that one process has filled."""
    folder: Path = tmp_path_factory.mktemp("cache") / "made" / "when needed"
    assert result(start(folder))["numba"]
    return folder


def test_a_second_process_compiles_nothing_and_begins_at_once(warm):
    told = [result(start(warm)) for _ in range(3)]
    assert not any(one["numba"] for one in told)
    assert min(one["seconds"] for one in told) < 0.5


def test_several_processes_that_begin_at_once_are_all_right(tmp_path):
    for process in [start(tmp_path) for _ in range(3)]:
        assert result(process)["numba"]
    files = list(tmp_path.iterdir())
    assert [path.suffix for path in files] == [".o"], "one kernel, and nothing half-written is left"
    assert not result(start(tmp_path))["numba"]


@pytest.mark.parametrize("harm", ["cut", "other bytes", "empty", "a folder"])
def test_a_corrupt_file_is_made_anew(warm, tmp_path, harm):
    (file,) = warm.glob("*.o")
    whole = file.read_bytes()
    copy = tmp_path / file.name
    if harm == "a folder":
        copy.mkdir()
    else:
        copy.write_bytes({"cut": whole[:-100], "other bytes": whole[:-9] + b"otherwise", "empty": b""}[harm])
    assert result(start(tmp_path))["numba"]
    if harm != "a folder":
        assert hashlib.sha256(copy.read_bytes()[32:]).digest() == copy.read_bytes()[:32], "a whole file again"
        assert not result(start(tmp_path))["numba"]


@pytest.mark.skipif(sys.platform != "linux", reason="how memory is given out is Linux's")
def test_code_and_its_constants_are_near_each_other_in_any_process(warm):
    """Their distance must fit into 32 bits, or LLVM ends the process."""
    environment = {**os.environ, CACHE_VARIABLE: str(warm), "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", CROWDED], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


def test_a_files_name_tells_all_that_its_code_is_made_of():
    """Besides the room itself: the order and the signs of the weights, which kernels have inside."""
    names = {str(path.relative_to(SOURCE / "tidegate")) for path in sources()}
    assert {"conventions.py", "ops/call.py", "ops/cpu/tile.py", "ops/cpu/layout.py"} <= names
    assert all(path.is_file() for path in sources())


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    in_the_way = tmp_path / "a file"
    in_the_way.write_text("not a folder")
    assert result(start(in_the_way / "cache"))["numba"]
    assert in_the_way.read_text() == "not a folder"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="to root no folder is read-only")
def test_a_read_only_folder_is_done_without(tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert result(start(tmp_path))["numba"]
    finally:
        tmp_path.chmod(0o700)
