"""What Arrow says of a damaged file, as one sentence that names the file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidegate.errors import FileError
from tidegate.extras import require

__all__ = ["damage_told", "unique_names"]


@contextmanager
def damage_told(path: Path, told: Callable[[Exception], str | None] = lambda _: None) -> Iterator[None]:
    """Whatever Arrow says of a file becomes one sentence that names it."""
    pyarrow = require("pyarrow", "train")
    damage = (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError, LookupError, EOFError, TypeError)
    try:
        yield
    except FileError:
        raise
    except damage as error:
        sentence = told(error)
        if sentence is None:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            sentence = f"{str(path)!r} cannot be read: {first}"
        raise FileError(sentence) from error


def unique_names(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The names of a file's columns, each of which must be there once."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise FileError(f"{str(path)!r} must name each column once; {name!r} is there twice")
    return tuple(names)
