"""The elementwise part of a step and of its gradient, for one vector of units of one sequence: `equations.py` again.

Each function here writes vector code for one system; what it makes takes the arguments that it names, and how many
lanes are used. `past` and `inputs` are the sums of the two products of the step, in the order that `Layout` gives them.
To add a cell, add its layout, and what it does differently here.

The gradients, with `d` what arrives at a(t) and g' the slope of the activation at ã(t):

    dã = d*Gu     dGu = d*(ã - a(t-1))     da(t-1) = d*(1-Gu), and what the products give back
    at the candidate's sum c = dã*g'    at its past c*Gr    dGr = c*past    at a gate's sum G*(1-G)*dG
"""

from typing import Any

from tidegate.conventions import Block
from tidegate.ops.cpu.functions import activation, activation_slope, sigmoid
from tidegate.ops.cpu.layout import Layout
from tidegate.ops.cpu.vector import Code, Format, Vector, used_code

__all__ = ["cell", "cell_gradient", "relevant_past", "relevant_past_gradient"]


def _add(code: Code, address: Any, offset: Any) -> Any:
    return code.builder.add(address, offset)


def _where_free(code: Code, free: Vector, pin: Any, kind: Any, *, pinned: float | None = None) -> Vector:
    """`free`, but where the pin is a number that number, or `pinned`; `kind` tells how the pin lies in memory."""

    def with_pin(value: Vector) -> Vector:
        return code.where(code.compare(value, "uno", value), free, value if pinned is None else pinned)

    return code.choose(
        kind, {0: lambda: free, 1: lambda: with_pin(code.load_used(pin)), 2: lambda: with_pin(code.spread(pin))}
    )


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


def cell(layout: Layout, form: Format) -> Any:
    """The step once its products are there. With a `relevant` product, that is the second one, and `past` holds it.

    Arguments: addresses of `past`, `inputs`, `h_prev` and (there) the update gate; the offset in the tensors that go
    and these tensors; the pins of update and reset with their kinds; the activation.
    """
    gates = set(layout.inputs)

    @used_code(form, 15)
    def step(
        code: Code, past: Any, inputs: Any, h_prev: Any, own_update: Any, offset: Any,
        hidden: Any, update: Any, reset: Any, candidate: Any, kept: Any,
        pin_update: Any, update_kind: Any, pin_reset: Any, reset_kind: Any, number: Any,
    ) -> None:  # fmt: skip
        def taken(name: Block) -> Vector:
            return code.load(inputs, layout.inputs.index(name) * form.lanes)

        def carried(name: Block) -> Vector:
            return code.load(past, layout.past.index(name) * form.lanes)

        before = code.load_used(h_prev)
        write, look = code.constant(1.0), code.constant(1.0 if layout.past else 0.0)
        if layout.relevant:
            write, total = code.load(own_update), taken("candidate") + code.load(past)
        else:
            if "update" in gates:
                write = sigmoid(code, taken("update") + carried("update"))
            if "reset" in gates:
                look = sigmoid(code, taken("reset") + carried("reset"))
            write = _where_free(code, write, pin_update, update_kind)
            total = taken("candidate")
            if layout.past:
                look = _where_free(code, look, pin_reset, reset_kind)
                from_past = carried("candidate")
                whole = code.fma(look, from_past, total)
                total = code.where(code.compare(look, "==", 0.0), total, whole)
                _store_if(code, from_past, kept, offset)
            _store_if(code, look, reset, offset)
        new = activation(code, number, total)
        _store_if(code, _blend(code, write, new, before), hidden, offset)
        _store_if(code, write, update, offset)
        _store_if(code, new, candidate, offset)

    return step


def relevant_past(layout: Layout, form: Format) -> Any:
    """The gates of a system that resets before its product, once the first product is there, and `Gr*a(t-1)`.

    Arguments: addresses of `past`, `inputs`, `h_prev`; where `Gr*a(t-1)` and the update gate go (whole vectors); the
    offset in `reset`, and `reset`; the pins with their kinds.
    """

    @used_code(form, 11)
    def step(
        code: Code, past: Any, inputs: Any, h_prev: Any, relevant: Any, own_update: Any, offset: Any, reset: Any,
        pin_update: Any, update_kind: Any, pin_reset: Any, reset_kind: Any,
    ) -> None:  # fmt: skip
        def gate(name: Block) -> Vector:
            from_past = code.load(past, layout.past.index(name) * form.lanes)
            return sigmoid(code, from_past + code.load(inputs, layout.inputs.index(name) * form.lanes))

        look = _where_free(code, gate("reset"), pin_reset, reset_kind)
        code.store(_where_free(code, gate("update"), pin_update, update_kind), own_update)
        kept = code.where(code.compare(look, "==", 0.0), 0.0, look * code.load_used(h_prev))
        code.store(kept, relevant)
        _store_if(code, look, reset, offset)

    return step


def cell_gradient(layout: Layout, form: Format) -> Any:
    """The gradients of one step's sums, and what of the state's gradient passes by the products.

    Arguments: the offset in the tensors; what arrives: the addresses of `carry` (a row of its own) and of the four
    `d_…`; the gates, the candidate, its past; the address of `h_prev`; the pins with their kinds; where the row of
    gradients goes; the activation.
    """
    gates = set(layout.inputs)

    @used_code(form, 17)
    def step(
        code: Code, offset: Any, carry: Any, d_hidden: Any, d_update: Any, d_reset: Any, d_candidate: Any,
        update: Any, reset: Any, candidate: Any, kept: Any, h_prev: Any,
        pin_update: Any, update_kind: Any, pin_reset: Any, reset_kind: Any, row: Any, number: Any,
    ) -> None:  # fmt: skip
        arrived = code.load(carry) + _load_if(code, d_hidden, offset, 0.0)
        write = _load_if(code, update, offset, 1.0)
        new = code.load_used(_add(code, candidate, offset))
        code.store(arrived * (1.0 - write), carry)
        d_new = arrived * write + _load_if(code, d_candidate, offset, 0.0)
        total = d_new * activation_slope(code, number, new)
        at = {name: 1 + i for i, name in enumerate(layout.inputs)}
        code.store(total, row, at["candidate"] * form.lanes)
        if "update" in gates:
            limits = code.builder.or_(code.compare(write, "==", 0.0), code.compare(write, "==", 1.0))
            of_blend = code.where(limits, 0.0, arrived * (new - code.load_used(h_prev)))
            arrived_there = of_blend + _load_if(code, d_update, offset, 0.0)
            gradient = _where_free(code, arrived_there, pin_update, update_kind, pinned=0.0)
            code.store(gradient * write * (1.0 - write), row, at["update"] * form.lanes)
        if layout.relevant or not layout.past:
            code.store(total, row)
            return
        look = _load_if(code, reset, offset, 1.0)
        nothing = code.compare(look, "==", 0.0)
        code.store(code.where(nothing, 0.0, total * look), row)
        if "reset" in gates:
            of_past = code.where(nothing, 0.0, total * code.load_used(_add(code, kept, offset)))
            arrived_there = of_past + _load_if(code, d_reset, offset, 0.0)
            gradient = _where_free(code, arrived_there, pin_reset, reset_kind, pinned=0.0)
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
