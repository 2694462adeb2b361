"""The documentation is true: every Python example runs, every link inside the project leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_in_order(page):
    names: dict[str, object] = {}
    text = page.read_text(encoding="utf-8")
    for example in EXAMPLE.finditer(text):
        line = text[: example.start()].count("\n") + 1
        exec(compile("\n" * line + example[1], str(page), "exec"), names)


def test_the_pages_that_promise_examples_have_them():
    for name in ("README.md", "docs/equations.md", "docs/gates.md"):
        assert EXAMPLE.search((ROOT / name).read_text(encoding="utf-8")), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
