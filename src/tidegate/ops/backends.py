"""The one place that chooses a backend: `auto` takes the fastest that can, any other name is honoured or raises."""

from types import ModuleType
from typing import NamedTuple

from tidegate.errors import BackendError
from tidegate.ops import cpu, reference
from tidegate.ops.call import Call, Steps

__all__ = ["BACKENDS", "Choice", "check_backend", "choose", "run"]

#: Every backend by its name, the fastest first: a module with `unsupported(call)`, a sentence or None, `run(call)`, and
#: `remark(call)`, what its user should know, or None.
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


def _with_remark(reason: str, backend: str, call: Call) -> str:
    remark = BACKENDS[backend].remark(call)
    return reason if remark is None else f"{reason}; {remark}"


def run(call: Call, backend: str = "auto") -> Steps:
    """Run `call` on the backend that `choose` takes."""
    steps: Steps = BACKENDS[choose(call, backend).backend].run(call)
    return steps
