"""What a trained model says of new sequences, as a table: to CSV, Parquet or JSON Lines."""

import json
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tidegate.data.gaps import times_after
from tidegate.data.sequences import Sequences
from tidegate.errors import InputValueError
from tidegate.extras import require
from tidegate.train.ahead import last_known
from tidegate.train.batches import Batch, Batches
from tidegate.train.checkpoint import whole_file
from tidegate.train.cuts import SUFFIXES
from tidegate.train.fitting import threads
from tidegate.train.forecast import Forecast
from tidegate.train.model import SequenceModel
from tidegate.train.settings import Settings
from tidegate.train.tasks import Task

__all__ = ["answers", "write_table"]

Columns = dict[str, np.ndarray]

#: Steps that are answered together.
_STEPS = 2**16


def answers(model: SequenceModel, task: Task, settings: Settings, sequences: Sequences) -> Iterator[Columns]:
    """The model's answers, a table in pieces: `id`; per step also `step` and, if known, `time`; then `prediction`.

    A classification adds `probability_<class>` for each class. A forecast has `ahead`, 1 to h steps after the last of
    each sequence, and adds `quantile_<q>` for each quantile but the median, which is the prediction; its `time` is NaN
    where the steps of the sequence are not evenly spaced. The rows are sequence after sequence in the order of
    `sequences`, and step after step. However long a sequence is, memory is bounded, unless the model reads both ways.
    """
    with threads(settings.threads), torch.no_grad():
        for group in _groups(sequences.lengths, settings.batch_size):
            yield from _of_group(model, task, sequences, group)


def _groups(lengths: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Sequences that follow each other and are asked together: as many steps as memory has, padding and all."""
    start, longest = 0, 0
    for number, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if number > start and (number - start >= most or longest * (number - start + 1) > _STEPS):
            yield np.arange(start, number)
            start, longest = number, length
    if start < len(lengths):
        yield np.arange(start, len(lengths))


def _of_group(model: SequenceModel, task: Task, sequences: Sequences, group: np.ndarray) -> Iterator[Columns]:
    """The answers for some sequences: all of them at once; for one alone, which may be long, chunk after chunk."""
    chunk = None if model.config.bidirectional else _STEPS
    carried = None
    if isinstance(task, Forecast):
        yield _beyond(model, task, sequences, group)
        return
    for batch in Batches(sequences, group, len(group), chunk=chunk, sort=False):
        scores, carried = model(batch.values, batch.lengths, carried)
        told = task.told(scores).double().numpy()
        if task.per_step:
            yield _answered(task, *_of_steps(sequences, batch, told))
        elif batch.last:
            yield _answered(task, {"id": _ids(sequences, group)}, told)


def _beyond(model: SequenceModel, task: Forecast, sequences: Sequences, group: np.ndarray) -> Columns:
    """What comes after the end of some sequences."""
    place = sequences.column(task.label)
    last, carried = np.full(len(group), np.nan), None
    for batch in Batches(sequences, group, len(group), chunk=_STEPS, sort=False):
        _, carried = model.read(batch.values, batch.lengths, carried)
        own = batch.values[..., place].double().numpy()
        for row, count in enumerate(batch.lengths.tolist()):
            last[row] = last_known(own[:count, row], last[row])[-1] if count else last[row]
    assert carried is not None
    told = task.values(last, task.told(model.at_end(carried)).numpy())
    ahead = np.arange(1, task.horizon + 1)
    columns: Columns = {
        "id": _ids(sequences, np.repeat(group, task.horizon)),
        "ahead": np.tile(ahead, len(group)),
    }
    if sequences.times is not None:
        ends = [times_after(sequences.times, sequences.rows(int(number)), ahead) for number in group]
        columns["time"] = np.concatenate(ends)
    columns["prediction"] = told[..., task.median].reshape(-1)
    for number, quantile in enumerate(task.quantiles):
        if number != task.median:
            columns[f"quantile_{quantile:g}"] = told[..., number].reshape(-1)
    return columns


def write_table(pieces: Iterator[Columns], path: str | Path) -> int:
    """Write a table to a new file of the kind that its suffix says, .csv, .parquet or .jsonl; the number of rows.

    The file is written whole or not at all. A number that is not finite is NaN in CSV and Parquet, null in JSON Lines.

    Raises:
        InputValueError: the suffix is another, or there is nothing to write.
        FileError: the file cannot be written.
    """
    path = Path(path)
    writers = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_lines}
    if path.suffix.lower() not in writers:
        raise InputValueError(f"out must end in {', '.join((*writers, *SUFFIXES))}; got {str(path)!r}")
    first = next(pieces, None)
    if first is None:
        raise InputValueError("data must hold sequences to answer for; got none")
    with whole_file(path) as beside:
        return writers[path.suffix.lower()](chain([first], pieces), beside)


def _answered(task: Task, columns: Columns, told: np.ndarray) -> Columns:
    """The answers beside what they are about."""
    if task.categories is None:
        return columns | {"prediction": told}
    names = np.array(task.categories, object)
    columns = columns | {"prediction": names[told.argmax(-1)]}
    return columns | {f"probability_{name}": told[:, place] for place, name in enumerate(names)}


def _of_steps(sequences: Sequences, batch: Batch, told: np.ndarray) -> tuple[Columns, np.ndarray]:
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
    return rows


def _write_lines(pieces: Iterator[Columns], path: Path) -> int:
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        for columns in pieces:
            for values in zip(*map(_plain, columns.values()), strict=True):
                row = {
                    name: None if isinstance(value, float) and not math.isfinite(value) else value
                    for name, value in zip(columns, values, strict=True)
                }
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                rows += 1
    return rows


def _plain(values: np.ndarray) -> list[Any]:
    plain: list[Any] = values.tolist()
    return plain
