"""A missing optional package is one line that names the extra to install."""

import ast
import importlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tidegate.errors import MissingExtraError
from tidegate.extras import require

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path in which a test writes a package of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def test_a_package_that_is_there_is_imported():
    assert require("json", "train") is sys.modules["json"]
    assert require("xml.etree.ElementTree", "train").__name__ == "xml.etree.ElementTree"


@pytest.mark.parametrize("module", ["tg_nowhere", "tg_nowhere.part.of_it"])
def test_a_missing_package_is_one_line_naming_it_and_its_extra(module):
    with pytest.raises(MissingExtraError) as caught:
        require(module, "video")
    assert str(caught.value) == "this needs the package 'tg_nowhere': pip install 'tidegate[video]'"


def test_the_line_stands_alone_without_the_import_machinerys_own_error():
    with pytest.raises(MissingExtraError) as caught:
        require("tg_nowhere", "video")
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


def test_it_is_an_import_error_for_those_who_catch_one():
    with pytest.raises(ImportError, match="tidegate"):
        require("tg_nowhere", "video")


@pytest.mark.parametrize(
    ("module", "extra"), [("av", "video"), ("plotly.graph_objects", "report"), ("lightning", "train")]
)
def test_an_extra_that_was_not_installed_says_so(module, extra, monkeypatch):
    absent = module.partition(".")[0]
    real = importlib.import_module

    def without(name: str, package: str | None = None):
        if name.partition(".")[0] == absent:
            raise ModuleNotFoundError(f"No module named {absent!r}", name=absent)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(
        MissingExtraError, match=rf"^this needs the package '{absent}': pip install 'tidegate\[{extra}\]'$"
    ):
        require(module, extra)


def test_a_package_that_lacks_something_itself_is_not_called_missing(package):
    (package / "tg_needy.py").write_text("import tg_nowhere\n")
    with pytest.raises(ModuleNotFoundError) as caught:
        require("tg_needy", "video")
    assert not isinstance(caught.value, MissingExtraError)
    assert caught.value.name == "tg_nowhere"


def test_a_package_that_breaks_while_it_loads_is_not_called_missing(package):
    (package / "tg_broken.py").write_text("import math\nmath.sqrt(-1)\n")
    with pytest.raises(ValueError, match=r"^math domain error|nonnegative"):
        require("tg_broken", "video")


def named_in(requirement: str) -> tuple[str, list[str]]:
    """The distribution that a requirement names, and the extras in its brackets."""
    name, _, inner = re.split(r"[><=~!; ]", requirement)[0].rstrip("]").partition("[")
    return name.lower(), inner.split(",") if inner else []


def brought_by(extra: str) -> set[str]:
    """The distributions that an extra installs: what it names, what that needs, and the extras of ours it names."""
    brought: set[str] = set()
    for requirement in EXTRAS[extra]:
        name, inner = named_in(requirement)
        if name == "tidegate":
            brought |= set().union(*map(brought_by, inner))
        else:
            needs = [need for need in metadata.requires(name) or [] if "extra ==" not in need]
            brought |= {name, *(named_in(need)[0] for need in needs)}
    return brought


def asked_for() -> list[tuple[str, str, str]]:
    """Every `require("module", "extra")` in the source: where, module, extra."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "require":
                arguments = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                if len(arguments) == 2:
                    module, extra = map(str, arguments)
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", module, extra))
    return found


def test_every_extra_that_the_source_names_exists_and_brings_the_package():
    distributions = metadata.packages_distributions()
    for where, module, extra in asked_for():
        assert extra in EXTRAS, f"{where} names the extra {extra!r}"
        package = module.partition(".")[0]
        assert brought_by(extra) & {name.lower() for name in distributions.get(package, [package])}, (
            f"{where}: the extra {extra!r} does not bring {package!r}"
        )
