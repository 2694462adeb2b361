"""Writers of the formats that the readers read: tests write with these and read back."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

import tidegate.data

__all__ = ["damaged", "read", "refusal", "same", "survives", "write_archive", "write_json_lines", "write_sound"]


#: Untyped: tests know what is there.
read: Any = tidegate.data.read


def same(sequences, expected):
    """Every sequence has the values expected, to the bit, NaN where NaN is."""
    assert len(sequences) == len(expected)
    for found, wanted in zip(sequences, expected, strict=True):
        np.testing.assert_array_equal(found, wanted, strict=False)


def write_archive(path: Path, cases, *, labels=None, classes=None, times=None, header=()):
    """A `.ts` file of (T, F) arrays."""
    lines = ["# made by a test", "@problemName test", f"@timeStamps {'true' if times else 'false'}", *header]
    if classes is not None:
        lines.append("@classLabel true " + " ".join(classes))
    elif labels is not None:
        lines.append("@targetLabel true")
    lines.append("@data")
    for number, case in enumerate(cases):
        texts = [["?" if math.isnan(value) else repr(float(value)) for value in column] for column in case.T]
        if times:
            texts = [[f"({time},{text})" for time, text in zip(times[number], one, strict=True)] for one in texts]
        fields = [",".join(one) for one in texts]
        if labels is not None:
            fields.append(str(labels[number]))
        lines.append(":".join(fields))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_json_lines(path: Path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_sound(path: Path, samples, *, rate=16_000, codec="pcm_s16le"):
    """Sound of (N,) or (channels, N) samples: int16, or float32 for `codec="pcm_f32le"`."""
    samples = np.atleast_2d(samples)
    layout = {1: "mono", 2: "stereo"}[len(samples)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        packed = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16" if samples.dtype == np.int16 else "flt", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a file with some lost, changed, doubled or put in."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data) + 1))
        kind = rng.integers(5)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 20))]
        elif kind == 2:
            data[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 3:
            data[at:at] = rng.bytes(int(rng.integers(1, 8)))
        else:
            tokens = [
                b":",
                b",",
                b"?",
                b"nan",
                b"inf",
                b"1e999",
                b"\n",
                b"[",
                b"]",
                b"{",
                b'"',
                b"(",
                b")",
                b"@",
                b"-1",
            ]
            data[at:at] = tokens[rng.integers(len(tokens))]
    return bytes(data)


def refusal(call: Callable[[], object]) -> Exception | None:
    """What `call` raises, of what a refusal may be."""
    try:
        call()
    except (ValueError, TypeError) as error:
        return error
    return None


def survives(read: Callable[[Path], object], whole: bytes, path: Path, seconds: float, seed: int = 0) -> dict[str, int]:
    """Read damaged copies for some seconds: each gives sequences or one sentence. How often which came."""
    rng, until = np.random.default_rng(seed), time.monotonic() + seconds
    counts: dict[str, int] = {}
    while time.monotonic() < until:
        path.write_bytes(data := damaged(whole, rng))
        told = "read" if (error := refusal(lambda: read(path))) is None else type(error).__name__
        if error is not None:
            assert type(error).__module__ == "tidegate.errors", (error, data)
            assert "\n" not in str(error), (error, data)
            assert path.name in str(error), (error, data)
        counts[told] = counts.get(told, 0) + 1
    return counts
