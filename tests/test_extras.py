"""A missing optional package is one line that names the extra to install."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tidegate.errors import MissingExtraError
from tidegate.extras import require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


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


def needs_of(distribution: str) -> list[str]:
    """What a distribution needs; of one that is not installed here, nothing is known."""
    try:
        return metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []


def brought_by(extra: str) -> set[str]:
    """The distributions that an extra installs: what it names, what that needs, and the extras of ours it names."""
    brought: set[str] = set()
    for requirement in EXTRAS[extra]:
        name, inner = named_in(requirement)
        if name == "tidegate":
            brought |= set().union(*map(brought_by, inner))
        else:
            brought |= {name, *(named_in(need)[0] for need in needs_of(name) if "extra ==" not in need)}
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


def imported_by(source: str) -> set[str]:
    """The top-level packages that `source` imports, in functions too, or asks for by `require`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "require":
            name = node.args[0]
            found |= {str(name.value).partition(".")[0]} if isinstance(name, ast.Constant) else set()
    return found - set(sys.stdlib_module_names) - {"tidegate"}


def unnamed(packages: set[str], requirements: list[str]) -> set[str]:
    """The packages whose distribution is not itself among the requirements: another one brings it, perhaps."""
    distributions = metadata.packages_distributions()
    named = {named_in(requirement)[0] for requirement in requirements}
    return {
        package
        for package in packages
        if not named & {distribution.lower() for distribution in distributions.get(package, [package])}
    }


def test_every_package_that_the_source_imports_is_named_and_not_left_to_another_to_bring():
    packages = set().union(*(imported_by(path.read_text()) for path in (ROOT / "src").rglob("*.py")))
    assert packages >= {"torch", "lightning", "torchmetrics", "safetensors", "typer"}
    assert not unnamed(packages, PROJECT["dependencies"] + [line for lines in EXTRAS.values() for line in lines])
    training = set().union(*(imported_by(path.read_text()) for path in (ROOT / "src/tidegate/train").glob("*.py")))
    assert not unnamed(training, PROJECT["dependencies"] + EXTRAS["train"] + EXTRAS["sklearn"] + EXTRAS["ray"])


def test_a_package_that_another_brings_is_found():
    source = (
        "import torch.nn\nfrom torchmetrics.functional import x\ndef f():\n    require('lightning.pytorch', 'train')"
    )
    assert imported_by(source) == {"torch", "torchmetrics", "lightning"}
    assert unnamed(imported_by(source), ["torch>=2.6", "lightning>=2.5"]) == {"torchmetrics"}


BARE = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from tidegate.errors import MissingExtraError
import tidegate.train
try:
    {code}
except MissingExtraError as error:
    print(error)
"""
MODEL = """
from tidegate.train.model import ModelConfig, SequenceModel
from tidegate.train.tasks import Task
from tidegate.data.sequences import Feature
model = SequenceModel(ModelConfig((Feature("x"),), (False,), 2, per_step=False, hidden_size=3))
tidegate.train.save_model(model, Task("classify", "y", "cross-entropy", ("a", "b")), {path!r})
"""


@pytest.mark.parametrize(
    ("absent", "code"),
    [
        ("safetensors", "save"),
        ("safetensors", "tidegate.train.load_model({saved!r})"),
        ("lightning", "import tidegate.train.learner"),
        ("torchmetrics", "import tidegate.train.learner"),
    ],
)
def test_on_a_bare_install_training_and_its_files_say_what_to_install(absent, code, tmp_path):
    saved, out = str(tmp_path / "saved"), str(tmp_path / "out")
    program = "import tidegate.train\n" + MODEL.format(path=saved)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    optional = {"lightning", "torchmetrics", "safetensors"} if absent == "safetensors" else {absent}
    code = MODEL.format(path=out) if code == "save" else code.format(saved=saved)
    program = BARE.format(absent=optional, code=code.strip().replace("\n", "\n    "))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == f"this needs the package {absent!r}: pip install 'tidegate[train]'\n", done.stderr
    assert not (tmp_path / "out").exists()


def test_the_models_file_is_in_front_and_loads_neither_lightning_nor_safetensors():
    program = (
        "import sys, tidegate.train; print(tidegate.train.__all__, *{'lightning', 'safetensors'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "['load_model', 'save_model']\n"
