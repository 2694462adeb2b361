"""How fast one core multiplies and adds: the engine's own tile, on matrices that the inner caches hold.

It does nothing else than a GRU's products, so that no GRU built from this tile can be faster than it.
"""

import ctypes
import hashlib
import time
from pathlib import Path
from typing import Any, no_type_check

import numpy as np

from tidegate.ops.cpu.compiled import compile_kernel
from tidegate.ops.cpu.machine import machine
from tidegate.ops.cpu.record import FIELDS, NUMBERS

__all__ = ["Ceiling"]

_ROWS, _DEPTH, _COLUMNS, _VECTORS = 32, 256, 768, 3
#: Products in one timed call, so that calling it takes no part.
_TURNS = 8


@no_type_check
def _kernel(form: Any) -> Any:
    """The product of `X` with all panels at `PANELS_IN` into `PRODUCTS`, `STEPS` times over."""
    from tidegate.ops.cpu.memory import field  # noqa: PLC0415 - these load Numba, which a cached kernel does without
    from tidegate.ops.cpu.tile import row_product  # noqa: PLC0415

    product = row_product(form, _VECTORS)
    steps_of, x_of, panels_of, start_of, out_of = (
        field(name) for name in ("STEPS", "X", "PANELS_IN", "START_IN", "PRODUCTS")
    )
    rows_in_tile, row_bytes, out_bytes = form.rows, _DEPTH * form.size, _COLUMNS * form.size
    vectors_bytes = _VECTORS * form.lanes * form.size
    panels = _COLUMNS // (_VECTORS * form.lanes)

    def ceiling(p):
        for _ in range(steps_of(p)):
            for panel in range(panels):
                for row in range(0, _ROWS, rows_in_tile):
                    product(
                        rows_in_tile, 1, x_of(p) + row * row_bytes, row_bytes, 0, 1, _DEPTH,
                        panels_of(p) + panel * _DEPTH * vectors_bytes, 0, start_of(p), 0, 0,
                        out_of(p) + row * out_bytes + panel * vectors_bytes, out_bytes, 0,
                    )  # fmt: skip

    return ceiling


class Ceiling:
    """The rate of one core, in operations a second; every `measure` may raise it."""

    def __init__(self) -> None:
        kind = machine()

        def build() -> Any:
            from tidegate.ops.cpu.vector import Format  # noqa: PLC0415

            return _kernel(Format("float32", kind.lanes, kind.rows))

        own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
        address = compile_kernel(f"benchmark-ceiling-{own}", build, kind)
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
        random = np.random.default_rng(0)
        self._x = random.standard_normal((_ROWS, _DEPTH), dtype=np.float32)
        width = _VECTORS * kind.lanes
        self._panels = random.standard_normal((_COLUMNS // width, _DEPTH, width), dtype=np.float32)
        self._start = np.zeros(width, np.float32)
        self._out = np.zeros((_ROWS, _COLUMNS), np.float32)
        self._record = np.zeros(len(FIELDS), np.int64)
        tensors = {"X": self._x, "PANELS_IN": self._panels, "START_IN": self._start, "PRODUCTS": self._out}
        for name, tensor in tensors.items():
            self._record[NUMBERS[name]] = tensor.ctypes.data
        self._record[NUMBERS["STEPS"]] = _TURNS
        self.samples: list[float] = []
        self._check()

    def _check(self) -> None:
        self._function(self._record.ctypes.data)
        right = self._x.astype(np.float64) @ np.concatenate(list(self._panels), axis=1)
        if not np.allclose(self._out, right, atol=1e-3):
            raise RuntimeError("the kernel that measures the ceiling gives wrong numbers")

    def measure(self, seconds: float) -> None:
        """Take samples for so long."""
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            self._function(self._record.ctypes.data)
            taken = time.perf_counter() - begin
            self.samples.append(2 * _ROWS * _DEPTH * _COLUMNS * _TURNS / taken)

    @property
    def rate(self) -> float:
        """The best of all samples: operations a second of one core."""
        return max(self.samples)
