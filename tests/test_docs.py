"""The documentation is true: every Python example runs, every link, file and target of make is there."""

import re
import shutil
import subprocess
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


# ---------------------------------------------------------------------------------------------------------------------
# Files and targets of make

FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
PATH = re.compile(r"(?<![\w./-])(?:tests|docs|src)/[\w./*-]*")
#: Where files and targets are named: the pages, and the comments of what is no page.
NAMING = [*PAGES, ROOT / "pyproject.toml", ROOT / "Makefile"]


def code_of(text: str) -> list[str]:
    """What a text sets in code: the lines of its fenced blocks, and its back-ticked words."""
    lines = [line for block in FENCED.finditer(text) for line in block[1].splitlines()]
    return lines + [" ".join(span[1].split()) for span in SPAN.finditer(FENCED.sub("", text))]


def missing_files(text: str) -> list[str]:
    """The files and folders of the project that `text` names in code and that are not there."""
    named = [path.rstrip(".") for code in code_of(text) for path in PATH.findall(code)]
    return [path for path in named if not any(ROOT.glob(path))]


def missing_targets(text: str) -> list[str]:
    """The targets that `text` has make called with and that the Makefile does not have."""
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = [re.match(r"(?:\$ )?make ([\w-]+)", code) for code in code_of(text)]
    return [call[1] for call in called if call is not None and call[1] not in targets]


@pytest.mark.parametrize("page", NAMING, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    assert missing_files(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", NAMING, ids=lambda page: page.name)
def test_every_target_that_is_named_exists(page):
    assert missing_targets(page.read_text(encoding="utf-8")) == []


WRONG = """
One test: `.venv/bin/python -m pytest tests/test_nowhere.py -k this`, of `tests/test_docs.py` and `tests/test_no*.py`;
see `docs/nowhere.md`, `src/tidegate/nowhere/`, `tests/test_docs.py::test_it`, `src/tidegate` and `tests/test_docs*.py`.
A back-ticked `make nothing` or `make
never`, not prose that may make anything of tests/prose.py. Run `make test PYTEST_ARGS="-k memory"`.

```sh
make test        # makes what is needed
$ make neither   # a comment
python src/gone.py
```
"""


def test_the_checkers_find_what_is_not_there():
    found = ["src/gone.py", "tests/test_nowhere.py", "tests/test_no*.py", "docs/nowhere.md", "src/tidegate/nowhere/"]
    assert missing_files(WRONG) == found
    assert missing_targets(WRONG) == ["neither", "nothing", "never"]


def test_the_checkers_see_what_the_pages_name():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert sum(len(PATH.findall(code)) for code in code_of(contributing)) >= 4
    assert {"make test", "make test-slow", "make format"} <= {code.partition("  ")[0] for code in code_of(contributing)}


# ---------------------------------------------------------------------------------------------------------------------
# The Makefile


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with nothing but what make looks at."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )


def test_a_venv_that_failed_half_way_leaves_nothing_that_passes_for_one(project):
    failing = project / "python"
    failing.write_text("#!/bin/sh\nmkdir -p .venv/bin && touch .venv/pyvenv.cfg .venv/bin/python\nexit 1\n")
    failing.chmod(0o755)
    assert make(project, "lint", f"PYTHON={failing}").returncode != 0
    assert not (project / ".venv").exists()


def test_a_venv_that_was_interrupted_before_it_had_pip_is_made_anew_and_a_whole_one_is_not(project):
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").touch()
    assert "-m venv --clear .venv" in make(project, "-n", "lint").stdout
    (project / ".venv/bin/pip").touch()
    told = make(project, "-n", "lint").stdout
    assert "-m venv" not in told
    assert "pip install" in told
