"""What all tests share: shapes in signatures are checked as they run, and Hypothesis draws the same examples everywhere."""

import os

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Before anything imports tidegate: every annotated function then checks the shapes it is given and gives.
install_import_hook("tidegate", "beartype.beartype")

import torch  # noqa: E402

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)
