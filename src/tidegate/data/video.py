"""Video files -> frames, through PyAV."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import FileError, FileMissingError, InputValueError
from tidegate.extras import require

__all__ = ["Video", "read_video"]


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
    path = Path(path)
    if width < 1 or height < 1:
        raise InputValueError(f"width and height must be at least 1; got {width} x {height}")
    if not path.is_file():
        raise FileMissingError(f"there is no video file {str(path)!r}")
    av: Any = require("av", "video")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise FileError(f"{str(path)!r} must hold a video; it has no video stream")
            stream = container.streams.video[0]
            announced, rate = stream.frames, stream.average_rate
            frames = [_fill(frame, width, height) for frame in container.decode(stream)]
    except av.error.FFmpegError as error:
        raise FileError(f"{str(path)!r} cannot be decoded as a video: {error.strerror}") from error
    if not frames or len(frames) < announced:
        raise FileError(f"{str(path)!r} is truncated: it announces {announced} frames and holds {len(frames)}")
    return Video(np.stack(frames), float(rate) if rate else math.nan)


def _fill(frame: Any, width: int, height: int) -> NDArray[np.uint8]:
    """One frame, scaled by one factor until it covers width x height, and its middle cut out."""
    scale = max(width / frame.width, height / frame.height)
    wide, high = max(width, round(frame.width * scale)), max(height, round(frame.height * scale))
    picture: NDArray[np.uint8] = frame.to_ndarray(width=wide, height=high, format="rgb24", interpolation="AREA")
    top, left = (high - height) // 2, (wide - width) // 2
    return picture[top : top + height, left : left + width]
