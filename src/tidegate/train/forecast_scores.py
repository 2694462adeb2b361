"""How good forecasts are, beside saying that nothing will change."""

import torch
from torch import Tensor

from tidegate.extras import require

require("torchmetrics", "train")  # the class below is built on it, so it cannot wait for a function

from torchmetrics import Metric  # noqa: E402

__all__ = ["ForecastScores"]


class ForecastScores(Metric):
    """Scores of quantiles (K, Q) of changes from the last known value, against the changes (K,) that came.

    `mae` and `rmse` are those of the median; `naive_mae` is that of the last known value, the naive forecast, and
    `relative_mae` the ratio of the two: below 1 the forecast is worth something. With several quantiles, `coverage` is
    the share of values from the lowest to the highest.
    """

    full_state_update = False

    errors: Tensor
    squares: Tensor
    naive: Tensor
    covered: Tensor
    count: Tensor

    def __init__(self, quantiles: int, median: int, *, together: bool = False) -> None:
        super().__init__(sync_on_compute=together)
        self.quantiles, self.median = quantiles, median
        for name in ("errors", "squares", "naive", "covered", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, told: Tensor, label: Tensor) -> None:
        """Count."""
        told, label = told.double(), label.double()
        miss = told[:, self.median] - label
        self.errors += miss.abs().sum()
        self.squares += miss.square().sum()
        self.naive += label.abs().sum()
        self.covered += ((label >= told[:, 0]) & (label <= told[:, -1])).sum()
        self.count += len(label)

    def compute(self) -> dict[str, Tensor]:
        """The scores by name."""
        scores = {
            "mae": self.errors / self.count,
            "rmse": (self.squares / self.count).sqrt(),
            "naive_mae": self.naive / self.count,
            "relative_mae": self.errors / self.naive,
        }
        if self.quantiles > 1:
            scores["coverage"] = self.covered / self.count
        return scores
