"""`tidegate train` and `tidegate predict`: from words to a folder and a table, or one sentence."""

import csv

import pytest
from typer.testing import CliRunner

from tests.train_files import read
from tests.train_helpers import first_symbol
from tidegate.cli.app import app
from tidegate.train import run as runs
from tidegate.train.run import load_run

pytestmark = pytest.mark.usefixtures("as_users_run_it")  # typer gives None for what was not typed

QUICK = ["--label", "answer", "--hidden-size", "8", "--epochs", "2", "--batch-size", "8", "--threads", "1"]


@pytest.fixture(autouse=True)
def _reading(monkeypatch):
    monkeypatch.setattr(runs, "read", read)


def tidegate(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "100", "NO_COLOR": "1"})
    assert done.exit_code == code, done.output
    return done


def test_train_and_predict(tmp_path):
    told = tidegate("train", "symbols.csv", "--out", tmp_path / "run", *QUICK).output
    assert "classify: answer" in told
    assert "2 epochs, and as many more with the validation part" in " ".join(told.split())
    assert "accuracy" in told
    card = tidegate("card", tmp_path / "run").output
    assert "The validation part's scores are of a network that had not learned it" in " ".join(card.split())
    assert "best after" in tidegate("train", "sums.csv", "--out", tmp_path / "numbers", *QUICK).output
    done = tidegate("predict", tmp_path / "run", "symbols.csv", "--out", tmp_path / "table.csv")
    assert "48 rows written to" in done.output
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(first_symbol(48).ids)


def test_what_is_typed_goes_before_the_file(tmp_path):
    (tmp_path / "config.yaml").write_text("data: symbols.csv\nhidden-size: 6\nepochs: 3\nthreads: 1\n")
    tidegate(
        "train", "--config", tmp_path / "config.yaml", "--out", tmp_path / "run", "--label", "answer", "--epochs", 1
    )
    run = load_run(tmp_path / "run")
    assert (run.settings.hidden_size, run.settings.epochs, run.settings.data) == (6, 1, ("symbols.csv",))
    tidegate("train", "--config", tmp_path / "run" / "config.yaml", "--out", tmp_path / "again")
    assert load_run(tmp_path / "again").settings == run.settings


def test_resume_needs_no_other_word(tmp_path, monkeypatch):
    def interrupted(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tidegate.train.run.score", lambda *rest: interrupted())
    told = tidegate("train", "symbols.csv", "--out", tmp_path / "run", *QUICK, code=130).output
    assert "Interrupted; --resume goes on after the last whole epoch." in told
    monkeypatch.undo()
    monkeypatch.setattr(runs, "read", read)
    tidegate("train", "--out", tmp_path / "run", "--resume")
    assert load_run(tmp_path / "run").settings.hidden_size == 8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "data must name files to learn from; got none"),
        (["symbols.csv"], "label must name a column of the data; got None"),
        (["symbols.csv", "--label", "answer", "--variant", "lstm"], "variant must be one of dense, rnn"),
        (["--config", "none.yaml"], "there is no file 'none.yaml'"),
        (["symbols.csv", "--resume"], "there is no run to resume"),
    ],
)
def test_refusals_are_one_sentence_and_leave_nothing(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    done = tidegate("train", *words, "--out", "run", code=2)
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_in_the_file_is_told_the_nearest(tmp_path):
    (tmp_path / "config.yaml").write_text("lerning_rate: 1")
    done = tidegate("train", "--config", tmp_path / "config.yaml", "--out", tmp_path / "run", code=2)
    assert "there is no option 'lerning_rate': did you mean 'learning_rate'?" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 TiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_ends_is_one_sentence(tmp_path, monkeypatch, error):
    def ended(*rest):
        raise error

    monkeypatch.setattr(runs, "new_model", ended)
    done = tidegate("train", "symbols.csv", "--out", tmp_path / "run", *QUICK, code=1)
    assert done.stderr == (
        "tidegate: there is not enough memory: a smaller hidden_size, batch_size or chunk needs less\n"
    )
    assert not (tmp_path / "run").exists()


def test_another_error_is_not_taken_for_memory(tmp_path, monkeypatch):
    def broken(*rest):
        raise RuntimeError("a defect")

    monkeypatch.setattr(runs, "new_model", broken)
    done = CliRunner().invoke(app, ["train", "symbols.csv", "--out", str(tmp_path / "run"), *QUICK])
    assert isinstance(done.exception, RuntimeError)
