"""`tidegate inspect`: from a folder and files to one page, or one sentence."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import tidegate as tg
from tests.test_report import Elements
from tidegate.cli.app import app
from tidegate.errors import InputValueError
from tidegate.train.run import load_run, train
from tidegate.train.settings import Settings

pytestmark = pytest.mark.usefixtures("as_users_run_it")


def tidegate(*given, code=0):
    done = CliRunner().invoke(app, [str(word) for word in given], env={"COLUMNS": "900", "NO_COLOR": "1"})
    assert done.exit_code == code, done.output
    return done


def write_table(path: Path, *, label: bool = True, feature: str = "level") -> None:
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["pump", "at", feature, *(["fault"] if label else [])])
        for number in range(24):
            for step in range(int(rng.integers(4, 9))):
                value = rng.normal() + (5 if number % 2 else -5) * (step == 1)
                writer.writerow([f"pump{number}", step * 0.5, f"{value:.3f}", *([["yes", "no"][number % 2]] * label)])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home: Path = tmp_path_factory.mktemp("home")
    write_table(home / "table.csv")
    write_table(home / "plain.csv", label=False)
    write_table(home / "other.csv", feature="height")
    (home / "unseen.csv").write_text((home / "table.csv").read_text().replace(",yes", ",perhaps"))
    quick = Settings(
        data=(str(home / "table.csv"),), id="pump", time="at", label="fault",
        hidden_size=6, epochs=2, batch_size=8, threads=1,
    )  # fmt: skip
    train(quick, home / "run")
    return home


def test_a_page_of_a_run(home, tmp_path):
    out = tmp_path / "new" / "page.html"
    told = tidegate("inspect", home / "run", home / "table.csv", "--out", out, "--sequences", 3).output
    assert "Held out, the steps that the map calls forgotten" in told
    assert f"Written to {out}." in told
    page = Elements(out.read_text(encoding="utf-8"))
    assert "run: what it remembers" in page.text
    assert "3 of 24 sequences, from files that it learned from" in " ".join(page.text.split())
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    named = tmp_path / "named.html"
    tidegate(
        "inspect", home / "run", home / "table.csv", "--out", named, "--id", "pump3", "--id", "pump4", "--layer", 0
    )
    radios = [a for tag, a in Elements(named.read_text(encoding="utf-8")).elements if a.get("name") == "sequence"]
    assert len(radios) == 2


def test_a_page_is_replaced_by_a_newer_one(home, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("old")
    tidegate("inspect", home / "run", home / "plain.csv", "--out", out, "--unlabelled", "--sequences", 1)
    assert "<h1>" in out.read_text(encoding="utf-8")


def test_from_python_there_is_a_record_and_no_file(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = load_run(home / "run")
    record = run.inspect(home / "table.csv", sequences=2, name="mine")
    assert (record.name, len(record.sequences)) == ("mine", 2)
    assert record.sequences[0].axis.title == "at"
    arrays = [np.zeros((5, 1)), np.ones((7, 1))] * 8
    run = tg.fit(arrays, ["no", "yes"] * 8, hidden_size=4, epochs=1, threads=1)
    arrays = arrays[:2]
    assert [one.answer.label for one in run.inspect(arrays).sequences] == [None, None]
    labelled = run.inspect(arrays, y=["no", "yes"])
    assert [one.answer.label for one in labelled.sequences] == ["yes", "no"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputValueError, match=r"out must end in \.html; got 'page\.txt'"):
        run.inspect(home / "table.csv", "page.txt")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none", "table.csv"], "there is no folder 'none'"),
        (["run", "none.csv"], "none.csv"),
        (["run", "other.csv"], "level"),
        (["run", "plain.csv"], "fault"),
        (["run", "unseen.csv"], "label 'fault' must have classes seen in training"),
        (["run", "table.csv", "--id", "pump99"], "there is no 'pump99': the nearest is 'pump9'"),
        (["run", "table.csv", "--layer", "3"], "layer must lie in 0..0; got 3"),
        (["run", "table.csv", "--sequences", "99"], "sequences must be a whole number in 1..24; got 99"),
        (["run", "table.csv", "--out", "page.pdf"], "out must end in .html; got 'page.pdf'"),
    ],
)
def test_refusals_are_one_sentence_and_leave_nothing(home, monkeypatch, words, told):
    monkeypatch.chdir(home)
    before = sorted(home.iterdir())
    done = tidegate("inspect", *words, *([] if "--out" in words else ["--out", "page.html"]), code=2)
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(home.iterdir()) == before
