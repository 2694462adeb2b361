"""What somebody writes who has torch.nn.GRU and an afternoon: the loop that training is compared with."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pack_sequence

__all__ = ["plain_accuracy"]

Signals = Sequence[NDArray[np.float64]]


class _Classifier(nn.Module):
    def __init__(self, features: int, units: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.GRU(features, units)
        self.head = nn.Linear(units, classes)

    def forward(self, sequences: list[Tensor]) -> Tensor:
        _, last = self.layer(pack_sequence(sequences, enforce_sorted=False))
        scores: Tensor = self.head(last[-1])
        return scores


def plain_accuracy(
    train: tuple[Signals, NDArray[np.int64]],
    test: tuple[Signals, NDArray[np.int64]],
    *,
    seed: int,
    epochs: int = 200,
    units: int = 128,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
) -> float:
    """The share of `test` that a torch.nn.GRU classifies rightly, trained on all of `train` for all epochs.

    Signals are (T, F), brought to mean 0 and spread 1 by the training signals; Adam, gradients clipped at norm 1.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    steps = np.concatenate(train[0])
    mean, spread = steps.mean(0), np.maximum(steps.std(0), 1e-12)
    signals, asked = ([torch.from_numpy((one - mean) / spread).float() for one in part[0]] for part in (train, test))
    classes = torch.from_numpy(train[1])
    model = _Classifier(steps.shape[1], units, int(train[1].max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    for _ in range(epochs):
        order = rng.permutation(len(signals))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            optimizer.zero_grad()
            loss = cross_entropy(model([signals[one] for one in chosen]), classes[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    with torch.no_grad():
        told = model(asked).argmax(-1).numpy()
    return float((told == test[1]).mean())
