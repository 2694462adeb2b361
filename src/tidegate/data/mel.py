"""Log-mel frames: how loud a recording is in each of 40 bands, every 10 ms."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDS", "FRAME_CENTRE", "HOP", "RATE", "WINDOW", "log_mel", "mel_filters"]

RATE = 16_000  # samples per second
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
BANDS = 40
#: Seconds from the beginning of a frame to its middle.
FRAME_CENTRE = WINDOW / 2 / RATE

_FFT = 512  # the next power of two: windows are padded with zeros
_FLOOR = 1e-10  # of a band's energy; silence is ln(1e-10) = -23.03


@cache
def mel_filters() -> NDArray[np.float64]:
    """(257, 40): the weight of each frequency of the transform in each band.

    Triangles of height 1 from 0 to 8000 Hz, whose corners lie at equal distances on the scale
    mel(f) = 2595*log10(1 + f/700) (HTK's; O'Shaughnessy 1987). A band begins and ends at its neighbours' middles.
    """
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    frequencies = np.arange(_FFT // 2 + 1) * (RATE / _FFT)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - left) / (middle - left)
    falling = (right - frequencies[:, None]) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling))


@cache
def _window() -> NDArray[np.float64]:
    """Hann's window, periodic."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) samples at 16 kHz in [-1, 1] -> (T, 40): the natural logarithm of each band's energy, at least ln(1e-10).

    Frame k is of the samples 160*k to 160*k + 399, under a Hann window; T = 1 + (N - 400) // 160, 0 if N is below 400.
    """
    if len(samples) < WINDOW:
        return np.empty((0, BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * _window(), _FFT)) ** 2
    return np.log(np.maximum(power @ mel_filters(), _FLOOR)).astype(np.float32)
