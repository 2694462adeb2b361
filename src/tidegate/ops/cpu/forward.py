"""The forward kernel: pack the weights, then for each chunk of steps one large product with the input, then the steps.

In a step, a tile's sums go through `cells` as soon as they are there, while they are in the innermost cache. Each slice
of the batch runs through the whole sequence without meeting the others; where there are too few sequences for that, the
threads share out the units, and meet at every step.
"""

from typing import Any, NamedTuple, no_type_check

from tidegate.ops.cpu import cells
from tidegate.ops.cpu.layout import Layout
from tidegate.ops.cpu.lowering import kernel_function
from tidegate.ops.cpu.memory import field, get_byte, groups, nothing, spread_reader, state_before
from tidegate.ops.cpu.panels import panel_packer, start_packer
from tidegate.ops.cpu.record import SUMS, ZEROS
from tidegate.ops.cpu.sharing import arrive, begin_turns, end_turns, share, take_turn
from tidegate.ops.cpu.tile import PANELS, row_product, tiling
from tidegate.ops.cpu.vector import Code, Format, used_code

__all__ = ["StepFunctions", "forward_kernel", "step_functions"]

#: Rows whose cells are calculated at once; of a single row, vectors of units, as many as a tile then has panels.
_CELLS = PANELS


class StepFunctions(NamedTuple):
    """What the forward kernel is made of, for the backward kernel to compute gates anew, and for a live step.

    `tensors` are the addresses of the states, the three gates, and the candidate's past; 0 is one that is not wanted.
    """

    #: (group, record): the weights of one vector of units.
    pack: Any
    #: (slice, record, steps from, to, tensors): a slice of the batch through a chunk of steps.
    slice_of_chunk: Any
    #: (record, the thread's own part, phase, turns so far, steps from, to, tensors): all of a chunk, by units; the
    #: threads meet at every step; gives the turns so far.
    units_of_chunk: Any
    #: (task, record, tasks, steps from, to): a task's units of the products with the input.
    inputs_of_units: Any
    #: (task, record, tasks, step, first step of the chunk, end of the chunk, tensors): a task's units of one step, up
    #: to what the second product needs from all units.
    step_of_units: Any
    #: The same, from there on.
    step_of_units_after: Any


@no_type_check
def step_functions(layout: Layout, form: Format) -> StepFunctions:
    """The parts of the forward kernel."""
    lanes, size, rows_in_tile = form.lanes, form.size, form.rows
    vector = lanes * size
    n_in, n_relevant = len(layout.inputs), len(layout.relevant)
    product_in, cut = row_product(form, n_in), tiling(form)
    height, panels_of_tile, runs, groups_of, before = cut.height, cut.panels, cut.runs, groups(form), state_before(form)
    first_product = _product_of_step(layout, form, after=False)
    second_product = _product_of_step(layout, form, after=True) if n_relevant else first_product
    steps_of, batch_of, inputs_of = field("STEPS"), field("BATCH"), field("INPUTS")
    slices_of, capacity_of, reverse_of = field("SLICES"), field("CAPACITY"), field("REVERSE")
    parts_of, counters_of, board_of = field("PARTS"), field("COUNTERS"), field("BOARD")
    x_of, sums_of = field("X"), field("SUMS")
    panels_in, starts_in, products_of = field("PANELS_IN"), field("START_IN"), field("PRODUCTS")

    @kernel_function
    def inputs(p, products, begin, end, low, high, from_group, to_group):
        # a chunk's products with the input, for some sequences and units
        batch, depth = batch_of(p), inputs_of(p)
        first = steps_of(p) - end if reverse_of(p) else begin
        row_bytes = groups_of(p) * n_in * vector
        x = x_of(p) + (first * batch + low) * depth * size
        outer, rows, x_next, x_row, out_next, out_row = runs(
            batch, end - begin, high - low, batch * depth * size, depth * size, (high - low) * row_bytes, row_bytes
        )
        tile = height(rows)
        each = panels_of_tile(tile)
        for group in range(from_group, to_group, each):
            panels = min(each, to_group - group)
            panel = panels_in(p) + group * depth * n_in * vector
            start = starts_in(p) + group * n_in * vector
            for one in range(outer):
                source, out = x + one * x_next, products + one * out_next + group * n_in * vector
                for row in range(0, rows, tile):
                    product_in(
                        min(tile, rows - row), panels, source + row * x_row, x_row, 0, 1, depth,
                        panel, depth * n_in * vector, start, 0, n_in * vector,
                        out + row * out_row, out_row, n_in * vector,
                    )  # fmt: skip

    @kernel_function
    def scratch(p, part):
        return sums_of(p) + (ZEROS + part * rows_in_tile * SUMS) * vector

    @kernel_function
    def slice_of_chunk(part, p, begin, end, hidden, update, reset, candidate, kept):
        batch, slices, groups = batch_of(p), slices_of(p), groups_of(p)
        low, high = batch * part // slices, batch * (part + 1) // slices
        row_bytes, sums = groups * n_in * vector, scratch(p, part)
        products = products_of(p) + part * capacity_of(p) * row_bytes
        inputs(p, products, begin, end, low, high, 0, groups)
        for s in range(begin, end):
            t = steps_of(p) - 1 - s if reverse_of(p) else s
            here = products + (end - 1 - s if reverse_of(p) else s - begin) * (high - low) * row_bytes
            h_prev = before(p, t, s == 0)
            first_product(p, t, h_prev, here, sums, low, high, 0, groups, hidden, update, reset, candidate, kept)
            if n_relevant:
                second_product(p, t, h_prev, here, sums, low, high, 0, groups, hidden, update, reset, candidate, kept)

    @kernel_function
    def inputs_of_units(task, p, parts, begin, end):
        groups = groups_of(p)
        inputs(p, products_of(p), begin, end, 0, batch_of(p), groups * task // parts, groups * (task + 1) // parts)

    @no_type_check
    def units_with(product):
        @kernel_function
        def step_of_units(task, p, parts, s, begin, end, hidden, update, reset, candidate, kept):
            groups, batch = groups_of(p), batch_of(p)
            t = steps_of(p) - 1 - s if reverse_of(p) else s
            here = products_of(p) + (end - 1 - s if reverse_of(p) else s - begin) * batch * groups * n_in * vector
            product(
                p, t, before(p, t, s == 0), here, scratch(p, task), 0, batch,
                groups * task // parts, groups * (task + 1) // parts, hidden, update, reset, candidate, kept,
            )  # fmt: skip

        return step_of_units

    step_of_units, step_of_units_after = units_with(first_product), units_with(second_product)

    @kernel_function
    def units_of_chunk(p, own, phase, turn, begin, end, hidden, update, reset, candidate, kept):
        parts, counters, board = parts_of(p), counters_of(p), board_of(p)
        tensors = hidden, update, reset, candidate, kept
        share(counters, phase, parts, inputs_of_units, (p, parts, begin, end))
        begin_turns(counters, phase + 1)
        for s in range(begin, end):
            turn += 1
            take_turn(board, turn, parts, own, step_of_units, (p, parts, s, begin, end, *tensors))
            if n_relevant:
                turn += 1
                take_turn(board, turn, parts, own, step_of_units_after, (p, parts, s, begin, end, *tensors))
        end_turns(counters, phase + 1)
        return turn

    return StepFunctions(
        _packing(layout, form), slice_of_chunk, units_of_chunk, inputs_of_units, step_of_units, step_of_units_after
    )


@no_type_check
def _packing(layout: Layout, form: Format) -> Any:
    """A kernel's function that packs the weights of one vector of units for all products of a step."""

    def packers(names):
        blocks, signs = layout.blocks(names or layout.inputs), layout.signs(names or layout.inputs)
        return panel_packer(form, blocks, signs), start_packer(form, blocks, signs)

    n_past, n_relevant = len(layout.past), len(layout.relevant)
    (pack_in, start_in), (pack_past, start_past), (pack_relevant, start_relevant) = (
        packers(names) for names in (layout.inputs, layout.past, layout.relevant)
    )
    inputs_of, units_of = field("INPUTS"), field("UNITS")
    weight_ih, weight_hh, bias_ih, bias_hh = (field(name) for name in ("WEIGHT_IH", "WEIGHT_HH", "BIAS_IH", "BIAS_HH"))
    panels_in, panels_past, panels_relevant = field("PANELS_IN"), field("PANELS_PAST"), field("PANELS_RELEVANT")
    starts_in, starts_past, starts_relevant = field("START_IN"), field("START_PAST"), field("START_RELEVANT")

    @kernel_function
    def pack(group, p):
        units = units_of(p)
        pack_in(weight_ih(p), inputs_of(p), units, group, panels_in(p))
        start_in(bias_ih(p), units, group, starts_in(p))
        if n_past:
            pack_past(weight_hh(p), units, units, group, panels_past(p))
            start_past(bias_hh(p), units, group, starts_past(p))
        if n_relevant:
            pack_relevant(weight_hh(p), units, units, group, panels_relevant(p))
            start_relevant(bias_hh(p), units, group, starts_relevant(p))

    return pack


@no_type_check
def _product_of_step(layout: Layout, form: Format, *, after: bool) -> Any:
    """A kernel's function for one product of a step, for some sequences and units, and the cells behind it.

    With `after`, the product with the relevant past; else that with the past.
    """
    lanes, size = form.lanes, form.size
    vector = lanes * size
    n_past, n_relevant = len(layout.past), len(layout.relevant)
    count = n_relevant if after else n_past
    product, cut = row_product(form, max(1, count)), tiling(form)
    height, panels_of_tile = cut.height, cut.panels
    end_of_tile = _end_of_tile(layout, form, after=after)
    batch_of, units_of, relevant_of = field("BATCH"), field("UNITS"), field("RELEVANT")
    panels_of, starts_of = (field(f"{name}_{'RELEVANT' if after else 'PAST'}") for name in ("PANELS", "START"))
    products_width = len(layout.inputs) * vector

    @kernel_function
    def run(p, t, h_prev, products, sums, low, high, from_group, to_group, hidden, update, reset, candidate, kept):
        batch, units = batch_of(p), units_of(p)
        groups, width = (units + lanes - 1) // lanes, count * vector
        a, a_row = (relevant_of(p), 2 * groups * vector) if after else (h_prev, units * size)
        tile = height(high - low)
        each = panels_of_tile(tile)
        for group in range(from_group, to_group, each):
            panels = min(each, to_group - group)
            panel, start = panels_of(p) + group * units * width, starts_of(p) + group * width
            for b in range(low, high, tile):
                rows = min(tile, high - b)
                if count:
                    product(
                        rows, panels, a + b * a_row, a_row, 0, 1, units, panel, units * width, start, 0, width,
                        sums, width, rows * width,
                    )  # fmt: skip
                end_of_tile(
                    p, sums, products + (b - low) * groups * products_width, h_prev, t * batch + b, rows, group, panels,
                    hidden, update, reset, candidate, kept,
                )  # fmt: skip

    return run


@no_type_check
def _end_of_tile(layout: Layout, form: Format, *, after: bool) -> Any:
    """A kernel's function for what is left to do once the sums of a tile are there."""
    lanes, size = form.lanes, form.size
    vector = lanes * size
    n_in, n_past, n_relevant = len(layout.inputs), len(layout.past), len(layout.relevant)
    before = n_relevant > 0 and not after
    cell, several_cells, steered_cell = (
        (cells.cell(layout, form, 1), cells.cell(layout, form, _CELLS), cells.cell(layout, form, 1, steered=True))
        if not before
        else (nothing(15), nothing(15), nothing(22))
    )
    relevant_past, steered_past = (
        (cells.relevant_past(layout, form), cells.relevant_past(layout, form, steered=True))
        if before
        else (nothing(8), nothing(13))
    )
    hold = _hold(form)
    batch_of, units_of, mask_of, activation_of = field("BATCH"), field("UNITS"), field("MASK"), field("ACTIVATION")
    relevant_of, write_of = field("RELEVANT"), field("WRITE")
    (update_kind, update_pin), (reset_kind, reset_pin), (factor_kind, factor_of) = (
        spread_reader(form, name) for name in ("PIN_UPDATE", "PIN_RESET", "FACTOR")
    )

    @kernel_function
    def end_of_panel(p, sums, products, h_prev, row, rows, group, hidden, update, reset, candidate, kept):
        units, batch, mask, number = units_of(p), batch_of(p), mask_of(p), activation_of(p)
        groups, used = (units + lanes - 1) // lanes, units - group * lanes
        width, row_bytes, products_row, own_row = (
            (n_relevant if after else n_past) * vector, units * size, groups * n_in * vector, 2 * groups * vector
        )  # fmt: skip
        t, b = row // batch, row % batch
        products += group * n_in * vector
        at, offset = h_prev + b * row_bytes + group * vector, row * row_bytes + group * vector
        own = relevant_of(p) + b * own_row + group * vector if n_relevant else 0
        own_update = own + groups * vector
        pinned_update, pinned_reset, factored, scale = update_kind(p), reset_kind(p), factor_kind(p), write_of(p)
        steered = pinned_update != 0 or pinned_reset != 0 or factored != 0 or scale != 0
        each = 1 if before or mask or steered else _CELLS
        m = 0
        while m < rows:
            done = each if m + each <= rows else 1
            if done > 1:
                several_cells(
                    sums, products, products_row, at, row_bytes, own_update, own_row, offset,
                    hidden, update, reset, candidate, kept, number, used,
                )  # fmt: skip
            elif mask != 0 and get_byte(mask + row + m) == 0:
                if not before:
                    hold(at, offset, hidden, update, reset, candidate, used)
            elif steered:
                u_at, r_at = update_pin(p, t, b + m, group * lanes), reset_pin(p, t, b + m, group * lanes)
                if before:
                    steered_past(
                        sums, products, at, own, own_update, offset, reset,
                        u_at, pinned_update, r_at, pinned_reset, scale, used,
                    )  # fmt: skip
                else:
                    steered_cell(
                        sums, products, products_row, at, row_bytes, own_update, own_row, offset,
                        hidden, update, reset, candidate, kept, number, u_at, pinned_update, r_at, pinned_reset, scale,
                        factor_of(p, t, b + m, group * lanes), factored, used,
                    )  # fmt: skip
            elif before:
                relevant_past(sums, products, at, own, own_update, offset, reset, used)
            else:
                cell(
                    sums, products, products_row, at, row_bytes, own_update, own_row, offset,
                    hidden, update, reset, candidate, kept, number, used,
                )  # fmt: skip
            m += done
            sums += done * width
            products += done * products_row
            own += done * own_row
            own_update += done * own_row
            at += done * row_bytes
            offset += done * row_bytes

    @kernel_function
    def end_of_tile(p, sums, products, h_prev, row, rows, group, panels, hidden, update, reset, candidate, kept):
        units, last = units_of(p), group + _CELLS - 1
        free = mask_of(p) == 0 and update_kind(p) == 0 and reset_kind(p) == 0
        free = free and factor_kind(p) == 0 and write_of(p) == 0
        if not before and rows == 1 and panels == _CELLS and free and units >= (last + 1) * lanes:
            # one row has as many units to calculate at once as others have rows
            b, groups = row % batch_of(p), (units + lanes - 1) // lanes
            own_update = relevant_of(p) + (b * 2 * groups + groups + group) * vector if n_relevant else 0
            several_cells(
                sums, products + group * n_in * vector, n_in * vector,
                h_prev + b * units * size + group * vector, vector,
                own_update, vector, row * units * size + group * vector, hidden, update, reset, candidate, kept,
                activation_of(p), lanes,
            )  # fmt: skip
            return
        width = rows * (n_relevant if after else n_past) * vector
        for one in range(panels):
            end_of_panel(
                p, sums + one * width, products, h_prev, row, rows, group + one, hidden, update, reset, candidate, kept
            )

    return end_of_tile


def _hold(form: Format) -> Any:
    """A step that is not there: the state stays, the gates and the candidate say nothing (0)."""

    @used_code(form, 6)
    def hold(code: Code, h_prev: Any, offset: Any, hidden: Any, update: Any, reset: Any, candidate: Any) -> None:
        state, zero = code.load_used(h_prev), code.constant(0.0)
        for tensor, value in ((hidden, state), (update, zero), (reset, zero), (candidate, zero)):
            with code.when(tensor):
                code.store_used(value, code.builder.add(tensor, offset))

    return hold


@no_type_check
def forward_kernel(layout: Layout, form: Format) -> Any:
    """The whole forward kernel: a Python function of the record's address, for Numba to compile."""
    functions = step_functions(layout, form)
    pack, slice_of_chunk, units_of_chunk = functions.pack, functions.slice_of_chunk, functions.units_of_chunk
    lanes = form.lanes
    steps_of, units_of, chunk_of = field("STEPS"), field("UNITS"), field("CHUNK")
    slices_of, counters_of, board_of = field("SLICES"), field("COUNTERS"), field("BOARD")
    hidden_of, update_of, reset_of = field("HIDDEN"), field("UPDATE"), field("RESET")
    candidate_of, kept_of = field("CANDIDATE"), field("PAST")

    @kernel_function
    def whole_slice(part, p, hidden, update, reset, candidate, kept):
        for begin in range(0, steps_of(p), chunk_of(p)):
            end = min(steps_of(p), begin + chunk_of(p))
            slice_of_chunk(part, p, begin, end, hidden, update, reset, candidate, kept)

    def forward(p):
        length, counters, slices = steps_of(p), counters_of(p), slices_of(p)
        tensors = hidden_of(p), update_of(p), reset_of(p), candidate_of(p), kept_of(p)
        share(counters, 0, (units_of(p) + lanes - 1) // lanes, pack, (p,))
        if slices:
            share(counters, 1, slices, whole_slice, (p, *tensors))
            return
        own, phase, turn = arrive(board_of(p)), 1, 0
        for begin in range(0, length, chunk_of(p)):
            turn = units_of_chunk(p, own, phase, turn, begin, min(length, begin + chunk_of(p)), *tensors)
            phase += 2

    return forward
