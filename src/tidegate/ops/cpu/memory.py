"""What kernels do with single numbers in memory, and with the fields of their record."""

from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tidegate.ops.cpu.lowering import kernel_function
from tidegate.ops.cpu.record import NUMBERS
from tidegate.ops.cpu.vector import INT, Format, vector_code

__all__ = ["field", "get_byte", "groups", "nothing", "read_number", "spread_reader", "state_before", "write_number"]

_BYTE = ir.IntType(8)


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
    offset = INT(8 * NUMBERS[name])

    @intrinsic
    def read(typing: Any, record: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            address = builder.add(arguments[0], offset)
            return builder.load(builder.inttoptr(address, INT.as_pointer()), align=8)

        return types.int64(types.int64), generate

    return read


@no_type_check
def spread_reader(form: Format, name: str) -> tuple[Any, Any]:
    """Two functions of a kernel: (record), how a tensor lies that steers all steps (0: there is none); and where.

    The second takes the record, the step, the sequence and the first unit, and gives an address (0: there is none).
    """
    address, kind, step, row = (field(f"{name}{rest}") for rest in ("", "_KIND", "_STEP", "_ROW"))
    size = form.size

    @kernel_function
    def place(record, t, b, unit):
        if kind(record) == 0:
            return 0
        at = address(record) + (t * step(record) + b * row(record)) * size
        return at + unit * size if kind(record) == 1 else at

    return kind, place


@no_type_check
def groups(form: Format) -> Any:
    """A kernel's function: how many vectors the units of the record's layer fill, the last one perhaps in part."""
    units_of, lanes = field("UNITS"), form.lanes

    @kernel_function
    def groups_of(record):
        return (units_of(record) + lanes - 1) // lanes

    return groups_of


@no_type_check
def state_before(form: Format) -> Any:
    """A kernel's function: where the states before step `t`, in the input's order, are, of all sequences.

    Its arguments: the record, the step, and whether it is the first that runs.
    """
    batch_of, units_of, reverse_of = field("BATCH"), field("UNITS"), field("REVERSE")
    h_0_of, hidden_of, size = field("H_0"), field("HIDDEN"), form.size

    @kernel_function
    def before(record, t, begins):
        if begins:
            return h_0_of(record)
        step = t + 1 if reverse_of(record) else t - 1
        return hidden_of(record) + step * batch_of(record) * units_of(record) * size

    return before


def nothing(count: int) -> Any:
    """What a kernel calls with `count` integers where a system has no such part."""
    return vector_code(count)(_nothing)


def _nothing(_builder: Any, *_arguments: Any) -> None:
    pass


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
