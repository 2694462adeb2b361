"""Video files -> frames, through PyAV."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.extras import require

__all__ = ["TILE", "Decoded", "Video", "mean_colours", "read_video"]

#: Pixels of a tile whose mean colour is taken, in each direction.
TILE = 8


@dataclass(frozen=True, eq=False)
class Video:
    """The frames of a video."""

    frames: NDArray[np.uint8]  # (N, height, width, 3), RGB
    frames_per_second: float


def read_video(path: str | Path, width: int, height: int) -> Video:
    """Decode every frame of `path`, scaled to fill `width` x `height` pixels; what sticks out is cut off evenly.

    Raises:
        FileMissingError: there is no such file.
        FileError: the file is not a video, has no frames, or is truncated or damaged.
    """
    decoded = Decoded(path, width, height)
    frames = [picture for _, picture in decoded]
    return Video(np.stack(frames), decoded.frames_per_second)


def mean_colours(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, height, width, 3) -> (N, height/8 * width/8 * 3) in [0, 1]: the mean colours of tiles of 8 x 8 pixels."""
    count, height, width, _ = frames.shape
    tiles = frames.reshape(count, height // TILE, TILE, width // TILE, TILE, 3)
    means: NDArray[np.float32] = tiles.mean(axis=(2, 4), dtype=np.float32)
    return (means / np.float32(255)).reshape(count, -1)


class Decoded:
    """The frames of a video one at a time, as `read_video` gives them, each with its presentation time in seconds.

    Raises as `read_video`; that a file is truncated is known, and raised, at its end.
    """

    def __init__(self, path: str | Path, width: int, height: int) -> None:
        self._path, self._size = Path(path), (width, height)
        #: Known when the first frame is; NaN if the file does not tell.
        self.frames_per_second = math.nan
        #: How long the frame lasts that was given last, in seconds; NaN if the file does not tell.
        self.lasts = math.nan
        if width < 1 or height < 1:
            raise InputValueError(f"width and height must be at least 1; got {width} x {height}")
        if not self._path.is_file():
            raise FileMissingError(f"there is no video file {str(path)!r}")

    def __iter__(self) -> Iterator[tuple[float | None, NDArray[np.uint8]]]:
        av: Any = require("av", "video")
        where, count, announced = repr(str(self._path)), 0, 0
        try:
            with av.open(str(self._path), metadata_errors="replace") as container:
                if not container.streams.video:
                    raise FileError(f"{where} must hold a video; it has no video stream")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise FileError(f"{where} cannot be decoded as a video: its codec is not known")
                announced, rate = stream.frames, stream.average_rate
                self.frames_per_second = float(rate) if rate else math.nan
                for frame in container.decode(stream):
                    count += 1
                    self.lasts = float(frame.duration * frame.time_base) if frame.duration else math.nan
                    yield frame.time, _fill(frame, *self._size)
        except av.error.FFmpegError as error:
            raise FileError(f"{where} cannot be decoded as a video: {error.strerror}") from error
        if not count or count < announced:
            raise FileError(f"{where} is truncated: it announces {announced} frames and holds {count}")


def _fill(frame: Any, width: int, height: int) -> NDArray[np.uint8]:
    """One frame, scaled by one factor until it covers width x height, and its middle cut out."""
    scale = max(width / frame.width, height / frame.height)
    wide, high = max(width, round(frame.width * scale)), max(height, round(frame.height * scale))
    picture: NDArray[np.uint8] = frame.to_ndarray(width=wide, height=high, format="rgb24", interpolation="AREA")
    top, left = (high - height) // 2, (wide - width) // 2
    return picture[top : top + height, left : left + width]
