"""What somebody writes who has torch.nn.GRU and an afternoon: the loop that training is compared with."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pack_sequence

__all__ = ["Scores", "plain_classifier", "plain_language"]

Signals = Sequence[NDArray[np.float64]]
#: What a network reaches on the test part: the share that it answers rightly, and its cross-entropy in nats.
Scores = tuple[float, float]

_SYMBOLS = 256  # a byte
_SHARE = 0.15  # of the sequences of a text, that tell when to stop


class _Classifier(nn.Module):
    def __init__(self, features: int, units: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.GRU(features, units)
        self.head = nn.Linear(units, classes)

    def forward(self, sequences: list[Tensor]) -> Tensor:
        _, last = self.layer(pack_sequence(sequences, enforce_sorted=False))
        scores: Tensor = self.head(last[-1])
        return scores


def plain_classifier(
    train: tuple[Signals, NDArray[np.int64]],
    test: tuple[Signals, NDArray[np.int64]],
    *,
    seed: int,
    epochs: int = 200,
    units: int = 128,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
) -> Scores:
    """How a torch.nn.GRU classifies `test`, trained on all of `train` for all epochs.

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
        return _scores(model(asked), torch.from_numpy(test[1]))


class _Language(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.layer = nn.GRU(_SYMBOLS, units)
        self.head = nn.Linear(units, _SYMBOLS)

    def forward(self, symbols: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        states, state = self.layer(nn.functional.one_hot(symbols, _SYMBOLS).float(), state)
        scores: Tensor = self.head(states)
        return scores, state


def plain_language(
    train: Sequence[NDArray[np.int64]],
    test: Sequence[NDArray[np.int64]],
    *,
    seed: int,
    epochs: int = 200,
    patience: int = 30,
    units: int = 128,
    batch_size: int = 32,
    steps: int = 128,
    learning_rate: float = 1e-3,
) -> Scores:
    """How a torch.nn.GRU tells the next byte of the texts in `test`, each read from its start.

    The training texts, one after the other, are cut into as many lanes as a batch is wide; each step of Adam is for so
    many bytes of all lanes, with the state carried on and gradients clipped at norm 1. A share of the texts tells when
    to stop, and the weights of the best epoch are kept.
    """
    torch.manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(train))
    held = max(1, round(_SHARE * len(train)))
    asked = [torch.from_numpy(train[one]) for one in order[:held]]
    together = np.concatenate([train[one] for one in order[held:]])
    lanes = torch.from_numpy(together[: len(together) // batch_size * batch_size].reshape(batch_size, -1).T.copy())
    model = _Language(units)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    best, kept, since = float("inf"), model.state_dict(), 0
    for _ in range(epochs):
        state = None
        for start in range(0, len(lanes) - 1, steps):
            told = lanes[start + 1 : start + 1 + steps]
            optimizer.zero_grad()
            scores, state = model(lanes[start : start + len(told)], state)
            state = state.detach()
            cross_entropy(scores.flatten(0, 1), told.flatten()).backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        loss = _language_scores(model, asked)[1]
        since += 1
        if loss < best:
            best, kept, since = loss, copy.deepcopy(model.state_dict()), 0
        if since >= patience:
            break
    model.load_state_dict(kept)
    return _language_scores(model, [torch.from_numpy(one) for one in test])


@torch.no_grad()
def _language_scores(model: _Language, texts: Sequence[Tensor]) -> Scores:
    """The scores of texts that are read from their start."""
    scores = torch.cat([model(text[:-1, None])[0][:, 0] for text in texts])
    return _scores(scores, torch.cat([text[1:] for text in texts]))


def _scores(scores: Tensor, told: Tensor) -> Scores:
    return float((scores.argmax(-1) == told).double().mean()), float(cross_entropy(scores, told))
