"""σ and tanh of the CPU kernels: within 4 units of the last place everywhere, infinities and NaN as IEEE has them."""

import ctypes
from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
import pytest
import torch

from tidegate.ops.cpu import functions
from tidegate.ops.cpu.compiled import compile_kernel
from tidegate.ops.cpu.launch import lanes_of
from tidegate.ops.cpu.machine import machine
from tidegate.ops.cpu.memory import field
from tidegate.ops.cpu.record import NUMBERS
from tidegate.ops.cpu.vector import Code, Format, vector_code

DTYPES: dict[str, Any] = {"float32": np.float32, "float64": np.float64}


@no_type_check
def kernel_of(function: Callable[..., Any], form: Format) -> Any:
    """A kernel that applies a function to STEPS vectors at X and puts the results to HIDDEN."""
    x_of, out_of, count_of, size = field("X"), field("HIDDEN"), field("STEPS"), form.lanes * form.size

    @vector_code(2)
    def one(builder, source, target):
        code = Code(builder, form)
        code.store(function(code, code.load(source)), target)

    def kernel(p):
        for i in range(count_of(p)):
            one(x_of(p) + i * size, out_of(p) + i * size)

    return kernel


def apply(name: str, x: np.ndarray) -> np.ndarray:
    kind = machine()
    dtype = x.dtype.name
    form = Format(dtype, lanes_of(kind, getattr(torch, dtype)), kind.rows)
    address = compile_kernel(f"test-{name}-{dtype}", lambda: kernel_of(getattr(functions, name), form), kind)
    assert x.size % form.lanes == 0
    out, record = np.full_like(x, np.nan), np.zeros(len(NUMBERS), np.int64)
    record[NUMBERS["X"]], record[NUMBERS["HIDDEN"]] = x.ctypes.data, out.ctypes.data
    record[NUMBERS["STEPS"]] = x.size // form.lanes
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(record.ctypes.data)
    return out


def exactly(name: str, x: np.ndarray) -> Any:
    wide = x.astype(np.longdouble)
    if name == "tanh":
        return np.tanh(wide)
    small = np.exp(-np.abs(wide))
    return np.where(wide < 0, small, np.longdouble(1)) / (1 + small)


def everywhere(dtype: str) -> np.ndarray:
    """Numbers of every size and sign, the limits of the formats among them, and many where the functions bend."""
    kind = DTYPES[dtype]
    bits: Any = np.uint32 if dtype == "float32" else np.uint64
    spread = (np.arange(1 << 19, dtype=bits) << bits(8 * np.dtype(bits).itemsize - 19)).view(kind)
    rng = np.random.default_rng(0)
    near = np.concatenate([rng.uniform(-end, end, 1 << 17) for end in (0.4, 2, 20, 110, 750)]).astype(kind)
    edges = np.array([0, 104, 104.5, 746, 88, 87.5, 9, 9.5, 19, 19.5, 0.34, 0.35, 1e-8, np.finfo(kind).tiny], kind)
    x = np.concatenate([spread[np.isfinite(spread)], near, edges, -edges, np.nextafter(edges, kind(np.inf))])
    return np.resize(x, -(-x.size // 16) * 16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_within_4_units_of_the_last_place_over_the_whole_range(name, dtype):
    x = everywhere(dtype)
    got, wanted = apply(name, x), exactly(name, x)
    step = np.maximum(np.spacing(np.abs(wanted.astype(x.dtype))), np.finfo(x.dtype).smallest_subnormal)
    off = np.abs(got.astype(np.longdouble) - wanted) / step
    worst = int(np.argmax(off))
    assert off[worst] <= 4, f"{name}({x[worst]!r}) is {got[worst]!r}, {off[worst]:.1f} places from {wanted[worst]!r}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_nan_and_zeros_are_those_of_ieee(dtype):
    x = np.resize(np.array([np.inf, -np.inf, np.nan, -np.nan, 0.0, -0.0, 1e30, -1e30], DTYPES[dtype]), 16)
    sigmoid, tanh = apply("sigmoid", x)[:8], apply("tanh", x)[:8]
    np.testing.assert_array_equal(sigmoid, np.array([1, 0, np.nan, np.nan, 0.5, 0.5, 1, 0], DTYPES[dtype]))
    np.testing.assert_array_equal(tanh, np.array([1, -1, np.nan, np.nan, 0, 0, 1, -1], DTYPES[dtype]))
    assert np.signbit(tanh[5])
    assert not np.signbit(tanh[4])
