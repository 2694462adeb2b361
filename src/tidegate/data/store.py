"""Where large arrays lie while they are filled and used: in memory, or in files that are mapped into it."""

import mmap
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import FileError, FileMissingError

__all__ = ["Store"]

#: Bytes that may be written before the pages that hold them are given back.
HELD = 1 << 26


class Store:
    """Arrays of float64, in memory or, with `mapped`, in a folder of their own below `workspace`.

    The folder goes with the object that was told to `kept_by`, or by `remove`.
    """

    def __init__(self, *, mapped: bool, workspace: Path | None = None) -> None:
        if workspace is not None and not workspace.is_dir():
            raise FileMissingError(f"workspace must be a folder; there is none at {str(workspace)!r}")
        self._folder = None
        if mapped:
            try:
                self._folder = tempfile.mkdtemp(prefix="tidegate-", dir=workspace)
            except OSError as error:
                raise FileError(f"no temporary folder can be made: {error}") from error
        self._maps: list[tuple[NDArray[Any], mmap.mmap]] = []
        self._written = 0

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array that nothing has been written to.

        Raises:
            FileError: there is no room for it on the disk, or in memory.
        """
        size = 8 * int(np.prod(shape))
        if self._folder is None or size == 0:
            try:
                return np.empty(shape, np.float64)
            except MemoryError as error:
                raise FileError(f"{size:,} bytes do not fit into memory: allow less memory, to use the disk") from error
        path = Path(self._folder) / f"{name}.f64"
        try:
            with path.open("wb") as file:
                # a map over room that is not there would end the process when it is written to
                allocate = getattr(os, "posix_fallocate", None)
                if allocate is not None:
                    allocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            made: NDArray[Any] = np.memmap(path, np.float64, "r+", shape=shape)
        except OSError as error:
            raise FileError(f"{self._folder!r} has no room for {size:,} bytes: {error.strerror}") from error
        if isinstance(made.base, mmap.mmap):
            self._maps.append((made, made.base))
        return made

    def drop(self, array: NDArray[Any]) -> None:
        """Delete an array of this store; nobody may use it after."""
        if isinstance(array, np.memmap) and array.filename is not None:
            self._maps = [(made, mapped) for made, mapped in self._maps if made is not array]
            Path(array.filename).unlink()

    def touched(self, size: int) -> None:
        """Tell that `size` bytes were read or written: now and then their pages are given back to the system."""
        self._written += size
        if self._written >= HELD:
            self.release()

    def release(self) -> None:
        """Give the pages of all maps back; what they hold stays."""
        self._written = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            for _, mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)

    def kept_by(self, owner: object) -> None:
        """The files are deleted when `owner` is, or when the process ends."""
        self.release()
        self._maps.clear()
        if self._folder is not None:
            weakref.finalize(owner, _remove, self._folder, os.getpid())

    def remove(self) -> None:
        """Delete the files now."""
        self._maps.clear()
        if self._folder is not None:
            _remove(self._folder, os.getpid())


def _remove(folder: str, process: int) -> None:
    """Delete a folder, unless this is a copy of the process that made it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
