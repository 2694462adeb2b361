"""What kernels do with single numbers in memory."""

from typing import Any, no_type_check

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from tidegate.ops.cpu.record import NUMBERS
from tidegate.ops.cpu.vector import INT, Format

__all__ = ["field", "get_byte", "read_number", "write_number"]

_BYTE = ir.IntType(8)


@intrinsic
@no_type_check
def _get_int(typing: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], INT.as_pointer()), align=8)

    return types.int64(types.int64), generate


@intrinsic
@no_type_check
def get_byte(typing: Any, address: Any) -> Any:
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
    def read(typing: Any, address: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.load(builder.inttoptr(arguments[0], form.real.as_pointer()), align=form.size)

        return number(types.int64), generate

    return read


@no_type_check
def write_number(form: Format) -> Any:
    """A kernel's function that writes one number."""
    number = types.float32 if form.dtype == "float32" else types.float64

    @intrinsic
    def write(typing: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], form.real.as_pointer())
            builder.store(arguments[1], pointer, align=form.size)
            return context.get_dummy_value()

        return types.void(types.int64, number), generate

    return write
