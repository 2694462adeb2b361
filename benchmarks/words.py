"""What the programs of this folder say on the terminal: a refusal is one sentence, and ends with 2."""

import argparse
import sys
from typing import NoReturn

__all__ = ["Parser", "refuse"]


class Parser(argparse.ArgumentParser):
    """A parser whose refusal is one sentence."""

    def error(self, message: str) -> NoReturn:
        """Refuse and end."""
        sys.exit(refuse(message))


def refuse(sentence: object) -> int:
    """Say why nothing was done; the exit code."""
    sys.stderr.write(f"benchmarks: {sentence}\n")
    return 2
