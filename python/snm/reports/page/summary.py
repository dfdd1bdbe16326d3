"""The few words and numbers with which a report begins."""

import math
from typing import NamedTuple

from snm_kernels import SNMRule, preset

from ..result import Result
from .formatting import digits, hundredths, memory, percent, quantity

_PRESETS = {preset(name): name for name in ("snm", "snm-half", "snm-zero", "if", "if-half")}
"""The names of presets by their rules."""


class KeyFigure(NamedTuple):
    """A number that stands out, and what it is to be held against."""

    name: str
    """What the number is."""
    value: str
    """The number with its unit."""
    beside: str
    """What to compare it with."""


def facts(report: Result) -> list[tuple[str, str]]:
    """What was run and where, as names and values."""
    threads = f", {report.threads} thread{'' if report.threads == 1 else 's'}"
    where = report.device + (threads if report.device == "cpu" else "")
    tuned = [] if report.tuned_for is None else [("Tuned for", f"T = {report.tuned_for}")]
    return [
        ("Time steps", f"T = {report.timesteps}"),
        ("Neuron", _rule(report.rule)),
        *tuned,
        ("Input", f"{report.encoder} coding"),
        ("Images", f"{report.images:,}"),
        ("Layers", f"{len(report.layers)}"),
        ("Computed on", f"{where}, {report.dtype}"),
        ("Version", f"snm-kernels {report.version}"),
    ]


def _rule(rule: SNMRule) -> str:
    """A rule in words: the name of its preset if it has one, else its numbers."""
    if rule in _PRESETS:
        return _PRESETS[rule]
    parts = [f"v(0) = {rule.v_init:g} θ"]
    if rule.negative_threshold is None:
        parts.append("no negative spikes")
    else:
        parts.append(f"ν = {rule.negative_threshold:g}{' strict' if rule.strict else ''}")
    if rule.max_spikes > 1:
        parts.append(f"Γ = {rule.max_spikes}")
    if rule.count_max is not None:
        parts.append(f"m ≤ {rule.count_max}")
    return ", ".join(parts)


def key_figures(report: Result) -> list[KeyFigure]:
    """The few numbers that a reader looks for first, as far as the report has them."""
    neurons = [layer for layer in report.layers.values() if layer.kind == "neurons"]
    steps = sum(layer.neuron_steps for layer in neurons)
    negative = sum(layer.negative for layer in neurons)
    expected = report.relu_accuracy
    found = []
    if report.accuracy:
        last = report.accuracy[-1]
        beside = "no ReLU network to compare with"
        if not math.isnan(expected):
            points = hundredths(100 * (last - expected))
            beside = f"ReLU network {percent(expected)}, {points} points"
        found.append(KeyFigure(f"Accuracy at T = {report.timesteps}", percent(last), beside))
    if report.agreement:
        found.append(
            KeyFigure(
                f"Agreement at T = {report.timesteps}",
                percent(report.agreement[-1]),
                "same answer as the ReLU network",
            )
        )
    found.append(
        KeyFigure(
            "Spikes per neuron and step",
            digits(report.spikes / steps if steps else math.nan),
            f"{percent(negative / report.spikes if report.spikes else math.nan, 1)} of them "
            "negative",
        )
    )
    found.append(
        KeyFigure(
            "Synaptic operations per image",
            quantity(report.synaptic_operations / report.images),
            f"ReLU network {quantity(report.macs.relu)} multiply-accumulates",
        )
    )
    if report.energy:
        ratios = [one.ratio for one in report.energy]
        low, high = digits(min(ratios)), digits(max(ratios))
        span = f"{low} ×" if low == high else f"{low}–{high} ×"
        several = len(ratios) > 1
        found.append(
            KeyFigure(
                "Energy",
                span,
                f"of the ReLU network at {report.bits} bits"
                + (f", under {len(ratios)} conventions" if several else ""),
            )
        )
    ratio = report.seconds / report.relu_seconds if report.relu_seconds else math.nan
    found.append(
        KeyFigure(
            "Time per image",
            quantity(report.seconds / report.images, "s"),
            "ReLU network not timed"
            if math.isnan(ratio)
            else f"{digits(ratio)} × the ReLU network’s "
            f"{quantity(report.relu_seconds / report.images, 's')}",
        )
    )
    found.append(KeyFigure("Peak memory", memory(report.peak_bytes), "that simulating adds"))
    return found
