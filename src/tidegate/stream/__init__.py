"""One step at a time, with the state kept between steps."""

from tidegate.stream.stream import Stream

__all__ = ["Stream"]
