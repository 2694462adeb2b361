"""Video files -> sequences of the mean colours of their frames, through PyAV."""

from collections.abc import Sequence

import numpy as np

from tidegate.data.files import Found, opened
from tidegate.data.folders import NO_COLUMNS, FolderLabel, folder_label, offsets_of, require_no_columns
from tidegate.data.known import as_asked
from tidegate.data.rows import Rows
from tidegate.data.sequences import Columns, Feature, Recorded, Sequences
from tidegate.data.video import TILE, Decoded, mean_colours
from tidegate.errors import FileError, InputValueError

__all__ = ["GRID", "read_frames", "tile_features"]

#: Tiles from left to right, and from top to bottom: 297 numbers, as in the demo.
GRID = (11, 9)


def tile_features(wide: int, high: int) -> tuple[Feature, ...]:
    """The features of a frame, its mean colours: left to right by top to bottom, red, green and blue."""
    return tuple(
        Feature(f"row{row}_column{column}_{colour}")
        for row in range(high)
        for column in range(wide)
        for colour in ("red", "green", "blue")
    )


def read_frames(
    files: Sequence[Found],
    columns: Columns = NO_COLUMNS,
    *,
    grid: tuple[int, int] = GRID,
    label: FolderLabel = None,
    known: Sequence[Feature] | None = None,
) -> Sequences:
    """Each file a sequence of frames; of each, the mean red, green and blue in [0, 1] of `grid` tiles, left to right by
    top to bottom.

    A frame is scaled to cover 8 x 8 pixels a tile, and what sticks out is cut off evenly. Features are named by row,
    column and colour: `row0_column0_red`, ... `times` are the frames' presentation time stamps, in seconds; frames are
    decoded one at a time.

    Raises:
        FileError: a file is empty, has no frame, is damaged or truncated, or its frames have no times or falling ones.
        FileMissingError, InputValueError: as `find_files` and `as_asked`; a grid that is not two whole numbers from 1.
        MissingExtraError: PyAV is not installed.
    """
    require_no_columns(columns, "video files", labels=("folder", "edl"))
    if len(grid) != 2 or not all(isinstance(tiles, int) and 1 <= tiles <= 512 for tiles in grid):
        raise InputValueError(f"grid must be two whole numbers from 1 to 512, columns and rows; got {grid!r}")
    of_files = folder_label(files, label, columns)
    wide, high = grid
    features = tile_features(wide, high)
    rows, times, lengths = Rows((len(features),), np.float32), Rows((), np.float64), []
    ends, rates = [], []
    for found in files:
        opened(found.path)
        latest, count = -np.inf, 0
        decoded = Decoded(found.path, wide * TILE, high * TILE)
        for time, picture in decoded:
            if time is None or time < latest:
                raise FileError(
                    f"{str(found.path)!r} must have frames with times that never fall; frame {count} has "
                    f"{'none' if time is None else f'{time:.3f} s after {latest:.3f} s'}"
                )
            rows.append(mean_colours(picture[None]))
            times.append(np.array([time]))
            latest, count = time, count + 1
        lengths.append(count)
        lasts = decoded.lasts if decoded.lasts > 0 else 1 / decoded.frames_per_second
        ends.append(latest + (lasts if lasts > 0 else 0.0))
        rates.append(decoded.frames_per_second)
    sequences = Sequences(
        features,
        rows.finish(),
        offsets_of(lengths),
        [found.name for found in files],
        times.finish(),
        of_files,
        tuple(str(found.path) for found in files),
        recorded=Recorded(0.0, np.array(ends), np.array(rates)),
    )
    return as_asked(sequences, columns, known)
