"""The backward kernel: chunk by chunk from the last step to the first.

In a chunk, `cells` turn, step by step, the gradient of the state into those of the sums, and a product with the
transposed weights carries it to the step before. The gradients of the sums stay, for all the chunk's rows: they become
the gradient of the input, and `totals` adds them up to those of the weights.

Each slice of the batch goes its way alone, with totals of its own, which are added in the end. Where there would be
too much of these, the slices meet after every chunk and share out the vectors of units; where there are too few
sequences, the threads share out the units of each step, as they do forwards.
"""

from typing import Any, NamedTuple, no_type_check

from tidegate.ops.cpu import cells
from tidegate.ops.cpu.forward import step_functions
from tidegate.ops.cpu.layout import Layout
from tidegate.ops.cpu.lowering import kernel_function
from tidegate.ops.cpu.memory import field, get_byte, groups, nothing, spread_reader, state_before
from tidegate.ops.cpu.panels import PLAIN, transposed_packer
from tidegate.ops.cpu.sharing import arrive, begin_turns, end_turns, share, take_turn
from tidegate.ops.cpu.totals import totals
from tidegate.ops.cpu.transposed import input_gradient, transposed_product
from tidegate.ops.cpu.vector import Code, Format, used_code

__all__ = ["backward_kernel"]


class _StepBack(NamedTuple):
    """A step's way back, in functions of a kernel, each for some sequences and units.

    The arguments that all share: the record, the step in the input's order, whether it is the first that ran; the
    gradients of the first of these sequences; sequences from, to; units (in vectors, or in panels) from, to.
    """

    #: (…, the addresses of update, reset, candidate and past as if they held all steps): the gradients of the sums.
    cells: Any
    #: (…, reset): through the second product, to the reset gate and the state before.
    relevant: Any
    #: Through the product with the past, to the state before: panels of units.
    past: Any


@no_type_check
def backward_kernel(layout: Layout, form: Format) -> Any:
    """The whole backward kernel: a Python function of the record's address, for Numba to compile."""
    lanes, size = form.lanes, form.size
    vector, width = lanes * size, layout.width
    n_past, n_relevant = len(layout.past), len(layout.relevant)
    forward, weights, product = step_functions(layout, form), totals(layout, form), transposed_product(form)
    pack_forward, slice_forward, units_forward = forward.pack, forward.slice_of_chunk, forward.units_of_chunk
    operands, add_inputs, add_past, finish = weights
    cells_back, relevant_back, past_back = _step_back(layout, form, product)
    inputs_back, pack = input_gradient(layout, form, product), _packing(layout, form)
    steps_of, batch_of, inputs_of, units_of = field("STEPS"), field("BATCH"), field("INPUTS"), field("UNITS")
    groups_of = groups(form)
    chunk_of, slices_of, parts_of, reverse_of = field("CHUNK"), field("SLICES"), field("PARTS"), field("REVERSE")
    capacity_of, apart_of, recompute_of = field("CAPACITY"), field("APART"), field("RECOMPUTE")
    counters_of, board_of = field("COUNTERS"), field("BOARD")
    update_of, reset_of, candidate_of, kept_of = field("UPDATE"), field("RESET"), field("CANDIDATE"), field("PAST")
    d_x, gradients_of = field("D_X"), field("GRADIENTS")

    @kernel_function
    def panels_of(p):
        return (groups_of(p) + PLAIN - 1) // PLAIN

    @kernel_function
    def chunk_at(p, chunk):
        end = steps_of(p) - chunk * chunk_of(p)
        return max(0, end - chunk_of(p)), end

    @kernel_function
    def from_here(p, tensor, first):
        # a tensor that holds one chunk only, as if it held all: it begins with the chunk's first step
        if recompute_of(p) and tensor:
            return tensor - first * batch_of(p) * units_of(p) * size
        return tensor

    @kernel_function
    def states_of(p, begin, end):
        first = steps_of(p) - end if reverse_of(p) else begin
        return (
            from_here(p, update_of(p), first), from_here(p, reset_of(p), first),
            from_here(p, candidate_of(p), first), from_here(p, kept_of(p), first),
        )  # fmt: skip

    @kernel_function
    def slice_back(part, p, chunk):
        begin, end = chunk_at(p, chunk)
        low, high = batch_of(p) * part // slices_of(p), batch_of(p) * (part + 1) // slices_of(p)
        groups, first = groups_of(p), steps_of(p) - end if reverse_of(p) else begin
        update, reset, candidate, kept = states_of(p, begin, end)
        if recompute_of(p):
            slice_forward(part, p, begin, end, 0, update, reset, candidate, kept)
        own = gradients_of(p) + part * capacity_of(p) * groups * width * vector
        for s in range(end - 1, begin - 1, -1):
            t = steps_of(p) - 1 - s if reverse_of(p) else s
            here = own + (t - first) * (high - low) * width * vector
            cells_back(p, t, s == 0, here, low, high, 0, groups, update, reset, candidate, kept)
            if n_relevant:
                relevant_back(p, t, s == 0, here, low, high, 0, panels_of(p), reset)
            if n_past:
                past_back(p, here, low, high, 0, panels_of(p))
        if d_x(p):
            inputs_back(p, own, first, end - begin, low, high, part)
        operands(p, part, 0, (end - begin) * (high - low), first, low, high, reset)

    @kernel_function
    def whole_slice_back(part, p):
        low, high = batch_of(p) * part // slices_of(p), batch_of(p) * (part + 1) // slices_of(p)
        for chunk in range((steps_of(p) + chunk_of(p) - 1) // chunk_of(p)):
            slice_back(part, p, chunk)
            begin, end = chunk_at(p, chunk)
            rows = (end - begin) * (high - low)
            for group in range(groups_of(p)):
                add_inputs(p, part, rows, group, part, chunk == 0)
                add_past(p, part, rows, group, part, chunk == 0)

    @kernel_function
    def add_of_all(task, p, chunk):
        begin, end = chunk_at(p, chunk)
        for part in range(max(1, slices_of(p))):
            slices = max(1, slices_of(p))
            rows = (end - begin) * (batch_of(p) * (part + 1) // slices - batch_of(p) * part // slices)
            if task % 2:
                add_past(p, part, rows, task // 2, 0, chunk == 0 and part == 0)
            else:
                add_inputs(p, part, rows, task // 2, 0, chunk == 0 and part == 0)

    @kernel_function
    def units_cells(task, p, parts, s, chunk):
        # first what the step after this one, which all threads have done, gives to the state of these units
        begin, end = chunk_at(p, chunk)
        first, batch = steps_of(p) - end if reverse_of(p) else begin, batch_of(p)
        panels = panels_of(p)
        low, high = panels * task // parts, panels * (task + 1) // parts
        update, reset, candidate, kept = states_of(p, begin, end)
        t, after = (steps_of(p) - 1 - s, -1) if reverse_of(p) else (s, 1)
        here, row = gradients_of(p) + (t - first) * batch * width * vector, batch * width * vector
        if n_past and s + 1 < end:
            past_back(p, here + after * row, 0, batch, low, high)
        if s >= begin:
            cells_back(
                p, t, s == 0, here, 0, batch, low * PLAIN, min(high * PLAIN, groups_of(p)),
                update, reset, candidate, kept,
            )  # fmt: skip

    @kernel_function
    def units_relevant(task, p, parts, s, chunk):
        if n_relevant:
            begin, end = chunk_at(p, chunk)
            t, panels = steps_of(p) - 1 - s if reverse_of(p) else s, panels_of(p)
            first = steps_of(p) - end if reverse_of(p) else begin
            here = gradients_of(p) + (t - first) * batch_of(p) * width * vector
            _, reset, _, _ = states_of(p, begin, end)
            low, high = panels * task // parts, panels * (task + 1) // parts
            relevant_back(p, t, s == 0, here, 0, batch_of(p), low, high, reset)

    @kernel_function
    def units_inputs_and_operands(task, p, parts, chunk):
        begin, end = chunk_at(p, chunk)
        first, batch = steps_of(p) - end if reverse_of(p) else begin, batch_of(p)
        low, high = (end - begin) * task // parts, (end - begin) * (task + 1) // parts
        _, reset, _, _ = states_of(p, begin, end)
        if d_x(p):
            here = gradients_of(p) + low * batch * width * vector
            inputs_back(p, here, first + low, high - low, 0, batch, task)
        operands(p, 0, low * batch, high * batch, first, 0, batch, reset)

    @kernel_function
    def units_back(p, own, phase, chunk, turn):
        begin, end = chunk_at(p, chunk)
        counters, board, parts = counters_of(p), board_of(p), parts_of(p)
        if recompute_of(p):
            turn = units_forward(p, own, phase, turn, begin, end, 0, *states_of(p, begin, end))
            phase += 2
        begin_turns(counters, phase)
        for s in range(end - 1, begin - 1, -1):
            turn += 1
            take_turn(board, turn, parts, own, units_cells, (p, parts, s, chunk))
            if n_relevant:
                turn += 1
                take_turn(board, turn, parts, own, units_relevant, (p, parts, s, chunk))
        take_turn(board, turn + 1, parts, own, units_cells, (p, parts, begin - 1, chunk))
        end_turns(counters, phase)
        share(counters, phase + 1, parts, units_inputs_and_operands, (p, parts, chunk))
        return phase + 2, turn + 1

    @kernel_function
    def finish_group(group, p, owners):
        finish(p, group, owners)

    def backward(p):
        counters, groups, slices = counters_of(p), groups_of(p), slices_of(p)
        tasks = panels_of(p)
        if d_x(p):
            tasks += ((inputs_of(p) + lanes - 1) // lanes + PLAIN - 1) // PLAIN
        share(counters, 0, tasks, pack, (p,))
        phase, owners = 1, 1
        if recompute_of(p):
            share(counters, phase, groups, pack_forward, (p,))
            phase += 1
        if apart_of(p):
            share(counters, phase, slices, whole_slice_back, (p,))
            phase, owners = phase + 1, slices
        else:
            own, turn = arrive(board_of(p)), 0
            for chunk in range((steps_of(p) + chunk_of(p) - 1) // chunk_of(p)):
                if slices:
                    share(counters, phase, slices, slice_back, (p, chunk))
                    phase += 1
                else:
                    phase, turn = units_back(p, own, phase, chunk, turn)
                share(counters, phase, 2 * groups, add_of_all, (p, chunk))
                phase += 1
        share(counters, phase, groups, finish_group, (p, owners))

    return backward


@no_type_check
def _packing(layout: Layout, form: Format) -> Any:
    """A kernel's function for one task of packing: panels of the weights of the past, and then of the input."""

    def packer(names):
        return transposed_packer(form, layout.blocks(names), layout.signs(names)) if names else nothing(5)

    pack_in, pack_past, pack_relevant = packer(layout.inputs), packer(layout.past), packer(layout.relevant)
    lanes, n_past, n_relevant = form.lanes, len(layout.past), len(layout.relevant)
    inputs_of, units_of, weight_ih, weight_hh = field("INPUTS"), field("UNITS"), field("WEIGHT_IH"), field("WEIGHT_HH")
    back_in, back_past, back_relevant = field("BACK_IN"), field("BACK_PAST"), field("BACK_RELEVANT")

    @kernel_function
    def pack(task, p):
        units = units_of(p)
        panels = ((units + lanes - 1) // lanes + PLAIN - 1) // PLAIN
        if task < panels:
            if n_past:
                pack_past(weight_hh(p), units, units, task, back_past(p))
            if n_relevant:
                pack_relevant(weight_hh(p), units, units, task, back_relevant(p))
        else:
            pack_in(weight_ih(p), inputs_of(p), units, task - panels, back_in(p))

    return pack


@no_type_check
def _step_back(layout: Layout, form: Format, product: Any) -> _StepBack:
    """The parts of a step's way back."""
    lanes, size = form.lanes, form.size
    vector, width = lanes * size, layout.width
    row_bytes = width * vector
    n_past, n_relevant, past_at, relevant_at = (
        len(layout.past), len(layout.relevant), layout.past_at, layout.relevant_at
    )  # fmt: skip
    cell, steered_cell = (cells.cell_gradient(layout, form, steered=steered) for steered in (False, True))
    relevant_cell = cells.relevant_past_gradient(layout, form) if n_relevant else nothing(10)
    pass_by = _pass_by(form, width)
    groups_of, before = groups(form), state_before(form)
    batch_of, units_of = field("BATCH"), field("UNITS")
    capacity_of, mask_of, activation_of = field("CAPACITY"), field("MASK"), field("ACTIVATION")
    carry_of, d_relevant = field("CARRY"), field("D_RELEVANT")
    d_hidden, d_update, d_reset, d_candidate = (
        field(f"D_{name}") for name in ("HIDDEN", "UPDATE", "RESET", "CANDIDATE")
    )
    back_past, back_relevant, zeros = field("BACK_PAST"), field("BACK_RELEVANT"), field("SUMS")
    (update_kind, update_pin), (reset_kind, reset_pin), (factor_kind, factor_of) = (
        spread_reader(form, name) for name in ("PIN_UPDATE", "PIN_RESET", "FACTOR")
    )
    write_of = field("WRITE")

    @kernel_function
    def cells_back(p, t, begins, gradients, low, high, from_group, to_group, update, reset, candidate, kept):
        batch, units, mask, groups, number = batch_of(p), units_of(p), mask_of(p), groups_of(p), activation_of(p)
        h_prev, group_bytes = before(p, t, begins), capacity_of(p) * row_bytes
        at_hidden, at_update, at_reset, at_candidate = d_hidden(p), d_update(p), d_reset(p), d_candidate(p)
        pinned_update, pinned_reset, factored, scale = update_kind(p), reset_kind(p), factor_kind(p), write_of(p)
        steered = pinned_update != 0 or pinned_reset != 0 or factored != 0 or scale != 0
        for b in range(low, high):
            here = t * batch + b
            masked = mask != 0 and get_byte(mask + here) == 0
            offset, at = (here * units + from_group * lanes) * size, h_prev + (b * units + from_group * lanes) * size
            carry = carry_of(p) + (b * groups + from_group) * vector
            row = gradients + (b - low) * row_bytes + from_group * group_bytes
            for group in range(from_group, to_group):
                used = units - group * lanes
                if masked:
                    pass_by(row, carry, at_hidden, offset, used)
                elif steered:
                    steered_cell(
                        offset, carry, at_hidden, at_update, at_reset, at_candidate, update, reset, candidate, kept,
                        at, row, number, update_pin(p, t, b, group * lanes), pinned_update,
                        reset_pin(p, t, b, group * lanes), pinned_reset, scale,
                        factor_of(p, t, b, group * lanes), factored, used,
                    )  # fmt: skip
                else:
                    cell(
                        offset, carry, at_hidden, at_update, at_reset, at_candidate, update, reset, candidate, kept,
                        at, row, number, used,
                    )  # fmt: skip
                offset += vector
                carry += vector
                row += group_bytes
                at += vector

    @kernel_function
    def relevant_back(p, t, begins, gradients, low, high, from_panel, to_panel, reset):
        batch, units, mask, groups = batch_of(p), units_of(p), mask_of(p), groups_of(p)
        h_prev, group_bytes, kind = before(p, t, begins), capacity_of(p) * row_bytes, reset_kind(p)
        product(
            high - low, gradients + relevant_at * vector, row_bytes, group_bytes, groups, n_relevant * lanes,
            back_relevant(p), from_panel, to_panel, groups, zeros(p), 0,
            d_relevant(p) + low * groups * vector, groups * vector,
        )  # fmt: skip
        for b in range(low, high):
            here = t * batch + b
            if mask != 0 and get_byte(mask + here) == 0:
                continue
            for group in range(from_panel * PLAIN, min(to_panel * PLAIN, groups)):
                place = (b * groups + group) * vector
                relevant_cell(
                    (here * units + group * lanes) * size, d_relevant(p) + place, carry_of(p) + place,
                    gradients + (b - low) * row_bytes + group * group_bytes, d_reset(p), reset,
                    h_prev + (b * units + group * lanes) * size, reset_pin(p, t, b, group * lanes), kind,
                    units - group * lanes,
                )  # fmt: skip

    @kernel_function
    def past_back(p, gradients, low, high, from_panel, to_panel):
        groups = groups_of(p)
        carries = carry_of(p) + low * groups * vector
        product(
            high - low, gradients + past_at * vector, row_bytes, capacity_of(p) * row_bytes, groups, n_past * lanes,
            back_past(p), from_panel, to_panel, groups, carries, groups * vector, carries, groups * vector,
        )  # fmt: skip

    return _StepBack(cells_back, relevant_back, past_back)


def _pass_by(form: Format, width: int) -> Any:
    """A step that is not there: no gradients of its sums; carry += what arrives at its state."""

    @used_code(form, 4)
    def pass_by(code: Code, row: Any, carry: Any, arrived: Any, offset: Any) -> None:
        for v in range(width):
            code.store(code.constant(0.0), row, v * form.lanes)
        with code.when(arrived):
            code.store(code.load(carry) + code.load_used(code.builder.add(arrived, offset)), carry)

    return pass_by
