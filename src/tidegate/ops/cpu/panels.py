"""Weights in the order in which a tile reads them, and gradients of weights back out of it.

A panel holds, for one vector of units, one row for each number that is multiplied, and in the row one vector for each
block. The sizes that fill no vector are filled up with zeros here, so that no product ever has to ask.
"""

from typing import Any, no_type_check

from numba import njit

from tidegate.ops.cpu.memory import read_number, write_number
from tidegate.ops.cpu.vector import Code, Format, vector_code

__all__ = ["PLAIN", "copy_vector", "panel_packer", "start_packer", "transposed_packer", "unpacker"]

#: How many vectors of columns the panels of a plain product are wide; the last one may be narrower.
PLAIN = 3


@no_type_check
def copy_vector(form: Format) -> Any:
    """A kernel's function that copies `count` numbers, times 1 or -1, into a whole vector."""

    def make(partial: bool) -> Any:
        @vector_code(4)
        def copy(builder: Any, source: Any, target: Any, count: Any, negative: Any) -> None:
            code = Code(builder, form, count if partial else None)
            value = code.load_used(source)
            code.store(code.choose(negative, {0: lambda: value, 1: lambda: value * -1.0}), target)

        return copy

    whole, part, lanes = make(False), make(True), form.lanes

    @njit
    def copy_some(source, target, count, negative):
        if count >= lanes:
            whole(source, target, count, negative)
        else:
            part(source, target, count, negative)

    return copy_some


@no_type_check
def panel_packer(form: Format, blocks: tuple[int, ...], signs: tuple[float, ...]) -> Any:
    """A kernel's function that packs the panel of one vector of units from a weight (blocks*units, depth)."""
    read, write = read_number(form), write_number(form)
    lanes, size, vectors = form.lanes, form.size, len(blocks)

    @njit
    def pack(weight, depth, units, group, panels):
        panel = panels + group * depth * vectors * lanes * size
        for v in range(vectors):
            for lane in range(lanes):
                unit = group * lanes + lane
                target = panel + (v * lanes + lane) * size
                if unit < units:
                    source = weight + (blocks[v] * units + unit) * depth * size
                    for k in range(depth):
                        write(target + k * vectors * lanes * size, read(source + k * size) * signs[v])
                else:
                    for k in range(depth):
                        write(target + k * vectors * lanes * size, 0.0)

    return pack


@no_type_check
def start_packer(form: Format, blocks: tuple[int, ...], signs: tuple[float, ...]) -> Any:
    """A kernel's function that packs what the sums of one vector of units start from: a bias, or 0."""
    read, write = read_number(form), write_number(form)
    lanes, size, vectors = form.lanes, form.size, len(blocks)

    @njit
    def pack(bias, units, group, starts):
        for v in range(vectors):
            for lane in range(lanes):
                unit = group * lanes + lane
                target = starts + ((group * vectors + v) * lanes + lane) * size
                if bias and unit < units:
                    write(target, read(bias + (blocks[v] * units + unit) * size) * signs[v])
                else:
                    write(target, 0.0)

    return pack


@no_type_check
def transposed_packer(form: Format, blocks: tuple[int, ...], signs: tuple[float, ...]) -> Any:
    """A kernel's function that packs one panel of `PLAIN` vectors of a weight's columns, for the way back."""
    copy, write = copy_vector(form), write_number(form)
    lanes, size, vectors = form.lanes, form.size, len(blocks)
    negative = tuple(int(sign < 0) for sign in signs)

    @njit
    def pack(weight, columns, units, panel, panels):
        first = panel * PLAIN
        wide = min(PLAIN, (columns + lanes - 1) // lanes - first)
        depth = (units + lanes - 1) // lanes * vectors * lanes
        target = panels + first * lanes * depth * size
        for group in range((units + lanes - 1) // lanes):
            for v in range(vectors):
                for lane in range(lanes):
                    unit = group * lanes + lane
                    if unit < units:
                        source = weight + ((blocks[v] * units + unit) * columns + first * lanes) * size
                        for w in range(wide):
                            left = columns - (first + w) * lanes
                            copy(source + w * lanes * size, target, left, negative[v])
                            target += lanes * size
                    else:
                        for _ in range(wide * lanes):
                            write(target, 0.0)
                            target += size

    return pack


@no_type_check
def unpacker(form: Format, blocks: tuple[int, ...], signs: tuple[float, ...]) -> Any:
    """A kernel's function that takes the gradient of a weight out of the panel of one vector of units."""
    read, write = read_number(form), write_number(form)
    lanes, size, vectors = form.lanes, form.size, len(blocks)

    @njit
    def unpack(panel, depth, units, group, weight):
        for v in range(vectors):
            for lane in range(min(lanes, units - group * lanes)):
                target = weight + (blocks[v] * units + group * lanes + lane) * depth * size
                source = panel + (v * lanes + lane) * size
                for k in range(depth):
                    write(target + k * size, read(source + k * vectors * lanes * size) * signs[v])

    return unpack
