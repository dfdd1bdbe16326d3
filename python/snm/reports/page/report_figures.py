"""The figures that a page draws of a report's numbers."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from ...axes import stack
from ...diagnosis.result import PARTS, Diagnosis, percentages
from ..energy import Energy
from ..result import RATE_BINS, LayerReport, Result, shares_by_step
from .figure import MANY_ROWS, Figure, Key, Row, axis
from .formatting import digits, percent, quantity, round_number, round_quantity
from .svg import Chart, Scale, apart, doublings, ticks

_FEW_ROWS = 12
"""Up to how many rows they are high."""
_FEW_STEPS = 12
"""Up to how many time steps they are drawn at equal distances."""


def accuracy(report: Result) -> Figure | None:
    """Accuracy and agreement after each time step; None if nothing was held against anything."""
    lines = shares_by_step(report)
    if not lines:
        return None
    expected = report.relu_accuracy
    known = not math.isnan(expected)
    shares = [100 * share for line in lines.values() for share in line]
    marks = ticks(min(shares), max([*shares, 100 * expected] if known else shares), 5)
    steps = report.timesteps
    few = steps <= _FEW_STEPS
    across = Scale(1, max(steps, 2), log=not few)
    chart = Chart(260, across, Scale(marks[0], marks[-1]), inset=6)
    chart.y_axis(marks, lambda mark: f"{round_number(mark)}\u202f%")
    shown = list(range(1, steps + 1)) if few else doublings(steps)
    chart.x_axis(shown, str, "time steps T")
    ends = []
    if known:
        chart.level(100 * expected, "relu-line")
        ends.append((100 * expected, "relu-label"))
    for kind, line in lines.items():
        points = [(step, 100 * share) for step, share in enumerate(line, 1)]
        chart.line(points, f"{kind}-line")
        for step in shown:
            title = f"T = {step}: {percent(line[step - 1])}"
            chart.dot(step, 100 * line[step - 1], f"{kind}-dot", title)
        ends.append((points[-1][1], f"{kind}-label"))
    places = apart([chart.down(end) for end, _ in ends], 15)
    for (end, kind), place in zip(ends, places, strict=True):
        chart.text(f"{end:.2f}", across.high, place + 4, f"value {kind}", right=10)
    keys = [Key("accuracy", "right answers"), Key("agreement", "the ReLU network’s answers")]
    keys = [key for key in keys if key.kind in lines]
    if known:
        keys.append(Key("relu", "right answers of the ReLU network"))
    what = "Accuracy" if "accuracy" in lines else "Agreement with the ReLU network"
    said = ", ".join(f"{step}: {percent(next(iter(lines.values()))[step - 1])}" for step in shown)
    return Figure(
        "over-time",
        f"{what} over time",
        f"Share of the {report.images:,} images after each time step"
        f"{'' if few else ', on a logarithmic axis'}; all steps are read from one simulation.",
        f"{what} by time step: {said}." + (f" ReLU network: {percent(expected)}." if known else ""),
        keys=tuple(keys),
        chart=chart.markup(),
    )


def layers(report: Result) -> Figure | None:
    """Rates, synaptic operations and histograms of rates, by layer; None without layers."""
    found = list(report.layers.values())
    if not found:
        return None
    height = _height(len(found))
    rate_marks = ticks(
        -max(layer.negative_rate for layer in found),
        max(layer.positive_rate for layer in found),
        4,
    )
    operations = [layer.synaptic_operations / report.images for layer in found]
    operation_marks = ticks(0, max(operations), 3)
    rates, cost = Scale(rate_marks[0], rate_marks[-1]), Scale(0, operation_marks[-1])
    rows = []
    for name, layer, each in zip(report.layers, found, operations, strict=True):
        sent = _lines(rates, rate_marks, height)
        positive, negative = layer.positive_rate, layer.negative_rate
        bar = _band(height)
        sent.bar(0, positive, **bar, kind="positive", title=f"positive: {digits(positive)}")
        sent.bar(0, -negative, **bar, kind="negative", title=f"negative: {digits(negative)}")
        spent = _lines(cost, operation_marks, height)
        spent.bar(0, each, **bar, kind="plain", title=f"{quantity(each)} an image")
        charts = (sent.markup(), spent.markup(), _histogram(layer, height))
        rows.append(Row(name, charts))
    bins = {0.0: "0", RATE_BINS / 2: "½", float(RATE_BINS): "1"}
    busiest = max(found, key=lambda layer: layer.positive_rate + layer.negative_rate)
    dearest = max(found, key=lambda layer: layer.synaptic_operations)
    return Figure(
        "layers",
        "Layer by layer",
        "Left: spikes per neuron and time step, negative ones to the left of zero. Middle: "
        "synaptic operations per image, a spike times each synapse that it takes. Right: how "
        "many neurons spike how often, from never to every step and, last, more; heights are "
        "square roots of shares."
        + (
            " Of a max pooling it is the steps at which an output sends anything."
            if any(layer.kind == "max pooling" for layer in found)
            else ""
        ),
        f"{len(found)} layers. {busiest.path} has the highest rate, "
        f"{digits(busiest.positive_rate)} positive and {digits(busiest.negative_rate)} negative "
        f"spikes per neuron and step; {dearest.path} the most synaptic operations.",
        keys=(Key("positive", "positive spikes"), Key("negative", "negative spikes")),
        panels=("Spikes per neuron and step", "Synaptic operations per image", "Rates of neurons"),
        axes=(
            axis(rates, rate_marks),
            axis(cost, operation_marks, round_quantity),
            axis(Scale(0, RATE_BINS + 1), list(bins), lambda mark: bins[mark]),
        ),
        rows=tuple(rows),
    )


def energy(report: Result) -> Figure | None:
    """What an image costs, by convention; None if there is none."""
    if not report.energy:
        return None
    rows = []
    for found in report.energy:
        beside = ""
        if math.isfinite(found.ratio):
            beside = f"{digits(found.ratio)} × the ReLU network at {report.bits} bits"
        rows.append(Row(found.convention, beside=beside))
        networks = [
            ("spiking network", found.snn, "snn"),
            ("ReLU network", found.ann, "relu"),
            (f"ReLU network, {report.bits} bits", found.quantised, "quantised"),
        ]
        most = max((cost for _, cost, _ in networks if math.isfinite(cost)), default=0.0)
        # A seventh is left for the number.
        across = Scale(0, 1.17 * most or 1.0)
        for name, cost, kind in networks:
            rows.append(Row(name, (_cost(across, cost, kind, found),)))
    said = "; ".join(
        f"{one.convention}: spiking {quantity(one.snn, 'J')}, ReLU {quantity(one.ann, 'J')}, "
        f"quantised {quantity(one.quantised, 'J')}"
        for one in report.energy
    )
    return Figure(
        "energy",
        "Energy per image",
        "Estimates under several conventions, each drawn to its own scale; none is a measurement. "
        f"What there is to beat is the ReLU network with activations of {report.bits} bits, as "
        f"many as it takes to count a neuron’s spikes in {report.timesteps} time steps. Gaps in a "
        "bar part what it is the sum of.",
        said + ".",
        panels=("",),
        rows=tuple(rows),
    )


def errors(diagnosis: Diagnosis | None) -> Figure | None:
    """The parts of each layer's error, as :meth:`snm.Diagnosis.picture` stacks them; None if there
    is nothing to draw."""
    shares = percentages(diagnosis) if diagnosis else {}
    if diagnosis is None or not shares:
        return None
    height = _height(len(shares))
    bars = {path: stack(parts.values()) for path, parts in shares.items()}
    ends = [end for bar in bars.values() for _, end in bar]
    marks = ticks(min(0.0, *ends), max(0.0, *ends), 6)
    across = Scale(marks[0], marks[-1])
    rows = []
    for path, parts in shares.items():
        chart = _lines(across, marks, height)
        for (part, share), (start, end) in zip(parts.items(), bars[path], strict=True):
            title = f"{part}: {share:+.2f} %"
            chart.bar(start, end, **_band(height), kind=f"part {part}", title=title)
        total = f"{sum(parts.values()):.1f}".replace("-", "−")
        above = max(0.0, *(end for _, end in bars[path]))
        chart.text(total, above, 0.5 * height + 4, "value", right=6)
        rows.append(Row(path, (chart.markup(),)))
    worst = max(shares, key=lambda path: sum(shares[path].values()))
    return Figure(
        "errors",
        "What is lost, and to what",
        "The parts of the mean absolute error of each layer’s rates, in percent of the ReLU "
        f"network’s mean activation, after {diagnosis.timesteps} time steps; to the left of zero "
        "what makes up for others, and at the end of a bar the sum of all.",
        f"{worst} has the largest error, {sum(shares[worst].values()):.1f} percent of its mean "
        "activation.",
        remark=f"{diagnosis.advice[0].upper()}{diagnosis.advice[1:].rstrip('.')}.",
        keys=tuple(Key(f"part {part}", part) for part in PARTS),
        panels=("percent of the mean activation",),
        axes=(axis(across, marks),),
        rows=tuple(rows),
    )


def _height(rows: int) -> int:
    """How many pixels high each of so many rows is."""
    return 36 if rows <= _FEW_ROWS else 28 if rows <= MANY_ROWS else 16


def _band(height: int) -> dict[str, float]:
    """Where a bar lies in a row of so many pixels."""
    return {"top": 0.23 * height, "height": 0.54 * height}


def _lines(across: Scale, marks: Sequence[float], height: int) -> Chart:
    """The chart of one row, whose lines at the marks continue from row to row."""
    chart = Chart(height, across)
    chart.strokes([(mark, 0, height) for mark in marks if mark != 0], "grid")
    chart.strokes([(0, 0, height)], "zero")
    return chart


def _histogram(layer: LayerReport, height: int) -> Markup:
    """How many neurons of a layer spike how often."""
    chart = Chart(height, Scale(0, RATE_BINS + 1))
    total = sum(layer.rates)
    for number, count in enumerate(layer.rates):
        if count == 0:
            continue
        share = count / total
        tall = max(1.0, math.sqrt(share) * (height - 6))
        low, high = number / RATE_BINS, (number + 1) / RATE_BINS
        span = f"{low:.2f} to {high:.2f}" if number < RATE_BINS else "above 1"
        chart.bar(
            number + 0.08,
            number + 0.92,
            top=height - 3 - tall,
            height=tall,
            kind="plain",
            title=f"{span} spikes per step: {percent(share)}",
        )
    return chart.markup()


def _cost(across: Scale, cost: float, kind: str, energy: Energy) -> Markup:
    """A bar as long as what one network costs; the spiking network's is made up of its parts."""
    chart = Chart(22, across)
    end = cost if math.isfinite(cost) else 0.0
    if kind == "snn" and energy.parts:
        start = 0.0
        for name, part in energy.parts.items():
            title = f"{name}: {quantity(part, 'J')}"
            chart.bar(start, start + part, top=3, height=16, kind=kind, title=title)
            start += part
    else:
        chart.bar(0, end, top=3, height=16, kind=kind)
    chart.text(quantity(cost, "J"), end, 15, "value", right=8)
    chart.strokes([(0, 0, 22)], "zero")
    return chart.markup()
