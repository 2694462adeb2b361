"""Arrays of numbers from `.npy` and `.npz` files, read without running code from them."""

import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tidegate.errors import FileError, FileMissingError

__all__ = ["read_array", "read_arrays"]

#: What numpy and zipfile raise for files that are not theirs, or are damaged.
_DAMAGE: tuple[type[Exception], ...] = (ValueError, EOFError, OSError, KeyError, TypeError, SyntaxError)
_DAMAGE += (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    NotImplementedError,
    MemoryError,
    OverflowError,
    RuntimeError,
)


def read_arrays(path: str | Path) -> Mapping[str, NDArray[Any]]:
    """The arrays of a `.npz` file by their names; of a `.npy` file the one that it holds, under "".

    Raises:
        FileMissingError: there is no such file.
        FileError: it is truncated, of another kind, holds Python objects, or something else than numbers.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise FileError(f"{str(path)!r} must be a file")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise FileMissingError(f"there is no file {str(path)!r}") from error
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    try:
        with file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that Python 2 wrote, and of headers that look like theirs
            arrays = _held(file)
    except _DAMAGE as error:
        told = str(error)
        if "allow_pickle" in told:
            raise FileError(
                f"{str(path)!r} must hold numbers; it holds Python objects, or is no file of numpy"
            ) from error
        raise FileError(
            f"{str(path)!r} is truncated or not a .npy or .npz file: {told.partition(chr(10))[0]}"
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise FileError(f"{name!r} of {str(path)!r} must be an array; it is something else")
        if array.dtype.kind not in "fiub":
            where = f"{name!r} of {str(path)!r}" if name else repr(str(path))
            raise FileError(f"{where} must hold real numbers; it holds {array.dtype}")
    return arrays


def _held(file: BinaryIO) -> dict[str, Any]:
    """What lies in a file of numpy by its names, or under "" the one array."""
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {"": loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def read_array(path: str | Path) -> NDArray[Any]:
    """The one array of a `.npy` file, or of a `.npz` file that holds no more than one.

    Raises as `read_arrays`, and `FileError` for more arrays or none.
    """
    arrays = read_arrays(path)
    if len(arrays) != 1:
        raise FileError(f"{str(Path(path))!r} must hold one array; it holds {', '.join(arrays) or 'none'}")
    return next(iter(arrays.values()))
