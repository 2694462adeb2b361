"""The forward kernel: pack the weights, then for each chunk of steps one large product with the input, then the steps.

In a step, a tile's sums go through `cells` as soon as they are there, while they are in the innermost cache. Each slice
of the batch runs through all steps of a chunk without meeting the others.
"""

from typing import Any, NamedTuple, no_type_check

from numba import njit

from tidegate.ops.cpu import cells
from tidegate.ops.cpu.layout import Layout
from tidegate.ops.cpu.memory import field, get_byte
from tidegate.ops.cpu.panels import panel_packer, start_packer
from tidegate.ops.cpu.sharing import share
from tidegate.ops.cpu.tile import TOGETHER, one_row_tile, row_product
from tidegate.ops.cpu.vector import Code, Format, vector_code

__all__ = ["StepFunctions", "forward_kernel", "step_functions"]


class StepFunctions(NamedTuple):
    """What the forward kernel is made of, for the backward kernel to compute gates anew."""

    #: (group, record): the weights of one vector of units.
    pack: Any
    #: (task, record, tasks, rows, first row of the chunk): a task's share of a chunk's products with the input.
    inputs_of_chunk: Any
    #: (record, first row, rows, first row of the chunk, units from, to): products with the input.
    inputs: Any
    #: (slice, record, steps from, to, first row of the chunk, tensors to write): all units of some sequences.
    steps: Any
    #: (task, record, tasks, step, first row of the chunk, tensors to write): a task's units of all sequences, up
    #: to what the second product needs from all units.
    some_units: Any
    #: The same, from there on.
    some_units_after: Any


@no_type_check
def step_functions(layout: Layout, form: Format) -> StepFunctions:  # noqa: PLR0915 - one closure for one kernel
    """The parts of the forward kernel."""
    lanes, size, rows_in_tile = form.lanes, form.size, form.rows
    n_in, n_past, n_relevant = len(layout.inputs), len(layout.past), len(layout.relevant)
    of_inputs, of_past, of_relevant = (
        (layout.blocks(names), layout.signs(names)) for names in (layout.inputs, layout.past, layout.relevant)
    )
    pack_in, start_in = panel_packer(form, *of_inputs), start_packer(form, *of_inputs)
    past_names = of_past if n_past else of_inputs
    pack_past, start_past = panel_packer(form, *past_names), start_packer(form, *past_names)
    relevant_names = of_relevant if n_relevant else of_inputs
    pack_relevant, start_relevant = panel_packer(form, *relevant_names), start_packer(form, *relevant_names)
    product_in = row_product(form, n_in)
    product_past = row_product(form, n_past) if n_past else product_in
    product_relevant = row_product(form, n_relevant) if n_relevant else product_in
    one_row_in = one_row_tile(form, n_in)
    one_row_past = one_row_tile(form, max(1, n_past))
    cell_whole, cell_part = (cells.cell(layout, form, partial=partial) for partial in (False, True))
    if n_relevant:
        relevant_whole, relevant_part = (
            cells.relevant_past(layout, form, partial=partial) for partial in (False, True)
        )
    else:
        relevant_whole = relevant_part = vector_code(12)(_nothing)
    hold_whole, hold_part = (_hold(form, partial=partial) for partial in (False, True))
    steps_of, batch_of, inputs_of, units_of = field("STEPS"), field("BATCH"), field("INPUTS"), field("UNITS")
    slices_of, reverse_of, activation_of = field("SLICES"), field("REVERSE"), field("ACTIVATION")
    x_of, h_0_of, mask_of, hidden_of = field("X"), field("H_0"), field("MASK"), field("HIDDEN")
    weight_ih, weight_hh, bias_ih, bias_hh = (field(name) for name in ("WEIGHT_IH", "WEIGHT_HH", "BIAS_IH", "BIAS_HH"))
    panels_in, panels_past, panels_relevant = field("PANELS_IN"), field("PANELS_PAST"), field("PANELS_RELEVANT")
    starts_in, starts_past, starts_relevant = field("START_IN"), field("START_PAST"), field("START_RELEVANT")
    products_of, sums_of, relevant_of = field("PRODUCTS"), field("SUMS"), field("RELEVANT")
    pin_u, kind_u, step_u, row_u = (
        field(name) for name in ("PIN_UPDATE", "PIN_UPDATE_KIND", "PIN_UPDATE_STEP", "PIN_UPDATE_ROW")
    )
    pin_r, kind_r, step_r, row_r = (
        field(name) for name in ("PIN_RESET", "PIN_RESET_KIND", "PIN_RESET_STEP", "PIN_RESET_ROW")
    )

    @njit
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

    @njit
    def inputs(p, first, rows, base, low, high):
        depth, groups = inputs_of(p), (units_of(p) + lanes - 1) // lanes
        row_bytes = groups * n_in * lanes * size
        x, out = x_of(p) + first * depth * size, products_of(p) + (first - base) * row_bytes
        group = low
        while group < high:
            panel = panels_in(p) + group * depth * n_in * lanes * size
            start = starts_in(p) + group * n_in * lanes * size
            here = out + group * n_in * lanes * size
            if rows == 1 and high - group >= TOGETHER:
                one_row_in(x, depth, panel, start, here)
                group += TOGETHER
                continue
            for row in range(0, rows, rows_in_tile):
                product_in(
                    min(rows_in_tile, rows - row), x + row * depth * size, depth * size, 0, 1, depth,
                    panel, start, 0, here + row * row_bytes, row_bytes,
                )  # fmt: skip
            group += 1

    @njit
    def pin_at(address, kind, step_stride, row_stride, t, b, unit):
        if kind == 0:
            return 0
        at = address + (t * step_stride + b * row_stride) * size
        return at + unit * size if kind == 1 else at

    @njit
    def end_of_tile(
        p, first, second, sums, h_prev, h_row, row, rows, group, base, hidden, update, reset, candidate, kept
    ):
        # what is left to do once the sums of a tile are there; `first` is 1 for a first product before a second one
        units, batch, mask, number = units_of(p), batch_of(p), mask_of(p), activation_of(p)
        groups = (units + lanes - 1) // lanes
        used = min(lanes, units - group * lanes)
        packed = (number << 32) | used
        width = (n_relevant if second else n_past) * lanes * size
        products = products_of(p) + ((row - base) * groups + group) * n_in * lanes * size
        at, offset = h_prev + group * lanes * size, (row * units + group * lanes) * size
        own = relevant_of(p) + group * lanes * size
        pinned_update, pinned_reset = kind_u(p), kind_r(p)
        u_at = r_at = 0
        for m in range(rows):
            here = row + m
            if n_relevant:
                own = relevant_of(p) + (here % batch * 2 * groups + group) * lanes * size
            own_update = own + groups * lanes * size
            if mask != 0 and get_byte(mask + here) == 0:
                if first:
                    pass
                elif used == lanes:
                    hold_whole(at, offset, hidden, update, reset, candidate, used)
                else:
                    hold_part(at, offset, hidden, update, reset, candidate, used)
            else:
                if pinned_update or pinned_reset:
                    t, b, unit = here // batch, here % batch, group * lanes
                    u_at = pin_at(pin_u(p), pinned_update, step_u(p), row_u(p), t, b, unit)
                    r_at = pin_at(pin_r(p), pinned_reset, step_r(p), row_r(p), t, b, unit)
                if first and used == lanes:
                    relevant_whole(
                        sums, products, at, own, own_update, offset, reset,
                        u_at, pinned_update, r_at, pinned_reset, used,
                    )  # fmt: skip
                elif first:
                    relevant_part(
                        sums, products, at, own, own_update, offset, reset,
                        u_at, pinned_update, r_at, pinned_reset, used,
                    )  # fmt: skip
                elif used == lanes:
                    cell_whole(
                        sums, products, at, own_update, offset, hidden, update, reset, candidate, kept,
                        u_at, pinned_update, r_at, pinned_reset, packed,
                    )  # fmt: skip
                else:
                    cell_part(
                        sums, products, at, own_update, offset, hidden, update, reset, candidate, kept,
                        u_at, pinned_update, r_at, pinned_reset, packed,
                    )  # fmt: skip
            sums += width
            products += groups * n_in * lanes * size
            at += h_row
            offset += units * size

    @njit
    def state_before(p, s, t):
        if s == 0:
            return h_0_of(p)
        return hidden_of(p) + (t + 1 if reverse_of(p) else t - 1) * batch_of(p) * units_of(p) * size

    @njit
    def first_product(
        p, t, h_prev, sums, low, high, from_group, to_group, base, hidden, update, reset, candidate, kept
    ):
        # sequences low to high, units of the groups: the product with the past, and the step or what it needs before
        batch, units = batch_of(p), units_of(p)
        row_bytes, width = units * size, n_past * lanes * size
        group = from_group
        while group < to_group:
            panel, start = panels_past(p) + group * units * width, starts_past(p) + group * width
            together = TOGETHER if high - low == 1 and to_group - group >= TOGETHER else 1
            for b in range(low, high, rows_in_tile):
                rows, at = min(rows_in_tile, high - b), h_prev + b * row_bytes
                if n_past:
                    if together > 1:
                        one_row_past(at, units, panel, start, sums)
                    else:
                        product_past(rows, at, row_bytes, 0, 1, units, panel, start, 0, sums, width)
                for one in range(together):
                    end_of_tile(
                        p, n_relevant != 0, False, sums + one * width, at, row_bytes, t * batch + b, rows, group + one,
                        base, hidden, update, reset, candidate, kept,
                    )  # fmt: skip
            group += together

    @njit
    def second_product(
        p, t, h_prev, sums, low, high, from_group, to_group, base, hidden, update, reset, candidate, kept
    ):
        # the same for the product with the relevant past, and the step
        batch, units = batch_of(p), units_of(p)
        relevant_row = 2 * ((units + lanes - 1) // lanes) * lanes * size
        row_bytes, width = units * size, n_relevant * lanes * size
        for group in range(from_group, to_group):
            panel, start = panels_relevant(p) + group * units * width, starts_relevant(p) + group * width
            for b in range(low, high, rows_in_tile):
                rows = min(rows_in_tile, high - b)
                product_relevant(
                    rows, relevant_of(p) + b * relevant_row, relevant_row, 0, 1, units, panel, start, 0, sums, width
                )
                end_of_tile(
                    p, False, True, sums, h_prev + b * row_bytes, row_bytes, t * batch + b, rows, group,
                    base, hidden, update, reset, candidate, kept,
                )  # fmt: skip

    @njit
    def scratch(p, task):
        return sums_of(p) + (4 + task * rows_in_tile * 4) * lanes * size

    @njit
    def steps(part, p, begin, end, base, hidden, update, reset, candidate, kept):
        batch, slices, groups = batch_of(p), slices_of(p), (units_of(p) + lanes - 1) // lanes
        low, high = batch * part // slices, batch * (part + 1) // slices
        sums = scratch(p, part)
        for s in range(begin, end):
            t = steps_of(p) - 1 - s if reverse_of(p) else s
            h_prev = state_before(p, s, t)
            first_product(p, t, h_prev, sums, low, high, 0, groups, base, hidden, update, reset, candidate, kept)
            if n_relevant:
                second_product(p, t, h_prev, sums, low, high, 0, groups, base, hidden, update, reset, candidate, kept)

    @njit
    def inputs_of_chunk(task, p, parts, rows, base):
        low, high = rows * task // parts, rows * (task + 1) // parts
        inputs(p, base + low, high - low, base, 0, (units_of(p) + lanes - 1) // lanes)

    @njit
    def some_units(task, p, parts, s, base, hidden, update, reset, candidate, kept):
        t = steps_of(p) - 1 - s if reverse_of(p) else s
        groups = (units_of(p) + lanes - 1) // lanes
        first_product(
            p, t, state_before(p, s, t), scratch(p, task), 0, batch_of(p),
            groups * task // parts, groups * (task + 1) // parts, base, hidden, update, reset, candidate, kept,
        )  # fmt: skip

    @njit
    def some_units_after(task, p, parts, s, base, hidden, update, reset, candidate, kept):
        if n_relevant:
            t = steps_of(p) - 1 - s if reverse_of(p) else s
            groups = (units_of(p) + lanes - 1) // lanes
            second_product(
                p, t, state_before(p, s, t), scratch(p, task), 0, batch_of(p),
                groups * task // parts, groups * (task + 1) // parts, base, hidden, update, reset, candidate, kept,
            )  # fmt: skip

    return StepFunctions(pack, inputs_of_chunk, inputs, steps, some_units, some_units_after)


def _nothing(_builder: Any, *_arguments: Any) -> None:
    """Stands where a system has no such part."""


def _hold(form: Format, *, partial: bool) -> Any:
    """A step that is not there: the state stays, the gates and the candidate say nothing (0)."""

    @vector_code(7)
    def hold(
        builder: Any, h_prev: Any, offset: Any, hidden: Any, update: Any, reset: Any, candidate: Any, used: Any
    ) -> None:
        code = Code(builder, form, used if partial else None)
        state, nothing = code.load_used(h_prev), code.constant(0.0)
        for tensor, value in ((hidden, state), (update, nothing), (reset, nothing), (candidate, nothing)):
            with code.when(tensor):
                code.store_used(value, builder.add(tensor, offset))

    return hold


@no_type_check
def forward_kernel(layout: Layout, form: Format) -> Any:
    """The whole forward kernel: a Python function of the record's address, for Numba to compile."""
    parts_of_step = step_functions(layout, form)
    pack, inputs, steps = parts_of_step.pack, parts_of_step.inputs_of_chunk, parts_of_step.steps
    some_units, some_units_after = parts_of_step.some_units, parts_of_step.some_units_after
    lanes, n_relevant = form.lanes, len(layout.relevant)
    steps_of, batch_of, units_of, chunk_of = field("STEPS"), field("BATCH"), field("UNITS"), field("CHUNK")
    slices_of, parts_of, reverse_of, counters_of = field("SLICES"), field("PARTS"), field("REVERSE"), field("COUNTERS")
    hidden_of, update_of, reset_of = field("HIDDEN"), field("UPDATE"), field("RESET")
    candidate_of, kept_of = field("CANDIDATE"), field("PAST")

    def forward(p):
        length, counters, slices, parts = steps_of(p), counters_of(p), slices_of(p), parts_of(p)
        tensors = hidden_of(p), update_of(p), reset_of(p), candidate_of(p), kept_of(p)
        share(counters, 0, (units_of(p) + lanes - 1) // lanes, pack, (p,))
        phase = 1
        for begin in range(0, length, chunk_of(p)):
            end = min(length, begin + chunk_of(p))
            base = (length - end if reverse_of(p) else begin) * batch_of(p)
            share(counters, phase, parts, inputs, (p, parts, (end - begin) * batch_of(p), base))
            phase += 1
            if slices:
                share(counters, phase, slices, steps, (p, begin, end, base, *tensors))
                phase += 1
                continue
            for s in range(begin, end):  # too few sequences to share out: share out the units, step by step
                share(counters, phase, parts, some_units, (p, parts, s, base, *tensors))
                phase += 1
                if n_relevant:
                    share(counters, phase, parts, some_units_after, (p, parts, s, base, *tensors))
                    phase += 1

    return forward
