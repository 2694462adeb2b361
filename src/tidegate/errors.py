"""What Tidegate raises: one sentence that names the argument, what came and what was expected."""

__all__ = [
    "BackendError",
    "FileError",
    "FileMissingError",
    "InputTypeError",
    "InputValueError",
    "MissingExtraError",
    "ProcessError",
]


class InputValueError(ValueError):
    """An argument has the right type and a wrong value, shape or length."""


class InputTypeError(TypeError):
    """An argument has the wrong type, dtype or device."""


class BackendError(ValueError):
    """The backend that was asked for does not exist or cannot run this layer here."""


class FileError(ValueError):
    """A file was found and cannot be used: truncated, of another kind, or holding numbers that are not finite."""


class FileMissingError(FileError, FileNotFoundError):
    """A file or folder that was named is not there."""


class ProcessError(ConnectionError):
    """Another process, on this machine or another, that is needed has ended or cannot be reached."""


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
