"""Markdown tables, and numbers of a few digits."""

from collections.abc import Sequence

__all__ = ["digits", "markdown", "ratio"]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is words and whose others are numbers; columns stand under each other as text, too."""
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"every row must have {len(header)} cells, as the header has")
    widths = [max(3, *(len(row[column]) for row in (header, *rows))) for column in range(len(header))]
    ruler = [("-" * width if column == 0 else "-" * (width - 1) + ":") for column, width in enumerate(widths)]
    lines = [_line(header, widths), "| " + " | ".join(ruler) + " |", *(_line(row, widths) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [cell.ljust(width) if column == 0 else cell.rjust(width)
               for column, (cell, width) in enumerate(zip(cells, widths, strict=True))]  # fmt: skip
    return "| " + " | ".join(aligned) + " |"


def digits(number: float) -> str:
    """A time or size to three digits, without an exponent."""
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def ratio(number: float) -> str:
    """How many times."""
    return f"{number:.2f}×"
