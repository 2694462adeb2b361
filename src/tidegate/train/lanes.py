"""Long recordings cut into lanes that are read side by side, and into chunks of back-propagation."""

import numpy as np

from tidegate.errors import InputValueError
from tidegate.train.settings import Settings
from tidegate.train.spans import Spans
from tidegate.train.tasks import Task

__all__ = ["chunk_of", "in_lanes"]

#: Steps of a chunk where nobody says how many.
_CHUNK = 128
#: A lane that nobody asked for is no shorter than so many chunks: its first steps have no past.
_CHUNKS = 16


def chunk_of(task: Task, settings: Settings) -> int | None:
    """How many steps go together when no lanes are cut: what the settings say; when forecasting, never all."""
    return _CHUNK if settings.chunk is None and task.name == "forecast" else settings.chunk


def in_lanes(spans: Spans, task: Task, settings: Settings) -> tuple[Spans, int | None]:
    """The stretches to learn from, long ones cut into lanes of like length, and how many steps go through together.

    A lane is a stretch of its own: its state begins anew, and is carried on from chunk to chunk inside it. With
    `lanes="auto"` there are about as many as rows of a batch, unless they would be shorter than sixteen chunks;
    sequences that are no longer than a lane stay whole.

    Raises `InputValueError` for lanes where each sequence is asked only at its end.
    """
    chunk = chunk_of(task, settings)
    asked = None if settings.lanes == "auto" else int(settings.lanes)
    if not task.per_step:
        if asked is not None and asked > 1:
            raise InputValueError(
                f"lanes must be auto or 1 for task {task.name!r}, which asks each sequence at its end; got {asked}"
            )
        return spans, chunk
    if settings.bidirectional and asked is None:
        return spans, chunk
    steps, width = int(spans.lengths.sum()), chunk or _CHUNK
    count = max(1, min(settings.batch_size, steps // (width * _CHUNKS))) if asked is None else asked
    pieces = _pieces(spans, count)
    if pieces.max(initial=1) == 1:
        return spans, chunk
    return _cut(spans, pieces), None if settings.bidirectional else width


def _pieces(spans: Spans, count: int) -> np.ndarray:
    """(N,) into how many each is cut, so that there are about `count` in all, and each has a step."""
    lengths = spans.lengths
    pieces: np.ndarray = np.rint(lengths * (count / lengths.sum())).astype(np.int64)
    some: np.ndarray = np.clip(pieces, 1, lengths)
    return some


def _cut(spans: Spans, pieces: np.ndarray) -> Spans:
    """Each stretch in so many, alike in length up to a step."""
    edges = [
        np.linspace(start, stop, count + 1).astype(np.int64)
        for start, stop, count in zip(spans.start, spans.stop, pieces, strict=True)
    ]
    places = np.repeat(np.arange(len(spans)), pieces)
    start, stop = np.concatenate([one[:-1] for one in edges]), np.concatenate([one[1:] for one in edges])
    return Spans(spans.numbers[places], start, stop, spans.low[places], spans.high[places])
