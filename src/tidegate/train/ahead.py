"""What is asked when the future is: by how much the next values differ from the last that is known."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

__all__ = ["changes_ahead", "last_known"]


def last_known(values: Float[NDArray[np.float64], "T"], before: float = np.nan) -> Float[NDArray[np.float64], "T"]:
    """For every step the last value that is known there: its own, or that of an earlier step; `before` before all."""
    held = np.append(before, values)
    at = np.maximum.accumulate(np.where(np.isnan(held), 0, np.arange(len(held))))
    return held[at][1:]


def changes_ahead(
    values: NDArray[np.float64], last: NDArray[np.float64], horizon: int, counts: NDArray[np.bool_]
) -> Float[NDArray[np.float64], "T h"]:
    """For each of T steps, what the next h values will be, less the last that is known at the step.

    Args:
        values: (T + h,) the target at the steps and beyond; NaN where it is missing.
        last: (T,) what is known at each step.
        horizon: h.
        counts: (T + h,) which values count; the others are NaN in the result.
    """
    future = np.where(counts, values, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(future, horizon)[1:]
    changes: NDArray[np.float64] = windows - last[:, None]
    return changes
