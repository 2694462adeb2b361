"""One comparison for every test: everything by its name, one table of tolerances, and a report of what differs."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["TOLERANCES", "Tolerance", "assert_same"]

Named = Mapping[str, Tensor | None]


class Tolerance(NamedTuple):
    """How far a number may be off: `relative * (|expected| + rms of the whole tensor) + absolute`.

    The rms is there because a sum that cancels is as inexact as its terms are large; `absolute` is small, so that a
    vanishing gradient that was forgotten is not taken for zero.
    """

    relative: float
    absolute: float


#: The one table. What is compared is compared in float64; the row is that of the dtype that was computed in.
TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: Tolerance(1e-11, 1e-14),
    torch.float32: Tolerance(1e-5, 1e-6),
    torch.float16: Tolerance(4e-3, 1e-3),
    torch.bfloat16: Tolerance(3e-2, 1e-2),
}
_SAME_WIDTH_INT = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def assert_same(
    got: Named, expected: Named, *, dtype: torch.dtype | None = None, exact: bool = False, condition: float = 1.0
) -> None:
    """Fail, naming every tensor that differs and by how much, unless `got` is `expected`.

    The names must be the same, and under each name the shape, the dtype (`dtype` if given, else that of `expected`)
    and the numbers: within `TOLERANCES`, or with `exact` to the bit, where -0.0 is not 0.0. NaN equals nothing, and
    within a tolerance nothing equals infinity. None, for a tensor that a system does not have, equals None alone.
    `condition` widens the tolerance, for what makes more of a rounding than a sum does.
    """
    names = sorted(got.keys() | expected.keys())
    if not names:
        raise AssertionError("there is nothing to compare")
    problems = []
    for name in names:
        if name not in got or name not in expected:
            problem: str | None = f"is only in what was {'got' if name in got else 'expected'}"
        else:
            problem = _difference(got[name], expected[name], dtype, exact, condition)
        if problem is not None:
            problems.append(f"{name} {problem}")
    if problems:
        raise AssertionError("\n  ".join([f"{len(problems)} of {len(names)} differ:", *problems]))


def _difference(
    got: Tensor | None, expected: Tensor | None, dtype: torch.dtype | None, exact: bool, condition: float
) -> str | None:
    """What is wrong with `got`, or None."""
    if got is None or expected is None:
        return None if got is expected else f"is {_kind(got)}; expected {_kind(expected)}"
    dtype = expected.dtype if dtype is None else dtype
    if got.shape != expected.shape:
        return f"has shape {tuple(got.shape)}; expected {tuple(expected.shape)}"
    if got.dtype != dtype:
        return f"has dtype {got.dtype}; expected {dtype}"
    got, expected = got.detach().cpu(), expected.detach().cpu()
    for side, tensor in (("", got), (" in what was expected", expected)):
        bad = torch.isnan(tensor) if exact else ~torch.isfinite(tensor)
        if bad.any():
            return f"has {int(bad.sum())} of {bad.numel()} numbers that are not finite{side}, first at {_first(bad)}"
    wrong = _other_bits(got, expected.to(dtype)) if exact else _too_far(got, expected, condition)
    if not wrong.any():
        return None
    error = (got.double() - expected.double()).abs()
    at = int(torch.where(wrong, error, -1).argmax())
    where = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), got.shape))
    largest = f"by at most {error.flatten()[at]:.3g}, at {where}"
    numbers = f"got {got.flatten()[at].item():.9g}, expected {expected.flatten()[at].item():.9g}"
    return f"is off in {int(wrong.sum())} of {wrong.numel()} numbers, {largest}: {numbers}"


def _too_far(got: Tensor, expected: Tensor, condition: float) -> Tensor:
    relative, absolute = (condition * part for part in TOLERANCES[got.dtype])
    target = expected.double()
    rms = target.square().mean().sqrt() if target.numel() else target.sum()
    return (got.double() - target).abs() > relative * (target.abs() + rms) + absolute


def _other_bits(got: Tensor, expected: Tensor) -> Tensor:
    as_int = _SAME_WIDTH_INT[got.element_size()]
    return got.contiguous().view(as_int) != expected.contiguous().view(as_int)


def _first(bad: Tensor) -> tuple[int, ...]:
    return tuple(bad.nonzero()[0].tolist())


def _kind(value: Tensor | None) -> str:
    return "None" if value is None else f"a tensor of shape {tuple(value.shape)}"
