"""From tensors to a kernel's record and back: what memory a call takes, how its work is cut, and the call itself.

All that depends on sizes alone is a plan, made once; a call fills in addresses.
"""

from ctypes import memset
from functools import cache, lru_cache
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidegate.ops.cpu.compiled import compile_kernel
from tidegate.ops.cpu.layout import LAYOUTS, Layout, side_by_side
from tidegate.ops.cpu.machine import Machine, machine
from tidegate.ops.cpu.profile import tell
from tidegate.ops.cpu.record import FIELDS, NUMBERS, PHASE, SUMS, ZEROS
from tidegate.ops.cpu.steering import Steering
from tidegate.ops.cpu.team import run_together

__all__ = ["Gradients", "Memory", "Problem", "States", "backward", "forward", "kept_states", "lanes_of"]

#: Bytes of a chunk's products with the input, for each thread: about half of an inner cache.
_PRODUCT_BYTES = 512 * 1024
#: Rows of a slice's chunk on the way back: enough for the large products to be large.
_ROWS_BACK = 512
#: Bytes of gradients of weights that may be kept beside the result, a slice its own, whatever the call's size.
_APART_BYTES = 4 * 1024 * 1024
#: Vectors of units that each thread must have where threads meet at every step.
_GROUPS_APART = 3
#: Operations below which other threads come too late to be of use.
_WORTH_SHARING = 4_000_000
#: Plans that are kept, of each direction.
_PLANS = 256
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
    steering: Steering
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


class _Sizes(NamedTuple):
    """What a plan depends on."""

    system: str
    dtype: torch.dtype
    steps: int
    batch: int
    inputs: int
    units: int
    #: As many as torch may use.
    threads: int

    @classmethod
    def of(cls, problem: Problem) -> "_Sizes":
        """The sizes of a call."""
        steps, batch, inputs = problem.x.shape
        units, threads = problem.h_0.shape[1], torch.get_num_threads()
        return cls(problem.system, problem.x.dtype, steps, batch, inputs, units, threads)


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


def _cut(sizes: _Sizes, kind: Machine, *, back: bool, recompute: bool = False) -> _Cut:
    layout, steps, batch, itemsize = LAYOUTS[sizes.system], sizes.steps, sizes.batch, sizes.dtype.itemsize
    lanes = lanes_of(kind, sizes.dtype)
    groups = ceil(sizes.units / lanes)
    operations = 2 * len(layout.inputs) * groups * lanes * (sizes.inputs + sizes.units)
    most = sizes.threads if operations * steps * batch > _WORTH_SHARING else 1
    slices, units_threads = min(most, batch), min(most, groups // _GROUPS_APART)
    by_units = 1 < units_threads >= slices and batch < 2 * most
    threads, slices = (units_threads, 0) if by_units else (slices, slices)
    sequences = ceil(batch / max(1, slices))
    if back:
        chunk = ceil(_ROWS_BACK / sequences)
    else:
        row_bytes = groups * lanes * len(layout.inputs) * itemsize
        share = _PRODUCT_BYTES * (threads if by_units else 1)
        chunk = ceil(max(share / row_bytes, 4 * kind.rows) / sequences)
    chunk = min(steps, max(1, chunk))
    weights = layout.width * groups * lanes * (sizes.inputs + sizes.units) * itemsize
    states = itemsize * steps * batch * sizes.units
    apart = slices > 0 and (slices - 1) * weights <= max(_APART_BYTES, states)
    phases = _phases_back if back else _phases
    names = phases(ceil(steps / chunk), by_units=by_units, apart=apart, recompute=recompute)
    return _Cut(lanes, kind.rows, groups, threads, slices, chunk, chunk * sequences, apart, names)


def _phases(chunks: int, *, by_units: bool, **_: bool) -> list[str]:
    """What the forward kernel shares out, in its order."""
    if not by_units:
        return ["pack", "steps"]
    return ["pack", *["inputs", "steps"] * chunks]


def _phases_back(chunks: int, *, by_units: bool, apart: bool, recompute: bool) -> list[str]:
    """What the backward kernel shares out, in its order."""
    phases = ["pack", *(["pack anew"] if recompute else [])]
    if apart:
        return [*phases, "steps back", "unpack"]
    anew = ["inputs anew", "steps anew"] if by_units and recompute else []
    each = [*anew, "steps back", *(["input's gradient"] if by_units else []), "weights' gradients"]
    return [*phases, *each * chunks, "unpack"]


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
        for name, blocks, depth in layout.products(inputs, units):
            self.take(f"PANELS_{name}", vectors * len(blocks) * depth)
            self.take(f"START_{name}", vectors * len(blocks))

    def place(self) -> tuple[Tensor, dict[str, int]]:
        """The memory, and the address of each part."""
        piece = torch.empty(self.size // self.dtype.itemsize + _LINE, dtype=self.dtype)
        first = ceil(piece.data_ptr() / _LINE) * _LINE
        return piece, {name: first + offset for name, offset in self.offsets.items()}


class _Plan(NamedTuple):
    """A call but for its tensors."""

    cut: _Cut
    dtype: torch.dtype
    kernel: int
    #: The record with sizes, flags, and for what lies in the call's own memory the offset there;
    record: NDArray[np.int64]
    #: 1 where the record holds such an offset.
    offsets: NDArray[np.int64]
    #: Numbers of the call's own memory.
    memory: int

    def launch(self, addresses: dict[str, int], kept: tuple[object, ...]) -> None:
        """Run the kernel; `kept` holds what must live until every thread has let go of it."""
        piece = torch.empty(self.memory, dtype=self.dtype)
        record = self.record + self.offsets * (ceil(piece.data_ptr() / _LINE) * _LINE)
        for name, address in addresses.items():
            record[NUMBERS[name]] = address
        counters = np.zeros((len(self.cut.phases), PHASE), np.int64)
        board = np.zeros((1 + self.cut.threads, PHASE), np.int64)
        record[NUMBERS["COUNTERS"]], record[NUMBERS["BOARD"]] = counters.ctypes.data, board.ctypes.data
        memset(int(record[NUMBERS["SUMS"]]), 0, ZEROS * self.cut.lanes * piece.element_size())
        run_together(self.kernel, record.ctypes.data, (record, counters, board, piece, kept), self.cut.threads)
        tell(self.cut.phases, counters)


def _plan(sizes: _Sizes, kind: Machine, direction: str, cut: _Cut, memory: Memory, **flags: int) -> _Plan:
    fields = {
        "STEPS": sizes.steps, "BATCH": sizes.batch, "INPUTS": sizes.inputs, "UNITS": sizes.units,
        "CHUNK": cut.chunk, "SLICES": cut.slices, "PARTS": cut.threads, "CAPACITY": cut.capacity,
        "APART": int(cut.apart), **flags, **memory.offsets,
    }  # fmt: skip
    record = np.array([fields.get(name, 0) for name in FIELDS], np.int64)
    offsets = np.array([name in memory.offsets for name in FIELDS], np.int64)
    kernel = _kernel(direction, sizes.system, sizes.dtype, kind)
    return _Plan(cut, sizes.dtype, kernel, record, offsets, memory.size // sizes.dtype.itemsize + _LINE)


@lru_cache(_PLANS)
def _plan_forward(sizes: _Sizes, kind: Machine) -> _Plan:
    cut = _cut(sizes, kind, back=False)
    memory = Memory(sizes.dtype)
    _take_forward(memory, sizes, cut)
    memory.take("SUMS", cut.scratch * cut.lanes)
    return _plan(sizes, kind, "forward", cut, memory)


@lru_cache(_PLANS)
def _plan_backward(sizes: _Sizes, kind: Machine, *, recompute: bool) -> _Plan:
    layout = LAYOUTS[sizes.system]
    cut = _cut(sizes, kind, back=True, recompute=recompute)
    vectors, rows = cut.groups * cut.lanes, cut.parts * cut.capacity
    together = side_by_side(cut.lanes, cut.rows)
    memory = Memory(sizes.dtype)
    memory.take("GRADIENTS", rows * vectors * layout.width)
    memory.take("D_RELEVANT", sizes.batch * vectors if layout.relevant else 0)
    for name, blocks, depth in layout.products(sizes.inputs, sizes.units):
        filled = ceil(depth / together) * together
        memory.take(f"BACK_{name}", vectors * len(blocks) * ceil(depth / cut.lanes) * cut.lanes)
        memory.take(f"OPERAND_{name}", rows * filled if blocks else 0)
        memory.take(f"TOTAL_{name}", cut.owners * vectors * len(blocks) * filled)
    memory.take("SUMS", cut.scratch * cut.lanes)
    if recompute:
        _take_forward(memory, sizes, cut)
        for name in ("UPDATE", "RESET", "CANDIDATE", *(["PAST"] if "reset" in layout.inputs else [])):
            memory.take(name, cut.chunk * sizes.batch * sizes.units)
    return _plan(sizes, kind, "backward", cut, memory, RECOMPUTE=int(recompute))


def _take_forward(memory: Memory, sizes: _Sizes, cut: _Cut) -> None:
    """What the forward kernel needs, and the backward kernel where it computes gates anew."""
    layout, vectors = LAYOUTS[sizes.system], cut.groups * cut.lanes
    memory.take_weights(layout, vectors, sizes.inputs, sizes.units)
    memory.take("PRODUCTS", cut.parts * cut.capacity * vectors * len(layout.inputs))
    memory.take("RELEVANT", 2 * sizes.batch * vectors if layout.relevant else 0)


def _given(problem: Problem) -> dict[str, int]:
    """The fields of a call's own tensors and flags."""
    return {
        "REVERSE": int(problem.reverse), "ACTIVATION": problem.activation,
        "X": _address(problem.x), "H_0": _address(problem.h_0), "MASK": _address(problem.mask),
        "WEIGHT_IH": _address(problem.weight_ih), "WEIGHT_HH": _address(problem.weight_hh),
        "BIAS_IH": _address(problem.bias_ih), "BIAS_HH": _address(problem.bias_hh),
        **problem.steering.fields(problem.h_0),
    }  # fmt: skip


def _tensors(tensors: States | Gradients, before: str = "", but: tuple[str, ...] = ()) -> dict[str, int]:
    """The addresses of some tensors, by the names of their fields."""
    pairs = zip(tensors._fields, tensors, strict=True)
    return {before + name.upper(): _address(one) for name, one in pairs if name not in but}


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
    steps, batch, _ = problem.x.shape
    shape = (steps, batch, problem.h_0.shape[1])
    wanted = kept_states(problem.system, pinned=problem.steering.pinned, gates=gates, keep=keep)
    states = States(*(problem.x.new_empty(shape) if one else None for one in (True, *wanted)))  # type: ignore[arg-type]
    _plan_forward(_Sizes.of(problem), machine()).launch({**_given(problem), **_tensors(states)}, (problem, states))
    return states


def backward(problem: Problem, states: States, arrived: States, *, d_x: bool, recompute: bool) -> Gradients:
    """The gradients of a problem, from what `forward` kept and the gradients that arrive on what it gave out.

    With `recompute`, `states` needs no more than the states.
    """
    layout, units = LAYOUTS[problem.system], problem.h_0.shape[1]
    plan = _plan_backward(_Sizes.of(problem), machine(), recompute=recompute)
    vectors = plan.cut.groups * plan.cut.lanes
    carry = problem.x.new_zeros(problem.x.shape[1], vectors)
    bias_totals = problem.x.new_zeros(plan.cut.owners * 2 * vectors * layout.width)
    gradients = Gradients(
        torch.empty_like(problem.x) if d_x else None,
        carry,
        torch.empty_like(problem.weight_ih),
        *(None if weight is None else torch.empty_like(weight) for weight in problem[4:7]),
    )
    fields = {
        **_given(problem), **_tensors(arrived, "D_", but=("past",)), **_tensors(gradients, "D_", but=("h_0",)),
        "HIDDEN": _address(states.hidden), "CARRY": _address(carry), "TOTAL_BIAS": _address(bias_totals),
    }  # fmt: skip
    if not recompute:
        fields |= _tensors(states)
        if states.candidate is None:
            fields["CANDIDATE"] = _address(states.hidden)  # a layer that always writes
    plan.launch(fields, (problem, states, arrived, gradients))
    return gradients._replace(h_0=carry[:, :units].contiguous())


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
