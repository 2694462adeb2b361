"""Edit decision lists: named spans of a recording, as video editors (CMX 3600) and media players write them.

An editor's list has an event a line, with the times of the source and of the edited film as hours, minutes, seconds and
frames; notes begin with an asterisk:

    TITLE: match
    FCM: NON-DROP FRAME
    001  AX       V     C        00:00:10:00 00:00:25:12 00:00:10:00 00:00:25:12
    * FROM CLIP NAME: match.mp4
    * COMMENT: advert

The times of the source count, from the recording's beginning. A reel called BL is black, and no recording.

A player's list has `start stop type` a line, in seconds, as HH:MM:SS.sss or, with #, in frames; type 0 is a cut, 1 is
muted sound, 3 for a commercial break. 2 marks a place, which is no span. Comments begin with ##.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from tidegate.data.files import lines_of
from tidegate.errors import FileError, InputValueError

__all__ = ["Event", "Span", "edl_text", "frames_a_second", "read_edl"]


class Span(NamedTuple):
    """A part of a recording, in seconds, `[start, stop)`."""

    start: float
    stop: float
    name: str


@dataclass(frozen=True)
class Event:
    """A span as a list has it."""

    #: In seconds of the recording.
    start: float
    stop: float
    #: The comment of an event, or else the clip, or else the reel; of a player's list what the type means.
    name: str
    #: The file that the list names.
    clip: str | None
    #: Where the list has it.
    line: int


#: What one frame more or less does to a rate is less than this; 24000/1001 lies 1e-3 from 24.
_NEAR = 3e-4
_MOST = 100  # frames a second that two digits can tell
_TIMECODE = re.compile(r"(\d{2}):([0-5]\d):([0-5]\d)([:;])(\d{2})", re.ASCII)
_CLOCK = re.compile(r"(\d{1,4}):([0-5]?\d):([0-5]?\d(?:\.\d{1,9})?)", re.ASCII)
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_FRAME = re.compile(r"#(\d{1,9})", re.ASCII)
_TRANSITION = re.compile(r"C|D|W\d{1,3}|KB?O?", re.ASCII)
_TYPES = {"0": "cut", "1": "mute", "2": None, "3": "commercial break"}
_RATE = "FRAME RATE:"


def frames_a_second(rate: float) -> Fraction:
    """The exact rate of timecodes: a whole number, or one times 1000/1001.

    Raises `InputValueError` for a rate near none of these.
    """
    nominal = round(rate) if 0 < rate < 2 * _MOST else 0
    if 1 <= nominal <= _MOST:
        if abs(rate / nominal - 1) < _NEAR:
            return Fraction(nominal)
        if abs(rate * 1.001 / nominal - 1) < _NEAR:
            return Fraction(nominal * 1000, 1001)
    raise InputValueError(
        f"edl_rate must be a whole number of frames a second up to {_MOST}, or one times 1000/1001; got {rate:g}"
    )


def read_edl(path: Path, rate: float | None = None, *, own: float | None = None) -> list[Event]:
    """The spans of a list, those of no length left out.

    Args:
        path: the file, in UTF-8.
        rate: how many frames a second its timecodes count. If None, a note in the file (`* FRAME RATE: 25`) says it,
            and else the recording.
        own: the recording's frames a second, if it has any.

    Raises:
        FileMissingError, FileError: the file is not there; a line, which is named, is not of such a list; there is no
            event; nothing says how many frames a second are counted.
        InputValueError: a rate that no timecode counts.
    """
    lines = [(number, line.strip()) for number, line in lines_of(path) if line.strip() and not line.startswith("##")]
    if not lines:
        raise FileError(f"{str(path)!r} must be an edit decision list; it has no line that says anything")
    fields = lines[0][1].split()
    plain = len(fields) in (2, 3) and any(form.fullmatch(fields[0]) for form in (_SECONDS, _CLOCK, _FRAME))
    events = (_Player if plain else _Editor)(path, rate, own).read(lines)
    return [event for event in events if event.start < event.stop]


class _List:
    """What both forms share."""

    def __init__(self, path: Path, rate: float | None, own: float | None) -> None:
        self.path, self.own = path, own
        self.rate = None if rate is None else frames_a_second(rate)
        self.given = rate is not None

    def where(self, line: int) -> str:
        return f"{str(self.path)!r}, line {line}"

    def counted(self) -> Fraction:
        if self.rate is None:
            if self.own is None:
                raise FileError(
                    f"{str(self.path)!r} counts frames, and nothing says how many a second: edl_rate must be given"
                )
            self.rate = frames_a_second(self.own)
        return self.rate

    def check(self, start: float, stop: float, line: int) -> None:
        if stop < start:
            raise FileError(f"{self.where(line)}: a span must not end before it begins; it has {start:g} to {stop:g} s")


class _Player(_List):
    def read(self, lines: Sequence[tuple[int, str]]) -> list[Event]:
        events = []
        for number, line in lines:
            fields = line.split()
            if fields[1:] == ["2"]:  # a place, without an end
                fields = [fields[0], *fields]
            if len(fields) != 3 or fields[2] not in _TYPES:
                raise FileError(
                    f"{self.where(number)} must be start, stop and a type from 0 to 3; it is {_short(line)}"
                )
            start, stop = (self._seconds(field, number) for field in fields[:2])
            self.check(start, stop, number)
            name = _TYPES[fields[2]]
            if name is not None:
                events.append(Event(start, stop, name, None, number))
        return events

    def _seconds(self, field: str, line: int) -> float:
        if _SECONDS.fullmatch(field):
            return float(field)
        if found := _CLOCK.fullmatch(field):
            return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])
        if found := _FRAME.fullmatch(field):
            return float(int(found[1]) / self.counted())
        raise FileError(
            f"{self.where(line)}: a time must be seconds, HH:MM:SS.sss or # and a frame; it is {_short(field)}"
        )


@dataclass
class _Draft:
    """An event while its notes are read."""

    number: str
    start: float
    stop: float
    reel: str
    line: int
    clip: str | None = None
    comment: str | None = None


class _Editor(_List):
    drop = False

    def read(self, lines: Sequence[tuple[int, str]]) -> list[Event]:
        self._find_rate(lines)
        events: list[_Draft] = []
        fades = False
        for number, line in lines:
            if line[0].isdecimal():
                event, fades = self._event(line, number)
                events.append(event)
            elif line.startswith("*"):
                _note(line[1:].strip(), events, fades=fades)
            elif line.upper().startswith("FCM:"):
                self._mode(line, number)
            elif len(_TIMECODE.findall(line)) > 1 or not (line[0].isalpha() or line[0] in ">#%"):
                raise FileError(f"{self.where(number)} must be an event or a note; it is {_short(line)}")
        if not events:
            raise FileError(f"{str(self.path)!r} must be an edit decision list; it has no event")
        return [
            Event(one.start, one.stop, one.comment or one.clip or one.reel, one.clip, one.line)
            for one in events
            if one.reel not in ("BL", "BLACK")
        ]

    def _find_rate(self, lines: Sequence[tuple[int, str]]) -> None:
        for number, line in lines:
            note = line[1:].strip() if line.startswith("*") else ""
            if not self.given and note.upper().startswith(_RATE):
                told = note[len(_RATE) :].strip()
                if not _SECONDS.fullmatch(told):
                    raise FileError(f"{self.where(number)}: a frame rate must be a number; it is {_short(told)}")
                try:
                    self.rate = frames_a_second(float(told))
                except InputValueError as error:
                    raise FileError(f"{self.where(number)}: {error}") from None
                return

    def _event(self, line: str, number: int) -> tuple[_Draft, bool]:
        """An event, and whether it is more than a cut."""
        fields = line.split()
        times, rest = fields[-4:], fields[1:-4]
        if len(rest) > 3 and rest[-1].isdecimal():  # how many frames a transition takes
            rest = rest[:-1]
        if len(rest) > 3 and rest[-2] == "K" and rest[-1] in ("B", "O"):
            rest = rest[:-1]
        if len(rest) < 3 or not fields[0].isdecimal() or not _TRANSITION.fullmatch(rest[-1]):
            raise FileError(
                f"{self.where(number)} must be an event: number, reel, channel, transition and four times; "
                f"it is {_short(line)}"
            )
        start, stop, *_ = (self._seconds(time, number) for time in times)
        self.check(start, stop, number)
        return _Draft(fields[0], start, stop, " ".join(rest[:-2]), number), rest[-1] != "C"

    def _seconds(self, time: str, line: int) -> float:
        found = _TIMECODE.fullmatch(time)
        if found is None:
            raise FileError(f"{self.where(line)}: a time must be as 01:02:03:04; it is {_short(time)}")
        hours, minutes, seconds, frame = (int(found[place]) for place in (1, 2, 3, 5))
        rate = self.counted()
        nominal = round(rate)
        if frame >= nominal:
            raise FileError(
                f"{self.where(line)}: a frame must be below {nominal}, which are a second; it is {_short(time)}"
            )
        count = (3600 * hours + 60 * minutes + seconds) * nominal + frame
        if found[4] == ";" or self.drop:
            count -= self._left_out(60 * hours + minutes, time, line)
        return float(count / rate)

    def _left_out(self, minutes: int, time: str, line: int) -> int:
        """Numbers of frames that a drop-frame timecode has passed over, two or four a minute but for each tenth."""
        nominal = round(self.counted())
        if nominal not in (30, 60) or self.counted() == nominal:
            raise FileError(
                f"{self.where(line)}: drop-frame times count 29.97 or 59.94 frames a second; "
                f"these are {float(self.counted()):g}"
            )
        a_minute = nominal // 15
        if minutes % 10 and time[6:8] == "00" and int(time[9:]) < a_minute:
            raise FileError(f"{self.where(line)}: there is no {_short(time)} in drop-frame times")
        return a_minute * (minutes - minutes // 10)

    def _mode(self, line: str, number: int) -> None:
        told = line[4:].strip().upper().replace("-", " ")
        if told not in ("DROP FRAME", "NON DROP FRAME"):
            raise FileError(f"{self.where(number)}: FCM must be DROP FRAME or NON-DROP FRAME; it is {_short(line)}")
        self.drop = told == "DROP FRAME"


def _note(note: str, events: list[_Draft], *, fades: bool) -> None:
    """What a note says of the event above it; of two that fade into each other FROM is the first and TO the second."""
    key, _, told = note.partition(":")
    key, told = " ".join(key.upper().split()), told.strip()
    if not events or not told:
        return
    if key == "COMMENT":
        events[-1].comment = events[-1].comment or told
    elif key == "TO CLIP NAME" or (key == "FROM CLIP NAME" and not fades):
        events[-1].clip = told
    elif key == "FROM CLIP NAME" and len(events) > 1 and events[-2].number == events[-1].number:
        events[-2].clip = told


def edl_text(spans: Iterable[Span], *, title: str, clip: str, rate: float, channel: str) -> str:
    """The spans of a recording as an editor's list: an event for each, its name as a comment.

    Times are brought to the nearest frame, and are no drop-frame times; a span that is then empty is left out, and
    neighbours of one name become one. In names, spaces stand for what would end a line.

    Args:
        title, clip: of the list, and the recording's file.
        rate: frames a second.
        channel: V for a video, A for sound.

    Raises `InputValueError` for a rate that no timecode counts, or a span that timecodes cannot tell.
    """
    exact = frames_a_second(rate)
    counted: list[tuple[int, int, str]] = []
    for start, stop, name in spans:
        if not 0 <= start <= stop:
            raise InputValueError(
                f"a span must lie in times from 0, and not end before it begins; got {start:g} to {stop:g}"
            )
        first, last, named = round(Fraction(start) * exact), round(Fraction(stop) * exact), _line(name)
        if counted and counted[-1][1:] == (first, named):
            counted[-1] = (counted[-1][0], last, named)
        elif first < last:
            counted.append((first, last, named))
    lines = [f"TITLE: {_line(title)}", "FCM: NON-DROP FRAME", ""]
    for number, (first, last, name) in enumerate(counted, start=1):
        times = f"{_timecode(first, exact)} {_timecode(last, exact)}"
        lines += [
            f"{number:03d}  AX       {channel:<5} C        {times} {times}",
            f"* FROM CLIP NAME: {_line(clip)}",
            f"* COMMENT: {name}",
        ]
        if number == 1:  # a note above all events stops some readers
            lines.append(f"* {_RATE} {float(exact):.6f}")
    return "\n".join(lines) + "\n"


def _timecode(frame: int, rate: Fraction) -> str:
    seconds, frames = divmod(frame, round(rate))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours > 99:
        raise InputValueError(f"times must be below 100 hours to be timecodes; got {hours} hours")
    return f"{hours:02d}:{minutes:02d}:{seconds % 60:02d}:{frames:02d}"


def _line(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
