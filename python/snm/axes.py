"""The parts that all pictures share: colours, new axes, stacked bars, a plain frame with a legend.

Nothing here knows what is drawn, and matplotlib is imported only when something is.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .optional import check_installed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours of Okabe and Ito.
BLACK, GREY, BLUE, ORANGE = "#000000", "#999999", "#0072B2", "#E69F00"
GREEN, RED, SKY = "#009E73", "#D55E00", "#56B4E9"

CURVES = ((BLUE, "-", "o"), (RED, "--", "s"), (GREEN, "-.", "^"), (BLACK, ":", "D"))
"""The colours, lines and markers of the curves in a picture, in this order."""
_FILLS = ((GREY, ""), (GREEN, "xxx"), (RED, "///"), (SKY, "..."), (ORANGE, "\\\\\\"))
"""The colours and hatches of the parts of stacked bars, in this order."""
_PLACES: dict[str, dict[str, Any]] = {
    "within": {"loc": "best"},
    "above": {"loc": "lower left", "bbox_to_anchor": (0, 1)},
    "beside": {"loc": "upper left", "bbox_to_anchor": (1, 1)},
}
"""Arguments that put a legend in a place, by the name of the place; in units of the axes."""


def new_axes(width: float, height: float) -> "Axes":
    """The axes of a new figure of that width and height, in inches.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    check_installed("plot", "matplotlib", extra="demo")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=160, layout="constrained").subplots()


def number_steps(axes: "Axes", steps: int) -> None:
    """Makes the horizontal axis one of time steps, numbered from 1 in whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.5, steps + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("time step")


def stack(heights: Iterable[float]) -> list[tuple[float, float]]:
    """Where each part of a stacked bar starts and ends; parts above zero are stacked upwards, and
    parts below zero downwards.

    >>> stack([2.0, -1.0, 3.0])
    [(0.0, 2.0), (0.0, -1.0), (2.0, 5.0)]
    """
    above = below = 0.0
    ends = []
    for height in heights:
        start = above if height >= 0 else below
        ends.append((start, start + height))
        above, below = max(above, start + height), min(below, start + height)
    return ends


def stacked_bars(axes: "Axes", names: Sequence[str], parts: Mapping[str, Sequence[float]]) -> None:
    """Draws an upright bar over each name, stacked from parts that differ in colour and hatch.

    Args:
        axes: the axes of matplotlib to draw into.
        names: the texts below the bars.
        parts: the heights of each part, one for each bar, by the part's name in the legend.
    """
    bars = [stack(heights) for heights in zip(*parts.values(), strict=True)]
    for number, (part, heights) in enumerate(parts.items()):
        colour, hatch = _FILLS[number % len(_FILLS)]
        axes.bar(
            range(len(names)),
            heights,
            bottom=[bar[number][0] for bar in bars],
            color=colour,
            hatch=hatch,
            edgecolor=BLACK,
            linewidth=0.5,
            label=part,
        )
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set_xticks(range(len(names)), names, rotation=30)
    finish(axes, "beside")


def finish(axes: "Axes", place: str, columns: int = 1) -> None:
    """Takes away the frame's upper and right lines, and puts the legend where it hides nothing.

    Args:
        axes: the axes of matplotlib, with everything drawn.
        place: where the legend goes: ``"within"`` the axes, ``"above"`` or ``"beside"`` them.
        columns: the number of columns in the legend.
    """
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        where = _PLACES[place]
        axes.legend(**where, ncols=columns, frameon=False, fontsize="small", borderaxespad=0.3)
