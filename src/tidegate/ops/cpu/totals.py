"""The gradients of weights and biases: sums over all steps and sequences, chunk by chunk.

A chunk's inputs and former states are laid out in columns, its operands; then, for each vector of units, large products
with the rows of gradients add to its part of the totals, which lie as panels do. Where every slice of the batch has
totals of its own, they are added in the end.
"""

from typing import Any, NamedTuple, no_type_check

from numba.core import cgutils

from tidegate.conventions import Block
from tidegate.ops.cpu.layout import Layout
from tidegate.ops.cpu.lowering import kernel_function
from tidegate.ops.cpu.memory import field, get_byte, nothing, read_number, state_before, write_number
from tidegate.ops.cpu.panels import unpacker
from tidegate.ops.cpu.tile import column_tile
from tidegate.ops.cpu.vector import INT, Code, Format, Vector, used_code, vector_code

__all__ = ["Totals", "totals"]

#: Rows of gradients that the innermost cache holds for one vector of units.
_BLOCK = 128


class Totals(NamedTuple):
    """The functions of a kernel. A slice has the rows of its own sequences in all steps of the chunk."""

    #: (record, slice, its first and last row to lay out, first step of the chunk in the input's order, sequences from,
    #: to, address of the reset gate as if it held all steps).
    operands: Any
    #: (record, slice, its rows, vector of units, whose totals, whether these begin here): products with the input.
    add_inputs: Any
    #: The same, products with the past.
    add_past: Any
    #: (record, vector of units, how many have totals): the gradients of the weights and biases.
    finish: Any


@no_type_check
def totals(layout: Layout, form: Format) -> Totals:
    """The functions for one system."""
    n_past, n_relevant, lanes, size, width = len(layout.past), len(layout.relevant), form.lanes, form.size, layout.width
    vector = lanes * size
    add_in, finish_in = _one_weight(layout, form, "IN", layout.inputs, layout.inputs_at)
    add_past, finish_past = _one_weight(layout, form, "PAST", layout.past, layout.past_at)
    add_relevant, finish_relevant = _one_weight(layout, form, "RELEVANT", layout.relevant, layout.relevant_at)
    put, add_rows = _columns(form), _add_rows(form, width)
    put_product = _columns(form, product=True) if n_relevant else put
    steps_of, batch_of, inputs_of, units_of = field("STEPS"), field("BATCH"), field("INPUTS"), field("UNITS")
    capacity_of, reverse_of, mask_of = field("CAPACITY"), field("REVERSE"), field("MASK")
    before, x_of, gradients_of, bias_of = state_before(form), field("X"), field("GRADIENTS"), field("TOTAL_BIAS")
    operand_in, operand_past, operand_relevant = (field(f"OPERAND_{name}") for name in ("IN", "PAST", "RELEVANT"))

    @kernel_function
    def operands(p, part, begin, end, first, low, high, reset):
        # what a masked step holds may be anything, and becomes 0
        batch, units, depth, mask, capacity = batch_of(p), units_of(p), inputs_of(p), mask_of(p), capacity_of(p)
        first_step = steps_of(p) - 1 if reverse_of(p) else 0
        for row in range(begin, end):
            t, b = first + row // (high - low), low + row % (high - low)
            here = t * batch + b
            there = mask == 0 or get_byte(mask + here) != 0
            put(x_of(p) + here * depth * size, 0, operand_in(p), part, row, capacity, depth, there)
            if n_past:
                state = before(p, t, t == first_step) + b * units * size
                put(state, 0, operand_past(p), part, row, capacity, units, there)
                if n_relevant:
                    look = reset + here * units * size
                    put_product(state, look, operand_relevant(p), part, row, capacity, units, there)

    @kernel_function
    def add_inputs(p, part, rows, group, owner, anew):
        groups, capacity = (units_of(p) + lanes - 1) // lanes, capacity_of(p)
        add_in(p, part, rows, group, owner, anew)
        rows_at = gradients_of(p) + (part * groups + group) * capacity * width * vector
        add_rows(rows_at, rows, bias_of(p) + (owner * groups + group) * 2 * width * vector)

    @kernel_function
    def add_pasts(p, part, rows, group, owner, anew):
        if n_past:
            add_past(p, part, rows, group, owner, anew)
        if n_relevant:
            add_relevant(p, part, rows, group, owner, anew)

    @kernel_function
    def finish(p, group, owners):
        finish_in(p, group, owners)
        if n_past:
            finish_past(p, group, owners)
        if n_relevant:
            finish_relevant(p, group, owners)

    return Totals(operands, add_inputs, add_pasts, finish)


@no_type_check
def _one_weight(layout: Layout, form: Format, name: str, names: tuple[Block, ...], at: int) -> tuple[Any, Any]:
    """Two functions of a kernel for the weights of one product: a chunk's part of the sums, and the end."""
    if not names:
        return nothing(6), nothing(3)
    blocks, signs, vectors = layout.blocks(names), layout.signs(names), len(names)
    lanes, size, rows_in_tile, together, width = form.lanes, form.size, form.rows, form.side_by_side, layout.width
    vector = lanes * size
    tile, unpack, add_vectors = column_tile(form, vectors), unpacker(form, blocks, signs), _add_vectors(form)
    read, write = read_number(form), write_number(form)
    which = "IH" if name == "IN" else "HH"
    depth_of, units_of, capacity_of = field("INPUTS" if name == "IN" else "UNITS"), field("UNITS"), field("CAPACITY")
    operand_of, total_of, gradients_of = field(f"OPERAND_{name}"), field(f"TOTAL_{name}"), field("GRADIENTS")
    bias_total_of, d_weight, d_bias = field("TOTAL_BIAS"), field(f"D_WEIGHT_{which}"), field(f"D_BIAS_{which}")
    zeros = field("SUMS")

    @kernel_function
    def totals_at(p, group, owner):
        groups, filled = (units_of(p) + lanes - 1) // lanes, (depth_of(p) + together - 1) // together * together
        return total_of(p) + (owner * groups + group) * filled * vectors * vector

    @kernel_function
    def add(p, part, rows, group, owner, anew):
        # in blocks of rows whose gradients stay in the innermost cache while all columns meet them
        depth, capacity, groups = depth_of(p), capacity_of(p), (units_of(p) + lanes - 1) // lanes
        filled = (depth + together - 1) // together * together
        gradients = gradients_of(p) + ((part * groups + group) * capacity * width + at) * vector
        operand, out = operand_of(p) + part * capacity * filled * size, totals_at(p, group, owner)
        for row in range(0, rows, _BLOCK):
            begins = anew and row == 0
            for column in range(0, depth, rows_in_tile):
                to = out + column * vectors * vector
                tile(
                    operand + ((column // together * capacity + row) * together + column % together) * size,
                    min(_BLOCK, rows - row), gradients + row * width * vector, width * vector,
                    zeros(p) if begins else to, 0 if begins else vectors * vector, to, vectors * vector,
                )  # fmt: skip

    @kernel_function
    def finish(p, group, owners):
        depth, units, groups = depth_of(p), units_of(p), (units_of(p) + lanes - 1) // lanes
        bias = bias_total_of(p) + (group * 2 * width + at) * vector
        for owner in range(1, owners):
            add_vectors(totals_at(p, group, 0), totals_at(p, group, owner), depth * vectors)
        unpack(totals_at(p, group, 0), depth, units, group, d_weight(p))
        if d_bias(p) == 0:
            return
        for v in range(vectors):
            for lane in range(min(lanes, units - group * lanes)):
                total, place = 0.0, bias + v * vector + lane * size
                for owner in range(owners):
                    total += read(place + owner * groups * 2 * width * vector)
                write(d_bias(p) + (blocks[v] * units + group * lanes + lane) * size, total * signs[v])

    return add, finish


def _add_vectors(form: Format) -> Any:
    """A kernel's function: target += source, so many vectors."""

    @vector_code(3)
    def add_vectors(builder: Any, target: Any, source: Any, count: Any) -> None:
        code = Code(builder, form)
        with cgutils.for_range(builder, count, intp=INT) as loop:
            offset = builder.mul(loop.index, INT(form.lanes * form.size))
            to = builder.add(target, offset)
            code.store(code.load(to) + code.load(builder.add(source, offset)), to)

    return add_vectors


def _add_rows(form: Format, width: int) -> Any:
    """Totals += the sum of `rows` rows of `width` vectors, with what rounding loses (Kahan 1965) kept behind them."""

    @vector_code(3)
    def add_rows(builder: Any, first: Any, rows: Any, totals: Any) -> None:
        code = Code(builder, form)
        slots = [cgutils.alloca_once(builder, form.vector) for _ in range(2 * width)]
        for v, slot in enumerate(slots):
            builder.store(code.load(totals, v * form.lanes).value, slot)
        with cgutils.for_range(builder, rows, intp=INT) as row:
            at = builder.add(first, builder.mul(row.index, INT(width * form.lanes * form.size)))
            for v, (slot, slot_lost) in enumerate(zip(slots[:width], slots[width:], strict=True)):
                total, lost = Vector(code, builder.load(slot)), Vector(code, builder.load(slot_lost))
                added = code.load(at, v * form.lanes) - lost
                more = total + added
                builder.store(((more - total) - added).value, slot_lost)
                builder.store(more.value, slot)
        for v, slot in enumerate(slots):
            code.store(Vector(code, builder.load(slot)), totals, v * form.lanes)

    return add_rows


@no_type_check
def _columns(form: Format, *, product: bool = False) -> Any:
    """A kernel's function that puts a row, or its product with another, into columns that lie side by side."""
    size, together, lanes = form.size, form.side_by_side, form.lanes

    @used_code(form, 4)
    def copy(code: Code, source: Any, factor: Any, target: Any, there: Any) -> None:
        def numbers() -> Vector:
            found = code.load_used(source)
            if not product:
                return found
            factors = code.load_used(factor)
            return code.where(code.compare(factors, "==", 0.0), 0.0, factors * found)

        code.store(code.choose(there, {0: lambda: code.constant(0.0), 1: numbers}), target)

    @kernel_function
    def columns(source, factor, operands, part, row, capacity, depth, there):
        filled = (depth + together - 1) // together * together
        target = operands + (part * capacity * filled + row * together) * size
        for first in range(0, depth, lanes):
            at = target + (first // together * capacity * together + first % together) * size
            copy(source + first * size, factor + first * size, at, there, depth - first)

    return columns
