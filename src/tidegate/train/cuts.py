"""The classes of steps as spans of their recordings: edit decision lists, or chapters as ffmpeg reads them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tidegate.data.chapters import chapters_text
from tidegate.data.edl import Span, edl_text, frames_a_second
from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError
from tidegate.train.checkpoint import write_whole
from tidegate.train.folders import check_out, staged
from tidegate.train.tasks import Task

__all__ = ["SUFFIXES", "answered_spans", "is_cuts", "write_cuts"]

_LISTS, _CHAPTERS = (".edl",), (".ffmetadata", ".ffmeta")
SUFFIXES = (*_LISTS, *_CHAPTERS)
#: Frames a second of a list about sound, unless another rate is asked for.
_SOUND = 25.0


def is_cuts(path: str | Path) -> bool:
    """Whether a file of this name holds spans of a recording, not a table."""
    return Path(path).suffix.lower() in SUFFIXES


def write_cuts(
    pieces: Iterator[dict[str, np.ndarray]],
    task: Task,
    sequences: Sequences,
    out: str | Path,
    rate: float | None = None,
) -> list[Path]:
    """Write the answers for some recordings, a file for each, whole or not at all; the files.

    One recording's is `out`. Those of several lie in the folder of that name without its suffix, each under its
    recording's name: `cuts/day/one.edl` for `day/one.mp4`, or `one.mp4.edl` where two would have the same.

    Args:
        pieces: the answers, step after step and sequence after sequence (see `predict.answers`).
        sequences: what they are about.
        out: a file name that ends in .edl, or in .ffmetadata or .ffmeta for chapters.
        rate: frames a second of a list's timecodes; that of the video, or 25 for sound, if None.

    Raises:
        InputValueError: the task does not label steps, the sequences have no times, or a rate is not known.
        FileError: a file cannot be written.
    """
    out = Path(out)
    if task.name != "label-steps":
        raise InputValueError(f"out must be a table for a network that does not label steps; got {str(out)!r}")
    if sequences.times is None:
        raise InputValueError(f"out must be a table for sequences without times; got {str(out)!r}")
    several = len(sequences) > 1
    if rate is not None:
        frames_a_second(rate)
    folder = out.with_suffix("")
    if several:
        check_out(folder, overwrite=False, remedy="give another name")
    texts = {
        name: _text(sequences, number, spans, out, rate)
        for (number, spans), name in zip(answered_spans(pieces, sequences), _names(sequences, out), strict=True)
    }
    if not several:
        for text in texts.values():
            write_whole(out, text.encode())
        return [out]
    with staged(folder) as staging:
        for name, text in texts.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def answered_spans(pieces: Iterator[dict[str, np.ndarray]], sequences: Sequences) -> Iterator[tuple[int, list[Span]]]:
    """The spans of equal answers in each sequence, from its first step to the end of its last."""
    assert sequences.times is not None
    number, step = 0, 0
    starts: list[tuple[int, str]] = []
    for piece in pieces:
        answers, at = piece["prediction"], 0
        while at < len(answers):
            here = answers[at : at + int(sequences.lengths[number]) - step]
            changes = np.flatnonzero(here[1:] != here[:-1]) + 1
            for change in (0, *changes.tolist()):
                if not starts or starts[-1][1] != here[change]:
                    starts.append((step + change, str(here[change])))
            step, at = step + len(here), at + len(here)
            if step == sequences.lengths[number]:
                yield number, _in_time(sequences, number, starts)
                number, step, starts = number + 1, 0, []


def _in_time(sequences: Sequences, number: int, starts: list[tuple[int, str]]) -> list[Span]:
    assert sequences.times is not None
    times, recorded = np.asarray(sequences.times[sequences.rows(number)]), sequences.recorded
    if recorded is not None:
        times = np.maximum(times - recorded.lead, 0)
        times[0] = 0 if recorded.lead else times[0]  # the first frame of sound is of what comes before its middle
        end = float(recorded.ends[number])
    else:  # the last step lasts as long as the one before
        end = float(times[-1] + (times[-1] - times[-2] if len(times) > 1 else 1))
    stops = [float(times[step]) for step, _ in starts[1:]] + [end]
    return [Span(float(times[step]), stop, name) for (step, name), stop in zip(starts, stops, strict=True)]


def _text(sequences: Sequences, number: int, spans: list[Span], out: Path, rate: float | None) -> str:
    if out.suffix.lower() in _CHAPTERS:
        return chapters_text(spans)
    name = Path(sequences.ids[number])
    rates = None if sequences.recorded is None else sequences.recorded.rates
    if rate is None:
        rate = _SOUND if rates is None else float(rates[number])
        if np.isnan(rate):
            raise InputValueError(f"edl_rate must be given: {str(name)!r} does not tell its frames a second")
    return edl_text(spans, title=name.stem, clip=name.name, rate=rate, channel="A" if rates is None else "V")


def _names(sequences: Sequences, out: Path) -> list[str]:
    """A file for each sequence."""
    for name in sequences.ids:
        path = Path(name)
        if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise InputValueError(f"ids must be names that files can have, for a file each to be written; got {name!r}")
    if sequences.recorded is None:
        return [f"{name}{out.suffix}" for name in sequences.ids]
    short = [str(Path(name).with_suffix(out.suffix)) for name in sequences.ids]
    return [
        one if short.count(one) == 1 else f"{name}{out.suffix}" for one, name in zip(short, sequences.ids, strict=True)
    ]
