"""The backward kernel: chunk by chunk from the last step to the first, each chunk in three phases.

In the first, every slice of the batch goes back through the chunk's steps: `cells` turns the gradient of the state into
those of the sums, and a product with the transposed weights carries it to the step before. The gradients of the sums
stay, for all the chunk's rows; in the second phase they become the gradient of the input, while the states and the
inputs that they belong to are laid out in columns; in the third, large products over all rows of the chunk add to the
gradients of the weights. Every sum runs in the same order however many threads there are.
"""

from typing import Any, no_type_check

from numba import njit
from numba.core import cgutils

from tidegate.ops.cpu import cells
from tidegate.ops.cpu.forward import step_functions
from tidegate.ops.cpu.layout import Layout
from tidegate.ops.cpu.memory import field, get_byte, read_number, write_number
from tidegate.ops.cpu.panels import PLAIN, transposed_packer, unpacker
from tidegate.ops.cpu.sharing import share
from tidegate.ops.cpu.tile import column_tile, row_product
from tidegate.ops.cpu.vector import INT, Code, Format, Vector, vector_code

__all__ = ["backward_kernel"]

#: Rows of gradients that the innermost cache holds for one vector of units.
_BLOCK = 128
#: Vectors of units whose gradients are summed in one go on their way to the state before and to the input.
_BLOCKS = 8


@no_type_check
def backward_kernel(layout: Layout, form: Format) -> Any:
    """The whole backward kernel: a Python function of the record's address, for Numba to compile."""
    lanes, size, rows_in_tile = form.lanes, form.size, form.rows
    vector, width = lanes * size, layout.width
    n_in, n_past, n_relevant = len(layout.inputs), len(layout.past), len(layout.relevant)
    past_at, relevant_at = layout.past_at, layout.relevant_at
    forward = step_functions(layout, form)
    pack_forward, inputs_forward, steps_forward = forward.pack, forward.inputs_of_chunk, forward.steps
    of_inputs, of_past, of_relevant = (
        (layout.blocks(names), layout.signs(names)) if names else ((0,), (1.0,))
        for names in (layout.inputs, layout.past, layout.relevant)
    )
    pack_in, unpack_in = transposed_packer(form, *of_inputs), unpacker(form, *of_inputs)
    pack_past, unpack_past = transposed_packer(form, *of_past), unpacker(form, *of_past)
    pack_relevant, unpack_relevant = transposed_packer(form, *of_relevant), unpacker(form, *of_relevant)
    in_blocks, in_signs = of_inputs
    past_blocks, past_signs = of_past
    relevant_blocks, relevant_signs = of_relevant
    product_1, product_2, product_3 = (row_product(form, vectors) for vectors in (1, 2, 3))
    over_rows_in = _over_rows(form, n_in, width)
    over_rows_past = _over_rows(form, n_past, width) if n_past else over_rows_in
    over_rows_relevant = _over_rows(form, n_relevant, width) if n_relevant else over_rows_in
    gradient_whole, gradient_part = (cells.cell_gradient(layout, form, partial=partial) for partial in (False, True))
    if n_relevant:
        relevant_whole, relevant_part = (
            cells.relevant_past_gradient(layout, form, partial=partial) for partial in (False, True)
        )
    else:
        relevant_whole = relevant_part = vector_code(10)(_nothing)
    zero, add_rows, read, write = _zero(form), _add_rows(form, width), read_number(form), write_number(form)
    columns_of_rows, store_columns = _columns(form), _store_part(form)
    steps_of, batch_of, inputs_of, units_of = field("STEPS"), field("BATCH"), field("INPUTS"), field("UNITS")
    chunk_of, slices_of, parts_of, reverse_of = field("CHUNK"), field("SLICES"), field("PARTS"), field("REVERSE")
    activation_of, counters_of, mask_of = field("ACTIVATION"), field("COUNTERS"), field("MASK")
    x_of, h_0_of, hidden_of = field("X"), field("H_0"), field("HIDDEN")
    weight_ih, weight_hh = field("WEIGHT_IH"), field("WEIGHT_HH")
    update_of, reset_of, candidate_of, kept_of = field("UPDATE"), field("RESET"), field("CANDIDATE"), field("PAST")
    pin_u, kind_u, step_u, row_u = (
        field(name) for name in ("PIN_UPDATE", "PIN_UPDATE_KIND", "PIN_UPDATE_STEP", "PIN_UPDATE_ROW")
    )
    pin_r, kind_r, step_r, row_r = (
        field(name) for name in ("PIN_RESET", "PIN_RESET_KIND", "PIN_RESET_STEP", "PIN_RESET_ROW")
    )
    d_hidden, d_update, d_reset, d_candidate = (
        field(name) for name in ("D_HIDDEN", "D_UPDATE", "D_RESET", "D_CANDIDATE")
    )
    d_x, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh = (
        field(name) for name in ("D_X", "D_WEIGHT_IH", "D_WEIGHT_HH", "D_BIAS_IH", "D_BIAS_HH")
    )
    carry_of, sums_of = field("CARRY"), field("SUMS")
    back_in, back_past, back_relevant = field("BACK_IN"), field("BACK_PAST"), field("BACK_RELEVANT")
    gradients_of, d_relevant = field("GRADIENTS"), field("D_RELEVANT")
    operand_x, operand_h, operand_q = field("OPERAND_X"), field("OPERAND_H"), field("OPERAND_Q")
    total_in, total_past, total_relevant = field("TOTAL_IN"), field("TOTAL_PAST"), field("TOTAL_RELEVANT")
    total_bias, recompute_of = field("TOTAL_BIAS"), field("RECOMPUTE")

    @njit
    def plain(wide, rows, a, a_row, a_block, blocks, depth, panel, init, init_row, out, out_row):
        # in parts of a few blocks: a sum of very many terms would lose more than sums of sums do
        for block in range(0, blocks, _BLOCKS):
            count = min(_BLOCKS, blocks - block)
            if wide == 3:
                product_3(rows, a, a_row, a_block, count, depth, panel, init, init_row, out, out_row)
            elif wide == 2:
                product_2(rows, a, a_row, a_block, count, depth, panel, init, init_row, out, out_row)
            else:
                product_1(rows, a, a_row, a_block, count, depth, panel, init, init_row, out, out_row)
            a += count * a_block
            panel += count * depth * wide * vector
            init, init_row = out, out_row

    @njit
    def through_weights(p, capacity, row, rows, first, vectors, panels, add, out, out_row):
        # `rows` rows of gradients, `vectors` of each from the one at `first` on, times transposed panels: (rows, units)
        units = units_of(p)
        groups = (units + lanes - 1) // lanes
        a = gradients_of(p) + (row * width + first) * vector
        for panel in range((groups + PLAIN - 1) // PLAIN):
            wide = min(PLAIN, groups - panel * PLAIN)
            at = panels + panel * PLAIN * vector * groups * vectors * lanes
            for r in range(0, rows, rows_in_tile):
                target = out + r * out_row + panel * PLAIN * vector
                plain(
                    wide, min(rows_in_tile, rows - r), a + r * width * vector, width * vector,
                    capacity * width * vector, groups, vectors * lanes, at,
                    target if add else zero_at(p), out_row if add else 0, target, out_row,
                )  # fmt: skip

    @njit
    def zero_at(p):
        return sums_of(p)  # the first vectors there stay zero

    @njit
    def pin_at(address, kind, step_stride, row_stride, t, b, unit):
        if kind == 0:
            return 0
        at = address + (t * step_stride + b * row_stride) * size
        return at + unit * size if kind == 1 else at

    @njit
    def steps_back(part, p, begin, end, base, capacity, update, reset, candidate, kept):
        batch, units, length, mask = batch_of(p), units_of(p), steps_of(p), mask_of(p)
        groups, slices, reverse, number = (units + lanes - 1) // lanes, slices_of(p), reverse_of(p), activation_of(p)
        low, high = batch * part // slices, batch * (part + 1) // slices
        at_hidden, at_update, at_reset, at_candidate = d_hidden(p), d_update(p), d_reset(p), d_candidate(p)
        pinned_update, pinned_reset = kind_u(p), kind_r(p)
        u_at = r_at = 0
        for s in range(end - 1, begin - 1, -1):
            t = length - 1 - s if reverse else s
            before = t + 1 if reverse else t - 1
            h_prev = h_0_of(p) if s == 0 else hidden_of(p) + before * batch * units * size
            for b in range(low, high):
                here = t * batch + b
                masked = mask != 0 and get_byte(mask + here) == 0
                offset = here * units * size
                carry = carry_of(p) + b * groups * vector
                row = gradients_of(p) + (here - base) * width * vector
                at = h_prev + b * units * size
                for group in range(groups):
                    used = min(lanes, units - group * lanes)
                    packed = (number << 32) | used
                    if pinned_update or pinned_reset:
                        u_at = pin_at(pin_u(p), pinned_update, step_u(p), row_u(p), t, b, group * lanes)
                        r_at = pin_at(pin_r(p), pinned_reset, step_r(p), row_r(p), t, b, group * lanes)
                    if masked:
                        for v in range(width):
                            zero(row + v * vector)
                        add_arrived(carry, at_hidden, offset, used)
                    elif used == lanes:
                        gradient_whole(
                            offset, carry, at_hidden, at_update, at_reset, at_candidate, update, reset, candidate, kept,
                            at, u_at, pinned_update, r_at, pinned_reset, row, packed,
                        )  # fmt: skip
                    else:
                        gradient_part(
                            offset, carry, at_hidden, at_update, at_reset, at_candidate, update, reset, candidate, kept,
                            at, u_at, pinned_update, r_at, pinned_reset, row, packed,
                        )  # fmt: skip
                    offset += vector
                    carry += vector
                    row += capacity * width * vector
                    at += vector
            first = t * batch + low - base
            carries = carry_of(p) + low * groups * vector
            if n_relevant:
                through_weights(
                    p, capacity, first, high - low, relevant_at, n_relevant, back_relevant(p), False,
                    d_relevant(p) + low * groups * vector, groups * vector,
                )  # fmt: skip
                for b in range(low, high):
                    here = t * batch + b
                    if mask != 0 and get_byte(mask + here) == 0:
                        continue
                    for group in range(groups):
                        used = min(lanes, units - group * lanes)
                        offset = (here * units + group * lanes) * size
                        row = gradients_of(p) + (group * capacity + here - base) * width * vector
                        r_at = pin_at(pin_r(p), kind_r(p), step_r(p), row_r(p), t, b, group * lanes)
                        at = h_prev + (b * units + group * lanes) * size
                        back = d_relevant(p) + (b * groups + group) * vector
                        carry = carry_of(p) + (b * groups + group) * vector
                        if used == lanes:
                            relevant_whole(offset, back, carry, row, d_reset(p), reset, at, r_at, kind_r(p), used)
                        else:
                            relevant_part(offset, back, carry, row, d_reset(p), reset, at, r_at, kind_r(p), used)
            if n_past:
                through_weights(
                    p, capacity, first, high - low, past_at, n_past, back_past(p), True, carries, groups * vector
                )

    add_whole, add_part = (_add_arrived(form, partial=partial) for partial in (False, True))

    @njit
    def add_arrived(carry, arrived, offset, used):
        if used == lanes:
            add_whole(carry, arrived, offset, used)
        else:
            add_part(carry, arrived, offset, used)

    @njit
    def inputs_back(p, low, high, base, capacity, part):
        # the gradient of the input, for these rows of the chunk
        depth = inputs_of(p)
        groups, vectors = (units_of(p) + lanes - 1) // lanes, (depth + lanes - 1) // lanes
        scratch = sums_of(p) + (4 + 4 * part * rows_in_tile) * vector
        for panel in range((vectors + PLAIN - 1) // PLAIN):
            wide = min(PLAIN, vectors - panel * PLAIN)
            at = back_in(p) + panel * PLAIN * vector * groups * n_in * lanes
            first = panel * PLAIN * lanes
            whole = first + wide * lanes <= depth
            for row in range(low, high, rows_in_tile):
                rows = min(rows_in_tile, high - row)
                a = gradients_of(p) + (row * width + 1) * vector
                target = d_x(p) + ((base + row) * depth + first) * size
                plain(
                    wide, rows, a, width * vector, capacity * width * vector, groups, n_in * lanes, at,
                    zero_at(p), 0, target if whole else scratch, depth * size if whole else wide * vector,
                )  # fmt: skip
                if not whole:
                    for m in range(rows):
                        for w in range(wide):
                            used = min(lanes, depth - first - w * lanes)
                            store_columns(
                                scratch + (m * wide + w) * vector, target + (m * depth + w * lanes) * size, used
                            )

    @njit
    def operands(p, low, high, base, capacity, reset):
        # the chunk's inputs and former states, in columns; what a masked step holds may be anything, and becomes 0
        batch, units, depth, length, mask = batch_of(p), units_of(p), inputs_of(p), steps_of(p), mask_of(p)
        first_step = length - 1 if reverse_of(p) else 0
        before = 1 if reverse_of(p) else -1
        for row in range(low, high):
            here = base + row
            masked = mask != 0 and get_byte(mask + here) == 0
            columns_of_rows(x_of(p) + here * depth * size, 0, operand_x(p), row, capacity, depth, masked)
            if n_past:
                if here // batch == first_step:
                    state = h_0_of(p) + here % batch * units * size
                else:
                    state = hidden_of(p) + (here + before * batch) * units * size
                columns_of_rows(state, 0, operand_h(p), row, capacity, units, masked)
                if n_relevant:
                    columns_of_rows(state, reset + here * units * size, operand_q(p), row, capacity, units, masked)

    @njit
    def weights_back(task, p, rows, capacity, begin_anew):
        group, which = task // 2, task % 2
        gradients = gradients_of(p) + group * capacity * width * vector
        if which == 0:
            over_rows_in(
                p, operand_x(p), inputs_of(p), rows, capacity, gradients + vector, total_in(p), group, begin_anew
            )
            add_rows(gradients, rows, total_bias(p) + group * 2 * width * vector)
        else:
            if n_past:
                at = gradients + past_at * vector
                over_rows_past(p, operand_h(p), units_of(p), rows, capacity, at, total_past(p), group, begin_anew)
            if n_relevant:
                at = gradients + relevant_at * vector
                over_rows_relevant(
                    p, operand_q(p), units_of(p), rows, capacity, at, total_relevant(p), group, begin_anew
                )

    @njit
    def bias_back(p, group, bias, first, blocks, signs):
        units = units_of(p)
        for v in range(len(blocks)):
            source = total_bias(p) + (group * 2 * width + first + v) * vector
            for lane in range(min(lanes, units - group * lanes)):
                value = read(source + lane * size) * signs[v]
                write(bias + (blocks[v] * units + group * lanes + lane) * size, value)

    @njit
    def unpack(group, p):
        units, depth = units_of(p), inputs_of(p)
        filled = (depth + rows_in_tile - 1) // rows_in_tile * rows_in_tile
        unpack_in(total_in(p) + group * filled * n_in * vector, depth, units, group, d_weight_ih(p))
        if d_bias_ih(p):
            bias_back(p, group, d_bias_ih(p), 1, in_blocks, in_signs)
        filled = (units + rows_in_tile - 1) // rows_in_tile * rows_in_tile
        if n_past:
            unpack_past(total_past(p) + group * filled * n_past * vector, units, units, group, d_weight_hh(p))
            if d_bias_hh(p):
                bias_back(p, group, d_bias_hh(p), past_at, past_blocks, past_signs)
        if n_relevant:
            unpack_relevant(
                total_relevant(p) + group * filled * n_relevant * vector, units, units, group, d_weight_hh(p)
            )
            if d_bias_hh(p):
                bias_back(p, group, d_bias_hh(p), relevant_at, relevant_blocks, relevant_signs)

    @njit
    def pack(task, p):
        units = units_of(p)
        groups = (units + lanes - 1) // lanes
        panels = (groups + PLAIN - 1) // PLAIN
        if task < panels:
            if n_past:
                pack_past(weight_hh(p), units, units, task, back_past(p))
            if n_relevant:
                pack_relevant(weight_hh(p), units, units, task, back_relevant(p))
        else:
            pack_in(weight_ih(p), inputs_of(p), units, task - panels, back_in(p))

    @njit
    def input_and_operands(task, p, parts, rows, base, capacity, reset):
        low, high = rows * task // parts, rows * (task + 1) // parts
        operands(p, low, high, base, capacity, reset)
        if d_x(p):
            inputs_back(p, low, high, base, capacity, task)

    @njit
    def from_here(p, tensor, base):
        # a tensor that holds one chunk only, as if it held all: its first row is the chunk's
        return tensor - base * units_of(p) * size if tensor else 0

    def backward(p):
        length, batch, counters, chunk = steps_of(p), batch_of(p), counters_of(p), chunk_of(p)
        groups, slices, parts = (units_of(p) + lanes - 1) // lanes, slices_of(p), parts_of(p)
        recompute, capacity = recompute_of(p), chunk * batch
        tasks = (groups + PLAIN - 1) // PLAIN
        if d_x(p):
            tasks += ((inputs_of(p) + lanes - 1) // lanes + PLAIN - 1) // PLAIN
        share(counters, 0, tasks, pack, (p,))
        phase = 1
        if recompute:
            share(counters, phase, groups, pack_forward, (p,))
            phase += 1
        for turn in range((length + chunk - 1) // chunk):
            end = length - turn * chunk
            begin = max(0, end - chunk)
            base = (length - end if reverse_of(p) else begin) * batch
            rows = (end - begin) * batch
            update, reset, candidate, kept = update_of(p), reset_of(p), candidate_of(p), kept_of(p)
            if recompute:
                update, reset = from_here(p, update, base), from_here(p, reset, base)
                candidate, kept = from_here(p, candidate, base), from_here(p, kept, base)
                share(counters, phase, parts, inputs_forward, (p, parts, rows, base))
                tensors = (0, update, reset, candidate, kept)
                share(counters, phase + 1, slices, steps_forward, (p, begin, end, base, *tensors))
                phase += 2
            states = (update, reset, candidate, kept)
            share(counters, phase, slices, steps_back, (p, begin, end, base, capacity, *states))
            share(counters, phase + 1, parts, input_and_operands, (p, parts, rows, base, capacity, reset))
            share(counters, phase + 2, 2 * groups, weights_back, (p, rows, capacity, turn == 0))
            phase += 3
        share(counters, phase, groups, unpack, (p,))

    return backward


@no_type_check
def _over_rows(form: Format, vectors: int, width: int) -> Any:
    """A kernel's function that adds to one panel of a weight's gradient the products over all rows of a chunk.

    The rows are taken in blocks whose gradients stay in the innermost cache while all columns meet them.
    """
    tile, rows_in_tile, size, together = column_tile(form, vectors), form.rows, form.size, form.together
    vector, sums_of = form.lanes * form.size, field("SUMS")

    @njit
    def over_rows(p, operand, depth, rows, capacity, gradients, totals, group, begin_anew):
        tiles = (depth + rows_in_tile - 1) // rows_in_tile
        out = totals + group * tiles * rows_in_tile * vectors * vector
        for row in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - row)
            for one in range(tiles):
                at = out + one * rows_in_tile * vectors * vector
                column = one * rows_in_tile
                anew = begin_anew and row == 0
                tile(
                    operand + ((column // together * capacity + row) * together + column % together) * size, count,
                    gradients + row * width * vector, width * vector,
                    sums_of(p) if anew else at, 0 if anew else vectors * vector, at, vectors * vector,
                )  # fmt: skip

    return over_rows


def _nothing(_builder: Any, *_arguments: Any) -> None:
    """Stands where a system has no such part."""


def _zero(form: Format) -> Any:
    @vector_code(1)
    def zero(builder: Any, target: Any) -> None:
        code = Code(builder, form)
        code.store(code.constant(0.0), target)

    return zero


def _store_part(form: Format) -> Any:
    """Copy the first `used` numbers of a vector to where memory may end behind them."""

    @vector_code(3)
    def store_part(builder: Any, source: Any, target: Any, used: Any) -> None:
        code = Code(builder, form, used)
        code.store_used(code.load(source), target)

    return store_part


def _add_arrived(form: Format, *, partial: bool) -> Any:
    """Carry += what arrives at the state of a step that is not there."""

    @vector_code(4)
    def add(builder: Any, carry: Any, arrived: Any, offset: Any, used: Any) -> None:
        code = Code(builder, form, used if partial else None)
        with code.when(arrived):
            code.store(code.load(carry) + code.load_used(builder.add(arrived, offset)), carry)

    return add


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
def _columns(form: Format) -> Any:
    """A kernel's function that puts a row (times another one, if given) into columns, `form.together` side by side."""
    size, together, lanes = form.size, form.together, form.lanes

    def make(partial: bool, with_factor: bool) -> Any:
        @vector_code(4)
        def put(builder: Any, source: Any, factor: Any, target: Any, used: Any) -> None:
            code = Code(builder, form, used if partial else None)
            numbers = code.load_used(source)
            if with_factor:
                factors = code.load_used(factor)
                numbers = code.where(code.compare(factors, "==", 0.0), 0.0, factors * numbers)
            code.store(numbers, target)

        return put

    copy, copy_part = make(False, False), make(True, False)
    product, product_part = make(False, True), make(True, True)
    zero = _zero(form)

    @njit
    def columns(source, factor, target, row, capacity, depth, masked):
        target += row * together * size
        for first in range(0, depth, lanes):
            used = depth - first
            at = target + (first // together * capacity * together + first % together) * size
            if masked:
                zero(at)
            elif factor and used >= lanes:
                product(source, factor, at, used)
            elif factor:
                product_part(source, factor, at, used)
            elif used >= lanes:
                copy(source, 0, at, used)
            else:
                copy_part(source, 0, at, used)
            source += lanes * size
            factor += lanes * size if factor else 0

    return columns
