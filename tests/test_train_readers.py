"""What readers are told is told once, in training; the run tells it again when it reads what is new."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

import tidegate as tg
from tests.data_writers import write_sound
from tests.refusals import assert_refused
from tidegate.cli.app import app
from tidegate.errors import InputValueError
from tidegate.train.run import load_run

pytestmark = pytest.mark.usefixtures("as_users_run_it")  # typer gives None for what was not typed

QUICK = ["--hidden-size", 8, "--epochs", 2, "--batch-size", 4, "--threads", 1]


def tidegate(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == code, done.output
    return done


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sound(path: Path, which: int) -> None:
    time = np.arange(4_000) / 16_000
    write_sound(path, (np.sin(2 * np.pi * 300 * (1 + 3 * which) * time) * 20_000).astype(np.int16))


def video(path: Path, which: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            picture = np.full((48, 64, 3), 60 + 120 * which, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def text(path: Path, which: int) -> None:
    path.write_bytes(("äöü ÄÖÜ\n" if which else "abc ABC\n").encode("latin-1"))


FOLDERS: dict[str, Any] = {
    ".wav": (sound, [], "mel0"),
    ".mp4": (video, ["--grid", "2x1"], "row0_column1_blue"),
    ".txt": (text, ["--level", "characters", "--encoding", "latin-1"], "character"),
}


@pytest.mark.parametrize("suffix", FOLDERS)
def test_the_label_is_the_folder_that_a_file_lies_in(tmp_path, suffix):
    write, words, feature = FOLDERS[suffix]
    for which, name in enumerate(("first", "second")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            write(tmp_path / "data" / name / f"{number}{suffix}", which)
    words = [*words, "--label", "folder", *QUICK, "--epochs", 20, "--learning-rate", 0.03]
    told = tidegate("train", tmp_path / "data", "--out", tmp_path / "run", *words).output
    assert "classify: folder" in told
    run = load_run(tmp_path / "run")
    assert feature in [one.name for one in run.model.config.features]
    assert run.facts["test"]["accuracy"] == 1
    write(tmp_path / f"new{suffix}", 1)
    tidegate("predict", tmp_path / "run", tmp_path / f"new{suffix}", "--out", tmp_path / "told.csv")
    (answer,) = rows(tmp_path / "told.csv")
    assert (answer["id"], answer["prediction"]) == (f"new{suffix}", "second")
    assert run.score([str(tmp_path / "data")])["accuracy"] == 1
    tidegate("inspect", tmp_path / "run", tmp_path / "data", "--out", tmp_path / "page.html")
    assert "Right of 12 sequences here" in (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = run.inspect(str(tmp_path / "data"), sequences=3).sequences
    assert {(one.answer.said, one.answer.label) for one in shown} == {("first", "first"), ("second", "second")}
    # a folder that is no class says nothing of what is right
    tidegate("inspect", tmp_path / "run", tmp_path / f"new{suffix}", "--out", tmp_path / "new.html")
    (one,) = run.inspect(str(tmp_path / f"new{suffix}")).sequences
    assert (one.answer.said, one.answer.label, one.answer.right) == ("second", None, None)


def test_a_language_model(tmp_path):
    """The symbol that follows, told of every step of every line."""
    (tmp_path / "book.txt").write_text("abcabcabcabc\n" * 24)
    words = ["--label", "next", "--level", "characters", "--per", "line", *QUICK]
    words = [*words, "--epochs", 20, "--learning-rate", 0.03]
    told = tidegate("train", tmp_path / "book.txt", "--out", tmp_path / "run", *words).output
    assert "label-steps: next" in told
    run = load_run(tmp_path / "run")
    assert run.facts["test"]["accuracy"] == 1
    (tmp_path / "new.txt").write_text("bcab\nca\n")
    tidegate("predict", tmp_path / "run", tmp_path / "new.txt", "--out", tmp_path / "told.csv")
    told = rows(tmp_path / "told.csv")
    assert "".join(row["prediction"] for row in told[1:4] + told[5:]) == "abcb"
    assert {name for name in told[0] if name.startswith("probability_")} == {f"probability_{one}" for one in "abc"}
    (tmp_path / "odd.txt").write_text("abcaxb\n")
    tidegate("inspect", tmp_path / "run", tmp_path / "odd.txt", "--out", tmp_path / "page.html")
    (one,) = run.inspect(str(tmp_path / "odd.txt")).sequences
    assert "of 4 labelled steps" in one.answer.told  # x was never seen, and what follows b is not known
    assert one.text == tuple("abca") + one.text[4:5] + ("b",)


def test_fit_takes_them_too(tmp_path):
    (tmp_path / "book.txt").write_text("ab\n" * 12 + "ba\n" * 12)
    run = tg.fit(tmp_path / "book.txt", "next", per="line", hidden_size=4, epochs=1, threads=1)
    assert run.task.categories is not None
    assert run.task.categories[ord("a")] == "0x61"
    (tmp_path / "new.txt").write_text("ab\n")
    assert list(run.predict([str(tmp_path / "new.txt")])["step"]) == [0, 1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--level", "words"], "level must be one of bytes, characters; got 'words'"),
        (["--per", "line", "--label", "other"], "no label but 'folder' or 'next'; got columns.label='other'"),
        (["--grid", "2x2"], "grid means nothing for text: it takes level, per, encoding, label; got grid="),
        (["--hold", "voice"], "hold must name features of the data; 'voice' is none of 'byte'"),
        (["--hold-edl", "beside"], "hold_edl needs sequences with times, such as recordings; these have none"),
        (["--encoding", "morse", "--level", "characters"], "encoding must be one that Python decodes"),
    ],
)
def test_options_that_do_not_fit_the_files(tmp_path, words, told):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "one.txt").write_text("text")
    words = words if "--label" in words else [*words, "--label", "folder"]
    done = tidegate("train", tmp_path / "data", "--out", tmp_path / "run", *words, *QUICK, code=2)
    assert told in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_is_said_of_a_test_part_is_heard_or_refused():
    signals, which = np.random.default_rng(0).normal(size=(20, 4, 2)), np.arange(20) % 2
    learn = partial(tg.fit, signals, epochs=1, hidden_size=2, threads=1)
    words = "test_label must be given with test_data that have no label of their own; got "
    assert_refused(lambda: learn(which, test_label=which), InputValueError, words + "no test_data")
    forecast = partial(learn, "x0", task="forecast", horizon=1, test_data=signals)
    assert_refused(lambda: forecast(test_label=which), InputValueError, words + "a forecast")
    assert forecast().facts["test"]
    told = partial(learn, which, test_data=signals)
    words = "test must not be given with test_data; got 0.3"
    assert_refused(lambda: told(test_label=which, test=0.3), InputValueError, words)
    assert_refused(told, InputValueError, r"labels \(y\) must be given beside arrays")
    assert told(test_label=which, test=0.0).facts["data"]["test"] == 20
