"""Video files -> frames: the shipped clips, other formats, and what cannot be read."""

from pathlib import Path

import av
import numpy as np
import pytest

from tidegate.data import film, read_video
from tidegate.errors import FileError, FileMissingError, InputValueError

CLIPS = Path(film.__file__).parent / "clips"


def make_video(path, frames, *, width=64, height=48, codec="mpeg4"):
    """A video of flat frames, each a shade of grey of its own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for shade in np.linspace(40, 200, frames).astype(np.uint8):
            picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), shade), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def test_the_shipped_clips_decode_whole():
    advert = read_video(CLIPS / "advert.mp4", 44, 36)
    assert advert.frames.shape == (127, 36, 44, 3)
    assert advert.frames.dtype == np.uint8
    assert advert.frames_per_second == 24


def test_frames_come_in_order_and_keep_their_brightness(tmp_path):
    video = read_video(make_video(tmp_path / "grey.mp4", 12), 32, 24)
    means = video.frames.mean(axis=(1, 2, 3))
    assert (np.diff(means) > 0).all()
    assert abs(means[0] - 40) < 6
    assert abs(means[-1] - 200) < 6


@pytest.mark.parametrize(("width", "height"), [(32, 24), (10, 40), (40, 10), (1, 1), (96, 97)])
def test_any_size_is_filled_without_distortion(tmp_path, width, height):
    frames = read_video(make_video(tmp_path / "grey.mp4", 3), width, height).frames
    assert frames.shape == (3, height, width, 3)
    assert frames[0].std() < 3  # no black bars


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(FileMissingError, match=r"there is no video file '.*nowhere\.mp4'") as raised:
        read_video(tmp_path / "nowhere.mp4", 8, 8)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, FileNotFoundError)


@pytest.mark.parametrize("kept", [0, 100, 5_000, 60_000, 90_000])
def test_a_truncated_clip_is_one_sentence(tmp_path, kept):
    whole = (CLIPS / "advert.mp4").read_bytes()
    assert kept < len(whole)
    (tmp_path / "cut.mp4").write_bytes(whole[:kept])
    with pytest.raises(FileError, match=r"cut\.mp4' (is truncated|cannot be decoded)"):
        read_video(tmp_path / "cut.mp4", 8, 8)


def test_a_file_that_is_no_video_is_one_sentence(tmp_path):
    (tmp_path / "notes.mp4").write_text("not a film")
    with pytest.raises(FileError, match="cannot be decoded as a video"):
        read_video(tmp_path / "notes.mp4", 8, 8)


def test_a_codec_that_is_not_known_is_one_sentence(tmp_path):
    path = make_video(tmp_path / "grey.avi", 3)
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZZZ"))
    with pytest.raises(FileError, match="cannot be decoded as a video: its codec is not known"):
        read_video(path, 8, 8)


def test_a_file_with_sound_only_is_one_sentence(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(FileError, match="must hold a video; it has no video stream"):
        read_video(path, 8, 8)


def test_a_size_below_one_pixel_is_refused():
    with pytest.raises(InputValueError, match="width and height must be at least 1; got 0 x 8"):
        read_video(CLIPS / "advert.mp4", 0, 8)
