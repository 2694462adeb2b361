"""Straight runs of vector instructions, written in Python: `Code` loads, stores and chooses, a `Vector` calculates.

`vector_code(n)` turns a Python function that writes such a run into something that a Numba kernel can call with n
integers (addresses, counts and flags). What the function does in Python (loops, ifs on the format) happens while the
code is written; what it asks `Code` for happens when the code runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tidegate.ops.cpu.layout import side_by_side
from tidegate.ops.cpu.lowering import kernel_function

__all__ = ["INT", "Code", "Format", "Vector", "used_code", "vector_code"]

INT = ir.IntType(64)
_INT32 = ir.IntType(32)


class Format(NamedTuple):
    """The numbers that a kernel calculates with: their type, and how many of them a vector holds."""

    dtype: str
    lanes: int
    rows: int

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 8

    @property
    def side_by_side(self) -> int:
        """How many columns lie side by side where a product runs over rows."""
        return side_by_side(self.lanes, self.rows)

    @property
    def mantissa(self) -> int:
        """Bits behind the binary point."""
        return 23 if self.dtype == "float32" else 52

    @property
    def real(self) -> Any:
        """LLVM's type of a number."""
        return ir.FloatType() if self.dtype == "float32" else ir.DoubleType()

    @property
    def vector(self) -> Any:
        """LLVM's type of a vector of numbers."""
        return ir.VectorType(self.real, self.lanes)

    @property
    def bits(self) -> Any:
        """LLVM's type of a vector of the same numbers' bits."""
        return ir.VectorType(ir.IntType(8 * self.size), self.lanes)


@dataclass(frozen=True)
class Vector:
    """A vector in the code that is being written."""

    code: "Code"
    value: Any

    def __add__(self, other: "Vector | float") -> "Vector":
        return self.code.calculate("fadd", self, other)

    def __sub__(self, other: "Vector | float") -> "Vector":
        return self.code.calculate("fsub", self, other)

    def __rsub__(self, other: float) -> "Vector":
        return self.code.calculate("fsub", other, self)

    def __mul__(self, other: "Vector | float") -> "Vector":
        return self.code.calculate("fmul", self, other)

    def __truediv__(self, other: "Vector | float") -> "Vector":
        return self.code.calculate("fdiv", self, other)

    def __rtruediv__(self, other: float) -> "Vector":
        return self.code.calculate("fdiv", other, self)


class Code:
    """The place in a kernel where vector instructions are being written. Addresses are integers, in bytes."""

    def __init__(self, builder: Any, form: Format, lanes_used: Any = None) -> None:
        self.builder = builder
        self.form = form
        self.used = None if lanes_used is None else self._first_lanes(lanes_used)

    def _first_lanes(self, count: Any) -> Any:
        """True in the first `count` lanes."""
        wide = ir.VectorType(_INT32, self.form.lanes)
        numbers = ir.Constant(wide, list(range(self.form.lanes)))
        return self.builder.icmp_signed("<", numbers, self._spread(self.builder.trunc(count, _INT32), wide))

    def _spread(self, scalar: Any, vector_type: Any) -> Any:
        undefined = ir.Constant(vector_type, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, _INT32(0))
        zeros = ir.Constant(ir.VectorType(_INT32, self.form.lanes), [0] * self.form.lanes)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def _function(self, name: str, result: Any, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(result, arguments)
        return self.builder.module.globals.get(name) or ir.Function(self.builder.module, kind, name)

    def at(self, address: Any, offset: int = 0) -> Any:
        """`offset` numbers after `address`."""
        return self.builder.add(address, INT(offset * self.form.size)) if offset else address

    def pointer(self, address: Any, kind: Any) -> Any:
        """The address as LLVM's pointer to `kind`."""
        return self.builder.inttoptr(address, kind.as_pointer())

    def constant(self, number: "float | Vector") -> Vector:
        """The number in every lane; a vector as it is."""
        if isinstance(number, Vector):
            return number
        return Vector(self, ir.Constant(self.form.vector, [float(number)] * self.form.lanes))

    def load(self, address: Any, offset: int = 0) -> Vector:
        """A whole vector from memory that reaches that far."""
        pointer = self.pointer(self.at(address, offset), self.form.vector)
        return Vector(self, self.builder.load(pointer, align=self.form.size))

    def store(self, vector: Vector, address: Any, offset: int = 0) -> None:
        """A whole vector into memory that reaches that far."""
        pointer = self.pointer(self.at(address, offset), self.form.vector)
        self.builder.store(vector.value, pointer, align=self.form.size)

    def load_used(self, address: Any) -> Vector:
        """The used lanes from memory that ends with them; 0 in the others."""
        if self.used is None:
            return self.load(address)
        kind, lanes = self.form.vector, self.form.lanes
        name = f"llvm.masked.load.v{lanes}f{8 * self.form.size}.p0"
        masks = ir.VectorType(ir.IntType(1), lanes)
        function = self._function(name, kind, [kind.as_pointer(), _INT32, masks, kind])
        zeros = self.constant(0.0).value
        arguments = [self.pointer(address, kind), _INT32(self.form.size), self.used, zeros]
        return Vector(self, self.builder.call(function, arguments))

    def store_used(self, vector: Vector, address: Any) -> None:
        """The used lanes into memory that ends with them."""
        if self.used is None:
            self.store(vector, address)
            return
        kind, lanes = self.form.vector, self.form.lanes
        name = f"llvm.masked.store.v{lanes}f{8 * self.form.size}.p0"
        masks = ir.VectorType(ir.IntType(1), lanes)
        function = self._function(name, ir.VoidType(), [kind, kind.as_pointer(), _INT32, masks])
        self.builder.call(function, [vector.value, self.pointer(address, kind), _INT32(self.form.size), self.used])

    def spread(self, address: Any) -> Vector:
        """One number from memory in every lane."""
        number = self.builder.load(self.pointer(address, self.form.real), align=self.form.size)
        return Vector(self, self._spread(number, self.form.vector))

    def number(self, bits: Any) -> Vector:
        """The number with these bits, the low ones of an integer, in every lane."""
        own = self.builder.trunc(bits, ir.IntType(8 * self.form.size)) if self.form.size < 8 else bits
        return Vector(self, self._spread(self.builder.bitcast(own, self.form.real), self.form.vector))

    def calculate(self, name: str, left: "Vector | float", right: "Vector | float") -> Vector:
        """One of LLVM's operations on two vectors."""
        return Vector(self, getattr(self.builder, name)(self.constant(left).value, self.constant(right).value))

    def fma(self, left: "Vector | float", right: "Vector | float", added: "Vector | float") -> Vector:
        """`left*right + added`, rounded once."""
        kind = self.form.vector
        function = self._function(f"llvm.fma.v{self.form.lanes}f{8 * self.form.size}", kind, [kind] * 3)
        return Vector(self, self.builder.call(function, [self.constant(one).value for one in (left, right, added)]))

    def compare(self, left: "Vector | float", relation: str, right: "Vector | float") -> Any:
        """The relation in each lane, false where a number is NaN; "uno" is true where one is."""
        compare = self.builder.fcmp_unordered if relation == "uno" else self.builder.fcmp_ordered
        return compare(relation, self.constant(left).value, self.constant(right).value)

    def where(self, condition: Any, true: "Vector | float", false: "Vector | float") -> Vector:
        """Lane by lane one or the other."""
        return Vector(self, self.builder.select(condition, self.constant(true).value, self.constant(false).value))

    def shuffle(self, one: Vector, two: Vector, lanes: list[int]) -> Vector:
        """Lanes of two vectors, those of the second counted on from the first's."""
        order = ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes)
        return Vector(self, self.builder.shuffle_vector(one.value, two.value, order))

    def as_bits(self, vector: "Vector | float") -> Any:
        """The numbers' bits as integers."""
        return self.builder.bitcast(self.constant(vector).value, self.form.bits)

    def from_bits(self, bits: Any) -> Vector:
        """Integers as the numbers whose bits they are."""
        return Vector(self, self.builder.bitcast(bits, self.form.vector))

    def whole(self, number: int) -> Any:
        """An integer in every lane."""
        return ir.Constant(self.form.bits, [number] * self.form.lanes)

    def choose(self, flag: Any, cases: dict[int, Callable[[], Vector]]) -> Vector:
        """What the case of the integer `flag` gives, decided when the code runs; the last case is for all others."""
        (vector,) = self.choose_each(flag, {number: _listed(case) for number, case in cases.items()})
        return vector

    def choose_each(self, flag: Any, cases: dict[int, Callable[[], list[Vector]]]) -> list[Vector]:
        """The same for several vectors at once."""
        (number, first), *others = cases.items()
        if not others:
            return first()
        builder = self.builder
        with builder.if_else(builder.icmp_signed("==", flag, INT(number))) as (then, otherwise):
            with then:
                ones = first()
                left = builder.block
            with otherwise:
                twos = self.choose_each(flag, dict(others))
                right = builder.block
        values = []
        for one, two in zip(ones, twos, strict=True):
            value = builder.phi(self.form.vector)
            value.add_incoming(one.value, left)
            value.add_incoming(two.value, right)
            values.append(Vector(self, value))
        return values

    def when(self, flag: Any) -> Any:
        """A `with` block of code that runs only where the integer `flag` is not 0."""
        return self.builder.if_then(self.builder.icmp_signed("!=", flag, INT(0)))


def _listed(case: Callable[[], Vector]) -> Callable[[], list[Vector]]:
    return lambda: [case()]


def vector_code(count: int) -> Callable[[Callable[..., None]], Any]:
    """Make a function that writes code, given a builder and `count` integers, callable from a Numba kernel."""

    def decorate(write: Callable[..., None]) -> Any:
        def code_of(_typing: Any, *_types: Any) -> Any:
            def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
                write(builder, *arguments)
                return context.get_dummy_value()

            return types.void(*[types.int64] * count), generate

        names = ", ".join(f"a{i}" for i in range(count))
        scope: dict[str, Any] = {"code_of": code_of}
        exec(f"def {write.__name__}(typing, {names}): return code_of(typing, {names})", scope)
        return intrinsic(scope[write.__name__])

    return decorate


def used_code(form: Format, count: int) -> Callable[[Callable[..., None]], Any]:
    """Make a function that writes code, given a `Code` and `count` integers, a function of a kernel.

    That one takes the integers and how many numbers the vectors have: any number from `form.lanes` on is all of them.
    """

    def decorate(write: Callable[..., None]) -> Any:
        def make(*, partial: bool) -> Any:
            def written(builder: Any, *arguments: Any) -> None:
                *given, used = arguments
                write(Code(builder, form, used if partial else None), *given)

            return vector_code(count + 1)(written)

        names = ", ".join([*(f"a{i}" for i in range(count)), "used"])
        scope: dict[str, Any] = {"whole": make(partial=False), "part": make(partial=True), "lanes": form.lanes}
        exec(
            f"def {write.__name__}({names}):\n"
            f"    if used >= lanes:\n        whole({names})\n    else:\n        part({names})\n",
            scope,
        )
        return kernel_function(scope[write.__name__])

    return decorate
