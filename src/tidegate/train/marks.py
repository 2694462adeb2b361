"""Edit decision lists of recordings, brought to their steps: which are to be held, or the class of each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tidegate.data.edl import Event, read_edl
from tidegate.data.sequences import Label, Sequences
from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.gates.losses import steps_of

__all__ = ["BESIDE", "EDL", "with_edl_label", "with_held"]

#: Instead of a file: the list of its own beside each recording.
BESIDE = "beside"
#: The label that is read from the lists beside the recordings.
EDL = "edl"
#: Seconds that a recording may go on behind its last step: a frame of sound is left out that is not whole.
_SLACK = 1.0


def with_held(sequences: Sequences, edl: str, rate: float | None) -> Sequences:
    """The sequences, held at the steps in the spans of `edl`: a file, or BESIDE.

    A file alone belongs to the only recording, or its events name theirs (`* FROM CLIP NAME:`). Steps of a recording
    that no list is beside, or no event names, are NaN: not known.

    Raises:
        InputValueError: sequences are no recordings with times; events and recordings do not belong together.
        FileMissingError, FileError: a list is not there, or damaged; a span begins after its recording's end.
    """
    lists = _beside(sequences, rate, "hold_edl") if edl == BESIDE else _of_one(sequences, Path(edl), rate)
    held = np.full(int(sequences.offsets[-1]), np.nan)
    for number, found in lists.items():
        held[sequences.rows(number)] = _inside(sequences, number, *found)
    return replace(sequences, held=held)


def with_edl_label(sequences: Sequences, rate: float | None, *, needed: bool = True) -> Sequences:
    """The sequences with a class for every step: the name of the span that it lies in; NaN, not known, in none.

    Where no list lies beside any recording, as they are, unless they are `needed`.
    Raises as `with_held`, and `FileError` for spans of different names that overlap.
    """
    lists = _beside(sequences, rate, "label 'edl'", needed=needed)
    if not lists:
        return sequences
    names = tuple(sorted({event.name for _, events in lists.values() for event in events}))
    values = np.full(int(sequences.offsets[-1]), np.nan)
    for number, (path, events) in lists.items():
        own = values[sequences.rows(number)]
        for code, name in enumerate(names):
            of_name = [event for event in events if event.name == name]
            steps = _inside(sequences, number, path, of_name)
            twice = steps & ~np.isnan(own)
            if twice.any():
                other = names[int(own[twice][0])]
                raise FileError(
                    f"{str(path)!r}, line {of_name[0].line}: spans must not overlap to be a label; "
                    f"{name!r} and {other!r} do"
                )
            own[steps] = code
    return replace(sequences, label=Label(EDL, values, True, names))


def _inside(sequences: Sequences, number: int, path: Path, events: Sequence[Event]) -> NDArray[np.bool_]:
    """(T,) which steps of a sequence lie in the spans."""
    begins, end = _times(sequences, number)
    last = float(begins[-1]) if end is None else end
    for event in events:
        if event.start > last + _SLACK:
            raise FileError(
                f"{str(path)!r}, line {event.line}: the span begins at {event.start:.3f} s, after the end of "
                f"{sequences.ids[number]!r} at {last:.3f} s"
            )
    steps = steps_of([(event.start, event.stop) for event in events], torch.from_numpy(begins), end=end)
    found: NDArray[np.bool_] = steps.numpy()
    return found


def _times(sequences: Sequences, number: int) -> tuple[NDArray[np.float64], float | None]:
    """When each step of a sequence begins, and when the last ends, if that is known."""
    assert sequences.times is not None
    times = np.array(sequences.times[sequences.rows(number)])
    recorded = sequences.recorded
    return (times, None) if recorded is None else (times - recorded.lead, float(recorded.ends[number]))


def _require_recordings(sequences: Sequences, what: str) -> None:
    if sequences.times is None:
        raise InputValueError(f"{what} needs sequences with times, such as recordings; these have none")


def _own_rate(sequences: Sequences, number: int) -> float | None:
    rates = None if sequences.recorded is None else sequences.recorded.rates
    return None if rates is None or np.isnan(rates[number]) else float(rates[number])


_Lists = dict[int, tuple[Path, list[Event]]]


def _beside(sequences: Sequences, rate: float | None, what: str, *, needed: bool = True) -> _Lists:
    """The lists that lie beside the recordings: one.edl, or one.mp4.edl, beside one.mp4."""
    _require_recordings(sequences, what)
    alike = len(sequences.files) == len(sequences) and all(
        name in (Path(file).name, Path(file).stem)
        for file, name in zip(sequences.files, (Path(name).name for name in sequences.ids), strict=True)
    )
    if not alike:
        raise InputValueError(f"{what} needs a file for each sequence, to find the list beside it")
    lists: _Lists = {}
    for number, file in enumerate(map(Path, sequences.files)):
        for path in (file.with_suffix(".edl"), file.with_name(f"{file.name}.edl")):
            if path.is_file():
                lists[number] = path, read_edl(path, rate, own=_own_rate(sequences, number))
                break
    if not lists and needed:
        first = Path(sequences.files[0]).with_suffix(".edl")
        raise FileMissingError(f"{what} needs a list beside some recording, such as {str(first)!r}; there is none")
    return lists


def _of_one(sequences: Sequences, path: Path, rate: float | None) -> _Lists:
    """The events of one file by the recording that they belong to."""
    _require_recordings(sequences, "hold_edl")
    if len(sequences) == 1:
        return {0: (path, read_edl(path, rate, own=_own_rate(sequences, 0)))}
    names: dict[str, list[int]] = {}
    for number, name in enumerate(sequences.ids):
        for one in {name, Path(name).name, Path(name).stem}:
            names.setdefault(one, []).append(number)
    lists: _Lists = {}
    rates = {_own_rate(sequences, number) for number in range(len(sequences))}
    for event in read_edl(path, rate, own=rates.pop() if len(rates) == 1 else None):
        where = f"{str(path)!r}, line {event.line}"
        if event.clip is None:
            raise InputValueError(
                f"{where}: an event must name its recording (* FROM CLIP NAME: ...) where there are several; "
                f"or hold_edl must be {BESIDE!r}"
            )
        meant = names.get(event.clip, [])
        if len(meant) != 1:
            told = f"it is that of {len(meant)}" if meant else f"there is no {event.clip!r}"
            raise InputValueError(f"{where}: a clip must be the name of one recording; {told}")
        lists.setdefault(meant[0], (path, []))[1].append(event)
    return lists
