"""The one place that chooses a backend: `auto` takes the fastest that can, any other name is honoured or raises."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from tidegate.errors import BackendError
from tidegate.ops import cpu, reference
from tidegate.ops.call import Call, Steps

__all__ = ["BACKENDS", "Choice", "Stepper", "check_backend", "choose", "run", "stepper"]

#: Every backend by its name, the fastest first: a module with `unsupported(call)`, a sentence or None, `run(call)`, and
#: `remark(call)`, what its user should know, or None, and `Stepper(calls)`, for one step of a stack at a time.
BACKENDS: dict[str, ModuleType] = {"cpu": cpu, "reference": reference}


class Choice(NamedTuple):
    """Which backend runs a call, and why."""

    backend: str
    reason: str


def check_backend(backend: str) -> None:
    """Raise `BackendError` unless `backend` is "auto" or one that this version has."""
    if backend not in ("auto", *BACKENDS):
        known = ", ".join(f'"{name}"' for name in ["auto", *BACKENDS])
        raise BackendError(f"backend must be one of {known} in this version; got {backend!r}")


def choose(call: Call, backend: str = "auto") -> Choice:
    """The backend for `call`; raises `BackendError` with the reason where a named one cannot run it."""
    check_backend(backend)
    if backend != "auto":
        reason = BACKENDS[backend].unsupported(call)
        if reason is not None:
            raise BackendError(f'backend "{backend}" cannot run this layer: {reason}')
        return Choice(backend, _with_remark("it was asked for", backend, call))
    refusals: list[str] = []
    for name, module in BACKENDS.items():
        reason = module.unsupported(call)
        if reason is None:
            own = _with_remark(f"{name} is the fastest backend that runs this layer here", name, call)
            return Choice(name, "; ".join([*refusals, own]))
        refusals.append(f"not {name}: {reason}")
    raise BackendError(f"no backend can run this layer: {'; '.join(refusals)}")


@runtime_checkable
class Stepper(Protocol):
    """A stack of layers that takes one step at a time."""

    #: (B, I), filled by the caller before each step.
    x: Tensor
    #: (B, H) each: where the last layer's state is found after a step.
    outputs: tuple[Tensor, ...]
    #: (L, B, H), the states of all layers.
    state: Tensor

    def step(self) -> int:
        """Take one step from `x`; the number of the output that holds the result."""


def stepper(calls: Sequence[Call], backend: str = "auto") -> Stepper:
    """The stack told by one call of one step for each layer, on the fastest backend that can run all of them."""
    choices = {choose(call, backend).backend for call in calls}
    name = max(choices, key=list(BACKENDS).index)
    made: Stepper = BACKENDS[name].Stepper(calls)
    return made


def _with_remark(reason: str, backend: str, call: Call) -> str:
    remark = BACKENDS[backend].remark(call)
    return reason if remark is None else f"{reason}; {remark}"


def run(call: Call, backend: str = "auto") -> Steps:
    """Run `call` on the backend that `choose` takes."""
    steps: Steps = BACKENDS[choose(call, backend).backend].run(call)
    return steps
