"""The command line: argument parsing and terminal output only; needs the extra `cli`."""

import sys

from tidegate.cli.loading import loading
from tidegate.errors import MissingExtraError
from tidegate.extras import require

__all__ = ["main"]


def main() -> None:
    """Run `tidegate`; the package that it needs and does not find is one line."""
    with loading():
        try:
            require("typer", "demo")
            require("rich", "demo")
        except MissingExtraError as error:
            sys.exit(f"tidegate: {error}")
        from tidegate.cli.app import app  # noqa: PLC0415 - typer loads only now

    app(prog_name="tidegate")
