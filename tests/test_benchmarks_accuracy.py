"""`python -m benchmarks.accuracy`: training with the defaults beside a plain loop, on files of the archive's form."""

from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest

from benchmarks import plain_loop
from benchmarks.accuracy import main
from benchmarks.plain_loop import plain_classifier, plain_language
from benchmarks.sets import material


def signals(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two classes that their first value tells."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    found = [rng.normal(size=(5, 1)) for _ in range(count)]
    for one, number in zip(found, classes, strict=True):
        one[0] = 4 if number else -4
    return found, classes


def write_archive(path: Path, count: int, seed: int) -> None:
    found, classes = signals(count, seed)
    lines = ["@problemName two", "@univariate true", "@classLabel true low high", "@data"]
    for one, number in zip(found, classes, strict=True):
        lines.append(",".join(f"{value:.6f}" for value in one[:, 0]) + f":{'high' if number else 'low'}")
    path.write_text("\n".join(lines) + "\n")


def test_the_plain_loop_learns_what_is_plain_and_nothing_where_there_is_nothing():
    train, test = signals(40, 0), signals(40, 1)
    accuracy, loss = plain_classifier(train, test, seed=0, epochs=20, units=8, learning_rate=1e-2)
    assert accuracy == 1.0
    assert 0 < loss < 0.2
    shuffled = np.random.default_rng(2).permutation(test[1])
    assert plain_classifier(train, (test[0], shuffled), seed=0, epochs=20, units=8, learning_rate=1e-2)[0] < 0.9


def texts(count: int, seed: int) -> list[np.ndarray]:
    """Each byte says the next one, apart from the first."""
    rng = np.random.default_rng(seed)
    return [np.resize(np.roll(np.frombuffer(b"abcdefg", np.uint8), rng.integers(7)), 90).astype(np.int64)] * count


def test_the_plain_loop_learns_a_text_and_nothing_of_noise():
    quick: dict[str, Any] = {"seed": 0, "epochs": 60, "units": 16, "batch_size": 4, "steps": 16, "learning_rate": 2e-2}
    accuracy, loss = plain_language(texts(10, 0), texts(3, 1), **quick)
    assert accuracy > 0.98
    assert 0 < loss < 0.2
    noise = [np.random.default_rng(9).integers(97, 104, 90)]
    told, surprise = plain_language(texts(10, 0), noise, **quick)
    assert told < 0.5
    assert surprise > np.log(7)


def test_the_plain_loop_keeps_the_epoch_that_its_own_texts_choose(monkeypatch):
    """A rate at which it gets worse: the weights of the best epoch are those that are scored."""
    losses = []

    def spied(model, asked):
        losses.append(scores(model, asked)[1])
        return scores(model, asked)

    scores = plain_loop._language_scores
    monkeypatch.setattr(plain_loop, "_language_scores", spied)
    train = texts(10, 0)  # all alike, so that what chooses and what is scored are the same
    wild: dict[str, Any] = {"seed": 0, "units": 16, "batch_size": 4, "steps": 16, "learning_rate": 1.0}
    _, loss = plain_language(train, train[:1], epochs=20, patience=20, **wild)
    assert loss == pytest.approx(min(losses[:-1]), rel=1e-5)
    assert loss < losses[-2]


def test_the_clips_are_films_with_ten_answers(tmp_path):
    train, test = material("clips", tmp_path, tmp_path).read()
    assert (len(train), len(test)) == (400, 500)
    assert set(train.lengths) == set(test.lengths) == {50}
    assert len(train.features) == 297
    for part in (train, test):
        assert part.label is not None
        assert part.label.categories == tuple("0123456789")
        assert set(part.label.values) == set(range(10))
    frames = {np.asarray(one)[step].tobytes() for one in train for step in range(50)}
    assert not any(np.asarray(one)[step].tobytes() in frames for one in test for step in range(50))


def test_the_text_is_whole_topics_that_no_part_shares(tmp_path):
    train, test = material("text", tmp_path, tmp_path).read()
    assert (len(train), len(test)) == (40, 10)
    assert not {Path(one).name for one in train.ids} & {Path(one).name for one in test.ids}
    name = Path(test.ids[0]).stem
    assert bytes(np.asarray(next(iter(test)))[:, 0].astype(np.uint8)).decode() == topics[name]


def test_the_table_has_a_row_for_each_variant_and_the_plain_loop(tmp_path, capsys):
    (tmp_path / "Two").mkdir()
    write_archive(tmp_path / "Two" / "Two_TRAIN.ts", 24, 0)
    write_archive(tmp_path / "Two" / "Two_TEST.ts", 10, 1)
    assert main([str(tmp_path), "--sets", "Two", "--variants", "dense", "--seeds", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Two: 24 sequences of up to 5 steps, 10 to test\n")
    ours, plain = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in printed.out.splitlines() if line.startswith("| t")
    )
    assert [ours[0], plain[0]] == ["tidegate, dense", "torch.nn.GRU, plain loop"]
    found = [float(line.split("accuracy ")[1].split(",")[0]) for line in printed.err.splitlines()[:2]]
    assert float(ours[1]) == pytest.approx(np.mean(found), abs=1e-3)
    assert float(ours[2]) == pytest.approx(abs(found[0] - found[1]) / 2, abs=1e-3)
    assert plain[1:3] == ["1.000", "0.000"]
    assert 0 <= float(plain[3]) < 0.2
    assert all(float(row[4]) > 0 for row in (ours, plain))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sets", "None"], "there is no file"),
        (["--variants", "lstm"], "argument --variants: invalid choice: 'lstm'"),
        (["--seeds", "0"], "--seeds and --threads must be at least 1"),
    ],
)
def test_wrong_words_are_one_sentence(arguments, sentence, tmp_path, capsys):
    try:
        code = main([str(tmp_path), *arguments])
    except SystemExit as left:
        code = int(str(left.code))
    printed = capsys.readouterr()
    assert code == 2
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
