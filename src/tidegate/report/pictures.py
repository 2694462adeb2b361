"""Frames as pictures inside the page: JPEG as data URIs, so that the page is one file."""

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from tidegate.extras import require
from tidegate.report.records import FilmRecord, Span

__all__ = ["Picture", "SpanPictures", "data_uri", "frame_uris", "png_uri", "span_pictures"]

#: Width of a large picture over its height; a span that is wide enough for two such pictures shows two.
ASPECT = 1.25
#: The large pictures' height in frames of the film, at the width the page has on a desk (about 20 px per frame).
HEIGHT_IN_STEPS = 4.6


@dataclass(frozen=True)
class Picture:
    """One large picture of the strip: a frame, and what it shows in words."""

    uri: str
    alt: str


@dataclass(frozen=True)
class SpanPictures:
    """A span and the large pictures that stand over it, evenly chosen from its frames."""

    span: Span
    pictures: tuple[Picture, ...]


def data_uri(frame: NDArray[np.uint8]) -> str:
    """A frame (height, width, 3), RGB, as the data URI of a JPEG without colour subsampling."""
    image = require("PIL.Image", "report").fromarray(np.ascontiguousarray(frame))
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=88, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def png_uri(frame: NDArray[np.uint8]) -> str:
    """A small frame (height, width, 3), RGB, as the data URI of a PNG: every pixel as it is."""
    buffer = BytesIO()
    require("PIL.Image", "report").fromarray(np.ascontiguousarray(frame)).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def frame_uris(film: FilmRecord) -> list[str]:
    """Every frame of the film as a data URI."""
    return [data_uri(frame) for frame in film.frames]


def span_pictures(film: FilmRecord, uris: list[str]) -> list[SpanPictures]:
    """The large pictures of each span: one, or as many as its width has room for, from the middles of equal parts."""
    strip = []
    for span in film.spans:
        count = max(1, round((span.stop - span.start) / (ASPECT * HEIGHT_IN_STEPS)))
        steps = [span.start + int((span.stop - span.start) * (part + 0.5) / count) for part in range(count)]
        name = span.kind if span.kind in span.shot else f"{span.kind}, {span.shot}"
        pictures = tuple(Picture(uris[step], f"Frame {step} of the film: {name}") for step in steps)
        strip.append(SpanPictures(span, pictures))
    return strip
