"""Rows that arrive in pieces: kept in memory while they are few, and in a temporary file when they are many."""

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tidegate.errors import FileError

__all__ = ["CHUNK", "IN_MEMORY", "Rows", "chunks"]

#: Bytes that are kept in memory before a temporary file is begun.
IN_MEMORY = 256 * 2**20
#: Rows that are worked on at once.
CHUNK = 65536


class Rows:
    """Rows of one shape and dtype, appended piece by piece.

    Beyond `in_memory` bytes they lie in a temporary file without a name (in `tempfile.gettempdir()`), which the
    operating system takes away with the last array that looks at it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, in_memory: int | None = None) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._limit = IN_MEMORY if in_memory is None else in_memory
        self._pieces: list[NDArray[Any]] = []
        self._held = 0
        self._file: IO[bytes] | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, rows: NDArray[Any]) -> None:
        """Copy `rows`, (N, *shape), behind those that are there."""
        piece = np.array(rows, self._dtype, order="C")
        self._count += len(piece)
        self._pieces.append(piece)
        self._held += piece.nbytes
        if self._held > (min(self._limit, IN_MEMORY // 16) if self._file else self._limit):
            self._write()

    def finish(self) -> NDArray[Any]:
        """All rows, (N, *shape): an array, or a memory map of the temporary file."""
        if self._file is None:
            return np.concatenate([np.empty((0, *self._shape), self._dtype), *self._pieces])
        self._write()
        with self._file as file:
            return np.memmap(file, self._dtype, "r", shape=(self._count, *self._shape))

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="tidegate-")  # noqa: SIM115 - closed by finish()
            for piece in self._pieces:
                self._file.write(piece.data)
            self._file.flush()
        except OSError as error:
            raise FileError(
                f"what does not fit into memory cannot be written to {tempfile.gettempdir()!r}: {error.strerror}"
            ) from error
        self._pieces, self._held = [], 0


def chunks(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """`values` in pieces of at most `CHUNK` rows, each with the number of its first row."""
    for start in range(0, len(values), CHUNK):
        yield start, values[start : start + CHUNK]
