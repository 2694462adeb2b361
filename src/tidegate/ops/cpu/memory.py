"""What kernels do with single numbers in memory, and how the threads of a call share out its work."""

import os
import platform
from collections.abc import Callable
from typing import Any, no_type_check

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from tidegate.ops.cpu.record import NUMBERS
from tidegate.ops.cpu.vector import INT, Format

__all__ = ["claim", "field", "finish", "get_byte", "read_number", "wait", "write_number"]

_BYTE = ir.IntType(8)
_ARM = platform.machine().lower() in ("aarch64", "arm64")
_YIELD = "SwitchToThread" if os.name == "nt" else "sched_yield"


@intrinsic
@no_type_check
def _get_int(typing: Any, address: Any) -> Any:  # noqa: ARG001 - Numba's own arguments
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], INT.as_pointer()), align=8)

    return types.int64(types.int64), generate


@intrinsic
@no_type_check
def get_byte(typing: Any, address: Any) -> Any:  # noqa: ARG001
    """The byte at an address, as an integer."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.load(builder.inttoptr(arguments[0], _BYTE.as_pointer())), INT)

    return types.int64(types.int64), generate


@no_type_check
def field(name: str) -> Any:
    """A kernel's function that reads this field of the record."""
    offset = 8 * NUMBERS[name]

    @njit(inline="always")
    def read(record):
        return _get_int(record + offset)

    return read


@no_type_check
def read_number(form: Format) -> Any:
    """A kernel's function that reads one number."""
    number = types.float32 if form.dtype == "float32" else types.float64

    @intrinsic
    def read(typing: Any, address: Any) -> Any:  # noqa: ARG001
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.load(builder.inttoptr(arguments[0], form.real.as_pointer()), align=form.size)

        return number(types.int64), generate

    return read


@no_type_check
def write_number(form: Format) -> Any:
    """A kernel's function that writes one number."""
    number = types.float32 if form.dtype == "float32" else types.float64

    @intrinsic
    def write(typing: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], form.real.as_pointer())
            builder.store(arguments[1], pointer, align=form.size)
            return context.get_dummy_value()

        return types.void(types.int64, number), generate

    return write


# ---------------------------------------------------------------------------------------------------------------------
# Sharing out: every thread of a call runs through the same phases. In each it claims tasks until none is left, and goes
# on when all are done, whoever did them. A thread that comes late finds nothing to do; nobody ever waits for it.

_LINE = 64  # the counters of a phase have a cache line of their own: tasks claimed, tasks done


@no_type_check
def _atomic(write: Callable[..., Any], result: Any) -> Any:
    @intrinsic
    def operation(typing: Any, address: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            value = write(builder, builder.inttoptr(arguments[0], INT.as_pointer()))
            return context.get_dummy_value() if value is None else value

        return result(types.int64), generate

    return operation


_add_one = _atomic(lambda builder, at: builder.atomic_rmw("add", at, INT(1), "seq_cst"), types.int64)
_read = _atomic(lambda builder, at: builder.load_atomic(at, "seq_cst", 8), types.int64)


@intrinsic
@no_type_check
def _pause(typing: Any) -> Any:  # noqa: ARG001
    """Let the other thread of a core go first for a moment."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        name, arguments = ("llvm.aarch64.hint", [ir.IntType(32)(1)]) if _ARM else ("llvm.x86.sse2.pause", [])
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, arguments)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
@no_type_check
def _give_way(typing: Any) -> Any:  # noqa: ARG001
    """Let another thread have the processor."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        function = builder.module.globals.get(_YIELD) or ir.Function(builder.module, kind, _YIELD)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@njit
@no_type_check
def claim(counters, phase):
    """The number of a task that is now this thread's, or one that there is not."""
    return _add_one(counters + _LINE * phase)


@njit
@no_type_check
def finish(counters, phase):
    """Tell that a claimed task is done."""
    _add_one(counters + _LINE * phase + 8)


@njit
@no_type_check
def wait(counters, phase, tasks):
    """Return when all tasks of the phase are done."""
    turns = 0
    while _read(counters + _LINE * phase + 8) < tasks:
        turns += 1
        if turns < 4000:  # some tens of microseconds: then someone else may need the core more
            _pause()
        else:
            _give_way()
