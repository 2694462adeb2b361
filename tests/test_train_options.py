"""Every setting is an option of the command line, said once where it is defined."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

import tests.train_files  # noqa: F401 - stands in for the readers
from tidegate.cli.app import app as tidegate
from tidegate.cli.options import with_settings
from tidegate.train.settings import Settings

pytestmark = pytest.mark.usefixtures("as_users_run_it")  # typer gives None for what was not typed

SETTINGS = dataclasses.fields(Settings)
WIDE = {"COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.fixture
def given():
    """An application whose one command tells what was typed."""
    told: list[dict[str, Any]] = []
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @with_settings
    def command(
        out: Annotated[Path, typer.Option()], data: Annotated[list[str] | None, typer.Argument()] = None, *, given: dict
    ) -> None:
        told.append({"out": out, "data": data, **given})

    def run(*words):
        done = CliRunner().invoke(app, [*words, "--out", "run"], env=WIDE)
        assert done.exit_code == 0, done.output
        return {name: value for name, value in told.pop().items() if name != "out" and value is not None}

    return run


def typed(one: dataclasses.Field) -> tuple[list[str], Any]:
    """How one would type a setting that is not the default, and what comes of it."""
    flag, default = "--" + one.name.replace("_", "-"), one.default
    if isinstance(default, bool):
        return [flag], True
    if isinstance(default, tuple) or one.name == "features":
        return [flag, "one", flag, "two words"], ["one", "two words"]
    if isinstance(default, int) or one.name in ("threads", "chunk", "horizon", "patience"):
        return [flag, "7"], 7
    if isinstance(default, float) or one.name in ("edl_rate", "weight_decay", "write_budget"):
        return [flag, "0.25"], 0.25
    return [flag, "word"], "word"


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_every_setting_can_be_typed(given, one):
    if one.name == "data":
        assert given("a.csv", "b.csv") == {"data": ["a.csv", "b.csv"]}
        return
    words, value = typed(one)
    assert given(*words) == {one.name: value}
    if isinstance(one.default, bool):
        assert given("--no-" + words[0][2:]) == {one.name: False}


def test_nothing_typed_is_nothing_given(given):
    assert given() == {}
    assert given("--chunk", "1", "--test", "0") == {"chunk": 1, "test": 0.0}


def test_the_help_tells_every_default():
    text = " ".join(CliRunner().invoke(tidegate, ["train", "--help"], env=WIDE).output.split())
    for one in SETTINGS:
        if one.name == "data":
            continue
        assert "--" + one.name.replace("_", "-") in text
        words = one.metadata["help"]
        if one.default not in (None, ()):
            default = str(one.default).lower() if isinstance(one.default, bool) else one.default
            words += f" [default: {default:g}]" if isinstance(default, float) else f" [default: {default}]"
        assert words in text, one.name


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--epochs", "many"], "Invalid value for '--epochs'"),
        (["--lerning-rate", "1"], "No such option: --lerning-rate"),
        (["--dropout", "x"], "Invalid value for '--dropout'"),
    ],
)
def test_wrong_words_are_refused_with_the_usage(tmp_path, words, told):
    done = CliRunner().invoke(tidegate, ["train", "a.csv", "--out", str(tmp_path / "run"), *words], env=WIDE)
    assert done.exit_code == 2
    assert told in done.output
    assert not (tmp_path / "run").exists()
