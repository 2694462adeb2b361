"""The tile: a product of a few rows with panels of weights, all of whose sums stay in registers until it is done.

    out[m, v] = init[m, v] + Σ_k a[m, k] * panel[k, v]        m < rows, v < vectors

`init` is added last: a large number, to which many small ones were added one by one, would lose a little of each.

One number of `a` at a time is spread over a vector and multiplied with `vectors` vectors of the panel: for 8 rows and 3
vectors that is 24 multiplications for 11 loads, and 24 sums in the 32 registers of AVX-512. Where there are fewer rows,
the tile takes several panels at once: with few sums the processor would wait for each multiplication to end.

Every sum runs over k one by one, whatever the size of the tile: a number does not depend, to the bit, on how many rows
or columns were computed with it, and so not on the batch it came in nor on the number of threads.
"""

from typing import Any, NamedTuple, no_type_check

from numba.core import cgutils

from tidegate.ops.cpu.lowering import kernel_function
from tidegate.ops.cpu.vector import INT, Code, Format, Vector, vector_code

__all__ = ["PANELS", "Tiling", "column_tile", "row_product", "tiling"]

#: How many panels a tile takes at once, at most.
PANELS = 4


class Tiling(NamedTuple):
    """How rows and panels are cut into tiles, for kernels to ask."""

    #: (rows): the rows of each tile, the same for all but the last, which has no more.
    height: Any
    #: (rows of a tile): how many panels it takes at once.
    panels: Any
    #: (sequences in all, steps, sequences, bytes from step to step and from sequence to sequence of the rows that go
    #: in, and of those that come out): what the rows of tiles are. Sequences; together with the steps, where these are
    #: all there are; steps, where there are fewer than a tile has room for. Gives how many runs of rows there are, the
    #: rows of a run, and the bytes from run to run and from row to row, going in and coming out.
    runs: Any


@no_type_check
def tiling(form: Format) -> Tiling:
    """The cut for this format."""
    most = form.rows

    @kernel_function
    def height(rows):
        tiles = max(1, (rows + most - 1) // most)
        return max(1, (rows + tiles - 1) // tiles)

    @kernel_function
    def panels(rows):
        return max(1, min(PANELS, most // rows))

    @kernel_function
    def runs(batch, steps, sequences, a_step, a_sequence, out_step, out_sequence):
        if sequences == batch:
            return 1, steps * sequences, a_step, a_sequence, out_step, out_sequence
        if sequences < most:
            return sequences, steps, a_sequence, a_step, out_sequence, out_step
        return steps, sequences, a_step, a_sequence, out_step, out_sequence

    return Tiling(height, panels, runs)


_ROW_ARGUMENTS = (
    "a, a_row, a_block, blocks, depth, panel, panel_next, init, init_row, init_next, out, out_row, out_next"
)


def row_product(form: Format, vectors: int, *, beside: bool = True) -> Any:
    """A kernel's product of the rows of one tile with as many panels, each `vectors` wide, as `tiling` says, or fewer.

    Without `beside`, with one panel only.

    Its arguments: `rows` and `panels`; `a`, the address of the first row, and the bytes from row to row; how the sum
    runs, over `blocks` blocks of `depth` numbers that lie `a_block` bytes apart; the first panel, whose `blocks*depth`
    rows follow each other, and the bytes from panel to panel; the address of `init` and of `out`, each with the bytes
    from row to row (0: the same for all) and from panel to panel.
    """
    together = tiling(form).panels
    scope: dict[str, Any] = {}
    choice = ""
    for rows in range(form.rows, 0, -1):
        choice += f"    {'if' if rows == form.rows else 'elif'} rows == {rows}:\n"
        most = together.py_func(rows) if beside else 1
        for panels in range(most, 0, -1):
            scope[f"tile_{rows}_{panels}"] = _tile(form, rows, vectors, panels, columns=False)
            condition = "if" if panels == most else "elif"
            choice += f"        {condition} panels == {panels}:\n            tile_{rows}_{panels}({_ROW_ARGUMENTS})\n"
    choice = choice.replace("panel, panel_next", "panel, panel_row, panel_next")
    exec(
        f"def row_product(rows, panels, {_ROW_ARGUMENTS}):\n"
        f"    panel_row = {vectors * form.lanes * form.size}\n{choice}",
        scope,
    )
    return kernel_function(scope["row_product"])


@no_type_check
def column_tile(form: Format, vectors: int) -> Any:
    """The product of `form.rows` columns with a panel, for sums over the rows of two matrices.

    `a` begins with the first k's numbers, side by side; the next k's are `form.side_by_side` numbers on. The rows of
    the panel are `panel_row` bytes apart.
    Arguments: `a`, `depth`, `panel`, `panel_row`, `init`, `init_row`, `out`, `out_row`.
    """
    tile = _tile(form, form.rows, vectors, 1, columns=True)

    @kernel_function
    def column_product(a, depth, panel, panel_row, init, init_row, out, out_row):
        tile(a, 0, 0, 1, depth, panel, panel_row, 0, init, init_row, 0, out, out_row, 0)

    return column_product


def _tile(form: Format, rows: int, vectors: int, panels: int, *, columns: bool) -> Any:
    @vector_code(14)
    def tile(
        builder: Any, a: Any, a_row: Any, a_block: Any, blocks: Any, depth: Any,
        panel: Any, panel_row: Any, panel_next: Any, init: Any, init_row: Any, init_next: Any,
        out: Any, out_row: Any, out_next: Any,
    ) -> None:  # fmt: skip
        code = Code(builder, form)

        def at(first: Any, m: int, row: Any, p: int = 0, following: Any = None) -> Any:
            """Where row m of panel p begins."""
            address = builder.add(first, builder.mul(row, INT(m))) if m else first
            return builder.add(address, builder.mul(following, INT(p))) if p else address

        row_at = [at(INT(0), m, a_row) for m in range(rows)]
        panel_at = [at(panel, 0, None, p, panel_next) for p in range(panels)]
        places = [(m, p, v) for m in range(rows) for p in range(panels) for v in range(vectors)]
        sums = {place: cgutils.alloca_once(builder, form.vector) for place in places}
        for slot in sums.values():
            builder.store(code.constant(0.0).value, slot)

        block_bytes = builder.mul(depth, panel_row)
        with cgutils.for_range(builder, blocks, intp=INT) as block:
            base = builder.add(a, builder.mul(block.index, a_block))
            down = builder.mul(block.index, block_bytes)
            with cgutils.for_range(builder, depth, intp=INT) as loop:
                here = builder.add(down, builder.mul(loop.index, panel_row))
                weights = {
                    (p, v): code.load(builder.add(panel_at[p], here), v * form.lanes)
                    for p in range(panels)
                    for v in range(vectors)
                }
                step = builder.mul(loop.index, INT(form.size * (form.side_by_side if columns else 1)))
                for m in range(rows):
                    start = code.at(builder.add(base, step), m) if columns else builder.add(base, row_at[m])
                    value = code.spread(start if columns else builder.add(start, step))
                    for (p, v), weight in weights.items():
                        slot = sums[m, p, v]
                        builder.store(code.fma(value, weight, Vector(code, builder.load(slot))).value, slot)
        for (m, p, v), slot in sums.items():
            total = code.load(at(init, m, init_row, p, init_next), v * form.lanes) + Vector(code, builder.load(slot))
            code.store(total, at(out, m, out_row, p, out_next), v * form.lanes)

    return tile
