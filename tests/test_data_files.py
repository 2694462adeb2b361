"""Which files a path, a folder, a pattern or a list means, and what cannot be read."""

from functools import partial

import numpy as np
import pytest

from tests.refusals import assert_refused
from tidegate.data.files import find_files, lines_of
from tidegate.data.rows import Rows
from tidegate.errors import FileError, FileMissingError


@pytest.fixture
def folder(tmp_path):
    for name in ("b/two.txt", "a/one.TXT", "a/notes.md", ".hidden/three.txt", "a/.four.txt", "zero.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    return tmp_path


def test_a_folder_gives_its_fitting_files_by_their_names_below_it(folder):
    assert [found.name for found in find_files(folder, (".txt",))] == ["a/one.TXT", "b/two.txt", "zero.txt"]
    assert find_files(folder, (".txt",))[0].folder == "a"


def test_a_pattern_gives_names_below_its_fixed_part(folder):
    assert [found.name for found in find_files(str(folder / "*" / "*.txt"), (".txt",))] == ["b/two.txt"]
    assert [found.name for found in find_files(str(folder / "**" / "*"), (".txt",))] == [
        "a/one.TXT",
        "b/two.txt",
        "zero.txt",
    ]


def test_a_list_keeps_its_order_and_names_below_the_common_folder(folder):
    files = find_files([folder / "zero.txt", str(folder / "a" / "one.TXT")], (".txt",))
    assert [found.name for found in files] == ["zero.txt", "a/one.TXT"]


def test_a_list_may_hold_folders_and_patterns(folder):
    assert find_files([folder], (".txt",)) == find_files(folder, (".txt",))
    files = find_files([folder / "b", str(folder / "z*")], (".txt",))
    assert [found.name for found in files] == ["b/two.txt", "zero.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("text")
    assert [found.name for found in find_files(tmp_path / "a[1].txt", (".txt",))] == ["a[1].txt"]


def test_what_is_not_there_is_one_sentence(folder):
    assert_refused(lambda: find_files(folder / "no.txt", (".txt",)), FileMissingError, "there is no file '.*no.txt'")
    assert_refused(
        lambda: find_files(str(folder / "no*"), (".txt",)), FileError, r"the pattern '.*no\*' .* it gives none"
    )
    assert_refused(lambda: find_files(str(folder / "no" / "*"), (".txt",)), FileMissingError, "it gives none")
    assert_refused(
        lambda: find_files(folder, (".wav",)), FileError, "must give files of .wav; it gives 4 files, of .TXT"
    )
    assert_refused(lambda: find_files([], (".txt",)), FileError, "at least one; it is empty")
    assert_refused(lambda: find_files("", (".txt",)), FileMissingError, "must name a file or folder; it is empty")
    for name in ("a" * 5000, "a\0b", ["a" * 5000]):
        assert_refused(partial(find_files, name, (".txt",)), FileMissingError, "there is no file 'a")
    twice = [folder / "zero.txt", str(folder / "zero.txt")]
    assert_refused(lambda: find_files(twice, (".txt",)), FileError, "'.*zero.txt' is in it twice")


def test_lines_are_numbered_and_a_byte_order_mark_is_left_out(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffä\r\n\nb".encode())
    assert list(lines_of(tmp_path / "a")) == [(1, "ä"), (2, ""), (3, "b")]


def test_a_wrong_encoding_and_an_empty_file_are_one_sentence(tmp_path):
    (tmp_path / "a").write_bytes("one\nzwölf".encode("latin-1"))
    assert_refused(
        lambda: list(lines_of(tmp_path / "a")), FileError, "'.*a', line 2 must be UTF-8; byte 3 of it is 0xf6"
    )
    (tmp_path / "b").write_bytes(b"")
    assert_refused(lambda: list(lines_of(tmp_path / "b")), FileError, "'.*b' is empty")


@pytest.mark.parametrize("in_memory", [0, 100, 2**20])
def test_rows_are_the_same_in_memory_and_in_a_file(in_memory):
    pieces = np.split(np.random.default_rng(0).normal(size=(50, 3)), [0, 7, 8, 30])
    rows = Rows((3,), np.float64, in_memory)
    for piece in pieces:
        rows.append(piece)
    found = rows.finish()
    assert isinstance(found, np.memmap) == (in_memory < 2**20)
    np.testing.assert_array_equal(found, np.concatenate(pieces))
    assert len(rows) == 50


def test_a_disk_without_room_is_one_sentence(monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    assert_refused(
        lambda: Rows((), np.float64, 0).append(np.zeros(3)), FileError, "cannot be written to '.*': No space left"
    )
