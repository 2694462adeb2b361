"""Optional packages, imported where they are first needed; a missing one is one clear line."""

import importlib
from types import ModuleType

from tidegate.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` naming the extra that installs it."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is there, and something that it needs itself is not
        raise MissingExtraError(f"this needs the package {package!r}: pip install 'tidegate[{extra}]'") from None
