"""Sequences made in memory, small enough to train on within a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.sequences import Feature, Label, Sequences
from tidegate.train.settings import Settings
from tidegate.train.split import Split

__all__ = ["first_symbol", "fitting_settings", "in_parts", "sequences_of", "sums", "watched"]


def sequences_of(
    pieces: Sequence[Any],
    *,
    features: Sequence[Feature] | None = None,
    label: Sequence[float] | NDArray[Any] | None = None,
    categories: Sequence[str] | None = None,
    per_step: bool = False,
    times: NDArray[np.float64] | None = None,
) -> Sequences:
    """Sequences of (T, F) each, named "s0", "s1", ...; with a label of each sequence, or of all steps in a row."""
    arrays = [np.asarray(piece) for piece in pieces]
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in arrays])]).astype(np.int64)
    told = None
    if label is not None:
        told = Label("answer", np.asarray(label, float), per_step, None if categories is None else tuple(categories))
    names = tuple(Feature(f"x{place}") for place in range(arrays[0].shape[1]))
    return Sequences(
        tuple(features) if features is not None else names,
        np.concatenate(arrays),
        offsets,
        [f"s{number}" for number in range(len(arrays))],
        times,
        told,
    )


def first_symbol(count: int = 48, longest: int = 12, seed: int = 0, *, per_step: bool = False) -> Sequences:
    """Which of two symbols came first: a category and a number, some of them missing, in sequences of many lengths."""
    rng = np.random.default_rng(seed)
    pieces = []
    for number in range(count):
        length = int(rng.integers(2, longest + 1))
        symbols = rng.integers(2, size=length)
        symbols[0] = number % 2
        noise = np.where(rng.random(length) < 0.1, np.nan, rng.normal(5, 3, length))
        pieces.append(np.stack([symbols, noise], -1))
    label: Any = [piece[0, 0] for piece in pieces]
    if per_step:
        label = np.concatenate([np.full(len(piece), piece[0, 0]) for piece in pieces])
    features = [Feature("symbol", "category", ("a", "b")), Feature("noise")]
    return sequences_of(pieces, features=features, label=label, categories=("a", "b"), per_step=per_step)


def sums(count: int = 48, longest: int = 8, seed: int = 0, *, per_step: bool = False) -> Sequences:
    """A number to be told: the sum of what came, far from zero."""
    rng = np.random.default_rng(seed)
    pieces = [rng.normal(size=(int(rng.integers(1, longest + 1)), 2)) for _ in range(count)]
    totals = [1000 + 10 * np.cumsum(piece[:, 0]) for piece in pieces]
    label: Any = np.concatenate(totals) if per_step else [total[-1] for total in totals]
    return sequences_of(pieces, label=label, per_step=per_step)


def watched(array: Any, path: Path, read: list[int]) -> NDArray[Any]:
    """The array as a memory map that tells, in `read`, of how many rows it was asked."""

    class Watched(np.memmap):
        def __getitem__(self, rows: Any) -> Any:
            part = np.asarray(super().__getitem__(rows))
            read.append(len(part))
            return part

    np.save(path, array)
    mapped: NDArray[Any] = np.load(path, mmap_mode="r").view(Watched)
    return mapped


def in_parts(sequences: Sequences) -> Split:
    """Half to learn from, a quarter each to stop by and to be asked about."""
    every = np.arange(len(sequences))
    quarter = every // 2 % 4  # two by two, for the classes take turns
    return Split(train=every[quarter < 2], validation=every[quarter == 2], test=every[quarter == 3])


def fitting_settings(**changed: Any) -> Settings:
    """A network that learns in seconds."""
    quick = {"hidden_size": 8, "epochs": 4, "batch_size": 8, "threads": 1, "learning_rate": 0.02, "seed": 3}
    return Settings(**{**quick, **changed})
