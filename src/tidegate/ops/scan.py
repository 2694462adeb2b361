"""The reference's loop as one operator, for a program whose sequences have no known length: `torch.export`'s.

A loop in Python is as long as the example that it was exported with. Here one step is exported, and PyTorch's own
`scan` repeats it; what runs the program needs no Tidegate.
"""

import importlib
from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from tidegate.errors import BackendError
from tidegate.ops.call import Call, Steps

__all__ = ["needed", "run"]

#: What is cut into steps, and what every step is given whole; anything else that a call may hold must be left out.
_CUT, _WHOLE = ("x", "mask", "pins"), ("system", "h_0", "weights", "activation", "reverse", "gates", "recompute")


def needed(call: Call) -> bool:
    """Whether the number of steps is a symbol of a program that is being exported."""
    return torch.compiler.is_compiling() and isinstance(call.x.shape[0], torch.SymInt)


def run(call: Call, h_0: Tensor, run_one: Callable[[Call], Steps]) -> Steps:
    """Run the sequence from `h_0` by `scan`, each step by `run_one`."""
    for field in fields(call):
        if field.name not in (*_CUT, *_WHOLE) and getattr(call, field.name) != field.default:
            raise BackendError(f"a sequence of no known length cannot be exported with {field.name}")
    steps = call.x.shape[0]
    given = {"x": call.x, "mask": call.mask, "update": call.pins.update, "reset": call.pins.reset}
    cut = {name: one.expand(steps, *one.shape[1:]) for name, one in given.items() if one is not None}

    def step(h_prev: Tensor, now: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        here = {name: one.unsqueeze(0) for name, one in now.items()}
        pins = call.pins._replace(update=here.get("update"), reset=here.get("reset"))
        one = replace(call, x=here["x"], h_0=h_prev, mask=here.get("mask"), pins=pins, reverse=False)
        taken = [value[0] for value in run_one(one) if value is not None]
        return taken[0], [value.clone() for value in taken]  # scan takes no two names of one tensor

    scan = importlib.import_module("torch._higher_order_ops.scan").scan  # not sooner: it loads PyTorch's compiler
    _, taken = scan(step, h_0, cut, reverse=call.reverse)
    return Steps(*taken)
