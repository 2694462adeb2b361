"""Folders of results, which are filled whole or not at all."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidegate.errors import FileError, InputValueError

__all__ = ["check_out", "staged"]

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_out(out: str | Path, *, overwrite: bool, remedy: str = "--overwrite replaces its results") -> None:
    """Refuse `out` unless results may be written there: new, empty, or `overwrite`; else `remedy` says what helps.

    Raises:
        InputValueError: it is or lies under a file, or it holds files.
        FileError: the system refuses to tell.
    """
    out = Path(out)
    try:
        there = next((path for path in (out, *out.parents) if _exists(path)), None)
        filled = there == out and out.is_dir() and any(out.iterdir())
    except OSError as error:
        raise _refusal(out, error) from error
    if there == out and not out.is_dir():
        raise InputValueError(f"out must be a folder; {str(out)!r} is a file")
    if there is not None and not there.is_dir():
        raise InputValueError(
            f"out must be a folder that can be written; {str(out)!r} cannot: {str(there)!r} is a file"
        )
    if filled and not overwrite:
        raise InputValueError(f"out must be new or empty; {str(out)!r} holds files ({remedy})")


@contextmanager
def staged(out: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, whose files are moved to `out` when all is done; on any error nothing of it stays.

    That goes for the folders above `out` too, where they were made for it. Files of `out` that are not written anew are
    left alone. With `overwrite`, an error or an interrupt while the files are moved, a moment at the end, leaves those
    already replaced new beside those still old.

    Raises:
        InputValueError: see `check_out`.
        FileError: `out` cannot be written, or the disk is full.
    """
    check_out(out, overwrite=overwrite)
    made: list[Path] = []
    try:
        with _staging(Path(out), made) as (staging, folder):
            yield staging
            for path in sorted(path for path in staging.rglob("*") if path.is_file()):
                target = folder / path.relative_to(staging)
                _make(target.parent, made)
                if not target.exists():
                    made.append(target)
                path.replace(target)
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):  # a folder in which somebody else has put something stays
                path.rmdir() if path.is_dir() else path.unlink()
        raise


@contextmanager
def _staging(out: Path, made: list[Path]) -> Iterator[tuple[Path, Path]]:
    """A folder on the disk of `out` that goes in the end, and `out` in full; `made` gets the folders made for them.

    What the disk refuses is told of `out`, as it was typed, not of a folder that nobody has heard of.
    """
    folder, staging = out.resolve(), None
    try:
        home = folder if folder.is_dir() else folder.parent  # `out` itself may be another disk than what it lies in
        _make(home, made)
        staging = Path(tempfile.mkdtemp(prefix=".tidegate-unfinished-", dir=home))
        yield staging, folder
    except OSError as error:
        ours = staging is None or _is_about(error, folder) or _is_about(error, staging)
        if isinstance(error, FileError) or not (ours or error.errno in _FULL):
            raise
        raise _refusal(out, error) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _make(folder: Path, made: list[Path]) -> None:
    """Make `folder` and what is missing above it, and note in `made` what was."""
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        made.append(path)
        path.mkdir(exist_ok=True)


def _exists(path: Path) -> bool:
    """Like `path.exists()`, but a name that is too long or may not be looked at is an OSError, not False."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_about(error: OSError, folder: Path) -> bool:
    """Whether the error names a file in `folder`, or `folder` itself."""
    return any(Path(str(name)).is_relative_to(folder) for name in (error.filename, error.filename2) if name is not None)


def _refusal(out: Path, error: OSError) -> FileError:
    return FileError(f"out must be a folder that can be written; {str(out)!r} cannot: {error.strerror or error}")
