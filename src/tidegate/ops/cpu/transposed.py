"""Rows of gradients times transposed weights: the way back through a product, to the state before or to the input.

Rows of gradients lie as `Layout` says: all rows of one vector of units, `capacity` of them, then those of the next.
"""

from typing import Any, no_type_check

from tidegate.ops.cpu.layout import Layout
from tidegate.ops.cpu.lowering import kernel_function
from tidegate.ops.cpu.memory import field
from tidegate.ops.cpu.panels import PLAIN
from tidegate.ops.cpu.record import SUMS, ZEROS
from tidegate.ops.cpu.tile import row_product, tiling
from tidegate.ops.cpu.vector import Code, Format, used_code

__all__ = ["input_gradient", "transposed_product"]

#: Vectors of units whose gradients are summed in one go: a sum of very many terms would lose more than sums of sums do.
_BLOCKS = 8


@no_type_check
def transposed_product(form: Format) -> Any:
    """A kernel's product of rows of gradients with transposed panels.

    Its arguments: how many rows; the first one's first vector, the bytes from row to row and from one vector of units
    to the next, how many of these, and how many numbers of each are multiplied; the panels, which of them to take from
    and to, and how many vectors of columns there are in all; what the sums begin with, and the bytes from row to row
    (0: the same vectors for all); where they go, and the bytes from row to row.
    """
    vector = form.lanes * form.size
    product_3, product_2, product_1 = (row_product(form, vectors, beside=vectors == PLAIN) for vectors in (3, 2, 1))
    cut = tiling(form)
    height, panels_of_tile = cut.height, cut.panels

    @kernel_function
    def run(rows, a, a_row, a_group, groups, depth, panels, low, high, columns, init, init_row, out, out_row):
        tile = height(rows)
        panel_bytes, panel = PLAIN * vector * groups * depth, low
        while panel < high:
            wide = min(PLAIN, columns - panel * PLAIN)
            beside = min(panels_of_tile(tile), min(high, columns // PLAIN) - panel) if wide == PLAIN else 1
            for row in range(0, rows, tile):
                many, source, weights = min(tile, rows - row), a + row * a_row, panels + panel * panel_bytes
                to, start, start_row, start_next = out + row * out_row + panel * PLAIN * vector, init, 0, 0
                if init_row:
                    start, start_row = init + row * init_row + panel * PLAIN * vector, init_row
                    start_next = PLAIN * vector
                for block in range(0, groups, _BLOCKS):
                    blocks = min(_BLOCKS, groups - block)
                    if wide == 3:
                        product_3(
                            many, beside, source, a_row, a_group, blocks, depth, weights, panel_bytes,
                            start, start_row, start_next, to, out_row, PLAIN * vector,
                        )  # fmt: skip
                    elif wide == 2:
                        product_2(
                            many, 1, source, a_row, a_group, blocks, depth, weights, 0,
                            start, start_row, 0, to, out_row, 0,
                        )  # fmt: skip
                    else:
                        product_1(
                            many, 1, source, a_row, a_group, blocks, depth, weights, 0,
                            start, start_row, 0, to, out_row, 0,
                        )  # fmt: skip
                    source += blocks * a_group
                    weights += blocks * depth * wide * vector
                    start, start_row, start_next = to, out_row, PLAIN * vector
            panel += beside

    return run


@no_type_check
def input_gradient(layout: Layout, form: Format, product: Any) -> Any:
    """A kernel's function for the gradient of the input: of some sequences, in some steps of a chunk.

    Its arguments: the record; the gradients of the first of these steps and sequences, whose rows follow each other;
    the first step as the input counts them, and how many; the sequences from and to; the part whose scratch memory it
    may use.
    """
    lanes, size, rows_in_tile, n_in = form.lanes, form.size, form.rows, len(layout.inputs)
    vector = lanes * size
    row_bytes, inputs_at = layout.width * vector, layout.inputs_at
    cut = tiling(form)
    height, runs = cut.height, cut.runs
    batch_of, inputs_of, units_of, capacity_of = field("BATCH"), field("INPUTS"), field("UNITS"), field("CAPACITY")
    d_x, back_in, sums_of = field("D_X"), field("BACK_IN"), field("SUMS")

    @used_code(form, 2)
    def store_part(code: Code, source: Any, target: Any) -> None:
        code.store_used(code.load(source), target)

    @kernel_function
    def run(p, gradients, first, steps, low, high, part):
        batch, depth, groups = batch_of(p), inputs_of(p), (units_of(p) + lanes - 1) // lanes
        columns = (depth + lanes - 1) // lanes
        panels = (columns + PLAIN - 1) // PLAIN
        whole = panels if depth % lanes == 0 else (columns - 1) // PLAIN  # the panels that fill their vectors
        scratch, zero = sums_of(p) + (ZEROS + part * rows_in_tile * SUMS) * vector, sums_of(p)
        group_bytes = capacity_of(p) * row_bytes
        a, out = gradients + inputs_at * vector, d_x(p) + (first * batch + low) * depth * size
        outer, rows, a_next, a_row, out_next, out_row = runs(
            batch, steps, high - low, (high - low) * row_bytes, row_bytes, batch * depth * size, depth * size
        )
        tile = height(rows)
        for panel in range(panels):
            for one in range(outer):
                source, target = a + one * a_next, out + one * out_next
                if panel < whole:
                    product(
                        rows, source, a_row, group_bytes, groups, n_in * lanes, back_in(p), panel, panel + 1, columns,
                        zero, 0, target, out_row,
                    )  # fmt: skip
                    continue
                for row in range(0, rows, tile):
                    many = min(tile, rows - row)
                    product(
                        many, source + row * a_row, a_row, group_bytes, groups, n_in * lanes, back_in(p),
                        panel, panel + 1, columns, zero, 0, scratch - panel * PLAIN * vector, PLAIN * vector,
                    )  # fmt: skip
                    for m in range(many):
                        for c in range(panel * PLAIN, columns):
                            store_part(
                                scratch + (m * PLAIN + c - panel * PLAIN) * vector,
                                target + (row + m) * out_row + c * vector, depth - c * lanes,
                            )  # fmt: skip

    return run
