"""What the processor at hand can do: how many numbers a vector holds, and how many rows of a product stay in registers.

Everything else asks here, so that a new kind of processor is a line in `_KINDS`.
"""

import importlib.util
import os
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

from tidegate.errors import InputValueError

__all__ = ["LANES_VARIABLE", "Machine", "machine", "missing"]

#: Set to 16, 8 or 4 (float32 numbers in a vector) to have code for a lesser processor than the one at hand.
LANES_VARIABLE = "TIDEGATE_LANES"


#: The versions of Numba that `lowering` is written for: from, to.
_NUMBAS = ((0, 62), (0, 69))


class Machine(NamedTuple):
    """One kind of processor, as code is made for it."""

    name: str
    #: What it must have, in LLVM's names.
    needs: tuple[str, ...]
    #: float32 numbers in a vector; float64 has half as many.
    lanes: int
    #: Rows of a product that are worked on together: rows x 3 vectors of sums stay in registers.
    rows: int
    #: What code for it must not use, though the processor at hand may have it.
    without: tuple[str, ...] = ()


_KINDS = (
    Machine("AVX-512", ("avx512f", "avx512dq", "fma"), lanes=16, rows=8),
    Machine("AVX2", ("avx2", "fma"), lanes=8, rows=4, without=("avx512",)),
    Machine("NEON", ("neon",), lanes=4, rows=8),
    # not a processor that anyone has to run on, but the narrowest vectors, for tests on x86
    Machine("SSE with FMA", ("avx2", "fma"), lanes=4, rows=4, without=("avx512",)),
)


def missing() -> str | None:
    """What the kernels need and this computer lacks, as half a sentence, or None."""
    absent = [name for name in ("numba", "llvmlite") if not _installed(name)]
    if absent:
        return f"its kernels are compiled by Numba, and {absent[0]} is not installed (pip install numba)"
    if not _NUMBAS[0] <= (found := _numba()) < _NUMBAS[1]:
        known = f"{_NUMBAS[0][0]}.{_NUMBAS[0][1]} and later, before {_NUMBAS[1][0]}.{_NUMBAS[1][1]}"
        return f"its kernels are made with the inside of Numba {known}, and {found[0]}.{found[1]} is installed"
    if not _possible():
        return "its kernels need a processor with AVX2 and FMA, AVX-512 or NEON, and this one has none of them"
    return None


# what `torch.compiler.assume_constant_result` does, which would import the whole compiler to do it
missing._dynamo_marked_constant = True  # type: ignore[attr-defined]


def machine() -> Machine:
    """The widest kind that the processor at hand is, or the one that `TIDEGATE_LANES` asks for."""
    asked = os.environ.get(LANES_VARIABLE)
    possible = _possible()
    if not asked:
        return possible[0]
    fitting = [kind for kind in possible if str(kind.lanes) == asked]
    if not fitting:
        known = ", ".join(str(lanes) for lanes in sorted({kind.lanes for kind in possible}))
        raise InputValueError(f"{LANES_VARIABLE} must be one of {known} on this processor; got {asked!r}")
    return fitting[0]


@cache
def _numba() -> tuple[int, ...]:
    return tuple(int(part) for part in version("numba").split(".")[:2])


@cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _possible() -> tuple[Machine, ...]:
    """Every kind that the processor at hand is, the widest first."""
    from llvmlite import binding  # noqa: PLC0415 - loads LLVM

    features = binding.get_host_cpu_features()
    return tuple(kind for kind in _KINDS if all(features.get(need, False) for need in kind.needs))
