"""JSON Lines -> sequences: one sequence a line, or one step a line.

A line is a sequence if the first line has the key `steps`:

    {"id": "a", "steps": [[0.1, 3], [0.2, null]], "label": "walk"}
    {"id": "b", "steps": [{"speed": 0.1, "on": true}, {"on": false}], "times": [0, 1.5], "label": ["x", "y"]}

`steps` is a list of lists of one length (features x0, x1, ...), of objects (features by name; what an object does not
have is missing), or of single values (x0). `id`, `times` and `label` may be left out; `times` are numbers or dates, one
a step, and `label` is one value, or a list with one a step. Other keys are not looked at.

Otherwise a line is a step: an object of columns, as a row of a table.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tidegate.data.files import lines_of
from tidegate.data.objects import Where
from tidegate.data.sequences import Columns
from tidegate.errors import FileError

__all__ = ["Block", "blocks_of"]

_BATCH = 4096  # lines of one step that are taken together


@dataclass
class Block:
    """Some steps: a sequence, or rows of a table."""

    columns: dict[str, list[Any]]
    steps: int
    where: Where  # of step i
    #: A sequence's own; not used for rows of a table.
    id: str | None = None
    times: list[Any] | None = None
    label: Any = None


def blocks_of(path: Path, columns: Columns) -> tuple[bool, Iterator[Block]]:
    """Whether a line is a sequence, and the blocks of the file, one at a time."""
    lines = _objects(path)
    first = next(lines, None)
    if first is None:
        raise FileError(f"{str(path)!r} must have a line with a JSON object; all are blank")
    whole = "steps" in first[1]

    def again() -> Iterator[tuple[int, dict[str, Any]]]:
        yield first
        yield from lines

    return whole, (_sequences if whole else _rows)(path, again(), columns)


def _sequences(path: Path, lines: Iterator[tuple[int, dict[str, Any]]], columns: Columns) -> Iterator[Block]:
    width: int | None = None
    for number, line in lines:
        where = f"{str(path)!r}, line {number}"
        steps = line.get("steps")
        if not isinstance(steps, list) or not steps:
            raise FileError(
                f"{where} must have steps, a list of one or more, as the first line; it has {_short(steps)}"
            )
        types = set(map(type, steps))
        if types == {dict}:
            names = list(dict.fromkeys(name for step in steps for name in step))
            found = {name: [step.get(name) for step in steps] for name in names}
        elif types == {list}:
            found = _unnamed(steps, where)
        elif types & {dict, list}:
            raise FileError(f"{where}: all steps must be lists, or all objects, or all values; they are mixed")
        else:
            found = {"x0": steps}
        if types != {dict}:
            width = len(found) if width is None else width
            if len(found) != width:
                raise FileError(f"{where}: a step must have {width} values, as before; it has {len(found)}")
        yield _with_own(line, Block(found, len(steps), _step_of(where)), columns, where)


def _step_of(where: str) -> Where:
    return lambda step: f"{where}, step {step + 1}"


def _line_of(path: Path, numbers: list[int]) -> Where:
    return lambda step: f"{str(path)!r}, line {numbers[step]}"


def _with_own(line: dict[str, Any], block: Block, columns: Columns, where: str) -> Block:
    """The block with the id, times and label of its line."""
    name = line.get(columns.id or "id")
    if columns.id and name is None:
        raise FileError(f"{where} must have {columns.id!r}, the id")
    if name is not None:
        block.id = _id(name, where)
    times = columns.time or "times"
    block.times = block.columns.pop(times, None) if columns.time else None
    if block.times is None:
        block.times = line.get(times)
    if columns.time and block.times is None:
        raise FileError(f"{where} must have {times!r}, the times")
    label = columns.label or "label"
    block.label = (block.columns.pop(label, None) if columns.label else None) or line.get(label)
    if columns.label and label not in line and block.label is None:
        raise FileError(f"{where} must have {label!r}, the label, or null")
    hold = columns.hold
    held = line.get(hold) if hold is not None else None
    for what, given in ((times, block.times), (label, block.label), (hold, held)):
        _check_list(what, given, block.steps, where, single=what == label)
    if hold is not None and held is not None:
        block.columns[hold] = held
    return block


def _check_list(what: str | None, given: Any, steps: int, where: str, *, single: bool) -> None:
    """What is one a step has as many as there are steps; a `single` value may stand for all."""
    if isinstance(given, list) and len(given) != steps:
        raise FileError(f"{where}: {what!r} must be a list of {steps}, one a step; it has {len(given)}")
    if given is not None and not isinstance(given, list) and not single:
        raise FileError(f"{where}: {what!r} must be a list of {steps}, one a step; it is {_short(given)}")


def _unnamed(steps: list[list[Any]], where: str) -> dict[str, list[Any]]:
    try:
        return {f"x{number}": list(column) for number, column in enumerate(zip(*steps, strict=True))}
    except ValueError:
        number = next(number for number, step in enumerate(steps) if len(step) != len(steps[0]))
        raise FileError(
            f"{where}, step {number + 1} must have {len(steps[0])} values, as step 1; it has {len(steps[number])}"
        ) from None


def _rows(path: Path, lines: Iterator[tuple[int, dict[str, Any]]], columns: Columns) -> Iterator[Block]:
    for _, group in groupby(enumerate(lines), lambda numbered: numbered[0] // _BATCH):
        batch = [line for _, line in group]
        numbers = [number for number, _ in batch]
        for number, row in batch:
            where = f"{str(path)!r}, line {number}"
            if "steps" in row:
                raise FileError(f"{where} has steps, and the first line has none; all lines must be alike")
            for what in (columns.id, columns.time):
                if what and row.get(what) is None:
                    raise FileError(f"{where} must have {what!r}; it has {_short(list(row)[:8])}")
        names = dict.fromkeys(name for _, row in batch for name in row)
        yield Block(
            {name: [row.get(name) for _, row in batch] for name in names},
            len(batch),
            _line_of(path, numbers),
        )


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the lines that are not blank, with the lines' numbers."""
    for number, line in lines_of(path):
        if not line.strip():
            continue
        where = f"{str(path)!r}, line {number}"
        try:
            value = json.loads(line, parse_constant=_constant, object_pairs_hook=_object)
        except _TwiceError as error:
            raise FileError(f"{where} must have each key once; it has {str(error)!r} twice") from None
        except (ValueError, RecursionError) as error:
            told = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise FileError(f"{where} must be JSON: {told}") from error
        if not isinstance(value, dict):
            raise FileError(f"{where} must be a JSON object; it is {_short(value)}")
        yield number, value


class _TwiceError(Exception):
    """A key is there twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for number, key in enumerate(keys) if key in keys[:number]))
    return found


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)  # an infinity is refused with its column


def _id(value: object, where: str) -> str:
    if type(value) not in (str, int, float) or value in (math.inf, -math.inf):
        raise FileError(f"{where}: an id must be a text or a number; it is {_short(value)}")
    return str(value)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
