"""What a figure of a page is made of: charts, in rows or alone, with a legend and words."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from .formatting import round_number
from .svg import Chart, Label, Scale

MANY_ROWS = 40
"""Above how many rows they are low, with their axis above as well as below."""


class Key(NamedTuple):
    """An entry of a figure's legend: what a mark or a fill means."""

    kind: str
    """The class of the mark."""
    words: str
    """What the mark stands for."""


class Row(NamedTuple):
    """A line of a figure: a name, and a chart in each panel."""

    name: str
    """What stands to the left of the charts."""
    charts: tuple[Markup, ...] = ()
    """The chart in each panel; empty if the row is a heading of those below it."""
    beside: str = ""
    """What a heading says beside its name."""


class Figure(NamedTuple):
    """A figure that is one chart, or rows of charts that share panels."""

    kind: str
    """The class of the figure's element."""
    title: str
    """What the figure shows, a few words."""
    caption: str
    """How to read the figure, the sentences below it."""
    alternative: str
    """What there is to see, for who does not see it."""
    remark: str = ""
    """What to make of it, in one sentence."""
    keys: tuple[Key, ...] = ()
    """The entries of the legend."""
    chart: Markup = Markup()
    """The chart of a figure without rows."""
    panels: tuple[str, ...] = ()
    """The titles of the panels."""
    axes: tuple[Markup, ...] = ()
    """The labels below each panel."""
    rows: tuple[Row, ...] = ()
    """The lines of a figure of several charts."""

    @property
    def many(self) -> bool:
        """Whether there are so many rows that they are low."""
        return len(self.rows) > MANY_ROWS


def axis(across: Scale, marks: Sequence[float], label: Label = round_number) -> Markup:
    """The labels below a panel. Where it is narrow, style sheets hide those in between."""
    chart = Chart(20, across)
    for number, mark in enumerate(marks):
        place = "first" if number == 0 else "last" if number == len(marks) - 1 else "between"
        chart.text(label(mark), mark, 14, f"tick middle {'origin' if mark == 0 else place}")
    return chart.markup()
