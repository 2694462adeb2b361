"""Edit decision lists and chapters: what is written is read back, by us and by ffmpeg; what is damaged is refused."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidegate.data
from tests.data_writers import refusal, survives
from tests.refusals import assert_refused
from tidegate.data.chapters import chapters_text
from tidegate.data.edl import Event, Span, edl_text, frames_a_second, read_edl
from tidegate.errors import FileError, FileMissingError, InputValueError

RATES = [24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60000 / 1001, 60, 100, 1]

EDITOR = """TITLE: two events and a fade
FCM: NON-DROP FRAME

001  AX       V     C        00:00:01:00 00:00:02:12 01:00:00:00 01:00:01:12
* FROM CLIP NAME: one.mp4
002  REEL 7   AA/V  C        00:00:05:00 00:00:05:00 01:00:01:12 01:00:01:12
002  AX       AA/V  D    024 00:00:09:00 00:00:11:24 01:00:01:12 01:00:04:11
* FROM CLIP NAME: one.mp4
* TO CLIP NAME: two.mp4
* COMMENT:  an advert
M2   AX       025.0                00:00:09:00
003  BL       V     C        00:00:00:00 00:00:01:00 01:00:04:11 01:00:05:11
004  AX       V     K B  010 00:01:00:00 00:01:00:01 01:00:05:11 01:00:05:12
>>> SOURCE AX x
"""
PLAYER = "## made by hand\n1.5 20 0\n\n00:01:00.250 0:02:00 3\n#250 #500 1\n70 2\n80 80 2\n90.0 90.0 0\n"


def written(folder: Path, text: str | bytes, name: str = "cuts.edl") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_an_editors_list(tmp_path):
    assert read_edl(written(tmp_path, EDITOR), 25) == [
        Event(1, 2.48, "one.mp4", "one.mp4", 4),
        Event(9, 11.96, "an advert", "two.mp4", 7),
        Event(60, 60.04, "AX", None, 13),
    ]


def test_a_players_list(tmp_path):
    assert read_edl(written(tmp_path, PLAYER), 25) == [
        Event(1.5, 20, "cut", None, 2),
        Event(60.25, 120, "commercial break", None, 4),
        Event(10, 20, "mute", None, 5),
    ]


def test_who_says_the_rate(tmp_path):
    line = "001 AX V C 00:00:00:00 00:00:01:10 00:00:00:00 00:00:01:10\n"
    plain, noted = written(tmp_path, line, "plain"), written(tmp_path, "* FRAME RATE: 20\n" + line, "noted")
    assert read_edl(noted, 25, own=30)[0].stop == 1.4
    assert read_edl(noted, own=30)[0].stop == 1.5
    assert read_edl(plain, own=30)[0].stop == pytest.approx(4 / 3)
    assert_refused(lambda: read_edl(plain), FileError, "nothing says how many a second: edl_rate must be given")
    assert read_edl(written(tmp_path, "1 2 0"))[0].stop == 2  # seconds need none


def test_drop_frame_times(tmp_path):
    """One hour of drop-frame timecode is one hour but for 3.6 ms; without drop-frame it is 3.6 s longer."""
    for mode, separator in (("DROP FRAME", ":"), ("NON-DROP FRAME", ";")):
        text = f"FCM: {mode}\n001 AX V C 00:00:59;29 01:00:00{separator}00 00:00:00:00 00:00:00:00\n"
        (event,) = read_edl(written(tmp_path, text), 29.97)
        assert event.start == 1799 * 1001 / 30000
        assert event.stop == pytest.approx(3600 - 0.0036)
    (event,) = read_edl(written(tmp_path, "001 AX V C 00:01:00;02 01:00:00:00 00:00:00:00 00:00:00:00\n"), 29.97)
    assert event.start == 1800 * 1001 / 30000
    assert event.stop == pytest.approx(3603.6)


@pytest.mark.parametrize("rate", RATES)
def test_rates_that_timecodes_count(rate):
    assert float(frames_a_second(round(rate, 3))) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("rate", [0, -25, 12.5, 29.8, 101, 1e300, float("nan"), float("inf")])
def test_rates_that_none_counts(rate):
    assert_refused(lambda: frames_a_second(rate), InputValueError, "edl_rate must be a whole number of frames a second")


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 50), names), min_size=1, max_size=30),
    st.sampled_from(RATES),
    names,
)
def test_what_is_written_is_read_back(tmp_path_factory, pieces, rate, title):
    """Spans on whole frames come back, but for the spaces in their names; a name of none is that of the clip."""
    exact, spans, at = frames_a_second(rate), [], 0
    for gap, length, name in pieces:
        at += gap + 1  # neighbours of one name would become one
        spans.append(Span(float(at / exact), float((at + length) / exact), name))
        at += length
    text = edl_text(spans, title=title, clip="a b.wav", rate=rate, channel="A")
    found = read_edl(written(tmp_path_factory.mktemp("edl"), text))
    assert [(one.start, one.stop) for one in found] == [(one.start, one.stop) for one in spans]
    assert [one.name for one in found] == [" ".join(one.name.split()) or "a b.wav" for one in spans]
    assert {one.clip for one in found} == {"a b.wav"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from("ab")), min_size=2, max_size=30), st.sampled_from(RATES))
def test_no_more_than_half_a_frame_is_lost(tmp_path_factory, cuts, rate):
    """Spans that follow each other still do, and each moment but those near a cut has the name that it had."""
    times = sorted(time for time, _ in cuts)
    spans = [Span(start, stop, name) for (start, stop), (_, name) in zip(pairwise(times), cuts, strict=False)]
    text = edl_text(spans, title="", clip="x", rate=rate, channel="V")
    found = []
    if "001 " in text:
        found = read_edl(written(tmp_path_factory.mktemp("edl"), text))
    assert all(one.stop == other.start and one.name != other.name for one, other in pairwise(found))
    for moment in (number / 10 for number in range(301)):
        if all(abs(moment - time) > 0.51 / rate for time in times):
            had = [one.name for one in spans if one.start <= moment < one.stop]
            assert [one.name for one in found if one.start <= moment < one.stop] == had


def test_what_timecodes_cannot_tell_is_refused():
    def told(start, stop):
        return lambda: edl_text([Span(start, stop, "x")], title="", clip="", rate=25, channel="V")

    assert_refused(told(-1, 2), InputValueError, "a span must lie in times from 0")
    assert_refused(told(2, 1), InputValueError, "a span must lie in times from 0")
    assert_refused(told(0, 4e5), InputValueError, "times must be below 100 hours to be timecodes; got 111 hours")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n \n## x\n", "must be an edit decision list; it has no line that says anything"),
        ("TITLE: x\n", "must be an edit decision list; it has no event"),
        ("TITLE: x\n001 AX V C 00:00:00:00 00:00:01:00\n", "line 2 must be an event: number, reel, channel"),
        ("001 AX V C 00:00:00:00 00:00:01:00 00:00:00:00 x\n", "line 1: a time must be as 01:02:03:04; it is .x."),
        ("TITLE: x\n001 V\n", "line 2 must be an event"),
        ("001 AX V Q 00:00:00:00 00:00:01:00 00:00:00:00 00:00:01:00\n", "line 1 must be an event"),
        ("001 AX V C 00:00:00:00 00:61:01:00 00:00:00:00 00:00:01:00\n", "line 1: a time must be as 01:02:03:04"),
        ("001 AX V C 00:00:00:00 00:00:01:25 00:00:00:00 00:00:01:00\n", "line 1: a frame must be below 25"),
        (
            "001 AX V C 00:00:02:00 00:00:01:00 00:00:00:00 00:00:01:00\n",
            "must not end before it begins; it has 2 to 1",
        ),
        ("TITLE: x\nO01 AX V C 00:00:00:00 00:00:01:00 00:00:00:00 00:00:01:00\n", "line 2 must be an event or a note"),
        ("TITLE: x\n{}\n", "line 2 must be an event or a note"),
        ("TITLE: x\nFCM: SOMETIMES\n", "line 2: FCM must be DROP FRAME or NON-DROP FRAME"),
        (
            "FCM: DROP FRAME\n001 A V C 00:00:00:00 00:00:01:00 00:00:00:00 00:00:01:00\n",
            "line 2: drop-frame times count",
        ),
        ("1 2 0\n1 0\n", "line 2 must be start, stop and a type from 0 to 3"),
        ("1 2 4\n", "line 1 must be start, stop and a type from 0 to 3"),
        ("1 2 0\n2 1 0\n", "line 2: a span must not end before it begins"),
        ("1 2 0\n2 3s 0\n", "line 2: a time must be seconds, HH:MM:SS.sss or # and a frame; it is '3s'"),
        ("1 2 0\nTITLE: x\n", "line 2 must be start, stop"),
        (b"TITLE: \xff\n", "line 1 must be UTF-8"),
        (b"\x00\x01\x02", "line 1 must be an event or a note"),
    ],
)
def test_a_damaged_list_is_one_sentence_with_its_line(tmp_path, text, words):
    path = written(tmp_path, text)
    assert_refused(lambda: read_edl(path, 25), FileError, words)
    assert_refused(lambda: read_edl(path, 25), FileError, str(path))


def test_rates_in_a_note_are_checked(tmp_path):
    for told in ("x", "12.5", "0"):
        path = written(tmp_path, f"TITLE: x\n* FRAME RATE: {told}\n")
        assert_refused(partial(read_edl, path), FileError, "line 2: ")
    times = "001 AX V C 00:01:00;01 00:01:02;00 00:00:00:00 00:00:01:00\n"
    words = "line 1: there is no '00:01:00;01' in drop-frame times"
    assert_refused(lambda: read_edl(written(tmp_path, times), 29.97), FileError, words)
    assert_refused(lambda: read_edl(tmp_path / "none.edl"), FileMissingError, "there is no file")


@pytest.mark.parametrize("whole", [EDITOR, PLAYER])
def test_damaged_lists_give_spans_or_one_sentence(tmp_path, whole):
    counts = survives(lambda path: read_edl(path, 25), whole.encode(), tmp_path / "cuts.edl", seconds=1)
    assert sum(counts.values()) > 10


# ------------------------------------------------------------------------------------------ chapters


titles = st.text(st.one_of(st.sampled_from("=;#\\\n\r [];a"), st.characters(exclude_categories=["Cs"])), max_size=20)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6), titles), max_size=10))
def test_ffmpeg_reads_the_chapters(tmp_path_factory, pieces):
    spans, at = [], 0
    for gap, length, title in pieces:
        at += gap
        spans.append(Span(at / 1000, (at + length) / 1000, title))
        at += length
    path = written(tmp_path_factory.mktemp("chapters"), chapters_text(spans), "x.ffmetadata")
    with av.open(str(path)) as found:
        assert found.format.name == "ffmetadata"
        chapters = found.chapters()
    assert [(one["start"], one["end"]) for one in chapters] == [
        (round(one.start * 1000), round(one.stop * 1000)) for one in spans
    ]
    expected = [one.name.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "") for one in spans]
    assert [one["metadata"]["title"] for one in chapters] == expected


def test_chapters_go_into_a_video(tmp_path):
    path = written(
        tmp_path, chapters_text([Span(0, 0.5, "a=b; #1"), Span(0.5, 0.5, "none"), Span(0.5, 1.25, "é")]), "c"
    )
    clip = Path(tidegate.data.__file__).parent / "clips" / "advert.mp4"
    with (
        av.open(str(path), format="ffmetadata") as told,
        av.open(str(clip)) as source,
        av.open(str(tmp_path / "out.mkv"), "w") as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        out.set_chapters(told.chapters())
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    with av.open(str(tmp_path / "out.mkv")) as made:
        found = [
            (one["start"] / 1e9, one["end"] / 1e9, one["metadata"]["title"])  # Matroska counts nanoseconds
            for one in made.chapters()
        ]
    assert found == [(0, 0.5, "a=b; #1"), (0.5, 1.25, "é")]


def test_a_chapter_that_ends_before_it_begins_is_refused():
    assert_refused(lambda: chapters_text([Span(2, 1, "x")]), InputValueError, "must not end before it begins")


token = st.sampled_from(
    [
        "001",
        "AX",
        "V",
        "C",
        "D",
        "025",
        "00:00:01:00",
        "00:00:02;02",
        "* COMMENT: x",
        "FCM: DROP FRAME",
        "TITLE:",
        "\n",
        "#3",
    ]
) | st.text(max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.lists(token, max_size=40).map(" ".join))
def test_any_text_is_spans_or_one_sentence(tmp_path_factory, text):
    path = written(tmp_path_factory.getbasetemp(), text.encode("utf-8", "replace"), "any.edl")
    found: list[Event] = []
    error = refusal(lambda: found.extend(read_edl(path, 29.97)))
    assert all(event.start < event.stop for event in found)
    assert error is None or (isinstance(error, FileError) and "\n" not in str(error))
