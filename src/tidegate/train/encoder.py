"""From the numbers of a table to what a recurrent layer takes: normalised, missing values filled and flagged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor, nn

from tidegate.data.sequences import Feature, Sequences
from tidegate.errors import InputValueError
from tidegate.train.spans import Which, spans_of

__all__ = ["Encoder", "Statistics", "statistics"]

#: Root mean square length of a normalised input, whatever its number of features.
_LENGTH = 4.0
#: Numbers of an embedded category; few categories need fewer.
_WIDEST = 16
#: Rows that are looked at together.
_ROWS = 2**16


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the training part says of each feature, (F,)."""

    #: How many values are there.
    count: NDArray[np.int64]
    #: Of those; 0 where there are none.
    mean: NDArray[np.float64]
    #: Their standard deviation; exactly 0 for a feature that does not vary.
    spread: NDArray[np.float64]
    #: Whether some are not there.
    missing: NDArray[np.bool_]


def statistics(sequences: Sequences, which: Which) -> Statistics:
    """Mean and standard deviation of every feature over the steps of some sequences; read once, in bounded memory.

    Raises `InputValueError` for a feature of numbers so large that these are not finite.
    """
    spans = spans_of(sequences, which)
    width = len(sequences.features)
    count, mean, squares = np.zeros(width, np.int64), np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    missing = np.zeros(width, bool)
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        for place in range(len(spans)):
            rows = spans.rows(sequences, place)
            for start in range(rows.start, rows.stop, _ROWS):
                part = np.asarray(sequences.values[start : min(start + _ROWS, rows.stop)], np.float64)
                there = ~np.isnan(part)
                missing |= ~there.all(0)
                low, high = np.fmin(low, np.fmin.reduce(part)), np.fmax(high, np.fmax.reduce(part))
                here = there.sum(0)
                some = np.maximum(here, 1)
                own = np.where(there, part, 0).sum(0) / some
                rest = np.where(there, part - own, 0)
                slip = rest.sum(0) / some  # what rounding took from the mean, which at a large offset is no small thing
                own += slip
                # Chan et al. 1983: two parts' means and sums of squares put together without cancellation
                total = np.maximum(count + here, 1)
                squares += ((rest - slip) ** 2 * there).sum(0) + (own - mean) ** 2 * count * here / total
                mean += (own - mean) * here / total
                count += here
    too_large = ~np.isfinite(mean) | ~np.isfinite(squares)
    if too_large.any():
        name = sequences.features[int(np.argmax(too_large))].name
        raise InputValueError(f"feature {name!r} must hold numbers whose squares are finite; it does not")
    varies = high > low
    mean = np.where(varies | (count == 0), mean, low)
    return Statistics(count, mean, np.where(varies, np.sqrt(squares / np.maximum(count, 1)), 0.0), missing)


class Encoder(nn.Module):
    """The features of a table as numbers for a recurrent layer.

    A number or boolean becomes one input of mean 0; all inputs together have a root mean square length of 4, which
    moves a fresh layer's gates by a fraction of one, however many there are (PyTorch draws weights with a variance of
    1/(3H), so an input of length `l` moves each gate by `l/sqrt(3H)`). One that does not vary in training is always 0,
    since nothing can be learned of it. A missing number becomes the mean, and, for features that are ever missing in
    training, one more input says so. A category becomes a few learned numbers, with one row more for missing and one
    for categories that are not known, which are 0 until something is learned of them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Sequence[Feature], flagged: Sequence[bool]) -> None:
        super().__init__()
        if len(features) != len(flagged):
            raise InputValueError(f"flagged must say of {len(features)} features whether they are; got {len(flagged)}")
        self.features, self.flagged = tuple(features), tuple(map(bool, flagged))
        self._numbers = [place for place, feature in enumerate(features) if feature.kind != "category"]
        self._flags = [place for place in self._numbers if self.flagged[place]]
        self._categories = [place for place, feature in enumerate(features) if feature.kind == "category"]
        self.register_buffer("mean", torch.zeros(len(self._numbers), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(len(self._numbers), dtype=torch.float64))
        self.embeddings = nn.ModuleList(
            nn.Embedding(count + 2, min(_WIDEST, (count + 3) // 2))
            for count in [len(features[place].categories) for place in self._categories]
        )
        for table in self.embeddings:
            nn.init.zeros_(table.weight[-2:])  # type: ignore[index]

    @property
    def width(self) -> int:
        """How many numbers a step becomes."""
        embedded = sum(table.weight.shape[1] for table in self.embeddings)  # type: ignore[index,misc]
        return len(self._numbers) + len(self._flags) + embedded

    def fit(self, found: Statistics) -> None:
        """Take mean and spread of the training part."""
        spread = found.spread[self._numbers]
        varies = spread > 0
        share = _LENGTH / max(int(varies.sum()), 1) ** 0.5
        scale = np.where(varies, share / np.where(varies, spread, 1), 0)
        self.mean.copy_(torch.from_numpy(found.mean[self._numbers]))
        self.scale.copy_(torch.from_numpy(scale))

    def learned(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(F,) each, the mean and the spread of the numbers in training; 0 for categories and where nothing varied."""
        mean, spread = np.zeros(len(self.features)), np.zeros(len(self.features))
        scale = self.scale.numpy()
        share = _LENGTH / max(int((scale > 0).sum()), 1) ** 0.5
        mean[self._numbers] = self.mean.numpy()
        spread[self._numbers] = np.where(scale > 0, share / np.where(scale > 0, scale, 1), 0)
        return mean, spread

    def forward(self, values: Shaped[Tensor, "T B F"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "T B E"]:
        """The inputs of the recurrent layer."""
        alone = len(self._numbers) == values.shape[-1]  # and in their order: no copy
        numbers = values if alone else values[..., self._numbers]
        missing = numbers.isnan()
        normal = (numbers.double() - self.mean) * self.scale  # in double, for a time stamp has ten digits
        parts = [torch.where(missing, 0, normal).to(dtype)]
        if self._flags:
            parts.append(values[..., self._flags].isnan().to(dtype))
        for place, table in zip(self._categories, self.embeddings, strict=True):
            count = len(self.features[place].categories)
            missing, codes = values[..., place].isnan(), values[..., place].nan_to_num(-1).long()
            codes = torch.where(missing, count, torch.where((codes < 0) | (codes >= count), count + 1, codes))
            parts.append(table(codes).to(dtype))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]
