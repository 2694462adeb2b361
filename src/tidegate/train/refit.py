"""Few sequences to learn from: what their validation part can tell, and how it is then learned too."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tidegate.data.sequences import Sequences
from tidegate.train.fitting import Fitted, fit_model, new_model
from tidegate.train.keeper import Moment
from tidegate.train.model import SequenceModel
from tidegate.train.processes import ALONE, Processes
from tidegate.train.settings import Settings
from tidegate.train.split import Parts, Split
from tidegate.train.tasks import Task, known_values

__all__ = ["FEWEST", "fit_all", "too_few"]

#: Sequences with a known class that can choose an epoch.
FEWEST = 30
#: Where the checkpoints of the second time lie, below those of the first.
_AGAIN = "again"


def too_few(sequences: Sequences, parts: Parts, task: Task, settings: Settings) -> bool:
    """Whether the validation part of a classification is too small to choose an epoch, and nobody asked it to.

    One of ten sequences that is answered wrong, and ever more surely, is most of the loss: the lowest loss is then that
    of an early epoch, whatever the other nine say. (The error of a number cannot outgrow the others so.)
    """
    asked = settings.patience is None and isinstance(parts, Split) and task.name == "classify"
    return asked and len(known_values(sequences, parts.validation)) < FEWEST


def fit_all(
    model: SequenceModel,
    sequences: Sequences,
    parts: Parts,
    task: Task,
    settings: Settings,
    *,
    folder: Path | None = None,
    logs: Path | None = None,
    resume: bool = False,
    progress: Callable[[Moment], None] | None = None,
    processes: Processes = ALONE,
) -> Fitted:
    """`fit_model`; where the validation part is too small to choose an epoch, through all epochs, and then once more.

    The second time a network with the same first weights learns the validation part too. The scores are those of the
    first time, when it had not seen it. Both times are resumed where they were cut off.
    """
    few = too_few(sequences, parts, task, settings)
    scored = fit_model(
        model, sequences, parts, task, settings,
        folder=folder, logs=logs, resume=resume, progress=progress, processes=processes, to_the_end=few,
    )  # fmt: skip
    if not few:
        return scored
    assert isinstance(parts, Split)
    whole = Split(np.sort(np.concatenate([parts.train, parts.validation])), parts.validation, parts.test)
    below = None if folder is None else folder / _AGAIN
    begun = processes.first(lambda: below is not None and (below / "last.safetensors").is_file())
    learned = fit_model(
        new_model(sequences, whole, task, settings), sequences, whole, task, settings,
        folder=below, resume=begun, progress=progress, processes=processes, to_the_end=True, again=True,
    )  # fmt: skip
    return replace(scored, model=learned.model, again=True)
