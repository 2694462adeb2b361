"""What must be the same for a run to go on as if it had never stopped: the data to the bit, and the options."""

import hashlib
from typing import Any

import numpy as np
import torch

from tidegate.data.sequences import Sequences
from tidegate.train.settings import Settings
from tidegate.train.spans import spans_of
from tidegate.train.split import Parts

__all__ = ["PLACES", "difference", "fingerprint"]

#: Settings that say where the data lie; what they hold is looked at itself.
PLACES = ("data", "test_data", "hold_edl")
#: Rows that are read together.
_ROWS = 2**16


def fingerprint(sequences: Sequences, parts: Parts, settings: Settings, processes: int = 1) -> dict[str, Any]:
    """The data as one number, the options by their names, and who shared the sums; all of it JSON."""
    options = {name: value for name, value in settings.to_dict().items() if name not in PLACES}
    return {
        "data": _digest(sequences, parts),
        "options": options | {"threads": settings.threads or torch.get_num_threads(), "processes": processes},
    }


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """What differs between two fingerprints, in words; None if nothing does."""
    for name, value in now["options"].items():
        if name not in before["options"] or before["options"][name] != value:
            return f"{name} must be that of the run that is resumed, {before['options'].get(name)!r}; got {value!r}"
    if before["data"] != now["data"]:
        return "data must be those of the run that is resumed; they differ"
    return None


def _digest(sequences: Sequences, parts: Parts) -> str:
    """A number that other features, values, labels or parts would change; read in bounded memory."""
    found = hashlib.blake2b(repr(sequences.features).encode(), digest_size=16)
    spans = [spans_of(sequences, part) for part in (parts.train, parts.validation, parts.test)]
    arrays = [sequences.offsets, *(array for one in spans for array in vars(one).values()), sequences.values]
    if sequences.label is not None:
        label = sequences.label
        found.update(repr((label.name, label.per_step, label.categories, label.ahead)).encode())
        arrays.append(label.values)
    if sequences.held is not None:
        arrays.append(sequences.held)
    for array in arrays:
        found.update(repr((array.shape, array.dtype)).encode())
        for start in range(0, len(array), _ROWS):
            found.update(np.ascontiguousarray(array[start : start + _ROWS]).view(np.uint8).data)
    return found.hexdigest()
