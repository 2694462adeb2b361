"""What accuracy is measured on: sets of the time series archive, films cut from the two clips, and a real text."""

from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from tidegate.data.film import Film, Part, open_film
from tidegate.data.read import read
from tidegate.data.sequences import Columns, Sequences

__all__ = ["ARCHIVE", "CLIPS", "NEXT", "TEXT", "Material", "material"]

ARCHIVE = ("BasicMotions", "JapaneseVowels", "GunPoint", "ArrowHead", "ItalyPowerDemand")
CLIPS, TEXT = "clips", "text"
#: The label that is the next byte.
NEXT = "next"

_TRAIN_FILMS, _TEST_FILMS = 400, 500
_TRAIN_TOPICS, _TEST_TOPICS = 40, 10


@dataclass(frozen=True)
class Material:
    """The two parts of a set, as `tidegate.fit` is told of them."""

    train: Path
    test: Path
    label: str

    def read(self) -> tuple[Sequences, Sequences]:
        """Both parts, with the same classes."""
        train = read(self.train, columns=Columns(label=self.label))
        known = None if self.label == NEXT else train.label
        return train, read(self.test, columns=Columns(label=self.label), known_label=known)


def material(name: str, archive: Path, scratch: Path) -> Material:
    """The set of that name: a folder of `archive`, or `clips` or `text`, which are written to `scratch`."""
    if name == CLIPS:
        return _clips(scratch)
    if name == TEXT:
        return _text(scratch)
    files = archive / name / name
    return Material(Path(f"{files}_TRAIN.ts"), Path(f"{files}_TEST.ts"), "class")


def _clips(scratch: Path) -> Material:
    """Films of 50 frames with an advert at steps 5 to 8; which of ten shots opened them?"""
    film = open_film()
    return Material(
        _films(film, "train", _TRAIN_FILMS, scratch / "train.npz"),
        _films(film, "test", _TEST_FILMS, scratch / "test.npz"),
        "y",
    )


def _films(film: Film, part: Part, count: int, path: Path) -> Path:
    drawn = film.draw(np.random.default_rng([count]), part, count)
    np.savez(path, x=film.features[drawn.index].swapaxes(0, 1), y=drawn.label)
    return path


def _text(scratch: Path) -> Material:
    """Python's own reference, a topic a file; what is the next byte?"""
    names = sorted(topics)
    for folder, chosen in (("train", names[:_TRAIN_TOPICS]), ("test", names[_TRAIN_TOPICS:][:_TEST_TOPICS])):
        (scratch / folder).mkdir(parents=True)
        for name in chosen:
            (scratch / folder / f"{name}.txt").write_text(topics[name], encoding="utf-8")
    return Material(scratch / "train", scratch / "test", NEXT)
