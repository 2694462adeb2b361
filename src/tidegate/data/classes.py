"""When a label of numbers is a label of classes: one rule for every reader."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.data.rows import chunks

__all__ = ["classes_among"]

#: More different whole numbers than this are no classes.
_MOST = 20


def classes_among(values: NDArray[Any]) -> NDArray[np.float64] | None:
    """The different values (C,) of a label (N,) of numbers, NaN where not known, if they look like classes; else None.

    They do if all are whole and there are at most 20 different ones, fewer than values, and these are 0, 1, 2, ... or
    1, 2, 3, ... or -1 and 1, or fewer than a tenth of the values. Read piece by piece.
    """
    found, count = np.zeros(0), 0
    for _, piece in chunks(values):
        part = np.asarray(piece)[~np.isnan(piece)]
        count += len(part)
        found = np.unique(np.concatenate([found, part]))
        if len(found) > _MOST or (found != np.trunc(found)).any() or (np.abs(found) >= 2**53).any():
            return None
    if not 0 < len(found) < count:
        return None
    consecutive = found[0] in (0, 1) and (np.diff(found) == 1).all()
    signs = found.tolist() == [-1, 1]
    return found if consecutive or signs or 10 * len(found) < count else None
