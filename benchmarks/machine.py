"""The computer that the numbers come from, and how many of its cores everyone gets."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["BUSY", "cores", "describe", "line", "share_out", "worked"]

_PACKAGES = ("tidegate", "torch", "numpy", "numba", "llvmlite", "jax", "jaxlib", "onnx", "onnxruntime", "openvino")
#: From this share of the cores on, what others do is told under the table.
BUSY = 0.05


def cores() -> list[int]:
    """One processor for each core that this process may run on."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    first: dict[str, int] = {}
    for number in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text() if siblings.exists() else str(number), number)
    return list(first.values())


def share_out(threads: int) -> None:
    """Give this process, and all that it starts, `threads` cores; to be called before any library is imported."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):  # NPROC is XLA's
        os.environ[variable] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    flag = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[:threads])


def describe(found: int, threads: int) -> dict[str, Any]:
    """Machine (with the `found` cores), versions and date, for the file."""
    return {
        "machine": {
            "cpu": _cpu(),
            "cores": found,
            "threads": threads,
            "os": platform.platform(),
            "python": platform.python_version(),
        },
        "packages": {name: number for name in _PACKAGES if (number := _version(name)) is not None},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def line(described: dict[str, Any]) -> str:
    """The same in one line."""
    machine = described["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in described["packages"].items())
    return (
        f"{machine['cpu']}, {_counted(machine['cores'], 'core')}, {_counted(machine['threads'], 'thread')}, "
        f"{machine['os']}, Python {machine['python']}; {packages}; {described['date'][:10]}"
    )


def worked() -> tuple[float, float, float]:
    """Seconds of processors so far: this process's and its children's, everyone's, and those there were.

    The last two are 0 where the system does not tell.
    """
    own = sum(os.times()[:4])
    told = Path("/proc/stat")
    if not told.exists():
        return own, 0.0, 0.0
    user, nice, system, idle, waiting, *others = map(int, told.read_text().splitlines()[0].split()[1:])
    second = os.sysconf("SC_CLK_TCK")
    working = user + nice + system + sum(others[:3])
    return own, working / second, (working + idle + waiting) / second


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for row in info.read_text().splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    if sys.platform == "darwin":
        import subprocess  # noqa: PLC0415 - needed here only

        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
