"""Poison: what a backend forgets to write must be seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.contract.cases import SMALL, SystemCase, draw
from tidegate.ops import BACKENDS

memory: Any = torch.utils.deterministic  # a module whose one setting its types do not tell


@contextmanager
def poison() -> Iterator[None]:
    """Memory that torch allocates and does not fill holds NaN (the largest number, for integers) while this lasts.

    That is what `torch.empty` and its relatives give, in Python and in C++. A backend whose buffers torch does not
    allocate (NumPy's, a compiler's scratch memory, a kernel's own) must poison those itself: here, in its own `with`.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill


@pytest.fixture(autouse=True)
def only_what_a_backend_has(request: pytest.FixtureRequest) -> None:
    """A system that a backend does not have, and says so, is skipped there with what it says."""
    parameters = getattr(request.node, "callspec", None)
    case, backend = (None if parameters is None else parameters.params.get(name) for name in ("case", "backend"))
    if isinstance(case, SystemCase) and isinstance(backend, str):
        reason = BACKENDS[backend].unsupported(draw(case, SMALL).call())
        if reason is not None and f'the system "{case.system}"' in reason:
            pytest.skip(f"{backend}: {reason}")


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Every test of the contract runs under `poison`."""
    with poison():
        yield
