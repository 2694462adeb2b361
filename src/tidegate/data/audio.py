"""Audio files -> sequences of log-mel frames, through PyAV."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.files import Found, opened
from tidegate.data.folders import NO_COLUMNS, FolderLabel, folder_label, offsets_of, require_no_columns
from tidegate.data.known import as_asked
from tidegate.data.mel import BANDS, FRAME_CENTRE, HOP, RATE, WINDOW, log_mel
from tidegate.data.rows import Rows
from tidegate.data.sequences import Columns, Feature, Recorded, Sequences
from tidegate.errors import FileError
from tidegate.extras import require

__all__ = ["read_audio"]

_FEATURES = tuple(Feature(f"mel{band}") for band in range(BANDS))
_PIECE = 2**17  # samples that are transformed at once, 8 s
#: A frame that is damaged is an error, not silence.
_STRICT = {"err_detect": "crccheck+explode"}


def read_audio(
    files: Sequence[Found],
    columns: Columns = NO_COLUMNS,
    *,
    label: FolderLabel = None,
    known: Sequence[Feature] | None = None,
) -> Sequences:
    """Each file a sequence of log-mel frames, features mel0 to mel39, one every 10 ms (see `data.mel`).

    Sound is resampled to 16 kHz and the mean of its channels taken, piece by piece. `times` are the middles of the
    frames, in seconds from the beginning. A recording shorter than a frame (25 ms) is padded with silence to one.

    Raises:
        FileError: a file is empty, holds no sound, is damaged or truncated, or a sample is not finite.
        FileMissingError, InputValueError: as `find_files` and `as_asked`.
        MissingExtraError: PyAV is not installed.
    """
    require_no_columns(columns, "audio files", labels=("folder", "edl"))
    of_files = folder_label(files, label, columns)
    rows, lengths = Rows((BANDS,), np.float32), []
    for found in files:
        before = len(rows)
        for frames in _frames(found.path):
            rows.append(frames)
        lengths.append(len(rows) - before)
    offsets, half = offsets_of(lengths), HOP / RATE / 2
    sequences = Sequences(
        _FEATURES,
        rows.finish(),
        offsets,
        [found.name for found in files],
        (np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)) * (HOP / RATE) + FRAME_CENTRE,
        of_files,
        tuple(str(found.path) for found in files),
        recorded=Recorded(half, (np.array(lengths) - 1) * (HOP / RATE) + FRAME_CENTRE + half),
    )
    return as_asked(sequences, columns, known)


def _frames(path: Path) -> Iterator[NDArray[np.float32]]:
    """The log-mel frames of a file, piece by piece."""
    waiting: list[NDArray[np.float32]] = []
    count, any_frame = 0, False
    for samples in _samples(path):
        waiting.append(samples)
        count += len(samples)
        if count >= _PIECE:
            joined = np.concatenate(waiting)
            frames = log_mel(joined)
            any_frame = True
            yield frames
            waiting = [joined[len(frames) * HOP :]]
            count = len(waiting[0])
    joined = np.concatenate([np.empty(0, np.float32), *waiting])
    if not any_frame:
        joined = np.pad(joined, (0, max(0, WINDOW - len(joined))))
    yield log_mel(joined)


def _samples(path: Path) -> Iterator[NDArray[np.float32]]:
    """The samples of a file, one channel at 16 kHz, piece by piece."""
    size = opened(path)
    where = repr(str(path))
    _require_whole_wav(path, size)
    av: Any = require("av", "video")
    try:
        with av.open(str(path), options=_STRICT, metadata_errors="replace") as container:
            stream = _stream(container, where)
            stream.codec_context.options = _STRICT
            announced = float(stream.duration * stream.time_base) if stream.duration else 0.0
            resampler = av.AudioResampler(format="fltp", rate=RATE)
            for frame in _checked(container.decode(stream), announced, where):
                for part in resampler.resample(frame):  # of None: what it still holds
                    yield part.to_ndarray().mean(axis=0)
    except FileError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise FileError(f"{where} cannot be decoded as sound: {getattr(error, 'strerror', error)}") from error


def _checked(frames: Iterator[Any], announced: float, where: str) -> Iterator[Any]:
    """The frames, and None at their end, unless they end too soon or are not finite."""
    heard = 0.0  # seconds
    for frame in frames:
        if frame.format.name.startswith(("flt", "dbl")) and not (np.abs(frame.to_ndarray()) < _LOUDEST).all():
            raise FileError(f"{where} must hold finite samples; in second {heard:.3f} or soon after one is not")
        heard += frame.samples / frame.sample_rate
        yield frame
    if not heard:
        raise FileError(f"{where} must hold sound; it has no samples")
    if heard < announced - 1e-3:
        raise FileError(f"{where} is truncated: it announces {announced:.3f} seconds and holds {heard:.3f}")
    yield None


def _stream(container: Any, where: str) -> Any:
    if not container.streams.audio:
        raise FileError(f"{where} must hold sound; it has no audio stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise FileError(f"{where} cannot be decoded as sound: its codec is not known")
    return stream


def _require_whole_wav(path: Path, size: int) -> None:
    """Refuse a WAV file that ends before the size that its chunk of samples has; decoders take what is there."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                held = size - file.tell()
                if length not in _UNTOLD and held < length:
                    raise FileError(
                        f"{str(path)!r} is truncated: it announces {length} bytes of sound and holds {held}"
                    )
                return
            file.seek(length + length % 2, 1)


#: Samples are in [-1, 1], or whole numbers of 32 bits at most that are stored as they are.
_LOUDEST = 2.0**32
_UNTOLD = (0, 2**32 - 1)  # sizes of a file that was written as a stream
