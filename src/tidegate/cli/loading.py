"""An interrupt while packages load."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

__all__ = ["NOTHING_WRITTEN", "loading"]

NOTHING_WRITTEN = "Interrupted; nothing was written."


@contextmanager
def loading() -> Iterator[None]:
    """Have an interrupt end the process at once, with one sentence and 130.

    Raised somewhere inside a package that is half loaded, it would come out as some other fault of that package, or be
    lost there. Where interrupts are ignored (`nohup`), or somebody else sees to them, that stays so. (Threads beside
    the main one never hear of interrupts.)
    """
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and before is signal.default_int_handler
    if not ours:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(*_: object) -> NoReturn:
    try:
        sys.stdout.write(NOTHING_WRITTEN + "\n")
        sys.stdout.flush()
    finally:  # whoever listened may be gone, too
        os._exit(130)
