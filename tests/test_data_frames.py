"""Video: the colours of its frames with their times, and what is damaged."""

from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data_writers import read, survives
from tests.refusals import assert_refused
from tests.test_video import make_video
from tidegate.data import film
from tidegate.errors import FileError, InputValueError

CLIPS = Path(film.__file__).parent / "clips"


def make_halves(path, stamps, *, codec="mpeg4", pixels="yuv444p"):
    """A video whose left half is red and right half blue, brighter from frame to frame, at the given times in ms."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if path.suffix == ".mkv" else codec, rate=1000)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = pixels if path.suffix == ".mkv" else "yuv420p"
        stream.time_base = Fraction(1, 1000)
        for number, stamp in enumerate(stamps):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[:, :32, 0] = picture[:, 32:, 2] = 60 + 20 * number
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_the_clip_is_what_the_demo_sees_of_it():
    sequences = read(CLIPS / "advert.mp4")
    assert sequences.values.shape == (127, 297)
    np.testing.assert_array_equal(sequences.values, film.open_film().features[1441:])
    np.testing.assert_allclose(sequences.times, np.arange(127) / 24, atol=1e-6)
    assert sequences.features[4].name == "row0_column1_green"
    assert sequences.features[-1].name == "row8_column10_blue"


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_times_are_those_of_the_frames(tmp_path, suffix):
    stamps = [0, 40, 50, 500]
    sequences = read(make_halves(tmp_path / f"a{suffix}", stamps), grid=(2, 1))
    np.testing.assert_allclose(sequences.times, np.array(stamps) / 1000, atol=1e-6)
    colours = sequences.values.reshape(4, 2, 3)
    expected = np.zeros((4, 2, 3))
    expected[:, 0, 0] = expected[:, 1, 2] = (60 + 20 * np.arange(4)) / 255
    np.testing.assert_allclose(colours, expected, atol=0.04)


def test_folders_are_labels(tmp_path):
    for name in ("goal/1.mp4", "miss/1.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_video(tmp_path / name, 5)
    sequences = read(tmp_path, label="folder", grid=(1, 1))
    assert sequences.lengths.tolist() == [5, 5]
    assert sequences.label.categories == ("goal", "miss")
    assert sequences.values.shape == (10, 3)


@pytest.mark.parametrize("kept", [0, 100, 5_000, 60_000, 90_000])
def test_a_truncated_clip_is_one_sentence(tmp_path, kept):
    (tmp_path / "cut.mp4").write_bytes((CLIPS / "advert.mp4").read_bytes()[:kept])
    assert_refused(
        lambda: read(tmp_path / "cut.mp4"), FileError, r"cut\.mp4' (is empty|is truncated|cannot be decoded)"
    )


def test_a_video_without_frames_is_one_sentence(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert_refused(lambda: read(tmp_path / "a.mp4"), FileError, "must hold a video; it has no video stream")


def test_a_grid_that_is_none_is_one_sentence(as_users_run_it):
    for grid in ((0, 1), (1, 2, 3), (1.5, 2)):
        assert_refused(
            partial(read, CLIPS / "advert.mp4", grid=grid), InputValueError, "grid must be two whole numbers"
        )


def test_damaged_files_are_read_or_refused(tmp_path):
    path = make_video(tmp_path / "a.mp4", 3)
    counts = survives(read, path.read_bytes(), tmp_path / "damaged.mp4", 1)
    assert counts["FileError"] > 5
