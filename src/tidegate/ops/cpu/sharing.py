"""How the threads of a call share out its work: every thread runs through the same phases.

In each phase a thread claims tasks until none is left, and goes on when all are done, whoever did them. A thread that
comes late finds nothing to do; nobody ever waits for it.

Where the threads meet at every step, phases would cost more than the steps: there each thread has a part of its own,
and in every turn it tells on a line of its own when that is done (`take_turn`). What a thread that has not come, or
that the system has put to sleep, leaves undone is done by another.
"""

import os
import platform
from collections.abc import Callable
from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tidegate.ops.cpu.lowering import kernel_function
from tidegate.ops.cpu.record import BEGAN, DONE, ENDED, PHASE
from tidegate.ops.cpu.vector import INT

__all__ = ["arrive", "begin_turns", "end_turns", "share", "take_turn"]

_ARM = platform.machine().lower() in ("aarch64", "arm64")
_YIELD = "SwitchToThread" if os.name == "nt" else "sched_yield"
_LINES, _CLAIMED_TO_DONE, _CLOCK_BEGAN, _CLOCK_ENDED = 8 * PHASE, 8 * DONE, 8 * BEGAN, 8 * ENDED
#: On the board of turns, the first line counts the threads that have come. Then each part has two: the last turn in
#: which it was claimed, and the last in which it was done.
_PART_DONE = 64
#: Pauses before a thread looks for others that may need its core, or does their work: some tens of microseconds.
_PATIENCE = 4000


@no_type_check
def _atomic(write: Callable[..., Any], result: Any) -> Any:
    @intrinsic
    def operation(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            value = write(builder, builder.inttoptr(arguments[0], INT.as_pointer()))
            return context.get_dummy_value() if value is None else value

        return result(types.int64), generate

    return operation


_add_one = _atomic(lambda builder, at: builder.atomic_rmw("add", at, INT(1), "seq_cst"), types.int64)
_read = _atomic(lambda builder, at: builder.load_atomic(at, "seq_cst", 8), types.int64)


_look = _atomic(lambda builder, at: builder.load_atomic(at, "acquire", 8), types.int64)


def _ordered_store(order: str) -> Any:
    @intrinsic
    @no_type_check
    def write(typing: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], INT.as_pointer())
            builder.store_atomic(arguments[1], pointer, order, 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return write


_write, _publish = _ordered_store("monotonic"), _ordered_store("release")


@intrinsic
@no_type_check
def _replace(typing: Any, address: Any, old: Any, new: Any) -> Any:
    """Write `new` where `old` is, and tell whether it was."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        at, before, after = arguments
        pair = builder.cmpxchg(builder.inttoptr(at, INT.as_pointer()), before, after, "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(pair, 1), INT)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
@no_type_check
def _clock(typing: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        if _ARM:
            return INT(0)
        name, kind = "llvm.readcyclecounter", ir.FunctionType(INT, [])
        return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [])

    return types.int64(), generate


@intrinsic
@no_type_check
def _pause(typing: Any) -> Any:
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
def _give_way(typing: Any) -> Any:
    """Let another thread have the processor."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        function = builder.module.globals.get(_YIELD) or ir.Function(builder.module, kind, _YIELD)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@kernel_function
@no_type_check
def share(counters, phase, tasks, work, arguments):
    """Have `work(task, *arguments)` done for every task of the phase, here and by the other threads."""
    claimed = counters + _LINES * phase
    done = claimed + _CLAIMED_TO_DONE
    task = _add_one(claimed)
    if task == 0:
        _write(claimed + _CLOCK_BEGAN, _clock())
    while task < tasks:
        work(task, *arguments)
        if _add_one(done) == tasks - 1:
            _write(claimed + _CLOCK_ENDED, _clock())
        # to look is cheaper than to claim, now that the line is here
        task = _add_one(claimed) if _read(claimed) < tasks else tasks
    pauses = 0
    while _read(done) < tasks:
        pauses += 1
        if pauses < _PATIENCE:
            _pause()
        else:
            _give_way()


@kernel_function
@no_type_check
def arrive(board):
    """The part that is this thread's own in every turn."""
    return _add_one(board)


@kernel_function
@no_type_check
def begin_turns(counters, phase):
    """Begin a phase that is made of turns."""
    if _add_one(counters + _LINES * phase) == 0:
        _write(counters + _LINES * phase + _CLOCK_BEGAN, _clock())


@kernel_function
@no_type_check
def end_turns(counters, phase):
    """End it."""
    _write(counters + _LINES * phase + _CLOCK_ENDED, _clock())


@kernel_function
@no_type_check
def take_turn(board, turn, parts, own, work, arguments):
    """Have `work(part, *arguments)` done for every part in this turn, here the thread's own; turns count from 1."""
    part, found, pauses = own if own < parts else 0, 0, 0
    while found < parts:
        claimed = board + _LINES * (1 + part)
        if _look(claimed + _PART_DONE) >= turn:
            part, found = part + 1 if part + 1 < parts else 0, found + 1
        elif (part == own or part >= _look(board) or pauses > _PATIENCE) and _replace(claimed, turn - 1, turn):
            work(part, *arguments)
            _publish(claimed + _PART_DONE, turn)
        else:
            pauses += 1
            if pauses < _PATIENCE:
                _pause()
            else:
                _give_way()
