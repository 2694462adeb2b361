"""An interrupt while packages load."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

__all__ = ["NOTHING_WRITTEN", "loading"]

NOTHING_WRITTEN = "Interrupted; nothing was written."


@contextmanager
def loading() -> Iterator[None]:
    """Have an interrupt end the process at once, with one sentence and 130.

    Raised somewhere inside a package that is half loaded, it would come out as some other fault of that package, or be
    lost there. Where interrupts are ignored (`nohup`), or somebody else sees to them, that stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(*_: object) -> NoReturn:
    sys.stdout.write(NOTHING_WRITTEN + "\n")
    sys.stdout.flush()
    os._exit(130)
