"""From tensors to a kernel's record and back: what memory a call takes, how its work is cut, and the call itself."""

from ctypes import memset
from functools import cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tidegate.ops.cpu.compiled import compile_kernel
from tidegate.ops.cpu.layout import LAYOUTS, Layout
from tidegate.ops.cpu.machine import Machine, machine
from tidegate.ops.cpu.profile import tell
from tidegate.ops.cpu.record import FIELDS, SUMS, ZEROS
from tidegate.ops.cpu.team import run_together

__all__ = ["COUNTERS", "Gradients", "Memory", "Problem", "States", "backward", "forward", "kept_states", "lanes_of"]

#: Bytes of a chunk's products with the input, for each thread: about half of an inner cache.
_PRODUCT_BYTES = 512 * 1024
#: Rows of a slice's chunk on the way back: enough for the large products to be large.
_ROWS_BACK = 512
#: Bytes of gradients of weights that may be kept beside the result, a slice its own, whatever the call's size.
_APART_BYTES = 4 * 1024 * 1024
#: Vectors of units that a thread must have for threads to meet at every step, where there are fewer sequences.
_GROUPS_APART = 3
#: Operations below which other threads come too late to be of use.
_WORTH_SHARING = 4_000_000
#: Integers that a phase's counters and clocks take.
COUNTERS = 16
_LINE = 64


class Problem(NamedTuple):
    """One layer in one direction over a whole sequence, in contiguous memory (see `ops.call.Call`)."""

    system: str
    x: Tensor
    h_0: Tensor
    weight_ih: Tensor
    weight_hh: Tensor | None
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    activation: int
    mask: Tensor | None
    pin_update: Tensor | None
    pin_reset: Tensor | None
    reverse: bool


class States(NamedTuple):
    """What goes forwards, (T, B, H) each; None is not kept."""

    hidden: Tensor
    update: Tensor | None
    reset: Tensor | None
    candidate: Tensor | None
    past: Tensor | None


class Gradients(NamedTuple):
    """What goes backwards: the gradient of each tensor of a `Problem` that has one."""

    x: Tensor | None
    h_0: Tensor
    weight_ih: Tensor
    weight_hh: Tensor | None
    bias_ih: Tensor | None
    bias_hh: Tensor | None


class _Cut(NamedTuple):
    """How a call's work is cut."""

    lanes: int
    rows: int
    groups: int
    threads: int
    #: Into how many parts the batch is cut; 0 where the units are shared out instead.
    slices: int
    chunk: int
    #: Rows of a slice in a chunk, at most.
    capacity: int
    #: Whether each slice sums its gradients of weights apart.
    apart: bool
    #: What is shared out, one after the other.
    phases: list[str]

    @property
    def scratch(self) -> int:
        """Vectors for the sums of tiles, each thread's own, behind some that stay zero."""
        return ZEROS + SUMS * self.rows * max(self.threads, self.slices)

    @property
    def parts(self) -> int:
        """How many slices there are, all sequences being one where units are shared out."""
        return max(1, self.slices)

    @property
    def owners(self) -> int:
        """How many have totals of the weights' gradients."""
        return self.slices if self.apart else 1


@cache
def _kernel(direction: str, system: str, dtype: torch.dtype, kind: Machine) -> int:
    name = str(dtype).removeprefix("torch.")

    def build() -> Any:
        from tidegate.ops.cpu.backward import backward_kernel  # noqa: PLC0415 - these load Numba, which is heavy
        from tidegate.ops.cpu.forward import forward_kernel  # noqa: PLC0415
        from tidegate.ops.cpu.vector import Format  # noqa: PLC0415

        form = Format(name, lanes_of(kind, dtype), kind.rows)
        return (forward_kernel if direction == "forward" else backward_kernel)(LAYOUTS[system], form)

    return compile_kernel(f"{direction}-{system}-{name}", build, kind)


def lanes_of(kind: Machine, dtype: torch.dtype) -> int:
    """How many numbers of `dtype` are in a vector."""
    return kind.lanes * 4 // dtype.itemsize


def _cut(problem: Problem, kind: Machine, *, back: bool, recompute: bool = False) -> _Cut:
    steps, batch, inputs = problem.x.shape
    layout, units = LAYOUTS[problem.system], problem.h_0.shape[1]
    lanes = lanes_of(kind, problem.x.dtype)
    groups = ceil(units / lanes)
    operations = 2 * len(layout.inputs) * groups * lanes * (inputs + units)
    threads = torch.get_num_threads() if operations * steps * batch > _WORTH_SHARING else 1
    by_units = batch < 2 * threads and groups >= _GROUPS_APART * threads and threads > 1
    slices = 0 if by_units else min(threads, batch)
    sequences = ceil(batch / max(1, slices))
    if back:
        chunk = ceil(_ROWS_BACK / sequences)
    else:
        row_bytes = groups * lanes * len(layout.inputs) * problem.x.dtype.itemsize
        share = _PRODUCT_BYTES * (threads if by_units else 1)
        chunk = ceil(max(share / row_bytes, 4 * kind.rows) / sequences)
    chunk = min(steps, max(1, chunk))
    weights = layout.width * groups * lanes * (inputs + units) * problem.x.dtype.itemsize
    states = problem.x.dtype.itemsize * steps * batch * units
    apart = slices > 0 and (slices - 1) * weights <= max(_APART_BYTES, states)
    phases = _phases_back if back else _phases
    names = phases(
        [min(chunk, steps - begin) for begin in range(0, steps, chunk)], relevant=bool(layout.relevant),
        by_units=by_units, apart=apart, recompute=recompute,
    )  # fmt: skip
    return _Cut(lanes, kind.rows, groups, threads, slices, chunk, chunk * sequences, apart, names)


def _phases(chunks: list[int], *, relevant: bool, by_units: bool, **_: bool) -> list[str]:
    """What the forward kernel shares out, in its order."""
    if not by_units:
        return ["pack", "steps"]
    each = ["steps"] * (2 if relevant else 1)
    return ["pack", *(name for steps in chunks for name in ["inputs", *each * steps])]


def _phases_back(chunks: list[int], *, relevant: bool, by_units: bool, apart: bool, recompute: bool) -> list[str]:
    """What the backward kernel shares out, in its order."""
    phases = ["pack", *(["pack anew"] if recompute else [])]
    if apart:
        return [*phases, "steps back", "unpack"]
    each = 2 if relevant else 1
    for steps in chunks:
        if by_units and recompute:
            phases += ["inputs anew", *["steps anew"] * each * steps]
        if by_units:
            phases += [*["steps back"] * each * steps, "steps back", "input's gradient"]
        else:
            phases += ["steps back"]
        phases += ["weights' gradients"]
    return [*phases, "unpack"]


class Memory:
    """One piece of memory for all that a call needs while it runs, given out in lines of the cache."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.size = 0
        self.offsets: dict[str, int] = {}

    def take(self, name: str, numbers: int) -> None:
        """Room for so many numbers, under the name of the field that will hold its address."""
        self.offsets[name] = self.size
        self.size += ceil(numbers * self.dtype.itemsize / _LINE) * _LINE

    def take_weights(self, layout: Layout, vectors: int, inputs: int, units: int) -> None:
        """Room for a layer's packed weights; `vectors` is its units, filled up to whole vectors."""
        for name, blocks, depth in (
            ("IN", layout.inputs, inputs),
            ("PAST", layout.past, units),
            ("RELEVANT", layout.relevant, units),
        ):
            self.take(f"PANELS_{name}", vectors * len(blocks) * depth)
            self.take(f"START_{name}", vectors * len(blocks))

    def place(self) -> tuple[Tensor, dict[str, int]]:
        """The memory, and the address of each part."""
        piece = torch.empty(self.size // self.dtype.itemsize + _LINE, dtype=self.dtype)
        first = ceil(piece.data_ptr() / _LINE) * _LINE
        return piece, {name: first + offset for name, offset in self.offsets.items()}


def _problem_fields(problem: Problem, cut: _Cut) -> dict[str, int]:
    steps, batch, inputs = problem.x.shape
    fields = {
        "STEPS": steps, "BATCH": batch, "INPUTS": inputs, "UNITS": problem.h_0.shape[1],
        "CHUNK": cut.chunk, "SLICES": cut.slices, "PARTS": cut.threads, "CAPACITY": cut.capacity,
        "APART": int(cut.apart),
        "REVERSE": int(problem.reverse), "ACTIVATION": problem.activation,
        "X": _address(problem.x), "H_0": _address(problem.h_0), "MASK": _address(problem.mask),
        "WEIGHT_IH": _address(problem.weight_ih), "WEIGHT_HH": _address(problem.weight_hh),
        "BIAS_IH": _address(problem.bias_ih), "BIAS_HH": _address(problem.bias_hh),
    }  # fmt: skip
    for gate, pin in (("UPDATE", problem.pin_update), ("RESET", problem.pin_reset)):
        if pin is not None:
            step, row, _ = (0 if size == 1 else stride for size, stride in zip(pin.shape, pin.stride(), strict=True))
            one_each = pin.shape[2] == problem.h_0.shape[1]
            fields |= {
                f"PIN_{gate}": _address(pin), f"PIN_{gate}_KIND": 1 if one_each else 2,
                f"PIN_{gate}_STEP": step, f"PIN_{gate}_ROW": row,
            }  # fmt: skip
    return fields


def _take_forward(memory: Memory, problem: Problem, layout: Layout, cut: _Cut) -> None:
    """What the forward kernel needs, and the backward kernel where it computes gates anew."""
    _, batch, inputs = problem.x.shape
    units, vectors = problem.h_0.shape[1], cut.groups * cut.lanes
    memory.take_weights(layout, vectors, inputs, units)
    memory.take("PRODUCTS", cut.parts * cut.capacity * vectors * len(layout.inputs))
    memory.take("RELEVANT", 2 * batch * vectors if layout.relevant else 0)


def _launch(kernel: int, fields: dict[str, int], memory: Memory, cut: _Cut, kept: tuple[object, ...]) -> None:
    piece, addresses = memory.place()
    counters = np.zeros((len(cut.phases), COUNTERS), np.int64)
    every = {**fields, **addresses, "COUNTERS": counters.ctypes.data}
    record = np.array([every.get(name, 0) for name in FIELDS], np.int64)
    memset(addresses["SUMS"], 0, ZEROS * cut.lanes * piece.element_size())
    run_together(kernel, record.ctypes.data, (record, counters, piece, kept), cut.threads)
    tell(cut.phases, counters)


def kept_states(system: str, *, pinned: bool, gates: bool, keep: bool) -> tuple[bool, bool, bool, bool]:
    """Which of update, reset, candidate and past `forward` gives, beside the states.

    A gate that is always open is only told to those who ask, or where pins hold it.
    """
    layout = LAYOUTS[system]
    reads_past = "reset" in layout.inputs and not layout.relevant
    update = gates or (keep and (pinned or "update" in layout.inputs))
    reset = gates or (keep and (pinned or "reset" in layout.inputs))
    return update, reset, update, keep and reads_past


def forward(problem: Problem, *, gates: bool, keep: bool) -> States:
    """Run the sequence: with `gates`, give them out; with `keep`, keep what the way back needs."""
    layout, kind = LAYOUTS[problem.system], machine()
    steps, batch, _ = problem.x.shape
    shape = (steps, batch, problem.h_0.shape[1])
    pinned = problem.pin_update is not None or problem.pin_reset is not None
    wanted = kept_states(problem.system, pinned=pinned, gates=gates, keep=keep)
    states = States(*(problem.x.new_empty(shape) if one else None for one in (True, *wanted)))  # type: ignore[arg-type]
    cut = _cut(problem, kind, back=False)
    memory = Memory(problem.x.dtype)
    _take_forward(memory, problem, layout, cut)
    memory.take("SUMS", cut.scratch * cut.lanes)
    fields = _problem_fields(problem, cut)
    fields |= {name.upper(): _address(state) for name, state in states._asdict().items()}
    kernel = _kernel("forward", problem.system, problem.x.dtype, kind)
    _launch(kernel, fields, memory, cut, (problem, states))
    return states


def backward(problem: Problem, states: States, arrived: States, *, d_x: bool, recompute: bool) -> Gradients:
    """The gradients of a problem, from what `forward` kept and the gradients that arrive on what it gave out.

    With `recompute`, `states` needs no more than the states.
    """
    layout, kind = LAYOUTS[problem.system], machine()
    _, batch, inputs = problem.x.shape
    units = problem.h_0.shape[1]
    cut = _cut(problem, kind, back=True, recompute=recompute)
    vectors, rows = cut.groups * cut.lanes, cut.parts * cut.capacity
    n_in, n_past, n_relevant = len(layout.inputs), len(layout.past), len(layout.relevant)
    together = max(cut.lanes, cut.rows)

    def filled(depth: int) -> int:
        return ceil(depth / together) * together

    memory = Memory(problem.x.dtype)
    memory.take("GRADIENTS", rows * vectors * layout.width)
    memory.take("D_RELEVANT", batch * vectors if n_relevant else 0)
    for name, count, depth in (("IN", n_in, inputs), ("PAST", n_past, units), ("RELEVANT", n_relevant, units)):
        memory.take(f"BACK_{name}", vectors * count * ceil(depth / cut.lanes) * cut.lanes)
        memory.take(f"OPERAND_{name}", rows * filled(depth) if count else 0)
        memory.take(f"TOTAL_{name}", cut.owners * vectors * count * filled(depth))
    memory.take("SUMS", cut.scratch * cut.lanes)
    carry = problem.x.new_zeros(batch, vectors)
    bias_totals = problem.x.new_zeros(cut.owners * 2 * vectors * layout.width)
    gradients = Gradients(
        torch.empty_like(problem.x) if d_x else None,
        carry,
        torch.empty_like(problem.weight_ih),
        *(None if weight is None else torch.empty_like(weight) for weight in problem[4:7]),
    )
    fields = _problem_fields(problem, cut)
    fields |= {name.upper(): _address(state) for name, state in states._asdict().items()}
    fields |= {f"D_{name.upper()}": _address(one) for name, one in arrived._asdict().items() if name != "past"}
    fields |= {f"D_{name.upper()}": _address(one) for name, one in gradients._asdict().items() if name != "h_0"}
    fields |= {"CARRY": _address(carry), "TOTAL_BIAS": _address(bias_totals)}
    if recompute:
        _take_forward(memory, problem, layout, cut)
        fields["RECOMPUTE"] = 1
        for name in ("UPDATE", "RESET", "CANDIDATE", *(["PAST"] if "reset" in layout.inputs else [])):
            del fields[name]
            memory.take(name, cut.chunk * batch * units)
    elif states.candidate is None:
        fields["CANDIDATE"] = _address(states.hidden)  # a layer that always writes
    kernel = _kernel("backward", problem.system, problem.x.dtype, kind)
    _launch(kernel, fields, memory, cut, (problem, states, arrived, gradients))
    return gradients._replace(h_0=carry[:, :units].contiguous())


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
