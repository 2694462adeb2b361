"""Which libraries are timed beside Tidegate, and what is said of one that is not there."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Peer", "present"]

Make = TypeVar("Make", bound=Callable[..., object])


class Peer(NamedTuple, Generic[Make]):
    """A library by its name in the table, the modules that it needs, and what makes a competitor of it."""

    name: str
    modules: tuple[str, ...]
    make: Make


def present(peers: Sequence[Peer[Make]]) -> tuple[list[Peer[Make]], str]:
    """The peers whose modules can be imported, and a line about the others, or ""."""
    found, lacking = [], []
    for peer in peers:
        absent = [module for module in peer.modules if not _importable(module)]
        if absent:
            lacking.append(f"{peer.name} ({', '.join(absent)} is not installed)")
        else:
            found.append(peer)
    return found, f"Left out: {'; '.join(lacking)}. `make bench` installs all." if lacking else ""


def _importable(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True
