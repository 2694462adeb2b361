"""The elementwise part of a step and of its gradient, vector by vector of units: `equations.py` again.

Each function here writes vector code for one system; what it makes takes the arguments that it names, and how many
lanes are used. `past` and `inputs` are the sums of the two products of the step, in the order that `Layout` gives them.
To add a cell, add its layout, and what it does differently here.

The gradients, with `d` what arrives at a(t) and g' the slope of the activation at ã(t):

    dã = d*Gu     dGu = d*(ã - a(t-1))     da(t-1) = d*(1-Gu), and what the products give back
    at the candidate's sum c = dã*g'    at its past c*Gr    dGr = c*past    at a gate's sum G*(1-G)*dG

With a factor m on the candidate, ã is what is blended: at its sum m*dã*g', with the slope at ã/m. With a scale s of the
update gate, Gu is the scaled one: at its sum Gu*(1-Gu/s)*dGu.
"""

from typing import Any

from tidegate.conventions import Block
from tidegate.ops.cpu.functions import activation, activation_slope, sigmoid
from tidegate.ops.cpu.layout import Layout
from tidegate.ops.cpu.vector import INT, Code, Format, Vector, used_code

__all__ = ["cell", "cell_gradient", "relevant_past", "relevant_past_gradient"]

#: How many arguments steer a cell.
_STEERING = 7


def _add(code: Code, address: Any, offset: Any) -> Any:
    return code.builder.add(address, offset)


def _where_free(code: Code, free: Vector, pin: Any, kind: Any, *, pinned: float | None = None) -> Vector:
    """`free`, but where the pin is a number that number, or `pinned`; `kind` tells how the pin lies in memory."""

    def with_pin(value: Vector) -> Vector:
        return code.where(code.compare(value, "uno", value), free, value if pinned is None else pinned)

    return code.choose(
        kind, {0: lambda: free, 1: lambda: with_pin(code.load_used(pin)), 2: lambda: with_pin(code.spread(pin))}
    )


def _times(code: Code, value: Vector, factor: Any, kind: Any) -> Vector:
    """The value times the factor; `kind` tells how that lies in memory."""
    return code.choose(
        kind,
        {0: lambda: value, 1: lambda: value * code.load_used(factor), 2: lambda: value * code.spread(factor)},
    )


def _scaled(code: Code, gate: Vector, scale: Any) -> Vector:
    """The gate times the number with the bits `scale`, or as it is where these are 0."""
    return code.choose(scale, {0: lambda: gate, 1: lambda: gate * code.number(scale)})


def _store_if(code: Code, vector: Vector, tensor: Any, offset: Any) -> None:
    """Store where the tensor is wanted."""
    with code.when(tensor):
        code.store_used(vector, _add(code, tensor, offset))


def _load_if(code: Code, tensor: Any, offset: Any, otherwise: float) -> Vector:
    """Load where the tensor is there."""
    return code.choose(
        tensor, {0: lambda: code.constant(otherwise), 1: lambda: code.load_used(_add(code, tensor, offset))}
    )


def _blend(code: Code, update: Vector, candidate: Vector, h_prev: Vector) -> Vector:
    """`equations.blend`: at 0 and 1 one side passes, whatever the other holds."""
    mixed = code.fma(update, candidate, (1.0 - update) * h_prev)
    one = code.where(code.compare(update, "==", 1.0), candidate, mixed)
    return code.where(code.compare(update, "==", 0.0), h_prev, one)


def _where_used(code: Code, look: Vector, from_past: Vector, total: Vector) -> Vector:
    """`total + look*from_past`; where `look` is 0, whatever the past holds is not used."""
    return code.where(code.compare(look, "==", 0.0), total, code.fma(look, from_past, total))


def cell(layout: Layout, form: Format, rows: int, *, steered: bool = False) -> Any:
    """The step of so many rows, once its products are there: with a `relevant` product, when the second is, in `past`.

    With several rows a processor has work while it waits for one row's numbers; only one at a time can be `steered`.

    Arguments: addresses of `past`, `inputs`, `h_prev` and (there) the update gate, and the bytes from row to row of
    the last three; the offset in the tensors that go and these tensors; the activation; and where steered, the pins of
    update and reset with their kinds, the bits of what scales the update gate, the candidate's factor with its kind.
    """
    gates = set(layout.inputs)
    past_row = len(layout.relevant or layout.past) * form.lanes

    @used_code(form, 21 if steered else 14)
    def step(
        code: Code, past: Any, inputs: Any, inputs_row: Any, h_prev: Any, row: Any, own_update: Any, own_row: Any,
        offset: Any, hidden: Any, update: Any, reset: Any, candidate: Any, kept: Any, number: Any, *steering: Any,
    ) -> None:  # fmt: skip
        pin_update, update_kind, pin_reset, reset_kind, scale, factor, factor_kind = steering or [None] * _STEERING

        def of_row(first: Any, bytes_from_row: Any, m: int) -> Any:
            return _add(code, first, code.builder.mul(bytes_from_row, INT(m))) if m else first

        def taken(m: int, name: Block) -> Vector:
            return code.load(of_row(inputs, inputs_row, m), layout.inputs.index(name) * form.lanes)

        def carried(m: int, name: Block) -> Vector:
            return code.load(past, m * past_row + layout.past.index(name) * form.lanes)

        def free(gate: Vector, pin: Any, kind: Any) -> Vector:
            return _where_free(code, gate, pin, kind) if steered else gate

        every = range(rows)
        before = [code.load_used(of_row(h_prev, row, m)) for m in every]
        write, look = [code.constant(1.0)] * rows, [code.constant(1.0 if layout.past else 0.0)] * rows
        from_past: list[Vector] = []
        if layout.relevant:
            write = [code.load(of_row(own_update, own_row, m)) for m in every]
            total = [taken(m, "candidate") + code.load(past, m * past_row) for m in every]
        else:
            if "update" in gates:
                write = [sigmoid(code, taken(m, "update") + carried(m, "update")) for m in every]
                write = [_scaled(code, gate, scale) for gate in write] if steered else write
            if "reset" in gates:
                look = [sigmoid(code, taken(m, "reset") + carried(m, "reset")) for m in every]
            write = [free(gate, pin_update, update_kind) for gate in write]
            total = [taken(m, "candidate") for m in every]
            if layout.past:
                look = [free(gate, pin_reset, reset_kind) for gate in look]
                from_past = [carried(m, "candidate") for m in every]
                total = [_where_used(code, *one) for one in zip(look, from_past, total, strict=True)]
        new = activation(code, number, total)
        if steered:
            new = [_times(code, value, factor, factor_kind) for value in new]
        state = [_blend(code, *one) for one in zip(write, new, before, strict=True)]
        looked = [] if layout.relevant else look
        told = (state, hidden), (write, update), (looked, reset), (new, candidate), (from_past, kept)
        for vectors, tensor in told:
            if vectors:
                with code.when(tensor):
                    for m, vector in enumerate(vectors):
                        code.store_used(vector, _add(code, tensor, of_row(offset, row, m)))

    return step


def relevant_past(layout: Layout, form: Format, *, steered: bool = False) -> Any:
    """The gates of a system that resets before its product, once the first product is there, and `Gr*a(t-1)`.

    Arguments: addresses of `past`, `inputs`, `h_prev`; where `Gr*a(t-1)` and the update gate go (whole vectors); the
    offset in `reset`, and `reset`; where steered, the pins with their kinds, and the bits that scale the update gate.
    """

    @used_code(form, 12 if steered else 7)
    def step(
        code: Code, past: Any, inputs: Any, h_prev: Any, relevant: Any, own_update: Any, offset: Any, reset: Any,
        *steering: Any,
    ) -> None:  # fmt: skip
        def gate(name: Block) -> Vector:
            from_past = code.load(past, layout.past.index(name) * form.lanes)
            return sigmoid(code, from_past + code.load(inputs, layout.inputs.index(name) * form.lanes))

        look, write = gate("reset"), gate("update")
        if steered:
            pin_update, update_kind, pin_reset, reset_kind, scale = steering
            look = _where_free(code, look, pin_reset, reset_kind)
            write = _where_free(code, _scaled(code, write, scale), pin_update, update_kind)
        code.store(write, own_update)
        kept = code.where(code.compare(look, "==", 0.0), 0.0, look * code.load_used(h_prev))
        code.store(kept, relevant)
        _store_if(code, look, reset, offset)

    return step


def _before_factor(code: Code, d_new: Vector, new: Vector, factor: Any, kind: Any) -> list[Vector]:
    """The gradient of a candidate and its value, before it was multiplied with its factor."""

    def before(times: Vector) -> list[Vector]:
        return [d_new * times, code.where(code.compare(times, "==", 0.0), 0.0, new / times)]

    return code.choose_each(
        kind,
        {0: lambda: [d_new, new], 1: lambda: before(code.load_used(factor)), 2: lambda: before(code.spread(factor))},
    )


def cell_gradient(layout: Layout, form: Format, *, steered: bool = False) -> Any:
    """The gradients of one step's sums, and what of the state's gradient passes by the products.

    Arguments: the offset in the tensors; what arrives: the addresses of `carry` (a row of its own) and of the four
    `d_…`; the gates, the candidate, its past; the address of `h_prev`; where the row of gradients goes; the
    activation; and where steered, what a steered cell takes.
    """
    gates = set(layout.inputs)

    @used_code(form, 20 if steered else 13)
    def step(
        code: Code, offset: Any, carry: Any, d_hidden: Any, d_update: Any, d_reset: Any, d_candidate: Any,
        update: Any, reset: Any, candidate: Any, kept: Any, h_prev: Any, row: Any, number: Any, *steering: Any,
    ) -> None:  # fmt: skip
        pin_update, update_kind, pin_reset, reset_kind, scale, factor, factor_kind = steering or [None] * _STEERING

        def unless_forced(gradient: Vector, pin: Any, kind: Any) -> Vector:
            return _where_free(code, gradient, pin, kind, pinned=0.0) if steered else gradient

        arrived = code.load(carry) + _load_if(code, d_hidden, offset, 0.0)
        write = _load_if(code, update, offset, 1.0)
        new = code.load_used(_add(code, candidate, offset))
        code.store(arrived * (1.0 - write), carry)
        d_new = arrived * write + _load_if(code, d_candidate, offset, 0.0)
        activated = new
        if steered:
            d_new, activated = _before_factor(code, d_new, new, factor, factor_kind)
        total = d_new * activation_slope(code, number, activated)
        at = {name: 1 + i for i, name in enumerate(layout.inputs)}
        code.store(total, row, at["candidate"] * form.lanes)
        if "update" in gates:
            limits = code.builder.or_(code.compare(write, "==", 0.0), code.compare(write, "==", 1.0))
            of_blend = code.where(limits, 0.0, arrived * (new - code.load_used(h_prev)))
            arrived_there = of_blend + _load_if(code, d_update, offset, 0.0)
            gradient = unless_forced(arrived_there, pin_update, update_kind)
            unscaled = write
            if steered:
                unscaled = code.choose(scale, {0: lambda: write, 1: lambda: write / code.number(scale)})
            code.store(gradient * write * (1.0 - unscaled), row, at["update"] * form.lanes)
        if layout.relevant or not layout.past:
            code.store(total, row)
            return
        look = _load_if(code, reset, offset, 1.0)
        nothing = code.compare(look, "==", 0.0)
        code.store(code.where(nothing, 0.0, total * look), row)
        if "reset" in gates:
            of_past = code.where(nothing, 0.0, total * code.load_used(_add(code, kept, offset)))
            arrived_there = of_past + _load_if(code, d_reset, offset, 0.0)
            gradient = unless_forced(arrived_there, pin_reset, reset_kind)
            code.store(gradient * look * (1.0 - look), row, at["reset"] * form.lanes)

    return step


def relevant_past_gradient(layout: Layout, form: Format) -> Any:
    """What the gradient of `Gr*a(t-1)`, back from the second product, is to the reset gate and to a(t-1).

    Arguments: the offset in the tensors; `d_relevant`, `carry` and the row of gradients (rows of their own); the
    tensors `d_reset` and `reset`; the address of `h_prev`; the pin with its kind.
    """

    @used_code(form, 9)
    def step(
        code: Code, offset: Any, d_relevant: Any, carry: Any, row: Any, d_reset: Any, reset: Any, h_prev: Any,
        pin_reset: Any, reset_kind: Any,
    ) -> None:  # fmt: skip
        arrived, look = code.load(d_relevant), code.load_used(_add(code, reset, offset))
        nothing = code.compare(look, "==", 0.0)
        code.store(code.load(carry) + code.where(nothing, 0.0, arrived * look), carry)
        of_product = code.where(nothing, 0.0, arrived * code.load_used(h_prev))
        arrived_there = of_product + _load_if(code, d_reset, offset, 0.0)
        gradient = _where_free(code, arrived_there, pin_reset, reset_kind, pinned=0.0)
        at = 1 + layout.inputs.index("reset")
        code.store(gradient * look * (1.0 - look), row, at * form.lanes)

    return step
