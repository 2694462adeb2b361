"""The files that a path, a folder, a pattern or a list of them means; and their lines."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from tidegate.errors import FileError, FileMissingError, InputTypeError

__all__ = ["Found", "find_files", "lines_of", "opened"]

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Found:
    """A file, and its name among those that were found with it: the path relative to the folder, with `/`."""

    path: Path
    name: str

    @property
    def folder(self) -> str:
        """The name of the folder that the file lies in."""
        return self.path.absolute().parent.name


def find_files(data: Paths, suffixes: Sequence[str]) -> list[Found]:
    """The files that are meant: a file, a folder and all below it, a pattern (`*`, `**`), or a list of these.

    A file that is named itself may have any suffix; folders and patterns give those with one of `suffixes`,
    and none whose name, or a folder's on the way, begins with a dot.

    Raises:
        FileMissingError: there is no such file or folder.
        FileError: no file fits, or a list names one twice.
    """
    if isinstance(data, str | os.PathLike):
        return _meant(data, suffixes)
    for entry in data:
        if not isinstance(entry, str | os.PathLike):
            raise InputTypeError(f"a list of files must hold paths; it holds {type(entry).__name__}")
    if not data:
        raise FileError("a list of files must name at least one; it is empty")
    if len(data) == 1:
        return _meant(data[0], suffixes)
    paths = [found.path for entry in data for found in _meant(entry, suffixes)]
    twice = [path for path, count in Counter(path.absolute() for path in paths).items() if count > 1]
    if twice:
        raise FileError(f"a list of files must name each once; {str(twice[0])!r} is in it twice")
    folder = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return [Found(path, path.absolute().relative_to(folder).as_posix()) for path in paths]


def _meant(data: str | os.PathLike[str], suffixes: Sequence[str]) -> list[Found]:
    """The files of one file, folder or pattern."""
    if not os.fspath(data):
        raise FileMissingError("a path must name a file or folder; it is empty")
    path = Path(data)
    if not _is_a_path(path):
        raise FileMissingError(f"there is no file {_short(path)}")
    if path.is_dir():
        return _fitting(path, (path / name for name in _below(path)), suffixes, f"the folder {str(path)!r}")
    if not path.exists() and has_magic(str(path)):
        return _fitting(
            _fixed_part(path),
            (Path(name) for name in glob(str(path), recursive=True)),  # noqa: PTH207 - of any folder
            suffixes,
            f"the pattern {str(path)!r}",
        )
    return [Found(_file(path), path.name)]


def _is_a_path(path: Path) -> bool:
    """Whether the system takes this for a path: short enough, and without NUL."""
    try:
        path.exists()
        path.is_dir()
    except (OSError, ValueError):
        return False
    return "\0" not in str(path)


def _short(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= 200 else f"{text[:200]}...")


def _file(path: Path) -> Path:
    if not _is_a_path(path) or not path.exists():
        raise FileMissingError(f"there is no file {_short(path)}")
    if not path.is_file():
        raise FileError(f"{str(path)!r} must be a file")
    return path


def _below(folder: Path) -> Iterator[str]:
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.relpath(Path(root) / name, folder) for name in names)


def _fixed_part(pattern: Path) -> Path:
    """The folder that a pattern begins with."""
    parts = pattern.parts
    fixed = next(number for number, part in enumerate(parts) if has_magic(part))
    return Path(*parts[:fixed])


def _fitting(folder: Path, paths: Iterator[Path], suffixes: Sequence[str], told: str) -> list[Found]:
    seen = [path for path in paths if path.is_file() and not path.name.startswith(".")]
    fitting = [path for path in seen if path.name.lower().endswith(tuple(suffixes))]
    if not fitting:
        met = sorted({path.suffix or path.name for path in seen})
        holds = f"{len(seen)} files, of {', '.join(met[:5])}{', ...' if len(met) > 5 else ''}" if seen else "none"
        raise (FileError if seen or folder.is_dir() else FileMissingError)(
            f"{told} must give files of {', '.join(suffixes)}; it gives {holds}"
        )
    return sorted((Found(path, path.relative_to(folder).as_posix()) for path in fitting), key=lambda found: found.name)


def opened(path: Path) -> int:
    """The size of a file that can be read and is not empty, in bytes.

    Raises:
        FileMissingError, FileError: it is not there; it cannot be opened, or is empty.
    """
    _file(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if size == 0:
        raise FileError(f"{str(path)!r} is empty")
    return size


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file in UTF-8 with their numbers, from 1, one at a time; a byte order mark is left out.

    Raises:
        FileMissingError, FileError: as `opened`; a line is not UTF-8.
    """
    opened(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise FileError(
                    f"{str(path)!r}, line {number} must be UTF-8; byte {error.start + 1} of it is "
                    f"0x{line[error.start]:02x}"
                ) from error
            yield number, text.rstrip("\r\n")
