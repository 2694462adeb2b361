"""Lists of spans beside recordings: which steps they hold, which class they give, and lists out of answers."""

from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.data_writers import read, write_sound
from tests.refusals import assert_refused
from tests.train_helpers import sequences_of
from tidegate.cli.app import app
from tidegate.data.edl import Span, edl_text, read_edl
from tidegate.data.sequences import Recorded, Sequences
from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.train import marks
from tidegate.train.cuts import answered_spans, write_cuts
from tidegate.train.run import load_run
from tidegate.train.tasks import Task

#: Untyped: tests know what is there.
with_held: Any = marks.with_held
with_edl_label: Any = marks.with_edl_label

# ------------------------------------------------------------------------------------------ into steps


def recordings(folder: Path, lengths=(4, 6), *, lead=0.0, rates: float | None = 2.0, names=("one", "two")) -> Any:
    """Two steps a second; the files are not there, as nobody reads them."""
    made = sequences_of([np.zeros((length, 1)) for length in lengths])
    times = np.concatenate([np.arange(length) / 2 + lead for length in lengths])
    ends = np.array(lengths) / 2
    return Sequences(
        made.features,
        made.values,
        made.offsets,
        [f"{name}.mp4" for name, _ in zip(names, lengths, strict=False)],
        times,
        files=tuple(str(folder / f"{name}.mp4") for name, _ in zip(names, lengths, strict=False)),
        recorded=Recorded(lead, ends, None if rates is None else np.full(len(lengths), rates)),
    )


def beside(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("lead", [0.0, 0.25])
def test_the_list_beside_a_recording(tmp_path, lead):
    """A step's own time may be in its middle; the last one ends where the recording does."""
    beside(tmp_path, "two.edl", "0.5 1.2 0\n2.74 99 3\n")
    held = with_held(recordings(tmp_path, lead=lead), "beside", None).held
    np.testing.assert_array_equal(held, [np.nan] * 4 + [0, 1, 0, 0, 0, 1])
    beside(tmp_path, "one.mp4.edl", "0 0.6 1\n")
    held = with_held(recordings(tmp_path, lead=lead), "beside", None).held
    np.testing.assert_array_equal(held[:4], [1, 0, 0, 0])


def test_one_file_for_one_recording_or_for_clips_by_name(tmp_path):
    path = beside(tmp_path, "cuts.edl", "0.5 1.2 0\n")
    held = with_held(recordings(tmp_path, (4,)), str(path), None).held
    np.testing.assert_array_equal(held, [0, 1, 0, 0])
    words = "line 1: an event must name its recording .* where there are several; or hold_edl must be 'beside'"
    assert_refused(lambda: with_held(recordings(tmp_path), str(path), None), InputValueError, words)
    event = "001 AX V C 00:00:00:01 00:00:01:00 00:00:00:00 00:00:00:00\n* FROM CLIP NAME: "
    for name in ("two.mp4", "two"):
        held = with_held(recordings(tmp_path), str(beside(tmp_path, "cuts.edl", event + name)), None).held
        np.testing.assert_array_equal(held, [np.nan] * 4 + [0, 1, 0, 0, 0, 0])  # a second has two frames
    other = beside(tmp_path, "cuts.edl", event + "three.mp4")
    words = "line 1: a clip must be the name of one recording; there is no 'three.mp4'"
    assert_refused(lambda: with_held(recordings(tmp_path), str(other), None), InputValueError, words)
    twice = recordings(tmp_path, names=("a/one", "b/one"))
    own = beside(tmp_path, "cuts.edl", event + "one.mp4")
    words = "a clip must be the name of one recording; it is that of 2"
    assert_refused(lambda: with_held(twice, str(own), None), InputValueError, words)
    np.testing.assert_array_equal(
        with_held(twice, str(beside(tmp_path, "cuts.edl", event + "a/one.mp4")), None).held[:4], [0, 1, 0, 0]
    )


def test_one_file_counts_at_one_rate(tmp_path):
    """That of its recordings only if it is the same."""
    both = recordings(tmp_path)
    event = "001 AX V C 00:00:00:00 00:00:01:01 00:00:00:00 00:00:00:00\n* FROM CLIP NAME: "
    path = beside(tmp_path, "cuts.edl", f"{event}one.mp4\n{event}two.mp4\n")
    np.testing.assert_array_equal(with_held(both, str(path), None).held, [1, 1, 1, 0, 1, 1, 1, 0, 0, 0])
    both.recorded.rates[1] = 8.0
    np.testing.assert_array_equal(with_held(both, str(path), 8.0).held, [1, 1, 0, 0, 1, 1, 0, 0, 0, 0])
    assert_refused(lambda: with_held(both, str(path), None), FileError, "edl_rate must be given")


def test_names_of_spans_are_classes(tmp_path):
    one = [Span(0, 0.5, "opening"), Span(1, 2, "match")]
    beside(tmp_path, "one.edl", edl_text(one, title="", clip="one.mp4", rate=25, channel="V"))
    found = with_edl_label(recordings(tmp_path), None).label
    assert (found.per_step, found.categories) == (True, ("match", "opening"))
    np.testing.assert_array_equal(found.values, [1, np.nan, 0, 0] + [np.nan] * 6)
    beside(tmp_path, "two.edl", "0 1 0\n0.5 1.5 3\n")
    words = "two.edl', line 1: spans must not overlap to be a label; 'cut' and 'commercial break' do"
    assert_refused(lambda: with_edl_label(recordings(tmp_path), None), FileError, words)


def test_lists_and_sequences_that_do_not_belong_together(tmp_path):
    words = "hold_edl needs a list beside some recording, such as '.*one.edl'; there is none"
    assert_refused(lambda: with_held(recordings(tmp_path), "beside", None), FileMissingError, words)
    assert_refused(lambda: with_held(recordings(tmp_path), "none.edl", None), FileMissingError, "no file 'none.edl'")
    path = beside(tmp_path, "one.edl", "1 2 0\n2.5 3 0\n")  # a little behind is none of ours
    assert with_held(recordings(tmp_path), "beside", None).held[:4].tolist() == [0, 0, 1, 1]
    path = beside(tmp_path, "one.edl", "1 2 0\n60 70 0\n")
    words = "one.edl', line 2: the span begins at 60.000 s, after the end of 'one.mp4' at 2.000 s"
    assert_refused(lambda: with_held(recordings(tmp_path), "beside", None), FileError, words)
    plain = sequences_of([np.zeros((3, 1))])
    words = "hold_edl needs sequences with times, such as recordings; these have none"
    for where in ("beside", str(path)):
        assert_refused(partial(with_held, plain, where, None), InputValueError, words)
    timed = sequences_of([np.zeros((3, 1))] * 2, times=np.arange(6.0))
    words = "hold_edl needs a file for each sequence, to find the list beside it"
    assert_refused(lambda: with_held(timed, "beside", None), InputValueError, words)
    beside(tmp_path, "one.edl", "001 AX A C 00:00:00:00 00:00:01:00 00:00:00:00 00:00:01:00\n")
    words = "one.edl' counts frames, and nothing says how many a second: edl_rate must be given"
    assert_refused(lambda: with_held(recordings(tmp_path, rates=None), "beside", None), FileError, words)


# ------------------------------------------------------------------------------------------ out of answers

TASK = Task("label-steps", "what", "cross-entropy", ("a", "b"))


def pieces(sequences, answers: str, size: int):
    """Answers in tables of some steps, as `predict.answers` gives them."""
    column = np.array(list(answers), object)
    return ({"prediction": column[at : at + size]} for at in range(0, len(column), size))


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_equal_answers_are_spans(tmp_path, size):
    sequences = recordings(tmp_path)
    assert list(answered_spans(pieces(sequences, "aabbbbbbba", size), sequences)) == [
        (0, [Span(0, 1, "a"), Span(1, 2, "b")]),
        (1, [Span(0, 2.5, "b"), Span(2.5, 3, "a")]),
    ]
    sound = recordings(tmp_path, (2,), lead=0.1, rates=None)
    assert list(answered_spans(pieces(sound, "ab", size), sound)) == [(0, [Span(0, 0.5, "a"), Span(0.5, 1, "b")])]
    table = sequences_of([np.zeros((3, 1)), np.zeros((1, 1))], times=np.array([1.0, 2, 4, 7]))
    assert list(answered_spans(pieces(table, "abba", size), table)) == [
        (0, [Span(1, 2, "a"), Span(2, 6, "b")]),
        (1, [Span(7, 8, "a")]),
    ]


def test_a_file_for_each_recording(tmp_path):
    single = recordings(tmp_path, (4,))
    assert write_cuts(pieces(single, "aabb", 9), TASK, single, tmp_path / "x.edl", 25) == [tmp_path / "x.edl"]
    assert [(one.start, one.stop, one.name, one.clip) for one in read_edl(tmp_path / "x.edl")] == [
        (0, 1, "a", "one.mp4"),
        (1, 2, "b", "one.mp4"),
    ]
    both = recordings(tmp_path, names=("day/one", "two"))
    files = write_cuts(pieces(both, "aabbbbbbba", 9), TASK, both, tmp_path / "cuts.ffmeta")
    assert files == [tmp_path / "cuts" / "day" / "one.ffmeta", tmp_path / "cuts" / "two.ffmeta"]
    with av.open(str(files[1]), format="ffmetadata") as found:
        assert [(one["start"], one["end"], one["metadata"]["title"]) for one in found.chapters()] == [
            (0, 2500, "b"),
            (2500, 3000, "a"),
        ]
    words = "out must be new or empty"
    assert_refused(
        lambda: write_cuts(pieces(both, "aabbbbbbba", 9), TASK, both, tmp_path / "cuts.edl"), InputValueError, words
    )
    alike = Sequences(
        both.features, both.values, both.offsets, ["one.mp4", "one.mkv"], both.times, recorded=both.recorded
    )
    files = write_cuts(pieces(both, "aabbbbbbba", 9), TASK, alike, tmp_path / "more.edl")
    assert [file.name for file in files] == ["one.mp4.edl", "one.mkv.edl"]


def test_what_is_no_cut_is_refused(tmp_path):
    def told(sequences, task=TASK, name="x.edl", rate=None):
        return lambda: write_cuts(pieces(sequences, "aabb", 9), task, sequences, tmp_path / name, rate)

    single = recordings(tmp_path, (4,))
    classify = Task("classify", "what", "cross-entropy", ("a", "b"))
    assert_refused(told(single, classify), InputValueError, "out must be a table for a network that does not label")
    words = "out must be a table for sequences without times"
    assert_refused(told(sequences_of([np.zeros((4, 1))])), InputValueError, words)
    assert_refused(told(single, rate=12.5), InputValueError, "edl_rate must be a whole number")
    unknown = recordings(tmp_path, (4,), rates=np.nan)
    assert_refused(told(unknown), InputValueError, "edl_rate must be given: 'one.mp4' does not tell its frames")
    outside = sequences_of([np.zeros((2, 1))] * 2, times=np.arange(4.0))
    outside = Sequences(outside.features, outside.values, outside.offsets, ["../x", "y"], outside.times)
    assert_refused(told(outside), InputValueError, "ids must be names that files can have, .*; got '../x'")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ from files to files

QUICK = ["--hidden-size", 8, "--epochs", 12, "--batch-size", 2, "--threads", 1, "--learning-rate", 0.03]


@pytest.fixture
def tidegate():
    def run(*words, code=0):
        done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
        assert done.exit_code == code, done.output
        return done

    return run


def talk(folder: Path, count=8) -> None:
    """Recordings of a tone, of noise, and of the tone again, with lists of what they hold."""
    rng = np.random.default_rng(0)
    for number in range(count):
        spans, samples, at = [], [], 0.0
        for name in ("tone", "noise", "tone"):
            length = rng.integers(5, 9) / 25
            time = np.arange(int(length * 16_000)) / 16_000
            sound = np.sin(2 * np.pi * 440 * time) if name == "tone" else rng.uniform(-1, 1, len(time))
            samples.append((sound * 20_000).astype(np.int16))
            spans.append(Span(at, at + length, name))
            at += length
        write_sound(folder / f"{number}.wav", np.concatenate(samples))
        (folder / f"{number}.edl").write_text(
            edl_text(spans, title=str(number), clip=f"{number}.wav", rate=25, channel="A")
        )


@pytest.mark.usefixtures("as_users_run_it")  # typer gives None for what was not typed
def test_sound_labelled_by_lists_and_answered_in_lists(tmp_path, tidegate):
    (tmp_path / "talk").mkdir()
    talk(tmp_path / "talk")
    told = tidegate("train", tmp_path / "talk", "--out", tmp_path / "run", "--label", "edl", *QUICK).output
    assert "label-steps: edl" in told
    assert load_run(tmp_path / "run").facts["test"]["accuracy"] > 0.9
    new = tmp_path / "talk" / "0.wav"
    told = tidegate("predict", tmp_path / "run", new, "--out", tmp_path / "new.edl").output
    assert "Written to" in told
    found, had = read_edl(tmp_path / "new.edl"), read_edl(tmp_path / "talk" / "0.edl")
    assert {one.name for one in found} == {"tone", "noise"}
    tidegate("inspect", tmp_path / "run", tmp_path / "talk", "--out", tmp_path / "page.html")
    assert "labelled steps" in (tmp_path / "page.html").read_text(encoding="utf-8")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "new.wav").write_bytes(new.read_bytes())  # and no list beside it
    tidegate("inspect", tmp_path / "run", tmp_path / "plain", "--out", tmp_path / "plain.html")
    assert "labelled steps" not in (tmp_path / "plain.html").read_text(encoding="utf-8")
    for moment in np.arange(0, had[-1].stop, 0.05):
        if all(abs(moment - one.stop) > 0.1 for one in had):
            now = [one.name for one in found if one.start <= moment < one.stop]
            assert now == [one.name for one in had if one.start <= moment < one.stop], moment
    told = tidegate("predict", tmp_path / "run", tmp_path / "talk", "--out", tmp_path / "all.ffmetadata").output
    assert "8 files written to" in told
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [f"{number}.ffmetadata" for number in range(8)]
    words = tidegate("predict", tmp_path / "run", new, "--out", tmp_path / "a.csv", "--edl-rate", 25, code=2).stderr
    assert "edl_rate means nothing for" in words
    words = tidegate("predict", tmp_path / "run", new, "--out", tmp_path / "a.edl", "--edl-rate", 12.5, code=2).stderr
    assert "edl_rate must be a whole number of frames a second" in words


@pytest.mark.usefixtures("as_users_run_it")
def test_spans_beside_recordings_are_held(tmp_path, tidegate):
    """Of sound whose class is that of its folder; its lists say where the noise is."""
    for name in ("high", "low"):
        (tmp_path / "talk" / name).mkdir(parents=True)
        talk(tmp_path / "talk" / name)
        for path in (tmp_path / "talk" / name).glob("*.edl"):
            (noise,) = (one for one in read_edl(path) if one.name == "noise")
            path.write_text(f"{noise.start} {noise.stop} 3\n")
    words = ["--label", "folder", "--hold-edl", "beside", "--chunk", 20]
    tidegate("train", tmp_path / "talk", "--out", tmp_path / "run", *words, *QUICK)
    last = load_run(tmp_path / "run").facts["history"][-1]
    assert last["validation_gate_held"] < 0.8 * last["validation_gate_others"]
    words = ["--label", "folder", "--hold-edl", "nowhere.edl"]
    refused = tidegate("train", tmp_path / "talk", "--out", tmp_path / "other", *words, *QUICK, code=2).stderr
    assert "there is no file 'nowhere.edl'" in refused
    assert not (tmp_path / "other").exists()


def test_a_recording_knows_where_its_steps_lie(tmp_path):
    talk(tmp_path, 2)
    sound = read(tmp_path)
    assert sound.recorded.lead == 0.005
    starts = sound.times - sound.recorded.lead
    assert starts[0] == pytest.approx(0.0075)
    assert sound.recorded.ends[1] == pytest.approx(starts[-1] + 0.01)
    clip = Path(__file__).parent.parent / "src" / "tidegate" / "data" / "clips" / "advert.mp4"
    video = read(clip, grid=(2, 2))
    assert video.recorded.ends[0] == pytest.approx(127 / 24)
    assert video.recorded.rates[0] == 24
    again = sound.only([1])
    assert again.files == (sound.files[1],)
    assert again.recorded.ends[0] == sound.recorded.ends[1]


def test_a_list_comes_back_as_it_was_to_the_frame(tmp_path):
    """From a list beside a video to a class of each frame, and from those to a list."""
    path, cuts = tmp_path / "one.mp4", [0, 7, 19, 33]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(cuts[-1]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    spans = [
        Span(start * 1001 / 30000, stop * 1001 / 30000, name)
        for (start, stop), name in zip(pairwise(cuts), ("x", "y", "x"), strict=True)
    ]
    text = edl_text(spans, title="one", clip="one.mp4", rate=29.97, channel="V")
    beside(tmp_path, "one.edl", text)
    video = with_edl_label(read(path, grid=(2, 2)), None)
    told = "".join(video.label.categories[int(code)] for code in video.label.values)
    assert told == "x" * 7 + "y" * 12 + "x" * 14
    write_cuts(pieces(video, told, 10), TASK, video, tmp_path / "again.edl")
    assert (tmp_path / "again.edl").read_text() == text
