"""Folders of results: what is loaded is what was saved; damage is refused; a folder is filled whole or not at all."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.train.folders import check_out, load_classifier, save_classifier, staged
from tidegate.train.models import ClassifierConfig, SequenceClassifier


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


SYSTEMS = ["dense", "rnn", "update-only", "gru", "gru-reset-before"]


def classifier(system="gru"):
    model = SequenceClassifier(ClassifierConfig(system, 6, 5, ("cat", "dog", "<none>")))
    model.normalise_by(torch.randn(20, 6) * 3 + 1)
    return model


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_loaded_model_is_the_saved_one_to_the_bit(tmp_path, system):
    model, x = classifier(system), torch.randn(9, 4, 6)
    save_classifier(model, tmp_path / "run")
    loaded = load_classifier(tmp_path / "run")
    assert loaded.config == model.config
    assert not loaded.training
    assert torch.equal(loaded(x), model(x))


def test_the_files_are_json_and_safetensors(tmp_path):
    save_classifier(classifier(), tmp_path)
    assert names(tmp_path) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["system"] == "gru"
    assert config["classes"] == ["cat", "dog", "<none>"]
    assert "layer.weight_ih_l0" in load_file(tmp_path / "model.safetensors")


def spoil_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    save_classifier(classifier(), tmp_path)
    spoil_weights(tmp_path, lambda weights: weights["layer.weight_hh_l0"].__setitem__((2, 1), bad))
    with pytest.raises(FileError, match=r"must hold finite numbers; layer\.weight_hh_l0 holds NaN or infinity"):
        load_classifier(tmp_path)


def test_weights_of_another_shape_or_name_are_refused(tmp_path):
    save_classifier(classifier(), tmp_path)
    spoil_weights(tmp_path, lambda weights: weights.update({"head.bias": torch.zeros(4)}))
    with pytest.raises(FileError, match=r"must hold head\.bias of \(3,\); it holds \(4,\)"):
        load_classifier(tmp_path)
    spoil_weights(tmp_path, lambda weights: weights.pop("head.bias"))
    with pytest.raises(FileError, match=r"must hold head\.bias of \(3,\); it holds None"):
        load_classifier(tmp_path)


def test_truncated_weights_are_refused(tmp_path):
    save_classifier(classifier(), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for kept in (0, 5, 200, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:kept])
        with pytest.raises(FileError, match="truncated or not a safetensors file"):
            load_classifier(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": "other"}', '{"format": "tidegate.classifier/1", "system": "gru"}', "\x00\xff"],
)
def test_a_configuration_that_is_none_is_refused(tmp_path, text):
    save_classifier(classifier(), tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(FileError, match=r"config\.json' is not "):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system", "lstm"),
        ("hidden_size", "many"),
        ("hidden_size", 0),
        ("input_size", -1),
        ("classes", 3),
        ("classes", []),
        ("hidden_size", True),
    ],
)
def test_a_configuration_with_a_wrong_value_is_refused(tmp_path, key, value):
    save_classifier(classifier(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(FileError, match="is not a classifier's configuration"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_one_sentence(tmp_path, missing):
    save_classifier(classifier(), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FileMissingError, match=f"there is no file '.*{missing}'"):
        load_classifier(tmp_path)


def write_two(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "one.txt").write_text("new")
    (folder / "two.txt").write_text("new")


def test_a_staged_folder_appears_when_all_is_done(tmp_path):
    out = tmp_path / "new" / "run"
    with staged(out) as folder:
        write_two(folder)
        assert not out.exists()
    assert (out / "deep" / "one.txt").read_text() == "new"
    assert names(out.parent) == ["run"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupt_leaves_nothing_behind(tmp_path, stop):
    def interrupted():
        with staged(tmp_path / "run") as folder:
            write_two(folder)
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert names(tmp_path) == []


def test_a_folder_that_holds_files_is_refused_unless_they_may_be_replaced(tmp_path):
    (tmp_path / "two.txt").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputValueError, match=r"out must be new or empty; .* holds files"), staged(tmp_path):
        pass
    with staged(tmp_path, overwrite=True) as folder:
        write_two(folder)
    assert (tmp_path / "two.txt").read_text() == "new"
    assert (tmp_path / "mine.txt").read_text() == "mine"  # what is not written anew is left alone


def test_an_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputValueError, match=r"out must be a folder; .* is a file"):
        check_out(tmp_path / "file", overwrite=True)


def test_an_out_under_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for out in ("file/sub", "file/sub/deep"):
        with pytest.raises(InputValueError) as caught:
            check_out(out, overwrite=True)
        assert str(caught.value) == f"out must be a folder that can be written; {out!r} cannot: 'file' is a file"
    assert names(tmp_path) == ["file"]


def test_an_out_that_may_not_be_made_is_told_by_the_name_that_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError) as caught:
        check_out("n" * 300, overwrite=False)
    assert str(caught.value) == f"out must be a folder that can be written; '{'n' * 300}' cannot: File name too long"
    Path("loop").symlink_to("loop")
    with pytest.raises(FileError, match="'loop' cannot: Too many levels of symbolic links"), staged("loop"):
        pass
    assert names(tmp_path) == ["loop"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc to be refused by")
def test_the_hidden_staging_folder_is_not_what_is_told():
    with pytest.raises(FileError, match=r"^out must be a folder .*; '/proc/run' cannot: [\w ]+$"), staged("/proc/run"):
        pytest.fail("there is nothing to write into")


def disk_full(monkeypatch, after: int) -> list[Path]:
    """From now on, moving files fails after so many."""
    moved: list[Path] = []
    replace = Path.replace

    def fails(path: Path, target: Path) -> Path:
        if len(moved) == after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path), None, str(target))
        moved.append(path)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    return moved


@pytest.mark.parametrize("after", [0, 1])
def test_a_disk_that_is_full_while_moving_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, after):
    monkeypatch.chdir(tmp_path)
    moved = disk_full(monkeypatch, after)
    with pytest.raises(FileError) as caught, staged("new/run") as folder:
        write_two(folder)
    assert str(caught.value) == "out must be a folder that can be written; 'new/run' cannot: No space left on device"
    assert len(moved) == after
    assert names(tmp_path) == []


def test_a_disk_that_is_full_while_moving_leaves_an_empty_out_empty(tmp_path, monkeypatch):
    disk_full(monkeypatch, 1)
    with pytest.raises(FileError), staged(tmp_path) as folder:
        write_two(folder)
    assert names(tmp_path) == []


def test_a_disk_that_is_full_while_moving_over_old_results_takes_nothing_away_that_was_there(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    for name in ("deep/one.txt", "two.txt", "mine.txt"):
        (tmp_path / name).write_text("old")
    disk_full(monkeypatch, 1)
    with pytest.raises(FileError), staged(tmp_path, overwrite=True) as folder:
        write_two(folder)
    assert names(tmp_path) == ["deep", "mine.txt", "two.txt"]
    assert (tmp_path / "deep" / "one.txt").read_text() == "new"  # as the docstring says
    assert (tmp_path / "two.txt").read_text() == "old"


def test_a_folder_in_the_way_of_a_file_is_one_sentence(tmp_path):
    (tmp_path / "two.txt").mkdir()
    with pytest.raises(FileError, match="cannot: Is a directory"), staged(tmp_path, overwrite=True) as folder:
        write_two(folder)
    assert names(tmp_path) == ["two.txt"]


@pytest.mark.parametrize("named", [True, False], ids=["open", "write"])
def test_a_disk_that_is_full_while_writing_is_told_of_out(tmp_path, named):
    def written_to_a_full_disk():
        with staged(tmp_path / "run") as folder:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([str(folder / "one.txt")] if named else []))

    with pytest.raises(FileError, match=r"; '[^']*/run' cannot: No space left on device$"):
        written_to_a_full_disk()
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied", "/elsewhere"), OSError("odd")])
def test_an_error_that_is_not_of_the_folder_is_passed_on_as_it_is(tmp_path, error):
    with pytest.raises(OSError) as caught, staged(tmp_path / "new" / "run"):  # noqa: PT011 - it is compared below
        raise error
    assert caught.value is error
    assert names(tmp_path) == []


def test_a_missing_file_inside_is_passed_on_as_it_is(tmp_path):
    with pytest.raises(FileMissingError), staged(tmp_path / "run") as folder:
        load_classifier(folder)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_the_folders_made_above_out_go_too_and_those_that_were_there_stay(tmp_path, stop):
    (tmp_path / "old").mkdir()

    def stopped():
        with staged(tmp_path / "old" / "a" / "b" / "run") as folder:
            write_two(folder)
            raise stop

    with pytest.raises(stop):
        stopped()
    assert names(tmp_path) == ["old"]
    assert names(tmp_path / "old") == []


def test_a_folder_made_above_out_stays_if_somebody_else_has_put_something_in(tmp_path):
    def stopped():
        with staged(tmp_path / "a" / "b" / "run"):
            (tmp_path / "a" / "theirs.txt").write_text("theirs")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped()
    assert names(tmp_path / "a") == ["theirs.txt"]


def test_an_interrupt_while_moving_leaves_nothing_of_a_new_folder(tmp_path, monkeypatch):
    replace = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "two.txt":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "new" / "run") as folder:
        write_two(folder)
    assert names(tmp_path) == []


def test_an_out_that_is_there_needs_nothing_beside_it(tmp_path):
    """It may be another disk, to which files could not be moved, or lie in somebody else's folder."""
    out = tmp_path / "run"
    out.mkdir()
    with staged(out) as folder:
        assert names(tmp_path) == ["run"]
        assert folder.parent == out
        write_two(folder)
    assert names(out) == ["deep", "two.txt"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077], ids=oct)
def test_files_and_folders_have_ordinary_permissions(tmp_path, umask):
    before = os.umask(umask)
    try:
        with staged(tmp_path / "new" / "run") as folder:
            save_classifier(classifier(), folder / "gru")
            (folder / "page.html").write_text("")
        save_classifier(classifier(), tmp_path / "alone")
    finally:
        os.umask(before)
    paths = [*(tmp_path / "new").rglob("*"), *(tmp_path / "alone").rglob("*"), tmp_path / "new", tmp_path / "alone"]
    assert len(paths) == 9
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path
