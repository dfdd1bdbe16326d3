"""Lays out text in columns for a terminal."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lays out rows of cells as lines of text, the first column flush left, the others flush right.

    >>> print(table([("layer", "error"), ("relu1", "2.5"), ("relu10", "10.25")]))
    layer   error
    relu1     2.5
    relu10  10.25
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]))
    return "\n".join(lines)
