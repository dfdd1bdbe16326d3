"""Writes tables and numbers as the pages and the terminal show them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A table in Markdown whose first columns hold words and the others numbers.

    >>> print(table(("who", "ns"), [("copy_", "0.3"), ("snm", "0.25")], words=1), end="")
    | who | ns |
    | --- | ---: |
    | copy_ | 0.3 |
    | snm | 0.25 |
    """
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def aligned(text: str) -> str:
    """A text with the columns of its tables aligned for a terminal.

    >>> print(aligned(table(("who", "ns"), [("copy_", "0.3"), ("snm", "0.25")], words=1)))
    who      ns
    -----  ----
    copy_   0.3
    snm    0.25
    """
    blocks = groupby(text.splitlines(), key=lambda line: line.startswith("| "))
    return "\n".join(
        line for is_table, block in blocks for line in (_aligned(block) if is_table else block)
    )


def _aligned(lines: Iterable[str]) -> Iterator[str]:
    rows = [line.strip("| ").split(" | ") for line in lines]
    widths = [max(map(len, column)) for column in zip(rows[0], *rows[2:], strict=True)]
    right = [rule.endswith(":") for rule in rows[1]]
    rows[1] = ["-" * width for width in widths]
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        yield "  ".join(cell.rjust(w) if is_right else cell.ljust(w) for cell, w, is_right in cells)


def number(value: float) -> str:
    """A number with three significant digits.

    >>> number(0.2174), number(12.345), number(1234.5)
    ('0.217', '12.3', '1,234')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def ratio(value: float | None) -> str:
    """A ratio with two decimals, or a dash if there is none.

    >>> ratio(1.239), ratio(18.72), ratio(None)
    ('1.24', '18.7', '–')
    """
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else number(value)
