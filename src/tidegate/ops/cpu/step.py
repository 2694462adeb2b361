"""One live step: weights packed once, memory that stays, and a single call for all layers of a stack.

The step is made of the forward kernel's own parts, so that it gives the numbers of a whole-sequence run to the bit.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from math import ceil
from time import perf_counter
from typing import Any, no_type_check

import numpy as np
import torch
from torch import Tensor

from tidegate.ops.call import Call
from tidegate.ops.cpu.compiled import compile_kernel
from tidegate.ops.cpu.launch import Memory, lanes_of
from tidegate.ops.cpu.layout import LAYOUTS, Layout
from tidegate.ops.cpu.machine import Machine, machine
from tidegate.ops.cpu.operators import ACTIVATION_NUMBERS
from tidegate.ops.cpu.record import NUMBERS, PHASE, SUMS, ZEROS
from tidegate.ops.cpu.steering import Steering
from tidegate.ops.cpu.team import run_together, waits

__all__ = ["Stepper"]

#: Bytes of weights from which a step is worth a second thread: what one core's inner caches hardly hold.
_WORTH_SHARING = 768 * 1024
#: Seconds since the last step after which the other threads may have gone to sleep: to wake them takes longer than a
#: step, and the next one is taken alone.
_AWAKE = 1e-3
_kernel_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@no_type_check
def _kernel_of(layout: Layout, form: Any) -> dict[str, Any]:
    """The kernels: one that packs a layer's weights, one that steps through all layers."""
    from tidegate.ops.cpu.forward import step_functions  # noqa: PLC0415 - these load Numba
    from tidegate.ops.cpu.lowering import kernel_function  # noqa: PLC0415
    from tidegate.ops.cpu.memory import field  # noqa: PLC0415
    from tidegate.ops.cpu.sharing import share  # noqa: PLC0415

    parts_of_step = step_functions(layout, form)
    pack_group, inputs = parts_of_step.pack, parts_of_step.inputs_of_units
    some_units, some_units_after = parts_of_step.step_of_units, parts_of_step.step_of_units_after
    lanes, n_relevant = form.lanes, len(layout.relevant)
    units_of, parts_of, next_of = field("UNITS"), field("PARTS"), field("NEXT")
    counters_of, hidden_of = field("COUNTERS"), field("HIDDEN")

    @kernel_function
    def units(task, p, parts):
        inputs(task, p, parts, 0, 1)
        some_units(task, p, parts, 0, 0, 1, hidden_of(p), 0, 0, 0, 0)

    @kernel_function
    def units_after(task, p, parts):
        some_units_after(task, p, parts, 0, 0, 1, hidden_of(p), 0, 0, 0, 0)

    def pack(p):
        for group in range((units_of(p) + lanes - 1) // lanes):
            pack_group(group, p)

    def step(p):
        while p != 0:
            parts, counters = parts_of(p), counters_of(p)
            if parts == 1:
                units(0, p, 1)
                units_after(0, p, 1)
            else:
                share(counters, 0, parts, units, (p, parts))
                if n_relevant:
                    share(counters, 1, parts, units_after, (p, parts))
            p = next_of(p)

    return {"pack": pack, "step": step}


@cache
def _kernel(which: str, system: str, dtype: torch.dtype, kind: Machine) -> int:
    name = str(dtype).removeprefix("torch.")

    def build() -> Any:
        from tidegate.ops.cpu.vector import Format  # noqa: PLC0415

        return _kernel_of(LAYOUTS[system], Format(name, lanes_of(kind, dtype), kind.rows))[which]

    return compile_kernel(f"{which}-{system}-{name}", build, kind)


class Stepper:
    """A stack of layers that takes one step at a time.

    `x` (B, I) is filled by the caller; `step()` tells which of the two `outputs` (B, H) then holds the last layer's
    state. They take turns: what one holds is the state before until the next step.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        """Pack the weights of the layers, each told by a call of one step."""
        first, kind = calls[0], machine()
        system, dtype = first.system, first.x.dtype
        layout, batch = LAYOUTS[system], first.x.shape[1]
        lanes = lanes_of(kind, dtype)
        self.x = first.x.new_zeros(first.x.shape[1:])
        self._states = [[call.h_0.new_zeros(call.h_0.shape) for call in calls] for _ in range(2)]
        self.outputs = tuple(states[-1] for states in self._states)
        self._side = 0
        self._last = 0.0
        weights = sum(weight.numel() for call in calls for weight in call.weights if weight is not None)
        shared = weights * dtype.itemsize >= _WORTH_SHARING
        self._threads = torch.get_num_threads() if shared else 1
        self._counters = np.zeros((len(calls), 2, PHASE), np.int64)
        self._records = np.zeros((2, len(calls), len(NUMBERS)), np.int64)
        self._kept: list[object] = []
        pack = _kernel_type(_kernel("pack", system, dtype, kind))
        for depth, call in enumerate(calls):
            inputs, units = call.x.shape[2], call.h_0.shape[1]
            vectors = ceil(units / lanes) * lanes
            tensors = [None if weight is None else weight.detach().contiguous() for weight in call.weights[:4]]
            memory = Memory(dtype)
            memory.take_weights(layout, vectors, inputs, units)
            memory.take("PRODUCTS", batch * vectors * len(layout.inputs))
            memory.take("RELEVANT", 2 * batch * vectors if layout.relevant else 0)
            memory.take("SUMS", (ZEROS + SUMS * kind.rows * self._threads) * lanes)
            piece, addresses = memory.place()
            names = ("WEIGHT_IH", "WEIGHT_HH", "BIAS_IH", "BIAS_HH")
            steering = Steering.of(call)
            assert isinstance(call.activation, str)
            fields = {
                "STEPS": 1, "BATCH": batch, "INPUTS": inputs, "UNITS": units, "PARTS": self._threads,
                "ACTIVATION": ACTIVATION_NUMBERS[call.activation],
                "COUNTERS": self._counters[depth].ctypes.data,
            } | addresses | steering.fields(call.h_0)  # fmt: skip
            for side in range(2):
                before, after = self._states[side], self._states[1 - side]
                own = {
                    "X": (after[depth - 1] if depth else self.x).data_ptr(),
                    "H_0": before[depth].data_ptr(),
                    "HIDDEN": after[depth].data_ptr(),
                    "NEXT": self._records[side, depth + 1].ctypes.data if depth + 1 < len(calls) else 0,
                }
                for name, value in (fields | own).items():
                    self._records[side, depth, NUMBERS[name]] = value
            packing = self._records[0, depth].copy()
            for name, tensor in zip(names, tensors, strict=True):
                packing[NUMBERS[name]] = 0 if tensor is None else tensor.data_ptr()
            pack(packing.ctypes.data)
            self._kept.append((piece, steering))
        self._step = _kernel("step", system, dtype, kind)
        self._call = _kernel_type(self._step)
        self._first = [self._records[side, 0].ctypes.data for side in range(2)]

    def step(self) -> int:
        """Take one step from `x`; the number of the output that holds the result."""
        side = self._side
        if self._threads == 1:
            self._call(self._first[side])
        else:
            # what is done goes first: a thread that comes late from the last step must find nothing to do
            self._counters[:, :, 1] = 0
            self._counters[:, :, 0] = 0
            # and memory that every step uses again must have been let go of
            threads = self._threads if perf_counter() - self._last < _AWAKE and waits() else 1
            run_together(self._step, self._first[side], self, threads)
            self._last = perf_counter()
        self._side = 1 - side
        return self._side

    @property
    def state(self) -> Tensor:
        """The state of every layer, (L, B, H)."""
        return torch.stack(self._states[self._side])

    @state.setter
    def state(self, state: Tensor) -> None:
        for own, given in zip(self._states[self._side], state, strict=True):
            own.copy_(given)
