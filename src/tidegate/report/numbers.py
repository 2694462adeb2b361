"""Numbers as people read them: percentages, powers of ten, lists of words."""

import math
from collections.abc import Sequence

__all__ = [
    "count",
    "listed",
    "percent",
    "scientific",
    "seconds",
    "share_points",
    "spelled",
    "two_standard_errors",
]

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NARROW_SPACE = "\u202f"


def percent(share: float, digits: int = 1) -> str:
    """0.934 as "93.4 %"; a share that rounds to nothing but is not nothing as "< 0.1 %"."""
    least = 10.0**-digits
    if 0 < 100 * share < least / 2:
        return f"<{_NARROW_SPACE}{least:.{digits}f}{_NARROW_SPACE}%"
    return f"{100 * share:.{digits}f}{_NARROW_SPACE}%"


def share_points(difference: float) -> str:
    """A difference of two shares: 0.38 as "38.0 percentage points"."""
    return f"{100 * abs(difference):.1f} percentage points"


def scientific(value: float) -> str:
    """3.2e-17 as "3.2 × 10⁻¹⁷"; 0 and what lies between 0.1 and 1000 as it is written by hand."""
    if value == 0:
        return "0"
    if 0.1 <= value < 1000:
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}{_NARROW_SPACE}×{_NARROW_SPACE}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def count(value: int) -> str:
    """12345 as "12 345"."""
    return f"{value:,}".replace(",", _NARROW_SPACE)


def seconds(value: float) -> str:
    """At least three significant digits below 100, whole seconds above."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def spelled(value: int) -> str:
    """5 as "five"; numbers above ten as digits."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[value] if value < len(words) else count(value)


def listed(words: Sequence[str]) -> str:
    """["a", "b", "c"] as "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def two_standard_errors(share: float, trials: int) -> float:
    """Twice the standard error of a share that was counted in `trials` independent trials."""
    return 2 * math.sqrt(share * (1 - share) / trials)
