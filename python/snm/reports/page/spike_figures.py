"""The figures that a page draws of a recording: spikes of neurons, and the membrane of one."""

import math
from collections.abc import Iterator

from markupsafe import Markup

from ...network.recording import LayerRecording, Recording
from ..membrane import (
    membrane_trace,
    numbers_in_layer,
    spikes_of_image,
    steps_of_sign,
)
from .figure import Figure, Key, Row, axis
from .formatting import digits, round_number
from .sampling import LAYERS, NEURONS, evenly_spread, sample_neurons
from .svg import Chart, Scale, ticks

_HEIGHT = 16
"""How many pixels high a neuron's row is."""


def raster(recording: Recording) -> Figure | None:
    """When neurons send which spikes for the first image; None if no spikes were recorded."""
    recorded = [layer for layer in recording.values() if "spikes" in layer.what]
    if not recorded:
        return None
    shown = evenly_spread(recorded, LAYERS)
    rows, steps, sent, back = [], recording.timesteps, 0, 0
    across = Scale(0, steps)
    for layer in shown:
        spikes = spikes_of_image(layer)
        rows.append(Row(layer.path))
        numbers = numbers_in_layer(layer)
        for place in sample_neurons(spikes, NEURONS // len(shown)):
            train = spikes[:, place].tolist()
            sent += sum(spike for spike in train if spike > 0)
            back -= sum(spike for spike in train if spike < 0)
            rows.append(Row(f"{numbers[place]:,}", (_spike_train(train, across),)))
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


def membrane(recording: Recording, neuron: tuple[str, int] | None) -> Figure | None:
    """The membrane of one neuron over time, for the first image; None if none was recorded.

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
        if path not in layers or number not in numbers_in_layer(layers[path]):
            raise ValueError(
                f"page: neuron must be one whose spikes and membrane were recorded, got {neuron}"
            )
        place = numbers_in_layer(layers[path]).index(number)
    layer = layers[path]
    trace = membrane_trace(layer, place, in_thresholds=True)
    rule, steps = layer.rule, len(trace.spikes)
    levels = [("≥ θ: +", 1.0)]
    if rule.negative_threshold is not None:
        share = rule.negative_threshold
        where = "0" if share == 0 else "−θ" if share == 1 else f"−{share:g} θ"
        levels.append((f"{'<' if rule.strict else '≤'} {where}: −", -share))
    heights = [rule.v_init, *trace.after, *trace.before, *(level for _, level in levels)]
    # A drive that is no number makes the membrane none.
    finite = [height for height in heights if math.isfinite(height)]
    marks = ticks(min(finite), max(finite), 4)
    chart = Chart(220, Scale(0, steps), Scale(marks[0], marks[-1]), inset=26)
    chart.y_axis(marks, round_number)
    chart.x_axis(_step_marks(steps), round_number, "time steps")
    for label, level in levels:
        chart.level(level, "threshold-line")
        chart.text(label, steps, chart.down(level) + 4, "value", right=10)
    points = [(0, rule.v_init), *trace.points]
    chart.line([point for point in points if math.isfinite(point[1])], "membrane-line")
    up, down = (steps_of_sign(trace.spikes, sign) for sign in (1, -1))
    chart.strokes([(step, 4, 18) for step in up], "up")
    chart.strokes([(step, 202, 216) for step in down], "down")
    number = numbers_in_layer(layer)[place]
    return Figure(
        "membrane",
        f"The membrane of neuron {number:,} of {path}",
        "In units of its threshold θ, for the first recorded image: each time step adds the drive, "
        "and a spike takes its θ away or gives it back. Strokes above are positive spikes, below "
        "negative ones; dashed, the membranes from which on they are sent.",
        f"{len(up)} steps with positive and {len(down)} with negative spikes; the membrane ends at "
        f"{digits(trace.after[-1])} θ.",
        keys=(Key("up", "positive spike"), Key("down", "negative spike")),
        chart=chart.markup(),
    )


def _liveliest(layers: dict[str, LayerRecording]) -> tuple[str, int]:
    """The path and the place of the neuron that sends most negative spikes, or else most spikes."""

    def score(layer: LayerRecording) -> Iterator[tuple[int, int]]:
        """How many negative spikes, and how many of both signs, each neuron sends."""
        spikes = spikes_of_image(layer)
        return zip((spikes < 0).sum(0).tolist(), spikes.abs().sum(0).tolist(), strict=True)

    found = (
        (each, path, place) for path in layers for place, each in enumerate(score(layers[path]))
    )
    best = max(found, key=lambda one: one[0])
    return best[1], best[2]


def _spike_train(train: list[int], across: Scale) -> Markup:
    """The row of one neuron: a stroke up for each positive spike, one down for each negative."""
    chart = Chart(_HEIGHT, across)
    chart.level(0.5, "grid")
    for sign, kind, end in ((1, "up", 1), (-1, "down", _HEIGHT - 1)):
        chart.strokes([(step, _HEIGHT / 2, end) for step in steps_of_sign(train, sign)], kind)
    return chart.markup()


def _step_marks(steps: int) -> list[float]:
    """Whole time steps, few enough to be labelled."""
    return [mark for mark in ticks(0, steps, 8) if mark <= steps and mark == int(mark)]
