"""σ, tanh and the other activations on vectors, over the whole range, with infinities and NaN as IEEE 754 has them.

Both rest on `e^y - 1` for y = n·ln 2 + r with |r| <= ln 2 / 2: n becomes an exponent, and r goes through a polynomial
`r + r²·q(r)`. The coefficients of q interpolate `(e^r - 1 - r)/r²` at the Chebyshev nodes of that interval; they were
computed with 60 digits, and leave an error of 8e-9 (float32) and 1.3e-17 (float64), a tenth of a last place.
"""

from tidegate.ops.cpu.vector import Code, Vector

__all__ = ["activation", "activation_slope", "sigmoid", "tanh"]

_COEFFICIENTS = {
    "float32": (
        0.5, 0.16666576986989775683, 0.041666554617204574203, 0.0083631790527225773704, 0.0013926183587713494542,
    ),
    "float64": (
        0.5, 0.16666666666666667453, 0.041666666666624127873, 0.0083333333333300618325, 0.0013888888917213716901,
        0.00019841269863053616878, 2.4801521295954375131e-5, 2.7557268459997064772e-6, 2.7620088445409748161e-7,
        2.5100385495510319078e-8,
    ),
}  # fmt: skip
#: ln 2 in two parts; n times the first is exact for every n that occurs.
_LN2 = {
    "float32": (float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cf79abcap-20")),
    "float64": (float.fromhex("0x1.62e42fefa3800p-1"), float.fromhex("0x1.ef35793c76730p-45")),
}
_LOG2_E = 1.4426950408889634074
#: Beyond these, e^-y is 0 and tanh y is 1 to the last place.
_SIGMOID_END = {"float32": 104.5, "float64": 746.0}
_TANH_END = {"float32": 9.5, "float64": 19.5}


def sigmoid(code: Code, x: Vector) -> Vector:
    """The logistic function 1/(1 + e^-x), from the side on which e^-|x| is small."""
    size, _ = _split_sign(code, x)
    size = _at_most(code, size, _SIGMOID_END[code.form.dtype])
    n, r = _reduce(code, size * -1.0)
    # e^-|x| may lie below the normal numbers, where only a multiplication rounds: stay 2^64 above until the last
    power = (_minus_one(code, r) + 1.0) * _power_of_two(code, n, 2.0**64) * 2.0**-64
    over = code.where(code.compare(x, "<", 0.0), power, 1.0)
    return over / (power + 1.0)


def tanh(code: Code, x: Vector) -> Vector:
    """The hyperbolic tangent, (e^2|x| - 1)/(e^2|x| + 1) with the sign of x."""
    size, sign = _split_sign(code, x)
    size = _at_most(code, size, _TANH_END[code.form.dtype])
    n, r = _reduce(code, size + size)
    power = _power_of_two(code, n, 1.0)
    less_one = code.fma(power, _minus_one(code, r), power - 1.0)
    return code.from_bits(code.builder.or_(code.as_bits(less_one / (less_one + 2.0)), sign))


def activation(code: Code, number: object, every: list[Vector]) -> list[Vector]:
    """The activation with this number, which is known when the code runs, of each vector."""
    return code.choose_each(
        number,
        {  # as `ACTIVATION_NUMBERS` of `operators` counts them
            0: lambda: [tanh(code, x) for x in every],
            1: lambda: [code.where(code.compare(x, "<", 0.0), 0.0, x) for x in every],
            2: lambda: [sigmoid(code, x) for x in every],
            3: lambda: every,
        },
    )


def activation_slope(code: Code, number: object, y: Vector) -> Vector:
    """The derivative of that activation where its value is y."""
    return code.choose(
        number,
        {
            0: lambda: 1.0 - y * y,
            1: lambda: code.where(code.compare(y, ">", 0.0), 1.0, 0.0),
            2: lambda: y * (1.0 - y),
            3: lambda: code.constant(1.0),
        },
    )


def _split_sign(code: Code, x: Vector) -> tuple[Vector, object]:
    """|x|, and the bit of its sign."""
    bits = code.as_bits(x)
    top = -(1 << (8 * code.form.size - 1))
    return code.from_bits(code.builder.and_(bits, code.whole(~top))), code.builder.and_(bits, code.whole(top))


def _at_most(code: Code, x: Vector, limit: float) -> Vector:
    """The smaller one; NaN stays."""
    return code.where(code.compare(x, ">", limit), limit, x)


def _power_of_two(code: Code, n: object, times: float) -> Vector:
    """2^n times a power of two: n is added to the exponent's bits."""
    return code.from_bits(code.builder.add(code.builder.shl(n, code.whole(code.form.mantissa)), code.as_bits(times)))


def _reduce(code: Code, y: Vector) -> tuple[object, Vector]:
    """Y = n·ln 2 + r: n in the low bits of integers, and r."""
    magic = 1.5 * 2.0**code.form.mantissa  # so large that its last place is 1: adding it rounds to a whole number
    shifted = code.fma(y, _LOG2_E, magic)
    n = shifted - magic
    high, low = _LN2[code.form.dtype]
    return code.as_bits(shifted), code.fma(n, -low, code.fma(n, -high, y))


def _minus_one(code: Code, r: Vector) -> Vector:
    """e^r - 1."""
    *lower, q = (code.constant(number) for number in _COEFFICIENTS[code.form.dtype])
    for coefficient in reversed(lower):
        q = code.fma(q, r, coefficient)
    return code.fma(r * r, q, r)
