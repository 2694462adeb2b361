"""These tests run Keras, Flax and Equinox themselves; without them they are skipped, or fail where they must run."""

import importlib.util
from pathlib import Path

import pytest

PACKAGES = ("keras", "flax", "equinox", "h5py")
ABSENT = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
MESSAGE = f"not installed: {', '.join(ABSENT)} (make test-frameworks installs them)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test of this folder has the marker."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.frameworks)


@pytest.fixture(autouse=True)
def _frameworks_are_there(request: pytest.FixtureRequest) -> None:
    if ABSENT and request.config.getoption("--require-frameworks"):
        pytest.fail(MESSAGE)
    if ABSENT:
        pytest.skip(MESSAGE)
