"""Time stamps in text -> seconds."""

from datetime import UTC, datetime

__all__ = ["seconds_of"]


def seconds_of(stamp: str) -> float:
    """Seconds since 1970 of an ISO 8601 date, with or without time and offset; without an offset it is UTC.

    Raises:
        ValueError: it is none.
    """
    when = datetime.fromisoformat(stamp.strip())
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
