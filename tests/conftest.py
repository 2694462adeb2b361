"""What all tests share: shapes in signatures are checked as they run, Hypothesis draws the same examples everywhere."""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

import tests.typechecker  # noqa: F401 - found by name below

# Before anything imports tidegate: every annotated function then checks the shapes it is given and gives.
jaxtyping.install_import_hook("tidegate", "tests.typechecker.checked")

import torch  # noqa: E402

torch.set_num_threads(1)  # pytest runs on every core already

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)


@pytest.fixture
def as_users_run_it() -> Iterator[None]:
    """Without the run-time check of annotations, which only the tests have: what remains is our own sentence."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-browser", action="store_true", help="fail, rather than skip, where Chromium is missing")
    parser.addoption(
        "--require-frameworks", action="store_true", help="fail, rather than skip, without Keras and others"
    )
    parser.addoption("--require-ray", action="store_true", help="fail, rather than skip, without Ray")


@pytest.fixture(scope="session")
def chromium_path(request: pytest.FixtureRequest) -> str:
    """The path of Debian's Chromium, for Playwright."""
    path = shutil.which("chromium")
    if path is None:
        missing = "Chromium is not installed (Debian: apt-get install chromium)"
        if request.config.getoption("--require-browser"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.fixture(scope="module")  # two of Playwright's at once, in one process, are an error
def browser(chromium_path: str) -> Iterator["Browser"]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - few tests need it

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
