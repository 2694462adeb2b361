"""Poison: what a backend forgets to write must be seen."""

import pytest


@pytest.fixture(autouse=True)
def poisoned() -> None:
    """Where a backend's output buffers get filled with NaN; the reference allocates none by hand, so none are yet."""
