"""Text: every byte and character read back, in pieces of any size, and wrong encodings named."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.data_writers import read, survives
from tests.refusals import assert_refused
from tidegate.data import Columns, Feature
from tidegate.errors import FileError, InputValueError

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), min_size=1)
PIECES = st.integers(1, 9)


def told(sequences):
    """The texts that sequences of characters, or of bytes, tell."""
    categories = sequences.features[0].categories
    if sequences.features[0].name == "byte":
        return [bytes(values[:, 0].tolist()) for values in sequences]
    return ["".join(categories[code] for code in values[:, 0]) for values in sequences]


@given(content=st.binary(min_size=1))
def test_bytes_are_the_file_itself(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("text") / "x.txt"
    path.write_bytes(content)
    sequences = read(path)
    assert isinstance(sequences.values.base, np.memmap)
    assert sequences.values.dtype == np.uint8
    assert told(sequences) == [content]
    assert sequences.features[0].categories[10] == "0x0a"
    assert sequences.ids == ["x.txt"]


@given(text=TEXTS, piece=PIECES, encoding=st.sampled_from(["utf-8", "utf-16", "utf-32-le"]))
def test_characters_read_back(tmp_path_factory, text, piece, encoding):
    path = tmp_path_factory.mktemp("text") / "x.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidegate.data.text._PIECE", piece)
        sequences = read(path, level="characters", encoding=encoding)
    assert told(sequences) == [text]
    assert sequences.features == (Feature("character", "category", tuple(sorted(set(text)))),)


@given(
    text=st.text(st.sampled_from("ab\r\n"), min_size=1), piece=PIECES, level=st.sampled_from(["bytes", "characters"])
)
@example(text="a\r\r\nb\n\n\nc\r", piece=2, level="bytes")
def test_lines_are_sequences_without_their_ends(tmp_path_factory, text, piece, level):
    lines = text.encode().split(b"\n")
    lines = [line.removesuffix(b"\r") for line in lines[:-1]] + [lines[-1]]
    kept = {str(number): line for number, line in enumerate(lines, start=1) if line}
    path = tmp_path_factory.mktemp("text") / "x.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidegate.data.text._PIECE", piece)
        if not kept:
            assert_refused(lambda: read(path, level=level, per="line"), FileError, "must have a line that is not blank")
            return
        sequences = read(path, level=level, per="line")
    assert told(sequences) == [line if level == "bytes" else line.decode() for line in kept.values()]
    assert sequences.ids == list(kept)


def test_files_of_a_folder_with_its_labels(tmp_path):
    for name, text in (("en/a.txt", "the\ncat"), ("fr/b.txt", "le"), ("en/c.txt", "dog")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    sequences = read(tmp_path, level="characters", label="folder")
    assert sequences.ids == ["en/a.txt", "en/c.txt", "fr/b.txt"]
    assert told(sequences) == ["the\ncat", "dog", "le"]
    assert sequences.label.categories == ("en", "fr")
    assert sequences.label.values.tolist() == [0, 0, 1]
    lines = read(tmp_path, per="line", label="folder")
    assert lines.ids == ["en/a.txt:1", "en/a.txt:2", "en/c.txt:1", "fr/b.txt:1"]
    assert lines.label.values.tolist() == [0, 0, 0, 1]
    assert told(lines) == [b"the", b"cat", b"dog", b"le"]


def test_a_byte_order_mark_is_left_out(tmp_path):
    (tmp_path / "x.txt").write_bytes("\ufeffaä".encode())
    assert told(read(tmp_path / "x.txt", level="characters")) == ["aä"]
    (tmp_path / "x.txt").write_bytes("\ufeff".encode())
    assert_refused(
        lambda: read(tmp_path / "x.txt", level="characters"), FileError, "is empty but for a byte order mark"
    )


def test_a_known_vocabulary(tmp_path):
    (tmp_path / "x.txt").write_text("abcü")
    known = (Feature("character", "category", ("c", "a")),)
    sequences = read(tmp_path / "x.txt", level="characters", known=known)
    assert sequences.features == known
    assert sequences.values[:, 0].tolist() == [1, -1, 0, -1]


@pytest.mark.parametrize("piece", [1, 3, 2**20])
def test_a_wrong_encoding_is_one_sentence(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("tidegate.data.text._PIECE", piece)
    path = tmp_path / "x.txt"
    path.write_bytes("ä€\nzwölf".encode() + "ö".encode("latin-1") + b"x")
    assert_refused(lambda: read(path, level="characters"), FileError, "'.*x.txt', line 2 must be UTF-8; byte 13 of")
    path.write_bytes("abc€".encode()[:-1])
    assert_refused(lambda: read(path, level="characters"), FileError, "line 1 must be UTF-8; byte 4 of the file is not")
    path.write_bytes(b"abc")
    assert_refused(
        lambda: read(path, level="characters", encoding="utf-16"), FileError, "must be UTF-16(; byte 3 of|: .*BOM)"
    )


def test_large_files_are_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("tidegate.data.rows.IN_MEMORY", 1000)
    (tmp_path / "x.txt").write_text("abcd" * 5000)
    assert isinstance(read(tmp_path / "x.txt", level="characters").values.base, np.memmap)


def test_options_that_are_none_are_one_sentence(tmp_path, as_users_run_it):
    (tmp_path / "x.txt").write_text("abc")
    given_options: list[tuple[dict[str, Any], str]] = [
        ({"level": "words"}, "level must be 'bytes' or 'characters'; got 'words'"),
        ({"per": "page"}, "per must be 'file' or 'line'; got 'page'"),
        ({"encoding": "utf-9"}, "encoding must be one that Python decodes, such as 'utf-8'; got 'utf-9'"),
        ({"encoding": "hex"}, "encoding must be one that Python decodes"),
        ({"label": "name"}, "label must be 'folder', .* got 'name'"),
        ({"columns": Columns(time="t")}, "text files have no columns, .*; got columns.time='t'"),
        ({"grid": (1, 1)}, "grid means nothing for text: it takes level, per, encoding, label"),
    ]
    for options, sentence in given_options:
        assert_refused(partial(read, tmp_path / "x.txt", **options), InputValueError, sentence)


def test_empty_files_are_one_sentence(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"")
    assert_refused(lambda: read(tmp_path / "x.txt"), FileError, "'.*x.txt' is empty")


def test_damaged_files_are_read_or_refused(tmp_path):
    counts = survives(
        lambda path: read(path, level="characters", per="line"),
        "Grün ist\nalle Theorie\r\n€".encode(),
        tmp_path / "damaged.txt",
        0.5,
    )
    assert counts["FileError"] > 20
    assert counts["read"] > 20


# ------------------------------------------------------------------------------------------ the next symbol


@pytest.mark.parametrize("level", ["bytes", "characters"])
@pytest.mark.parametrize("per", ["file", "line"])
def test_the_label_may_be_the_next_symbol(tmp_path, monkeypatch, level, per):
    monkeypatch.setattr("tidegate.data.rows.CHUNK", 3)  # pieces end everywhere
    for name, text in (("a.txt", "one é\n\nb\ntwo"), ("b.txt", "x"), ("c.txt", "abcdef")):
        (tmp_path / name).write_bytes(text.encode())
    for data in (tmp_path, tmp_path / "c.txt"):
        found = read(data, columns=Columns(label="next"), level=level, per=per)
        assert found.label.per_step
        assert found.label.categories == found.features[0].categories
        assert len(found.label.values) == len(found.values)
        for number in range(len(found)):
            rows = found.rows(number)
            own = found.values[rows, 0]
            np.testing.assert_array_equal(found.label.values[rows], [*own[1:], np.nan])
