"""What the film report shows, as plain records: numbers, names and pictures, nothing of PyTorch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DemoRecord", "FilmRecord", "Span", "SystemRecord"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Span:
    """A run of consecutive frames of one film: steps `start` to one before `stop`."""

    kind: str  # "opening", "advert" or "rest"
    shot: str  # the name of the shot; "advert" for the advert
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class FilmRecord:
    """One interrupted film, as a person sees it: the frames of a test sequence and what they are."""

    frames: NDArray[np.uint8]  # (T, height, width, 3), RGB
    spans: tuple[Span, ...]  # in order, without gaps


@dataclass(frozen=True, eq=False)
class SystemRecord:
    """One trained network: its row of the table, how it trained, and what it did on the film that is shown."""

    system: str  # "dense", "rnn", "update-only", "gru" or "gru-default-init"
    title: str  # as people read it
    parameters: int
    accuracy: float
    update_on_advert: float
    update_on_opening: float
    untrained_update_on_advert: float  # before the first training step: what the initialisation alone does
    untrained_update_on_opening: float
    memory_opening: float
    memory_advert: float
    memory_rest: float
    gradient: float  # ‖∂a(T)/∂a(5)‖, the median over the sequences it was measured on
    seconds: float
    losses: Floats  # (steps,) training loss per step
    accuracies: Floats  # (steps,) share of the training batch answered right
    answer: str  # the shot it named for the film that is shown
    update: Floats  # (T, H) gates on the film that is shown
    reset: Floats  # (T, H)
    memory: Floats  # (T + 1, H): the share of the final state per step; row 0 is the initial state
    gradient_norms: Floats  # (T + 1,): ‖∂a(T)/∂a(t)‖, median over sequences


@dataclass(frozen=True, eq=False)
class DemoRecord:
    """Everything the report of the interrupted film shows."""

    chance: float
    elimination: float  # mean accuracy of one who remembers every shot of the rest, nothing of the opening, and guesses
    test_sequences: int
    seed: int
    training_steps: int
    batch_size: int
    hidden_size: int
    chrono_steps: int  # the memory that the gated systems were initialised for
    film: FilmRecord
    systems: tuple[SystemRecord, ...]
    versions: dict[str, str]  # {"tidegate": …, "torch": …, "python": …}
