"""The first pass over a table: how long each sequence is, and what every column holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data import cells
from tidegate.data.cells import Reading
from tidegate.data.columns import Roles
from tidegate.data.sequences import Feature, Kind, Label
from tidegate.data.table_files import TableFile
from tidegate.errors import FileError
from tidegate.extras import require

__all__ = ["MOST_CATEGORIES", "Survey", "sequence_numbers", "survey"]

MOST_CATEGORIES = 1000


@dataclass
class Survey:
    """What the first pass found."""

    #: The number of each sequence by its name, in the order of their first rows.
    numbers: dict[str, int] = field(default_factory=dict)
    #: (S,) their lengths.
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    features: list[Reading] = field(default_factory=list)
    label: Reading | None = None
    #: How text tells the time, if it does; one of `cells.TIME_FORMS`.
    time_form: str | None = None

    def count(self, sequences: NDArray[np.int64]) -> None:
        """Count rows to the sequences that they belong to."""
        found = np.bincount(sequences, minlength=len(self.lengths))
        if len(found) > len(self.lengths):
            room = np.zeros(max(len(found), 2 * len(self.lengths)), np.int64)
            room[: len(self.lengths)] = self.lengths
            self.lengths = room
        self.lengths[: len(found)] += found


def sequence_numbers(
    array: Any, column: str, place: Callable[[int], str], number: Callable[[str], int]
) -> NDArray[np.int64]:
    """The sequence of each row, by a column of ids; `number` gives that of an id."""
    encoded = cells.as_text(array).dictionary_encode()
    if encoded.null_count:
        row = int(np.flatnonzero(encoded.is_null().to_numpy(zero_copy_only=False))[0])
        raise FileError(f"{place(row)}: every row must have an id; {column!r} is empty")
    numbers = [number(word) for word in encoded.dictionary.to_pylist()]
    made: NDArray[np.int64] = np.array(numbers, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]
    return made


def survey(
    files: Sequence[TableFile],
    roles: Roles,
    known: Mapping[str, Feature] | None = None,
    known_label: Label | None = None,
) -> Survey:
    """Read what must be known before the numbers are read.

    Raises:
        FileError: files that do not go together, a column that cannot be used as it is meant to, ragged rows.
    """
    found = Survey()
    for name in roles.all:
        _check_types(files, name, roles)
    texts = {
        name: _Text(
            name,
            forced=name in roles.categorical or files[0].type_of(name) is not None,
            limited=(known_label if name == roles.label else known) is None,
        )
        for name in (*roles.features, *filter(None, [roles.label]))
        if name in roles.categorical or _holds_text(files[0], name)
    }
    time = _Time(roles.time) if roles.time is not None and _holds_text(files[0], roles.time) else None
    for position, file in enumerate(files):
        rows = _look_through(file, roles, found, texts, time)
        if rows == 0:
            raise FileError(f"{str(file.path)!r} has no rows")
        if roles.id is None:
            found.count(np.full(1, position))
            found.lengths[position] = rows
    if roles.id is None:
        found.numbers = {name: number for number, name in enumerate(_names_of(files))}
    found.lengths = found.lengths[: len(found.numbers)]
    found.time_form = time.form if time else None
    found.features = [
        _reading(name, texts.get(name), files[0], known[name] if known else None) for name in roles.features
    ]
    if roles.label is not None:
        text, learned = texts.get(roles.label), None
        if known_label is not None:
            categories = known_label.categories
            learned = Feature(roles.label, "number" if categories is None else "category", categories or ())
        found.label = _reading(roles.label, text, files[0], learned)
        if learned is None and found.label.kind == "boolean":
            found.label = Reading(roles.label, "category", found.label.form, ("false", "true"))
    return found


def _look_through(
    file: TableFile, roles: Roles, found: Survey, texts: Mapping[str, "_Text"], time: "_Time | None"
) -> int:
    """Look at every row of a file; how many there are."""
    wanted = [*texts, *([time.name] if time else []), *([roles.id] if roles.id is not None else [])]
    if not wanted:
        return file.rows() or 0
    start = 0
    for arrays in file.batches(wanted):
        place = _placed(file, start)
        if roles.id is not None:
            numbers = sequence_numbers(
                arrays[roles.id], roles.id, place, lambda word: found.numbers.setdefault(word, len(found.numbers))
            )
            found.count(numbers)
        for name, text in texts.items():
            text.look(cells.as_text(arrays[name]), place)
        if time:
            time.look(arrays[time.name], place)
        start += len(arrays[wanted[0]])
    return start


def _placed(file: TableFile, start: int) -> Callable[[int], str]:
    return lambda row: file.place(start + row)


def _names_of(files: Sequence[TableFile]) -> list[str]:
    """What sequences are called that are files."""
    short = [file.path.name.partition(".")[0] for file in files]
    return short if len(set(short)) == len(short) else [str(file.path) for file in files]


def _holds_text(file: TableFile, name: str) -> bool:
    arrow_type = file.type_of(name)
    return arrow_type is None or cells.held_by(arrow_type) == "text"


def _check_types(files: Sequence[TableFile], name: str, roles: Roles) -> None:
    """A typed column must hold what it is used for, and the same in every file."""
    first = files[0].type_of(name)
    if first is None:
        return
    held = cells.held_by(first)
    for file in files[1:]:
        other = file.type_of(name)
        if cells.held_by(other) != held:
            raise FileError(
                f"all files must have the same columns; in {str(file.path)!r} {name!r} is {other}, "
                f"in {str(files[0].path)!r} {first}"
            )
    wrong = _wrong_use(held, "time" if name == roles.time else "id" if name == roles.id else "values")
    if wrong:
        raise FileError(f"column {name!r} of {str(files[0].path)!r} holds {wrong.format(first)}")


def _wrong_use(held: str, use: str) -> str | None:
    if held == "nothing":
        return "no values at all"
    if use == "time":
        return None if held in ("number", "time", "text") else "{}, where a time must be numbers or time stamps"
    if use == "id":
        return None if held != "other" else "{}, where an id must be words or numbers"
    if held == "time":
        return "{}: give it as the time, or leave it out with ignore"
    return "{}, where numbers, booleans or words are needed: leave it out with ignore" if held == "other" else None


class _Text:
    """What a column of text holds, as far as it was seen."""

    def __init__(self, name: str, *, forced: bool, limited: bool) -> None:
        self.name, self.forced, self.limited = name, forced, limited
        self.form = "plain"
        self.has_numbers = self.has_words = False
        self.all_boolean = True
        self.words: dict[str, None] = {}
        self.example = ""

    def look(self, text: Any, place: Callable[[int], str]) -> None:
        if text.null_count == len(text):
            return
        if not self.forced and not self.has_words and self._are_numbers(text):
            self.has_numbers = True
            return
        unique = text.dictionary_encode().dictionary
        if not self.forced:
            self._tell_apart(text, unique, place)
        elif not self.has_words:
            self.has_words = any(not cells.is_number(word) for word in unique.to_pylist()[:MOST_CATEGORIES])
        if self.limited or len(self.words) <= MOST_CATEGORIES:
            self.words |= dict.fromkeys(unique.to_pylist())
        if self.limited and len(self.words) > MOST_CATEGORIES:
            raise FileError(
                f"{place(0)}: column {self.name!r} has more than {MOST_CATEGORIES:,} different words by here, too many "
                "for categories: give it as the id, or leave it out with ignore"
            )

    def _are_numbers(self, text: Any) -> bool:
        pyarrow = require("pyarrow", "train")
        while self.form != "words":
            try:
                cells.numbers_of_text(text, self.form)
            except pyarrow.ArrowInvalid:
                self.form = {"plain": "loose", "loose": "words"}[self.form]
            else:
                return True
        return False

    def _tell_apart(self, text: Any, unique: Any, place: Callable[[int], str]) -> None:
        """Numbers and words do not go together; booleans are words of their own."""
        pyarrow, compute = require("pyarrow", "train"), require("pyarrow.compute", "train")
        tight = compute.utf8_trim_whitespace(unique)
        missing = compute.is_in(tight, pyarrow.array(cells.MISSING_WORDS))
        numbers = compute.match_substring_regex(tight, cells.NUMBER)
        words = compute.invert(compute.or_(missing, numbers)).to_numpy(zero_copy_only=False)
        self.has_numbers |= bool(compute.any(numbers).as_py())
        found = [unique[int(index)].as_py() for index in np.flatnonzero(words)]
        first = place(int(compute.index(text, found[0]).as_py())) if found and not self.has_words else ""
        if found and not self.has_words:
            self.has_words, self.example = True, f"{first}: column {self.name!r} holds {found[0]!r}"
        if self.has_words and self.has_numbers:
            raise FileError(
                f"{self.example}, and numbers in other rows; "
                f"if these are names, name the column in categorical=({self.name!r},)"
            )
        self.all_boolean &= all(word.strip() in (*cells.TRUE_WORDS, *cells.FALSE_WORDS) for word in found)


class _Time:
    """In which form a column of text tells the time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.forms = list(cells.TIME_FORMS)

    @property
    def form(self) -> str:
        return self.forms[0]

    def look(self, array: Any, place: Callable[[int], str]) -> None:
        text = cells.as_text(array)
        if text.null_count:
            row = int(np.flatnonzero(text.is_null().to_numpy(zero_copy_only=False))[0])
            raise FileError(f"{place(row)}: every row must have a time; {self.name!r} is empty")
        left = [form for form in self.forms if _is_time(text, form)]
        if not left:
            low, high = 0, len(text)
            while high - low > 1:  # some form reads the cells before `low`, none those before `high`
                middle = (low + high) // 2
                some = any(_is_time(text.slice(0, middle), form) for form in self.forms)
                low, high = (middle, high) if some else (low, middle)
            raise FileError(
                f"{place(low)}: column {self.name!r} must hold numbers, or dates and times as in 2024-01-31T12:00:00, "
                f"all in one form; got {text[low].as_py()!r}"
            )
        self.forms = left


def _is_time(text: Any, form: str) -> bool:
    pyarrow = require("pyarrow", "train")
    try:
        cells.read_time(text, form)
    except pyarrow.ArrowInvalid:
        return False
    return True


def _reading(name: str, text: _Text | None, file: TableFile, learned: Feature | None) -> Reading:
    """How a column is read, by what it holds and, at predict time, by what it was in training."""
    if text is None:
        found = Reading(name, "boolean" if cells.held_by(file.type_of(name)) == "boolean" else "number")
    elif text.forced or (text.has_words and not text.all_boolean):
        found = Reading(name, "category", categories=cells.sorted_categories(list(text.words)))
    elif text.has_words:
        found = Reading(name, "boolean", "boolean")
    else:
        found = Reading(name, "number", "plain" if text.form == "plain" else "loose")
    if learned is None:
        return found
    is_empty = text is not None and not text.words and not text.has_numbers
    holds = _without_words(text, file, learned) or found.kind if learned.kind == "category" else found.kind
    if holds == learned.kind:
        return Reading(name, learned.kind, found.form, learned.categories)
    if is_empty and file.type_of(name) is None:
        return Reading(name, learned.kind, "loose")
    expected = {"number": "numbers", "boolean": "true or false", "category": "words"}
    raise FileError(
        f"column {name!r} of {str(file.path)!r} must hold {expected[learned.kind]}, as in training; "
        f"it holds {expected[holds]}" + (f" ({text.example})" if text is not None and text.example else "")
    )


def _without_words(text: _Text | None, file: TableFile, learned: Feature) -> Kind | None:
    """What a column of categories holds instead, where none of the known ones can be written so."""
    arrow_type = file.type_of(learned.name)
    if arrow_type is None:
        is_number, is_boolean = text is not None and bool(text.words) and not text.has_words, False
    else:
        held = cells.held_by(arrow_type)
        is_number, is_boolean = held == "number", held == "boolean"
    if is_number and not any(cells.is_number(word) for word in learned.categories):
        return "number"
    return "boolean" if is_boolean and not {"true", "false"} & set(learned.categories) else None
