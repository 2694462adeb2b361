"""What a trained model says of new sequences, as a table: to CSV, Parquet or JSON Lines."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError
from tidegate.extras import require
from tidegate.train.batches import Batch, Batches
from tidegate.train.fitting import threads
from tidegate.train.model import SequenceModel
from tidegate.train.settings import Settings
from tidegate.train.tasks import Task

__all__ = ["answers", "write_table"]

Columns = dict[str, np.ndarray]


def answers(model: SequenceModel, task: Task, settings: Settings, sequences: Sequences) -> Iterator[Columns]:
    """The model's answers, a table in pieces: `id`; per step also `step` and, if known, `time`; then `prediction`.

    A classification adds `probability_<class>` for each class. The order is that of the sequences.
    """
    every = np.arange(len(sequences))
    batches = Batches(sequences, every, settings.batch_size, chunk=settings.chunk, sort=False)
    carried = None
    with threads(settings.threads), torch.no_grad():
        for batch in batches:
            scores, carried = model(batch.values, batch.lengths, None if batch.start == 0 else carried)
            told = task.told(scores).double().numpy()
            piece = _of_steps(sequences, batch, told) if task.per_step else _of_ends(sequences, batch, told)
            if piece is not None:
                yield _answered(task, *piece)


def write_table(pieces: Iterator[Columns], path: str | Path) -> int:
    """Write a table to a new file of the kind that its suffix says, .csv, .parquet or .jsonl; the number of rows.

    Raises `InputValueError` for another suffix. The file is written whole or not at all.
    """
    path = Path(path)
    writers = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_lines}
    if path.suffix.lower() not in writers:
        raise InputValueError(f"out must be called {', '.join(writers)}; got {str(path)!r}")
    beside = path.with_name(f".{path.name}-unfinished")
    try:
        rows = writers[path.suffix.lower()](pieces, beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return rows


def _answered(task: Task, columns: Columns, told: np.ndarray) -> Columns:
    """The answers beside what they are about."""
    if task.categories is None:
        return columns | {"prediction": told}
    names = np.array(task.categories, object)
    columns = columns | {"prediction": names[told.argmax(-1)]}
    return columns | {f"probability_{name}": told[:, place] for place, name in enumerate(names)}


def _of_ends(sequences: Sequences, batch: Batch, told: np.ndarray) -> tuple[Columns, np.ndarray] | None:
    """The sequences that end in this batch or chunk."""
    lengths = sequences.lengths[batch.numbers]
    here = batch.lengths.numpy()
    ends = (batch.start + here == lengths) & (here > 0)
    if not ends.any():
        return None
    return {"id": _ids(sequences, batch.numbers[ends])}, told[ends]


def _of_steps(sequences: Sequences, batch: Batch, told: np.ndarray) -> tuple[Columns, np.ndarray] | None:
    """Every step of this batch or chunk, sequence after sequence."""
    here = batch.lengths.numpy()
    places = [
        (number, place, int(count)) for place, (number, count) in enumerate(zip(batch.numbers, here, strict=True))
    ]
    columns: Columns = {
        "id": _ids(sequences, np.repeat(batch.numbers, here)),
        "step": np.concatenate([batch.start + np.arange(count) for _, _, count in places]),
    }
    if sequences.times is not None:
        first = [int(sequences.offsets[number]) + batch.start for number, _, _ in places]
        times = [sequences.times[at : at + count] for at, (_, _, count) in zip(first, places, strict=True)]
        columns["time"] = np.concatenate(times)
    return columns, np.concatenate([told[:count, place] for _, place, count in places])


def _ids(sequences: Sequences, numbers: np.ndarray) -> np.ndarray:
    return np.array([sequences.ids[int(number)] for number in numbers], object)


def _write_csv(pieces: Iterator[Columns], path: Path) -> int:
    csv = require("pyarrow.csv", "train")
    return _write_arrow(pieces, lambda schema: csv.CSVWriter(str(path), schema))


def _write_parquet(pieces: Iterator[Columns], path: Path) -> int:
    parquet = require("pyarrow.parquet", "train")
    return _write_arrow(pieces, lambda schema: parquet.ParquetWriter(str(path), schema))


def _write_arrow(pieces: Iterator[Columns], opened: Any) -> int:
    arrow = require("pyarrow", "train")
    rows, writer = 0, None
    try:
        for columns in pieces:
            table = arrow.table({name: _plain(values) for name, values in columns.items()})
            writer = writer or opened(table.schema)
            writer.write_table(table)
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise InputValueError("data must hold sequences to answer for; got none")
    return rows


def _write_lines(pieces: Iterator[Columns], path: Path) -> int:
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        for columns in pieces:
            lists: Mapping[str, list[Any]] = {name: _plain(values) for name, values in columns.items()}
            for row in zip(*lists.values(), strict=True):
                file.write(json.dumps(dict(zip(lists, row, strict=True)), ensure_ascii=False) + "\n")
                rows += 1
    return rows


def _plain(values: np.ndarray) -> list[Any]:
    plain: list[Any] = values.tolist()
    return plain
