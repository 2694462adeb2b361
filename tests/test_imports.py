"""Imports run one way, and `import tidegate` is light."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tidegate as tg

SOURCE = Path(__file__).parents[1] / "src" / "tidegate"

#: The floors of the house, from the ground up: a room may import the rooms of lower floors, not those beside it.
GROUND = {"errors", "extras", "equations", "conventions"}
FLOORS = [GROUND, {"ops"}, {"nn"}, {"gates", "convert", "stream"}, {"diagnosis"}, {"train", "serve"}, {"cli"}]
#: Plain records in and out: they know no room but these two, and only `train` and `cli` know them.
BESIDE = {"data", "report"}
PLAIN = {"errors", "extras"}
#: `tidegate/__init__.py` itself: the front of the first five floors, which the floors above may use.
FRONT = "tidegate"


def may_import() -> dict[str, set[str]]:
    """The rooms that each room may import."""
    allowed: dict[str, set[str]] = {room: set(PLAIN) for room in BESIDE}
    below: set[str] = set()
    for floor in FLOORS:
        allowed |= {room: set(below) for room in floor}
        below |= floor
    allowed |= {room: GROUND - {room} for room in GROUND}
    allowed["errors"] = set()
    allowed["extras"] = {"errors"}
    allowed[FRONT] = set().union(*FLOORS[:5])
    for room in ("train", "serve", "cli"):
        allowed[room] |= {FRONT}
    for room in ("train", "cli"):
        allowed[room] |= BESIDE
    return allowed


MAY_IMPORT = may_import()


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module named by its parts, `("tidegate", "ops", "pins")`, or of a name imported from the front."""
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else FRONT


def imported(source: str, module: tuple[str, ...], *, is_package: bool) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every name of tidegate that `source` imports, in functions and under TYPE_CHECKING too, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = module[: len(module) - node.level + int(is_package)] + base
            names = [(*base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            dynamic = ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__", "require")
            names = [tuple(str(node.args[0].value).split("."))] if dynamic else []
        else:
            continue
        yield from ((node.lineno, name) for name in names if name[0] == "tidegate")


def arrows_back(source: str, path: str) -> list[str]:
    """What is wrong with the imports of the file at `path` (relative to the package), one sentence each."""
    parts = Path(path).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ("tidegate", *(parts[:-1] if is_package else parts))
    room = "cli" if module == ("tidegate", "__main__") else room_of(module)
    if room == FRONT and module != (FRONT,):
        return [f"{path} is in no room of the house: add it to tests/test_imports.py and to docs/design.md"]
    return [
        f"{path}:{line}: {room} imports {'.'.join(name)}, of {room_of(name)}"
        for line, name in imported(source, module, is_package=is_package)
        if room_of(name) not in MAY_IMPORT[room] | {room}
    ]


def test_no_import_runs_back():
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 10
    wrong = [sentence for path in files for sentence in arrows_back(path.read_text(), str(path.relative_to(SOURCE)))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "source", "target"),
    [
        ("equations.py", "from tidegate.ops import rnn", "ops"),
        ("errors.py", "from tidegate.equations import gru", "equations"),
        ("ops/functional.py", "import tidegate.nn.layers", "nn"),
        ("ops/functional.py", "from tidegate import nn", "nn"),
        ("ops/functional.py", "from tidegate import GRU", "tidegate"),
        ("ops/functional.py", "import tidegate as tg", "tidegate"),
        ("ops/functional.py", "from ..nn import layers", "nn"),
        ("ops/functional.py", "from .. import nn", "nn"),
        ("ops/__init__.py", "from ..gates import trace", "gates"),
        ("ops/__init__.py", "from .. import gates", "gates"),
        ("ops/cpu/forward.py", "from ...nn.run import run", "nn"),
        ("nn/run.py", "def run():\n    from tidegate.gates import trace", "gates"),
        ("nn/run.py", "if TYPE_CHECKING:\n    from tidegate.gates.trace import Trace", "gates"),
        ("nn/run.py", "importlib.import_module('tidegate.train')", "train"),
        ("nn/run.py", "require('tidegate.report.page', 'report')", "report"),
        ("gates/trace.py", "from tidegate.stream import Stream", "stream"),
        ("gates/trace.py", "from tidegate.train.demo import demo", "train"),
        ("gates/trace.py", "from tidegate.data import clips", "data"),
        ("train/demo.py", "from tidegate.cli import main", "cli"),
        ("train/demo.py", "from tidegate.serve import app", "serve"),
        ("serve/app.py", "from tidegate.report import page", "report"),
        ("data/film.py", "from tidegate.nn import GRU", "nn"),
        ("data/film.py", "from tidegate.report import records", "report"),
        ("report/page.py", "from tidegate.gates import Trace", "gates"),
        ("report/page.py", "from tidegate import __version__", "tidegate"),
        ("__init__.py", "from tidegate.cli import main", "cli"),
        ("__init__.py", "from tidegate import train", "train"),
    ],
)
def test_the_checker_finds_an_arrow_that_runs_back(path, source, target):
    (sentence,) = arrows_back(f"import torch\n{source}\n", path)
    assert sentence.startswith(f"{path}:")
    assert sentence.endswith(f", of {target}")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("conventions.py", "from tidegate.equations import Affine"),
        ("extras.py", "from tidegate.errors import MissingExtraError"),
        ("ops/reference.py", "from tidegate.conventions import unpack\nfrom tidegate import conventions, equations"),
        ("ops/__init__.py", "from tidegate.ops.pins import Pins\nfrom .pins import Pins\nfrom . import pins"),
        ("ops/cpu/forward.py", "from ..call import Call\nfrom ...errors import BackendError"),
        ("nn/run.py", "from tidegate import ops\nimport tidegate.ops.call"),
        ("gates/trace.py", "from tidegate.nn.run import run\nimport numpy, tidegate_other"),
        ("train/demo.py", "import tidegate as tg\nfrom tidegate.data import film\nfrom tidegate import report"),
        ("serve/app.py", "from tidegate.stream import Stream"),
        ("cli/__init__.py", "from tidegate.train import demo\nfrom tidegate import __version__, serve"),
        ("__main__.py", "from tidegate.cli import main"),
        ("__init__.py", "from tidegate.gates import trace\nfrom tidegate.ops import Pins"),
        ("report/page.py", "from tidegate.extras import require\nrequire('plotly', 'report')"),
    ],
)
def test_the_checker_lets_imports_pass_that_run_forward(path, source):
    assert arrows_back(source, path) == []


def test_a_file_outside_the_rooms_is_found():
    (sentence,) = arrows_back("", "attic/box.py")
    assert "attic/box.py is in no room" in sentence
    (sentence,) = arrows_back("", "utils.py")
    assert "utils.py is in no room" in sentence


def test_no_room_can_come_back_to_itself():
    """Whatever the table says, it says it of a graph without cycles; `equations` and `conventions` share a floor."""
    order = ["errors", "extras", "equations", "conventions"]
    allowed = {
        room: rooms - (set(order[order.index(room) :]) if room in order else set())
        for room, rooms in MAY_IMPORT.items()
    }
    left = set(allowed)
    while left:
        free = {room for room in left if not allowed[room] & left}
        assert free, f"these import each other in a circle: {sorted(left)}"
        left -= free


# ---------------------------------------------------------------------------------------------------------------------
# `import tidegate`

HEAVY = {"PIL", "av", "jinja2", "lightning", "numba", "onnx", "plotly", "pyarrow", "rich", "safetensors"}
HEAVY |= {"torchmetrics", "triton", "typer"}
LIMIT = 0.15

PROBE = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.perf_counter()
import tidegate
tidegate.GRU, tidegate.accelerate, tidegate.trace, tidegate.Stream
seconds = time.perf_counter() - start
added = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
print(json.dumps({"seconds": seconds, "added": added, "file": tidegate.__file__}))
"""


@pytest.fixture(scope="module")
def fresh_imports() -> list[dict]:
    """What three fresh interpreters tell of `import tidegate` after `import torch`."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}

    def probe() -> dict:
        command = [sys.executable, "-c", PROBE]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        told: dict = json.loads(done.stdout)
        return told

    told = [probe() for _ in range(3)]
    while len(told) < 9 and min(one["seconds"] for one in told) >= LIMIT:  # other tests run beside this one
        told.append(probe())
    return told


def test_import_tidegate_loads_nothing_heavier_than_torch(fresh_imports):
    for told in fresh_imports:
        assert Path(told["file"]).is_relative_to(SOURCE)
        assert "tidegate" in told["added"]
        assert not HEAVY & set(told["added"])


def test_import_tidegate_adds_less_than_a_moment_to_import_torch(fresh_imports):
    assert min(told["seconds"] for told in fresh_imports) < LIMIT


def told_by(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_the_front_loads_what_is_asked_for():
    assert told_by("import sys, tidegate; print('torch' in sys.modules)") == "False\n"
    assert told_by("import sys, tidegate.cli.app; print('torch' in sys.modules)") == "False\n"
    assert told_by("import tidegate as tg; print(tg.gates.trace is tg.trace, tg.nn.GRU is tg.GRU)") == "True True\n"


def test_the_front_has_what_it_names():
    assert set(tg.__all__) | {"gates", "nn", "ops", "equations"} <= set(dir(tg))
    for name in dir(tg):
        getattr(tg, name)
    with pytest.raises(AttributeError, match="module 'tidegate' has no attribute 'grue'"):
        tg.grue  # noqa: B018


def test_type_checkers_see_the_front_too():
    """All but what is on a floor above."""
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    seen = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(tg.__all__) - seen == {"GRUClassifier", "GRURegressor", "fit"}
