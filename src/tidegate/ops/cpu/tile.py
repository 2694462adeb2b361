"""The tile: a product of a few rows with a panel of weights, all of whose sums stay in registers until it is done.

    out[m, v] = init[m, v] + Σ_k a[m, k] * panel[k, v]        m < rows, v < vectors

`init` is added last: a large number, to which many small ones were added one by one, would lose a little of each.

One number of `a` at a time is spread over a vector and multiplied with `vectors` vectors of the panel: for 8 rows and 3
vectors that is 24 multiplications for 11 loads, and 24 sums in the 32 registers of AVX-512.

Every sum runs over k one by one, whatever the size of the tile: a number does not depend, to the bit, on how many rows
or columns were computed with it, and so not on the batch it came in nor on the number of threads.
"""

from typing import Any, no_type_check

from numba import njit
from numba.core import cgutils

from tidegate.ops.cpu.vector import INT, Code, Format, Vector, vector_code

__all__ = ["TOGETHER", "column_tile", "one_row_tile", "row_product"]

#: How many panels one row meets at once: as many sums as keep a processor busy, which one panel alone has not.
TOGETHER = 4


def row_product(form: Format, vectors: int) -> Any:
    """A kernel's product of `rows` rows, 1 to `form.rows` of them, with a panel that is `vectors` wide.

    Its arguments: `rows`; `a`, the address of the first row, and the bytes from row to row; how the sum runs, over
    `blocks` blocks of `depth` numbers that lie `a_block` bytes apart; the panel, whose `blocks*depth` rows follow each
    other; the address of `init` and of `out`, each with the bytes from row to row (0: the same for all).
    """
    tiles = [_tile(form, rows, vectors, columns=False) for rows in range(1, form.rows + 1)]
    arguments = "a, a_row, a_block, blocks, depth, panel, panel_row, init, init_row, out, out_row"
    choice = "".join(
        f"    {'if' if rows == form.rows else 'elif'} rows == {rows}:\n        tile_{rows}({arguments})\n"
        for rows in range(form.rows, 0, -1)
    )
    scope: dict[str, Any] = {f"tile_{rows}": tile for rows, tile in enumerate(tiles, 1)}
    exec(
        "def row_product(rows, a, a_row, a_block, blocks, depth, panel, init, init_row, out, out_row):\n"
        f"    panel_row = {vectors * form.lanes * form.size}\n{choice}",
        scope,
    )
    return njit(scope["row_product"])


@no_type_check
def column_tile(form: Format, vectors: int) -> Any:
    """The product of `form.rows` columns with a panel, for sums over the rows of two matrices.

    `a` begins with the first k's numbers, side by side; the next k's are `form.together` numbers on. The rows of the
    panel are `panel_row` bytes apart.
    Arguments: `a`, `depth`, `panel`, `panel_row`, `init`, `init_row`, `out`, `out_row`.
    """
    tile = _tile(form, form.rows, vectors, columns=True)

    @njit
    def column_product(a, depth, panel, panel_row, init, init_row, out, out_row):
        tile(a, 0, 0, 1, depth, panel, panel_row, init, init_row, out, out_row)

    return column_product


def one_row_tile(form: Format, vectors: int) -> Any:
    """The product of one row with `TOGETHER` panels, which follow each other in memory as do `init` and `out`.

    Arguments: `a`, `depth`, `panel`, `init`, `out`.
    """

    @vector_code(5)
    def tile(builder: Any, a: Any, depth: Any, panel: Any, init: Any, out: Any) -> None:
        code = Code(builder, form)
        count = TOGETHER * vectors
        sums = [cgutils.alloca_once(builder, form.vector) for _ in range(count)]
        for slot in sums:
            builder.store(code.constant(0.0).value, slot)
        row_bytes = INT(vectors * form.lanes * form.size)
        panels = [builder.add(panel, builder.mul(INT(p), builder.mul(depth, row_bytes))) for p in range(TOGETHER)]
        with cgutils.for_range(builder, depth, intp=INT) as turn:
            value = code.spread(builder.add(a, builder.mul(turn.index, INT(form.size))))
            for v, slot in enumerate(sums):
                at = builder.add(panels[v // vectors], builder.mul(turn.index, row_bytes))
                weights = code.load(at, v % vectors * form.lanes)
                builder.store(code.fma(value, weights, Vector(code, builder.load(slot))).value, slot)
        for v, slot in enumerate(sums):
            code.store(code.load(init, v * form.lanes) + Vector(code, builder.load(slot)), out, v * form.lanes)

    return tile


def _tile(form: Format, rows: int, vectors: int, *, columns: bool) -> Any:
    @vector_code(11)
    def tile(
        builder: Any, a: Any, a_row: Any, a_block: Any, blocks: Any, depth: Any,
        panel: Any, panel_row: Any, init: Any, init_row: Any, out: Any, out_row: Any,
    ) -> None:  # fmt: skip
        code = Code(builder, form)
        row_at = [builder.mul(a_row, INT(m)) for m in range(rows)]
        init_at = [builder.add(init, builder.mul(init_row, INT(m))) for m in range(rows)]
        sums = [[cgutils.alloca_once(builder, form.vector) for _ in range(vectors)] for _ in range(rows)]
        for m in range(rows):
            for v in range(vectors):
                builder.store(code.constant(0.0).value, sums[m][v])

        block_bytes = builder.mul(depth, panel_row)
        with cgutils.for_range(builder, blocks, intp=INT) as block:
            base = builder.add(a, builder.mul(block.index, a_block))
            panel_base = builder.add(panel, builder.mul(block.index, block_bytes))
            with cgutils.for_range(builder, depth, intp=INT) as turn:
                at = builder.add(panel_base, builder.mul(turn.index, panel_row))
                weights = [code.load(at, v * form.lanes) for v in range(vectors)]
                step = builder.mul(turn.index, INT(form.size * (form.together if columns else 1)))
                for m in range(rows):
                    here = code.at(builder.add(base, step), m) if columns else builder.add(base, row_at[m])
                    value = code.spread(here if columns else builder.add(here, step))
                    for v in range(vectors):
                        total = Vector(code, builder.load(sums[m][v]))
                        builder.store(code.fma(value, weights[v], total).value, sums[m][v])
        for m in range(rows):
            at = builder.add(out, builder.mul(out_row, INT(m)))
            for v in range(vectors):
                total = code.load(init_at[m], v * form.lanes) + Vector(code, builder.load(sums[m][v]))
                code.store(total, at, v * form.lanes)

    return tile
