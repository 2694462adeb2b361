"""A model from the user's own code: `module:function`, imported and called because the user says so."""

import importlib
import sys
from pathlib import Path

from torch import nn

from tidegate.errors import InputTypeError, InputValueError

__all__ = ["model_of"]


def model_of(source: str) -> nn.Module:
    """What `function()` of `module` returns, where `source` is "module:function"; the current folder is looked in too.

    Raises:
        InputValueError: there is no such module or function, or one of them fails; its own error is the cause.
        InputTypeError: what it returns is no `torch.nn.Module`.
    """
    module_name, _, name = source.partition(":")
    if not name or not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise InputValueError(f"a model in code must be module:function, such as package.models:make; got {source!r}")
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found = _import(module_name, source)
        for part in name.split("."):
            if not hasattr(found, part):
                raise InputValueError(f"{source!r}: {module_name} has no {name}")
            found = getattr(found, part)
        model = _call(found, source)
    finally:
        if added:
            sys.path.remove(here)
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"{source!r} must return a torch.nn.Module; got {type(model).__name__}")
    return model


def _import(name: str, source: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputValueError(f"{source!r}: there is no module {error.name} here") from error
        raise InputValueError(f"{source!r}: {_told(error)}") from error
    except Exception as error:  # somebody else's code: anything
        raise InputValueError(f"{source!r} cannot be imported: {_told(error)}") from error


def _call(found: object, source: str) -> object:
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise InputTypeError(f"{source!r} must be a function that returns a model; got {type(found).__name__}")
    try:
        return found()
    except Exception as error:  # somebody else's code: anything
        raise InputValueError(f"{source!r} fails when called without arguments: {_told(error)}") from error


def _told(error: Exception) -> str:
    """The kind of the error, its first line, and where in the user's code it was raised."""
    line = str(error).strip().partition("\n")[0]
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f" ({frame.tb_frame.f_code.co_filename}:{frame.tb_lineno})" if frame is not None else ""
    return f"{type(error).__name__}: {line}{where}"
