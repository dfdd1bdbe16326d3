"""What a report's page draws of a recording: spikes of neurons, and the membrane of one."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from markupsafe import Markup

from .chosen import LAYERS, NEURONS, sample, spread
from .figures import Figure, Key, Row, axis
from .quantities import digits
from .svg import Chart, Scale, plain, ticks

if TYPE_CHECKING:
    from ...network.recording import LayerRecording, Recording

_HEIGHT = 16
"""Of a neuron's row."""


def raster(recording: "Recording") -> Figure | None:
    """When neurons send what, for the first image; None if no spikes were recorded."""
    recorded = [layer for layer in recording.values() if "spikes" in layer.what]
    if not recorded:
        return None
    shown = spread(recorded, LAYERS)
    rows, steps, sent, back = [], recording.timesteps, 0, 0
    across = Scale(0, steps)
    for layer in shown:
        spikes = layer.spikes[:, 0].flatten(1)
        chosen = sample(spikes, NEURONS // len(shown))
        rows.append(Row(layer.path))
        names = numbers(layer)
        for neuron in chosen:
            train = spikes[:, neuron].tolist()
            sent += sum(spike for spike in train if spike > 0)
            back -= sum(spike for spike in train if spike < 0)
            rows.append(Row(f"{names[neuron]:,}", (_train(train, across),)))
    of = f", in {len(shown)} of {len(recorded)} layers" if len(shown) < len(recorded) else ""
    return Figure(
        "raster",
        "Spikes over time",
        f"Neurons by their number in the layer{of}, for the first recorded image. A stroke up is a "
        "positive spike, a stroke down a negative one.",
        f"{sent:,} positive and {back:,} negative spikes of {len(rows) - len(shown)} neurons in "
        f"{steps} time steps.",
        keys=(Key("up", "positive spike"), Key("down", "negative spike")),
        panels=("",),
        axes=(axis(across, _step_marks(steps)),),
        rows=tuple(rows),
    )


def membrane(recording: "Recording", neuron: tuple[str, int] | None) -> Figure | None:
    """The membrane of one neuron for the first image; None if none was recorded.

    Args:
        neuron: the layer's path, and the neuron's number in it; None for one that sends negative
            spikes, if any does.

    Raises:
        ValueError: that neuron's membrane and spikes were not recorded.
    """
    layers = {
        path: layer
        for path, layer in recording.items()
        if {"spikes", "membrane"} <= set(layer.what)
    }
    if neuron is None:
        if not layers:
            return None
        path, place = _liveliest(layers)
    else:
        path, number = neuron
        if path not in layers or number not in numbers(layers[path]):
            raise ValueError(
                f"page: neuron must be one whose spikes and membrane were recorded, got {neuron}"
            )
        place = numbers(layers[path]).index(number)
    layer = layers[path]
    threshold = float(layer.threshold.flatten()[place])
    after = (layer.membrane[:, 0].flatten(1)[:, place].double() / threshold).tolist()
    train = layer.spikes[:, 0].flatten(1)[:, place].tolist()
    before = [v + spike for v, spike in zip(after, train, strict=True)]
    rule, steps = layer.rule, len(train)
    levels = [("≥ θ: +", 1.0)]
    if rule.negative_threshold is not None:
        share = rule.negative_threshold
        where = "0" if share == 0 else "−θ" if share == 1 else f"−{share:g} θ"
        levels.append((f"{'<' if rule.strict else '≤'} {where}: −", -share))
    heights = [rule.v_init, *after, *before, *(level for _, level in levels)]
    # A drive that is no number makes the membrane none.
    finite = [height for height in heights if math.isfinite(height)]
    marks = ticks(min(finite), max(finite), 4)
    chart = Chart(220, Scale(0, steps), Scale(marks[0], marks[-1]), inset=26)
    chart.y_axis([(mark, plain(mark)) for mark in marks])
    chart.x_axis(_step_marks(steps), "time steps")
    for label, level in levels:
        chart.level(level, "threshold-line")
        chart.text(label, steps, chart.down(level) + 4, "value", right=10)
    points = [(0.0, rule.v_init)]
    for step, (high, low) in enumerate(zip(before, after, strict=True), 1):
        points += [(step, high), (step, low)]
    chart.line([point for point in points if math.isfinite(point[1])], "membrane-line")
    up = [(step, 4, 18) for step, spike in enumerate(train, 1) if spike > 0]
    down = [(step, 202, 216) for step, spike in enumerate(train, 1) if spike < 0]
    chart.strokes(up, "up")
    chart.strokes(down, "down")
    number = numbers(layer)[place]
    return Figure(
        "membrane",
        f"The membrane of neuron {number:,} of {path}",
        "In units of its threshold θ, for the first recorded image: each time step adds the drive, "
        "and a spike takes its θ away or gives it back. Strokes above are positive spikes, below "
        "negative ones; dashed, the membranes from which on they are sent.",
        f"{sum(spike > 0 for spike in train)} steps with positive and "
        f"{sum(spike < 0 for spike in train)} with negative spikes; the membrane ends at "
        f"{digits(after[-1])} θ.",
        keys=(Key("up", "positive spike"), Key("down", "negative spike")),
        chart=chart.markup(),
    )


def numbers(layer: "LayerRecording") -> list[int]:
    """The numbers of the recorded neurons in their layer."""
    if layer.neurons is None:
        return list(range(layer.shape.numel()))
    found: list[int] = layer.neurons.tolist()
    return found


def _liveliest(layers: dict[str, "LayerRecording"]) -> tuple[str, int]:
    """The neuron that sends most negative spikes, or else most spikes."""

    def score(layer: "LayerRecording") -> Iterator[tuple[int, int]]:
        spikes = layer.spikes[:, 0].flatten(1)
        return zip((spikes < 0).sum(0).tolist(), spikes.abs().sum(0).tolist(), strict=True)

    found = (
        (each, path, place) for path in layers for place, each in enumerate(score(layers[path]))
    )
    best = max(found, key=lambda one: one[0])
    return best[1], best[2]


def _train(train: list[int], across: Scale) -> Markup:
    chart = Chart(_HEIGHT, across)
    middle = _HEIGHT / 2
    chart.level(0.5, "grid")
    chart.strokes([(t, middle, 1) for t, spike in enumerate(train, 1) if spike > 0], "up")
    low = _HEIGHT - 1
    chart.strokes([(t, middle, low) for t, spike in enumerate(train, 1) if spike < 0], "down")
    return chart.markup()


def _step_marks(steps: int) -> list[tuple[float, str]]:
    marks = [mark for mark in ticks(0, steps, 8) if mark <= steps and mark == int(mark)]
    return [(mark, plain(mark)) for mark in marks]
