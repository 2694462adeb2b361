"""`python -m benchmarks.accuracy`: training with the defaults beside a plain loop, on files of the archive's form."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import main
from benchmarks.plain_loop import plain_accuracy


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
    assert plain_accuracy(train, test, seed=0, epochs=20, units=8, learning_rate=1e-2) == 1.0
    shuffled = np.random.default_rng(2).permutation(test[1])
    assert plain_accuracy(train, (test[0], shuffled), seed=0, epochs=20, units=8, learning_rate=1e-2) < 0.9


def test_the_table_has_a_row_for_each_variant_and_the_plain_loop(tmp_path, capsys):
    (tmp_path / "Two").mkdir()
    write_archive(tmp_path / "Two" / "Two_TRAIN.ts", 24, 0)
    write_archive(tmp_path / "Two" / "Two_TEST.ts", 10, 1)
    assert main([str(tmp_path), "--sets", "Two", "--variants", "update-only", "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Two: 24 sequences of up to 5 steps, 10 to test\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| t")]
    assert [row[0] for row in rows] == ["tidegate, update-only", "torch.nn.GRU, plain loop"]
    assert [row[1:4] for row in rows] == [["1.000"] * 3] * 2


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
