"""Charts as inline SVG: places across are percentages, so that a chart fills any width and its text
keeps its size; places down are pixels. Classes say what a shape is, style sheets how it looks."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

Label = Callable[[float], str]
"""What stands beside a mark of an axis."""

_STRETCH = 1000
"""How wide the box is in which lines are drawn, before it is stretched to the chart's width."""


@dataclass(frozen=True)
class Scale:
    """Lays numbers out along an axis, linearly or by their logarithms.

    >>> Scale(0, 4).at(1), Scale(1, 16, log=True).at(4)
    (0.25, 0.5)
    """

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where on the axis a number is: 0 at the low end, 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers that enclose two numbers: multiples of 1, 2 or 5 times a power of ten.

    There are no more than ``most``, and one at the end.

    >>> ticks(0.0, 0.34, 5)
    [0.0, 0.1, 0.2, 0.3, 0.4]
    >>> ticks(-3, 11, 4)
    [-5, 0, 5, 10, 15]
    """
    if not high > low:
        high = low + (abs(low) or 1.0)
    power = math.floor(math.log10((high - low) / most))
    for exponent, step in ((e, s) for e in (power, power + 1) for s in (1, 2, 5)):
        unit = step * 10.0**exponent
        first, last = math.floor(round(low / unit, 9)), math.ceil(round(high / unit, 9))
        if last - first <= most:
            break
    digits = max(0, -exponent)
    marks = [round(number * unit, digits) for number in range(first, last + 1)]
    return marks if digits else [int(mark) for mark in marks]


def doublings(high: int) -> list[int]:
    """The powers of two up to a number, and the number in the place of one that is close to it.

    >>> doublings(32), doublings(20), doublings(24)
    ([1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 20], [1, 2, 4, 8, 16, 24])
    """
    powers = [2**n for n in range(high.bit_length()) if 2**n * 1.4 <= high]
    return [*powers, high]


class Chart:
    """An SVG element, as wide as what it lies in.

    Args:
        height: in pixels.
        x, y: scales of what is drawn in it.
        inset: pixels at the top and at the bottom that scale ``y`` leaves free.

    >>> chart = Chart(20, Scale(0, 4))
    >>> chart.bar(0, 1, top=2, height=16, kind="positive", title="a < b")
    >>> print(chart.markup())
    <svg class="chart" height="20"><rect x="0%" y="2" width="25%" height="16" \
class="positive"><title>a &lt; b</title></rect></svg>
    """

    def __init__(
        self, height: int, x: Scale, y: Scale | None = None, *, inset: float = 0.0
    ) -> None:
        self.height, self.x, self.y, self.inset = height, x, y or Scale(0, 1), inset
        self._root = Element("svg", {"class": "chart", "height": str(height)})

    def across(self, value: float) -> str:
        """Where a number of ``x`` is, in percent of the width."""
        return f"{_short(100 * self.x.at(value))}%"

    def down(self, value: float) -> float:
        """Where a number of ``y`` is, in pixels from the top."""
        return self.inset + (1 - self.y.at(value)) * (self.height - 2 * self.inset)

    def bar(
        self, start: float, end: float, *, top: float, height: float, kind: str, title: str = ""
    ) -> None:
        """A bar from one number of ``x`` to another, between two places in pixels."""
        left, right = sorted((self.x.at(start), self.x.at(end)))
        attributes = {
            "x": f"{_short(100 * left)}%",
            "y": _short(top),
            "width": f"{_short(100 * (right - left))}%",
            "height": _short(height),
        }
        self._add("rect", attributes, kind, title)

    def strokes(self, marks: Iterable[tuple[float, float, float]], kind: str) -> None:
        """Upright lines: each a number of ``x`` and two places in pixels from the top."""
        path = "".join(
            f"M{_short(_STRETCH * self.x.at(x))} {_short(top)}V{_short(bottom)}"
            for x, top, bottom in marks
        )
        self._stretched("path", {"d": path}, kind)

    def level(self, value: float, kind: str) -> None:
        """A line all across at a number of ``y``."""
        place = _short(self.down(value))
        self._add("line", {"x1": "0%", "x2": "100%", "y1": place, "y2": place}, kind)

    def line(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        places = (f"{_short(_STRETCH * self.x.at(x))},{_short(self.down(y))}" for x, y in points)
        self._stretched("polyline", {"points": " ".join(places)}, kind)

    def dot(self, x: float, y: float, kind: str, title: str = "") -> None:
        """A small disc at a point."""
        attributes = {"cx": self.across(x), "cy": _short(self.down(y)), "r": "3"}
        self._add("circle", attributes, kind, title)

    def text(
        self, words: str, x: float, down: float, kind: str, *, right: float = 0.0, end: bool = False
    ) -> None:
        """Words whose base line is so many pixels from the top.

        Args:
            words: the words.
            x: the number of ``x`` beside which the words start or end.
            down: pixels from the top.
            kind: the class of the element.
            right: by how many pixels the words are moved to the right.
            end: whether the words end there instead.
        """
        attributes = {"x": self.across(x), "y": _short(down), "dx": _short(right)}
        self._add("text", attributes, f"{kind} end" if end else kind).text = words

    def x_axis(self, marks: Iterable[float], label: Label, title: str) -> None:
        """Labels below the chart, and below them what they count."""
        for value in marks:
            self.text(label(value), value, self.height + 16, "tick middle")
        self.text(title, self.x.high, self.height + 34, "tick", end=True)

    def y_axis(self, marks: Iterable[float], label: Label) -> None:
        """Lines all across, and labels to the left."""
        for value in marks:
            self.level(value, "grid")
            self.text(label(value), self.x.low, self.down(value) + 4, "tick", right=-10, end=True)

    def markup(self) -> Markup:
        """The element as text that a page takes as it is."""
        return Markup(tostring(self._root, encoding="unicode"))

    def _add(self, name: str, attributes: dict[str, str], kind: str, title: str = "") -> Element:
        """Puts a shape of a class into the chart; its title is what a pointer sees over it."""
        element = SubElement(self._root, name, attributes | {"class": kind})
        if title:
            SubElement(element, "title").text = title
        return element

    def _stretched(self, name: str, attributes: dict[str, str], kind: str) -> None:
        """A shape whose places across are thousandths of the width; its lines stay as thin."""
        box = {
            "viewBox": f"0 0 {_STRETCH} {self.height}",
            "preserveAspectRatio": "none",
            "width": "100%",
            "height": str(self.height),
            "overflow": "visible",
        }
        thin = {"class": kind, "vector-effect": "non-scaling-stroke"}
        SubElement(SubElement(self._root, "svg", box), name, attributes | thin)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Places moved, no further than needed and in the same order, until they are so far apart.

    >>> apart([10, 12, 40], 6)
    [8.0, 14.0, 40.0]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[tuple[float, list[int]]] = []
    for index in order:
        middle, members = places[index], [index]
        while groups:
            before, theirs = groups[-1]
            if middle - before >= gap * (len(members) + len(theirs)) / 2:
                break
            groups.pop()
            total = before * len(theirs) + middle * len(members)
            members = [*theirs, *members]
            middle = total / len(members)
        groups.append((middle, members))
    moved = [0.0] * len(places)
    for middle, members in groups:
        for rank, index in enumerate(members):
            moved[index] = middle + gap * (rank - (len(members) - 1) / 2)
    return moved


def _short(value: float) -> str:
    """A number to a hundredth, without zeros that say nothing.

    >>> _short(12.500001), _short(3)
    ('12.5', '3')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")
