"""A report's numbers as tables."""

import math
from typing import NamedTuple

from ...diagnosis.result import PARTS, Diagnosis, in_percent
from ..result import LayerReport, Result, shares_by_step
from .formatting import digits, hundredths, percent, quantity
from .svg import doublings


class Cell(NamedTuple):
    """One cell of a table."""

    words: str
    """What the cell says."""
    key: float | None = None
    """The number that rows are sorted by; None for words, and for what nobody measured."""


class Sheet(NamedTuple):
    """One table of a report."""

    title: str
    """What the table is about, a word or two."""
    caption: str
    """What the numbers are, in one sentence."""
    heads: tuple[str, ...]
    """What stands above each column."""
    rows: tuple[tuple[Cell, ...], ...]
    """The cells of each row; none if there is nothing to say."""


def every_sheet(report: Result) -> list[Sheet]:
    """The tables of a report that have rows, in the order in which they are shown."""
    sheets = [over_time(report), layers(report), errors(report.diagnosis), energy(report)]
    return [sheet for sheet in sheets if sheet.rows]


def over_time(report: Result) -> Sheet:
    """Accuracy and agreement after 1, 2, 4 ... time steps."""
    columns = shares_by_step(report)
    rows = [
        (Cell(str(step)), *(Cell(percent(shares[step - 1])) for shares in columns.values()))
        for step in (doublings(report.timesteps) if columns else [])
    ]
    return Sheet(
        "Over time",
        "Right answers, and the ReLU network’s, after so many time steps.",
        ("T", *(name.capitalize() for name in columns)),
        tuple(rows),
    )


def layers(report: Result) -> Sheet:
    """What each layer sends and costs."""
    kinds = {layer.kind for layer in report.layers.values()} != {"neurons"}
    heads = ("Neurons", "Spikes +", "Spikes −", "Rate +", "Rate −", "Synapses")
    costs = ("Synaptic operations", "Share", "Dead", "Saturated", "|v|/θ")
    return Sheet(
        "Layers",
        f"Each layer, in order of execution; spikes, synapses and operations per image, means over "
        f"{report.images:,}.",
        ("Layer", *(["Kind"] if kinds else []), *heads, *costs),
        tuple(_layer(name, layer, report, kinds) for name, layer in report.layers.items()),
    )


def _layer(name: str, layer: LayerReport, report: Result, kinds: bool) -> tuple[Cell, ...]:
    """The row of one layer; ``kinds`` says whether layers are of several kinds."""
    total = report.synaptic_operations
    share = layer.synaptic_operations / total if total else math.nan
    operations = layer.synaptic_operations / report.images
    each = [value / report.images for value in (layer.positive, layer.negative)]
    return (
        Cell(name),
        *([Cell(layer.kind)] if kinds else []),
        _cell(layer.neurons, f"{layer.neurons:,}"),
        *(_cell(value, f"{value:,.1f}") for value in each),
        *(_cell(rate, digits(rate)) for rate in (layer.positive_rate, layer.negative_rate)),
        _cell(layer.connections, f"{layer.connections:,}"),
        _cell(operations, f"{operations:,.0f}"),
        _cell(share, percent(share, 1)),
        _cell(layer.dead, percent(layer.dead, 1)),
        _cell(layer.saturated, percent(layer.saturated, 1)),
        _cell(layer.residual, digits(layer.residual)),
    )


def errors(diagnosis: Diagnosis | None) -> Sheet:
    """The parts of each layer's error."""
    layers = {} if diagnosis is None else diagnosis.layers
    rows = []
    for path, layer in layers.items():
        parts = (layer.error, *(layer.parts[name] for name in PARTS))
        shares = [in_percent(part, layer) for part in parts]
        cells = [_cell(share, hundredths(share, "")) for share in shares]
        rows.append((Cell(path), _cell(layer.activation, digits(layer.activation)), *cells))
    return Sheet(
        "Errors",
        "Mean absolute error of rates and its parts, in percent of the mean activation.",
        ("Layer", "Mean activation", "Error", *(part.capitalize() for part in PARTS)),
        tuple(rows),
    )


def energy(report: Result) -> Sheet:
    """What one image costs, by convention."""
    rows = []
    for found in report.energy:
        spent = {name: part for name, part in found.parts.items() if part > 0}
        parts = ", ".join(f"{name} {quantity(part, 'J')}" for name, part in spent.items())
        costs = [(cost, quantity(cost, "J")) for cost in (found.snn, found.ann, found.quantised)]
        cells = [_cell(cost, words) for cost, words in costs]
        rows.append(
            (Cell(found.convention), *cells, _cell(found.ratio, digits(found.ratio)), Cell(parts))
        )
    return Sheet(
        "Energy",
        "Energy of one image; the ratio is that of the spiking to the quantised network.",
        (
            "Convention",
            "Spiking",
            "ReLU",
            f"ReLU, {report.bits} bits",
            "Ratio",
            "Spiking, made up of",
        ),
        tuple(rows),
    )


def _cell(value: float, words: str) -> Cell:
    """The cell of a number; one that nobody measured has no place when rows are sorted."""
    return Cell(words, None if math.isnan(value) else value)
