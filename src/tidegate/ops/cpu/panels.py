"""Weights in the order in which a tile reads them, and gradients of weights back out of it.

A panel holds, for one vector of units, one row for each number that is multiplied, and in the row one vector for each
block. The sizes that fill no vector are filled up with zeros here, so that no product ever has to ask.
"""

from typing import Any, no_type_check

from tidegate.ops.cpu.lowering import kernel_function
from tidegate.ops.cpu.memory import read_number, write_number
from tidegate.ops.cpu.vector import INT, Code, Format, Vector, used_code

__all__ = ["PLAIN", "panel_packer", "start_packer", "transposed_packer", "unpacker"]

#: How many vectors of columns the panels of a plain product are wide; the last one may be narrower.
PLAIN = 3


@no_type_check
def _copy_vector(form: Format) -> Any:
    """A kernel's function that copies some numbers, times 1 or -1, into a whole vector.

    Its arguments: where from, where to, whether times -1, how many.
    """

    @used_code(form, 3)
    def copy(code: Code, source: Any, target: Any, negative: Any) -> None:
        code.store(_signed(code, code.load_used(source), negative), target)

    return copy


def _signed(code: Code, vector: Vector, negative: Any) -> Vector:
    return code.choose(negative, {0: lambda: vector, 1: lambda: vector * -1.0})


def _transposed(code: Code, rows: list[Vector]) -> list[Vector]:
    """As many vectors as each has lanes, turned: squares of 1, 2, 4, … lanes change places across the diagonal."""
    lanes, distance = code.form.lanes, 1
    while distance < lanes:
        for first in range(lanes):
            if first & distance:
                continue
            one, two = rows[first], rows[first + distance]
            upper = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
            lower = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
            rows[first], rows[first + distance] = code.shuffle(one, two, upper), code.shuffle(one, two, lower)
        distance *= 2
    return rows


def _square_packer(form: Format) -> Any:
    """A kernel's function that turns a square of numbers, times 1 or -1; what is beyond its edges becomes 0.

    Its arguments: the first row and the bytes from row to row, where the first column goes and the bytes from column
    to column, how many rows there are and how many of the columns are wanted (others are not written), whether times
    -1, and how many numbers a row has.
    """

    @used_code(form, 7)
    def pack_square(
        code: Code, source: Any, row: Any, target: Any, column: Any, rows: Any, columns: Any, negative: Any
    ) -> None:
        builder, lanes = code.builder, form.lanes

        def row_or_zeros(m: int) -> Vector:
            there = builder.icmp_signed(">", rows, INT(m))
            last = builder.sub(rows, INT(1))
            at = builder.add(source, builder.mul(builder.select(there, INT(m), last), row))
            return Vector(code, builder.select(there, code.load_used(at).value, code.constant(0.0).value))

        for k, vector in enumerate(_transposed(code, [row_or_zeros(m) for m in range(lanes)])):
            with builder.if_then(builder.icmp_signed(">", columns, INT(k))):
                code.store(_signed(code, vector, negative), builder.add(target, builder.mul(INT(k), column)))

    return pack_square


@no_type_check
def panel_packer(form: Format, blocks: tuple[int, ...], signs: tuple[float, ...]) -> Any:
    """A kernel's function that packs the panel of one vector of units from a weight (blocks*units, depth)."""
    pack_square, lanes, size, vectors = _square_packer(form), form.lanes, form.size, len(blocks)
    negative = tuple(int(sign < 0) for sign in signs)

    @kernel_function
    def pack(weight, depth, units, group, panels):
        panel = panels + group * depth * vectors * lanes * size
        for v in range(vectors):
            source = weight + (blocks[v] * units + group * lanes) * depth * size
            target = panel + v * lanes * size
            for k in range(0, depth, lanes):
                pack_square(
                    source + k * size, depth * size, target + k * vectors * lanes * size, vectors * lanes * size,
                    units - group * lanes, depth - k, negative[v], depth - k,
                )  # fmt: skip

    return pack


@no_type_check
def start_packer(form: Format, blocks: tuple[int, ...], signs: tuple[float, ...]) -> Any:
    """A kernel's function that packs what the sums of one vector of units start from: a bias, or 0."""
    read, write = read_number(form), write_number(form)
    lanes, size, vectors = form.lanes, form.size, len(blocks)

    @kernel_function
    def pack(bias, units, group, starts):
        for v in range(vectors):
            for lane in range(lanes):
                unit = group * lanes + lane
                target = starts + ((group * vectors + v) * lanes + lane) * size
                if bias and unit < units:
                    write(target, read(bias + (blocks[v] * units + unit) * size) * signs[v])
                else:
                    write(target, 0.0)

    return pack


@no_type_check
def transposed_packer(form: Format, blocks: tuple[int, ...], signs: tuple[float, ...]) -> Any:
    """A kernel's function that packs one panel of `PLAIN` vectors of a weight's columns, for the way back."""
    copy, write = _copy_vector(form), write_number(form)
    lanes, size, vectors = form.lanes, form.size, len(blocks)
    negative = tuple(int(sign < 0) for sign in signs)

    @kernel_function
    def pack(weight, columns, units, panel, panels):
        first = panel * PLAIN
        wide = min(PLAIN, (columns + lanes - 1) // lanes - first)
        depth = (units + lanes - 1) // lanes * vectors * lanes
        target = panels + first * lanes * depth * size
        for group in range((units + lanes - 1) // lanes):
            for v in range(vectors):
                for lane in range(lanes):
                    unit = group * lanes + lane
                    if unit < units:
                        source = weight + ((blocks[v] * units + unit) * columns + first * lanes) * size
                        for w in range(wide):
                            left = columns - (first + w) * lanes
                            copy(source + w * lanes * size, target, negative[v], left)
                            target += lanes * size
                    else:
                        for _ in range(wide * lanes):
                            write(target, 0.0)
                            target += size

    return pack


@no_type_check
def unpacker(form: Format, blocks: tuple[int, ...], signs: tuple[float, ...]) -> Any:
    """A kernel's function that takes the gradient of a weight out of the panel of one vector of units."""
    lanes, size, vectors = form.lanes, form.size, len(blocks)
    negative = tuple(int(sign < 0) for sign in signs)

    @used_code(form, 6)
    def unpack_square(code: Code, source: Any, column: Any, target: Any, row: Any, rows: Any, negative: Any) -> None:
        # as `_square_packer`, but the edges are where it goes
        columns = [code.load(code.builder.add(source, code.builder.mul(INT(k), column))) for k in range(lanes)]
        for m, vector in enumerate(_transposed(code, columns)):
            with code.builder.if_then(code.builder.icmp_signed(">", rows, INT(m))):
                at = code.builder.add(target, code.builder.mul(INT(m), row))
                code.store_used(_signed(code, vector, negative), at)

    @kernel_function
    def unpack(panel, depth, units, group, weight):
        for v in range(vectors):
            source = panel + v * lanes * size
            target = weight + (blocks[v] * units + group * lanes) * depth * size
            for k in range(0, depth, lanes):
                unpack_square(
                    source + k * vectors * lanes * size, vectors * lanes * size, target + k * size, depth * size,
                    units - group * lanes, negative[v], depth - k,
                )  # fmt: skip

    return unpack
