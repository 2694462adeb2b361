"""The film that is interrupted by an advert: sequences of real frames with the question which shot opened them."""

from dataclasses import dataclass, field
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate.data.frames import GRID, tile_features
from tidegate.data.sequences import Sequences
from tidegate.data.video import TILE, mean_colours, read_video
from tidegate.errors import FileError

__all__ = [
    "ADVERT",
    "FEATURES",
    "FRAME",
    "KINDS",
    "OPENING",
    "REST",
    "SHOTS",
    "STEPS",
    "Film",
    "FilmBatch",
    "Part",
    "open_film",
]

#: The shots of the programme by name: the frames of each, first to one past the last.
SHOTS: dict[str, tuple[tuple[int, int], ...]] = {
    "wide stage": ((183, 243),),
    "guitarist": ((243, 365), (395, 485)),
    "drummer from the side": ((365, 395),),
    "bass, close up": ((485, 552),),
    "two guitarists": ((552, 706), (741, 864)),
    "singer in purple light": ((706, 741), (1162, 1188)),
    "bassist standing": ((864, 923),),
    "drums from above": ((923, 959),),
    "singer, close up": ((1119, 1162), (1188, 1300), (1369, 1432)),
    "trio, dim light": ((1300, 1369),),
}
#: The parts of a sequence, as `FilmBatch.kind` numbers them.
KINDS = ("opening", "advert", "rest")
OPENING, ADVERT, REST = range(3)

STEPS = 50  # frames of a sequence
FRAME = (GRID[0] * TILE, GRID[1] * TILE)  # width and height of the pictures, half the programme's
FEATURES = GRID[0] * GRID[1] * 3  # what a network sees of a frame: its mean colours over tiles of 8 x 8 pixels

_OPENING_STEPS = 5
_TRAINING_SHARE = 0.7  # of every shot and of the advert, in the order of time
_RUN_STEPS = (4, 10)  # a run of the rest is this long, where its shot and the room left allow

Part = Literal["train", "test"]
Pieces = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class FilmBatch:
    """A batch of interrupted films, time-major."""

    index: NDArray[np.int64]  # (T, B) which frame of `Film.frames`
    kind: NDArray[np.int64]  # (T, B) OPENING, ADVERT or REST
    shot: NDArray[np.int64]  # (T, B) which shot; len(SHOTS) for the advert
    run: NDArray[np.int64]  # (T, B) which run of consecutive frames, counted from 0
    label: NDArray[np.int64]  # (B,) which shot opened


@dataclass(frozen=True, eq=False)
class Film:
    """The frames of the programme and, after them, of the advert; and the sequences that can be cut from them.

    The first 70 % of every shot's frames, and of the advert's, are for training; the rest are only ever tested on.
    """

    frames: NDArray[np.uint8]  # (N, 72, 88, 3), RGB
    features: NDArray[np.float32]  # (N, FEATURES) in [0, 1]
    shots: tuple[str, ...]
    pieces: dict[Part, list[Pieces]] = field(
        repr=False
    )  # per shot, the advert last: runs of frames, first to past the last

    def draw(self, rng: np.random.Generator, part: Part, batch: int, *, any_advert: bool = False) -> FilmBatch:
        """Cut `batch` films: an opening of 5 frames, an advert, and runs from shots other than the opening's.

        The advert fills steps 5 to 8; with `any_advert` it is 3 to 8 frames long and starts anywhere from 5 to 40.
        """
        films = [self._cut(rng, self.pieces[part], any_advert) for _ in range(batch)]
        index, kind, shot, run = np.stack(films, axis=-1).swapaxes(0, 1)
        return FilmBatch(index, kind, shot, run, label=shot[0].copy())

    def runs(self, part: Part) -> Sequences:
        """The programme's frames and the advert's in that part, each run of consecutive ones a sequence."""
        pieces = [piece for shot in self.pieces[part] for piece in shot]
        return Sequences(
            tile_features(*GRID),
            np.concatenate([self.features[start:stop] for start, stop in pieces]),
            np.cumsum([0, *(stop - start for start, stop in pieces)]),
            [f"frames {start} to {stop - 1}" for start, stop in pieces],
        )

    def _cut(self, rng: np.random.Generator, pieces: list[Pieces], any_advert: bool) -> NDArray[np.int64]:
        """One film as (T, 4): frame, kind, shot and run of every step."""
        advert = len(self.shots)
        advert_start = int(rng.integers(5, 41)) if any_advert else 5
        advert_stop = advert_start + (int(rng.integers(3, 9)) if any_advert else 4)
        opening = int(rng.integers(len(self.shots)))
        others = [shot for shot in range(len(self.shots)) if shot != opening]
        runs = [(OPENING, opening, _cut_run(rng, pieces[opening], _OPENING_STEPS))]
        step = _OPENING_STEPS
        while step < STEPS:
            if step == advert_start:
                kind, shot, wanted = ADVERT, advert, advert_stop - advert_start
            else:
                kind, shot, wanted = REST, int(rng.choice(others)), int(rng.integers(*_RUN_STEPS, endpoint=True))
                wanted = min(wanted, (advert_start if step < advert_start else STEPS) - step)
            runs.append((kind, shot, _cut_run(rng, pieces[shot], wanted)))
            step += len(runs[-1][2])
        return np.concatenate(
            [
                np.stack([frames, *(np.full_like(frames, value) for value in (kind, shot, number))], axis=-1)
                for number, (kind, shot, frames) in enumerate(runs)
            ]
        )


def open_film(clips: str | Path | None = None) -> Film:
    """Decode `programme.mp4` and `advert.mp4` from the folder `clips` (None: the two that come with Tidegate).

    Raises:
        FileMissingError: a clip is missing.
        FileError: a clip is truncated, or too short for the shots that are cut from it.
    """
    if clips is None:
        with as_file(files("tidegate.data") / "clips") as folder:
            return open_film(folder)
    programme, advert = (read_video(Path(clips) / name, *FRAME).frames for name in ("programme.mp4", "advert.mp4"))
    needed = max(stop for ranges in SHOTS.values() for _, stop in ranges)
    if len(programme) < needed or len(advert) < 30:
        counts = f"{len(programme)} and {len(advert)}"
        raise FileError(f"programme.mp4 and advert.mp4 must hold at least {needed} and 30 frames; they hold {counts}")
    frames = np.concatenate([programme, advert])
    ranges = [*SHOTS.values(), ((len(programme), len(frames)),)]
    parts = [_split(shot) for shot in ranges]
    pieces: dict[Part, list[Pieces]] = {"train": [train for train, _ in parts], "test": [test for _, test in parts]}
    return Film(frames, mean_colours(frames), tuple(SHOTS), pieces)


def _split(ranges: tuple[tuple[int, int], ...]) -> tuple[Pieces, Pieces]:
    """A shot's frames in two: the first 70 % for training, the last 30 % for testing, each as consecutive runs."""
    frames = np.concatenate([np.arange(*piece) for piece in ranges])
    cut = round(len(frames) * _TRAINING_SHARE)
    return _consecutive(frames[:cut]), _consecutive(frames[cut:])


def _consecutive(frames: NDArray[np.int64]) -> Pieces:
    breaks = [0, *(np.flatnonzero(np.diff(frames) != 1) + 1).tolist(), len(frames)]
    return [(int(frames[start]), int(frames[stop - 1]) + 1) for start, stop in pairwise(breaks)]


def _cut_run(rng: np.random.Generator, pieces: Pieces, wanted: int) -> NDArray[np.int64]:
    """`wanted` consecutive frames of a shot; fewer if no run of it is that long."""
    length = min(wanted, max(stop - start for start, stop in pieces))
    room = np.array([max(0, stop - start - length + 1) for start, stop in pieces])
    piece = int(rng.choice(len(pieces), p=room / room.sum()))
    first = pieces[piece][0] + int(rng.integers(room[piece]))
    return np.arange(first, first + length)
