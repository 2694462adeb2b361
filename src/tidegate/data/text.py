"""Text files -> sequences of bytes or characters."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.data.files import Found, opened
from tidegate.data.folders import NO_COLUMNS, FolderLabel, folder_label, offsets_of, require_no_columns
from tidegate.data.known import as_asked
from tidegate.data.rows import Rows, chunks
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.errors import FileError, InputValueError

__all__ = ["Level", "Per", "is_text", "read_text"]

Level = Literal["bytes", "characters"]
Per = Literal["file", "line"]

_PIECE = 2**20  # bytes that are read at once
_LF, _CR = 10, 13
#: The label that is the next symbol.
NEXT = "next"
#: Byte 10 is "0x0a".
_BYTES = tuple(f"0x{byte:02x}" for byte in range(256))


def read_text(
    files: Sequence[Found],
    columns: Columns = NO_COLUMNS,
    *,
    level: Level = "bytes",
    per: Per = "file",
    encoding: str = "utf-8",
    label: FolderLabel = None,
    known: Sequence[Feature] | None = None,
) -> Sequences:
    """Text as a sequence of one category: a step for each byte, or for each character.

    `level="bytes"` has the feature `byte` with the categories 0x00 to 0xff, their codes the bytes themselves; one whole
    file is a memory map, not read. `level="characters"` has `character`, with the characters that there are, sorted
    by code point; files are decoded twice, a piece at a time, and a byte order mark of UTF-8 is left out. `per="line"`
    makes a sequence of each line, without its end (LF or CR LF), named by the line's number; blank ones are left out.
    `columns.label="next"` makes the symbol that follows the label of each step: what a language model is trained on.

    Raises:
        FileError: a file is empty, is not of the encoding, or has no line that is not blank.
        FileMissingError, InputValueError: as `find_files` and `as_asked`; a level, encoding or `per` that is none.
    """
    require_no_columns(columns, "text files", labels=("folder", NEXT))
    _check_choice("level", level, ("bytes", "characters"))
    _check_choice("per", per, ("file", "line"))
    codec = _codec(encoding)
    of_files = folder_label(files, label, columns)
    for found in files:
        opened(found.path)
    if level == "bytes":
        feature = Feature("byte", "category", _BYTES)
    else:
        feature = Feature(
            "character", "category", _vocabulary([_characters(found.path, codec) for found in files], per)
        )
        if known is not None and len(known) == 1 and known[0].name == feature.name and known[0].kind == feature.kind:
            feature = known[0]
    table = None if level == "bytes" else _table(feature)
    whole = level == "bytes" and per == "file" and len(files) == 1  # the file itself is the array
    rows, lengths = Rows((), np.uint8 if level == "bytes" else np.int32), []
    for found in files:
        counted = [0]
        for kept, counts in _split(_bytes(found.path) if table is None else _characters(found.path, codec), per):
            counted[-1] += counts[0]
            counted += counts[1:]
            if not whole:
                rows.append(kept if table is None else table[np.minimum(kept, len(table) - 1)])
        lengths.append(counted)
        if not any(counted):
            raise FileError(
                f"{str(found.path)!r} must have a line that is not blank"
                if per == "line"
                else f"{str(found.path)!r} is empty but for a byte order mark"
            )
    ids = [
        found.name if per == "file" else str(number) if len(files) == 1 else f"{found.name}:{number}"
        for found, counted in zip(files, lengths, strict=True)
        for number, length in enumerate(counted, start=1)
        if length
    ]
    kept_lengths = [[length for length in counted if length] for counted in lengths]
    sequences = Sequences(
        (feature,),
        (np.memmap(files[0].path, np.uint8, "r") if whole else rows.finish()).reshape(-1, 1),
        offsets_of([length for counted in kept_lengths for length in counted]),
        ids,
        label=_repeated(of_files, [len(counted) for counted in kept_lengths]),
        files=tuple(str(found.path) for found in files),
    )
    if columns.label == NEXT:
        sequences = replace(sequences, label=_following(sequences))
    return as_asked(sequences, columns, known)


def is_text(sequences: Sequences) -> bool:
    """Whether a step is one of bytes or characters."""
    features = sequences.features
    return len(features) == 1 and features[0].kind == "category" and features[0].name in ("byte", "character")


def _check_choice(name: str, value: str, choice: tuple[str, str]) -> None:
    if value not in choice:
        raise InputValueError(f"{name} must be {choice[0]!r} or {choice[1]!r}; got {value!r}")


def _following(sequences: Sequences) -> Label:
    """The symbol after each; NaN after the last of a sequence."""
    rows = Rows((), np.float64)
    for start, piece in chunks(sequences.values):
        after = sequences.values[start + 1 : start + 1 + len(piece), 0].astype(np.float64)
        after = np.append(after, np.nan)[: len(piece)]
        first, last = np.searchsorted(sequences.offsets, [start + 1, start + 1 + len(piece)])
        after[sequences.offsets[first:last] - 1 - start] = np.nan
        rows.append(after)
    return Label(NEXT, rows.finish(), True, sequences.features[0].categories)


def _codec(encoding: str) -> str:
    """The name of an encoding of text, as Python has it."""
    try:
        codec = codecs.lookup(encoding).name
        if isinstance(codecs.getincrementaldecoder(codec)("strict").decode(b""), str):
            return codec
    except (LookupError, TypeError, ValueError):
        pass
    raise InputValueError(f"encoding must be one that Python decodes, such as 'utf-8'; got {encoding!r}")


def _repeated(label: Label | None, counts: list[int]) -> Label | None:
    return label and Label(label.name, np.repeat(label.values, counts), False, label.categories)


def _bytes(path: Path) -> Iterator[NDArray[np.uint8]]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield np.frombuffer(piece, np.uint8)


def _characters(path: Path, codec: str) -> Iterator[NDArray[np.uint32]]:
    """The code points of a file, piece by piece."""
    decoder = codecs.getincrementaldecoder(codec)("strict")
    before, breaks = 0, 0
    with path.open("rb") as file:
        if codec == "utf-8" and file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            before = len(codecs.BOM_UTF8)
        file.seek(before)
        piece = b" "
        while piece:
            piece = file.read(_PIECE)
            waiting = len(decoder.getstate()[0])
            try:
                points = decoder.decode(piece, final=not piece).encode("utf-32-le")
            except UnicodeDecodeError as error:
                at = error.start - waiting
                line = breaks + piece[: max(0, at)].count(b"\n") + 1
                raise FileError(
                    f"{str(path)!r}, line {line} must be {codec.upper()}; byte {before + at + 1} of the file is not"
                ) from error
            except UnicodeError as error:
                raise FileError(f"{str(path)!r} must be {codec.upper()}: {error}") from error
            before += len(piece)
            breaks += piece.count(b"\n")
            if points:
                yield np.frombuffer(points, "<u4").astype(np.uint32)


def _split(pieces: Iterator[NDArray[Any]], per: Per) -> Iterator[tuple[NDArray[Any], list[int]]]:
    """Pieces without the ends of lines; the symbols in the line that goes on, and in each that begins."""
    if per == "file":
        yield from ((piece, [len(piece)]) for piece in pieces)
        return
    held = None  # a CR at the end of a piece, which the LF of the next may follow
    for piece in pieces:
        symbols = piece if held is None else np.concatenate([held, piece])
        held = symbols[-1:] if symbols[-1] == _CR else None
        symbols = symbols[:-1] if held is not None else symbols
        breaks = symbols == _LF
        ends = breaks | np.append((symbols[:-1] == _CR) & breaks[1:], False)
        lines = np.cumsum(breaks)
        counts = np.bincount(lines[~ends], minlength=lines[-1] + 1 if len(lines) else 1)
        yield symbols[~ends], counts.tolist()
    if held is not None:
        yield held, [1]


def _vocabulary(files: list[Iterator[NDArray[np.uint32]]], per: Per) -> tuple[str, ...]:
    found: NDArray[np.uint32] = np.empty(0, np.uint32)
    for pieces in files:
        for piece, _ in _split(pieces, per):
            found = np.union1d(found, piece)
    return tuple(map(chr, found.tolist()))


def _table(feature: Feature) -> NDArray[np.int32]:
    """The code of each code point; -1 for what is not in the vocabulary, and in the last place for all beyond it."""
    points = [ord(character) for character in feature.categories]
    table = np.full(max(points, default=0) + 2, -1, np.int32)
    table[points] = np.arange(len(points))
    return table
