"""The threads that work on a call together: torch's own, of the OpenMP library that it has loaded.

A kernel shares out its own work (see `sharing`), so that it is right with any number of threads, late ones and none
included: nothing here can deadlock, and eight callers at once are safe. Torch's threads are used because they are
there, start within two microseconds, and would otherwise, still waiting for torch's next operation, compete with others
of ours for the processor.

Where OpenMP cannot be used, threads of this module's own wait for kernels: on systems whose library lacks the entry
that GCC's code uses, and in a process forked from one that has used OpenMP, which has none of its threads.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

__all__ = ["run_together", "waits"]

#: What a waiting thread takes: a kernel's address, its record, and what must live until it is done.
_Task = tuple[int, int, Any]
_Parallel = Callable[[int, int, int, int], None]
_kernel_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Team:
    """Threads that take kernels from one queue, and are never waited for."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[_Task] = SimpleQueue()
        self.size = 0
        self.growing = threading.Lock()

    def run(self, kernel: int, record: int, kept: object, threads: int) -> None:
        """Run the kernel here and on the team, which grows to `threads - 1`."""
        with self.growing:
            while self.size < threads - 1:
                name = f"tidegate-{self.size + 1}"
                threading.Thread(target=_work, args=(self.tasks,), name=name, daemon=True).start()
                self.size += 1
        for _ in range(threads - 1):
            self.tasks.put((kernel, record, kept))
        _kernel_type(kernel)(record)


def _work(tasks: "SimpleQueue[_Task]") -> None:
    while True:
        kernel, record, kept = tasks.get()
        _kernel_type(kernel)(record)
        del kernel, record, kept  # while this thread waits it keeps nobody's memory


_team = _Team()
_forked = False


def _start_anew() -> None:
    global _team, _forked
    _team, _forked = _Team(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@cache
def _openmp() -> _Parallel | None:
    """`GOMP_parallel(function, argument, threads, flags)` of the library that torch has loaded, if it has one."""
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415 - needed once a process

    found = [Path(one.filepath) for one in ThreadpoolController().lib_controllers if one.user_api == "openmp"]
    home = Path(torch.__file__).parent
    for path in sorted(found, key=lambda path: not path.is_relative_to(home)):
        parallel = getattr(ctypes.CDLL(str(path)), "GOMP_parallel", None)
        if parallel is not None:
            parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            parallel.restype = None
            return parallel  # type: ignore[no-any-return]
    return None


def waits() -> bool:
    """Whether `run_together` returns when every thread has let go of the kernel, not only when all work is done."""
    return not _forked and _openmp() is not None


def run_together(kernel: int, record: int, kept: object, threads: int) -> None:
    """Run the kernel at this address on up to `threads` threads; all of its work is done on return."""
    if threads == 1:
        _kernel_type(kernel)(record)
    elif waits():
        parallel = _openmp()
        assert parallel is not None
        parallel(kernel, record, threads, 0)
    else:
        _team.run(kernel, record, kept, threads)
