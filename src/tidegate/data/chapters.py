"""Chapters of a recording as ffmpeg's metadata files have them (`;FFMETADATA1`)."""

import re
from collections.abc import Iterable

from tidegate.data.edl import Span
from tidegate.errors import InputValueError

__all__ = ["chapters_text"]

#: What has a meaning in these files, and stands behind a backslash where none is meant.
_SPECIAL = re.compile(r"([=;#\\\n])")
_A_SECOND = 1000


def chapters_text(spans: Iterable[Span]) -> str:
    """The spans as chapters with their names as titles, in milliseconds; those that are then empty are left out.

    `ffmpeg -i recording -i chapters -map_metadata 1 -codec copy out` puts them into a recording. Carriage returns in
    names become line feeds, and NUL, which ends a text there, is left out.

    Raises `InputValueError` for a span that ends before it begins.
    """
    lines = [";FFMETADATA1"]
    for start, stop, name in spans:
        if not start <= stop:
            raise InputValueError(f"a span must not end before it begins; got {start:g} to {stop:g}")
        first, last = round(start * _A_SECOND), round(stop * _A_SECOND)
        if first < last:
            plain = name.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
            title = _SPECIAL.sub(r"\\\1", plain)
            lines += ["[CHAPTER]", f"TIMEBASE=1/{_A_SECOND}", f"START={first}", f"END={last}", f"title={title}"]
    return "\n".join(lines) + "\n"
