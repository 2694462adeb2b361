"""Folders of results, which are filled whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.test_train_model_file import TASK, model
from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.train.folders import check_out, staged
from tidegate.train.model_file import load_model, save_model


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
        load_model(folder / "model.safetensors")


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
            (folder / "gru").mkdir()
            save_model(model(), TASK, folder / "gru" / "model.safetensors")
            (folder / "page.html").write_text("")
        save_model(model(), TASK, tmp_path / "alone.safetensors")
    finally:
        os.umask(before)
    paths = list(tmp_path.rglob("*"))
    assert len(paths) == 6
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~umask, path
