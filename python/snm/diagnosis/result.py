"""The result of a diagnosis: its numbers, and how they become a table, advice and a picture."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from snm_kernels import SNMRule

from ..axes import new_axes, stacked_bars
from ..table import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("inherited", "correction", "clipping", "quantisation", "order")
"""The parts of a layer's error, in the order in which they come about."""
_LOSSES = PARTS[2:]
"""The parts that advice is about. Of the other two, the first is not caused by the layer, and the
second makes up for losses."""


class Part(NamedTuple):
    """The size of a part of a layer's error, or of all of it, as means over neurons and images, in
    units of the drive.

    >>> Part(signed=-0.5, absolute=0.5, size=0.5).signed
    -0.5
    """

    signed: float
    """The mean of the part, with its sign. The means of the parts add up to that of the error."""
    absolute: float
    """What the part adds to the mean absolute error, negative if it makes up for other parts. The
    parts add up to the mean absolute error."""
    size: float
    """The mean of the part's absolute value, whatever the other parts are."""


@dataclass(frozen=True, slots=True)
class LayerDiagnosis:
    """What one layer of neurons loses, and how.

    >>> import torch
    >>> from torch import nn
    >>> from snm import convert, diagnose
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> layer = diagnose(convert(model, images), model, images, timesteps=8).layers["1"]
    >>> layer.neurons, layer.negative, layer.parts["order"].size
    (8, 0.0, 0.0)
    >>> sum(part.absolute for part in layer.parts.values()) == layer.error.absolute
    True
    """

    path: str
    """The layer's path in the ReLU network."""
    neurons: int
    """How many neurons the layer has per image."""
    rule: SNMRule
    """The rule that the layer's neurons follow."""
    activation: float
    """The ReLU network's mean activation."""
    error: Part
    """The rate θ·m(T)/T minus the activation."""
    parts: Mapping[str, Part]
    """The error by its cause, one of :data:`PARTS`."""
    silent: float
    """The share of neurons whose threshold is +inf."""
    dead: float
    """The share of neurons that sent nothing for any image."""
    saturated: float
    """The share of spike counts, one per neuron and image, that are the largest possible."""
    clipped: float
    """The share of mean drives above 0 that exceed the largest rate of their neuron, which is 0 for
    a silent one."""
    muted: float
    """The share of mean drives above 0 that drive silent neurons."""
    residual: float
    """The mean of abs(v)/θ after the last step, over neurons that are not silent and whose mean
    drive is above 0."""
    negative: float
    """The share of spikes that are negative."""
    corrected: float
    """The share of spike counts that at least one negative spike corrected."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Says where a spiking network's rates differ from its ReLU network's activations, and why.

    Printed, it is a table of the errors and their parts, in percent of the layer's mean activation,
    rounded such that the parts add up; and below it a sentence of advice.

    >>> import torch
    >>> from torch import nn
    >>> from snm import convert, diagnose
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)).eval()
    >>> _ = nn.init.ones_(model[0].weight)
    >>> net = convert(model, torch.tensor([[1.0]]))
    >>> print(diagnose(net, model, torch.tensor([[1.25], [0.75]]), timesteps=4).advice)
    layer 1 clips 50.0 % of its activations: use larger thresholds, with statistic='max' or \
calibrated on more images
    """

    timesteps: int
    """How many time steps were simulated."""
    images: int
    """How many images were simulated."""
    layers: Mapping[str, LayerDiagnosis]
    """What each layer of neurons loses, by the layer's path, in order of execution."""
    tuned: bool = False
    """Whether the network was tuned, for some number of time steps."""

    @property
    def advice(self) -> str:
        """One sentence on the layer and the cause that cost most, and on what helps."""
        if all(layer.error.size == 0 for layer in self.layers.values()):
            return "Nothing is lost: every rate is the ReLU network's activation."
        losses = [
            (layer.parts[part].absolute / layer.activation, part, layer)
            for layer in self.layers.values()
            if layer.activation > 0
            for part in _LOSSES
        ]
        largest = max(losses, key=lambda loss: loss[0], default=None)
        if largest is None or largest[0] <= 0:
            return "No layer loses by clipping, quantisation or order; biases add what is wrong."
        _, part, layer = largest
        if self.tuned:
            return (
                f"{_lost(part, layer)}, tuned as it is: tune for more time steps, or with a larger "
                "max_spikes"
            )
        return _advice(part, layer, self.timesteps)

    def picture(self, path: str | os.PathLike[str]) -> None:
        """Draws the parts of each layer's error as stacked bars; see :func:`snm.plot.diagnosis`.

        Args:
            path: the file to write; its ending says of what kind, such as PNG or SVG.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.

        >>> import tempfile
        >>> import torch
        >>> from torch import nn
        >>> from snm import convert, diagnose
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> images = torch.rand(32, 4)
        >>> diagnosis = diagnose(convert(model, images), model, images, timesteps=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     diagnosis.picture(f"{folder}/parts.png")
        """
        figure = draw_parts(self).get_figure(root=True)
        assert figure is not None
        figure.savefig(path)

    def __str__(self) -> str:
        head = ["layer", "neurons", "|error|", *PARTS, "dead", "saturated", "|v|/θ", "negative"]
        rows = [head, *map(_row, self.layers.values())]
        title = (
            f"T = {self.timesteps}, {self.images} images; |error| and its parts in percent of the "
            "mean activation"
        )
        return "\n".join([title, table(rows), self.advice])


def in_percent(part: Part, layer: LayerDiagnosis) -> float:
    """What a part adds to a layer's mean absolute error, in percent of the mean activation; NaN if
    the layer has no activations."""
    return 100 * part.absolute / layer.activation if layer.activation > 0 else math.nan


def percentages(diagnosis: Diagnosis) -> dict[str, dict[str, float]]:
    """The parts of each layer's error in percent of its mean activation, by path and by part.

    Layers without activations are left out.
    """
    return {
        path: {name: in_percent(layer.parts[name], layer) for name in PARTS}
        for path, layer in diagnosis.layers.items()
        if layer.activation > 0
    }


def draw_parts(diagnosis: Diagnosis, axes: "Axes | None" = None) -> "Axes":
    """Draws the parts of each layer's error as stacked bars; see :func:`snm.plot.diagnosis`."""
    layers = percentages(diagnosis)
    axes = axes or new_axes(max(5.6, 2.4 + 0.7 * len(layers)), 4.4)
    parts = {name: [layer[name] for layer in layers.values()] for name in PARTS}
    stacked_bars(axes, list(layers), parts)
    axes.set_ylabel("mean |error|, percent of the mean activation")
    axes.set_title(f"What is lost in {diagnosis.timesteps} time steps", loc="left", fontsize=11)
    return axes


def add_up(parts: Iterable[Fraction], grid: Fraction) -> list[float]:
    """Rounds numbers to multiples of ``grid`` such that they add up to their rounded sum.

    To that end the running sums are rounded, and their differences are returned.

    >>> add_up([Fraction(1, 3)] * 3, Fraction(1, 10))
    [0.3, 0.4, 0.3]
    """
    total, before, rounded = Fraction(0), 0, []
    for part in parts:
        total += part
        after = round(total / grid)
        rounded.append(float((after - before) * grid))
        before = after
    return rounded


def _row(layer: LayerDiagnosis) -> list[str]:
    """A layer's row of the printed table."""
    return [
        layer.path,
        f"{layer.neurons:,}",
        *_rounded_percentages(layer),
        f"{100 * layer.dead:.1f} %",
        f"{100 * layer.saturated:.1f} %",
        f"{layer.residual:.3f}",
        f"{100 * layer.negative:.1f} %",
    ]


def _rounded_percentages(layer: LayerDiagnosis) -> list[str]:
    """A layer's error and its parts in percent of the mean activation, rounded such that they add
    up; dashes if the layer has no activations."""
    if layer.activation == 0:
        return ["-"] * (1 + len(PARTS))
    scale = 100 / Fraction(layer.activation)
    parts = [scale * Fraction(layer.parts[part].absolute) for part in PARTS]
    (total,) = add_up([sum(parts, Fraction(0))], Fraction(1, 100))
    return [f"{value:.2f}" for value in (total, *add_up(parts, Fraction(1, 100)))]


def _lost(part: str, layer: LayerDiagnosis) -> str:
    """The first half of a sentence, on how much a layer loses to a part of its error."""
    percent = in_percent(layer.parts[part], layer)
    return f"layer {layer.path} loses {percent:.1f} % of its mean activation to {part}"


def _advice(part: str, layer: LayerDiagnosis, timesteps: int) -> str:
    """A sentence on what costs a layer most, and on what helps, for a network that is not tuned."""
    rule = layer.rule
    if part == "clipping":
        return _advice_on_clipping(layer, timesteps)
    lost = f"{_lost(part, layer)}: "
    if part == "order":
        if rule.negative_threshold is None:
            return lost + "use preset='snm-zero', whose negative spikes take back what came early"
        if rule.negative_threshold > 0:
            return lost + "use preset='snm-zero', which corrects a count sooner"
        return lost + "use more time steps, in which late drives are evened out, or snm.tune"
    if rule.v_init == 0:
        return lost + "start membranes at half a threshold, with preset='snm-zero' or 'snm-half'"
    return (
        lost + "use snm.tune, more time steps, rules with more spikes a step, or smaller "
        "thresholds, with statistic='mse' or 'percentile'"
    )


def _advice_on_clipping(layer: LayerDiagnosis, timesteps: int) -> str:
    """A sentence on how much a layer clips, and on what helps against it."""
    if layer.muted > layer.clipped / 2:
        return (
            f"layer {layer.path} has {100 * layer.muted:.1f} % of its activations in neurons that "
            "never fired in calibration: calibrate on more images, or use dead='channel'"
        )
    lost = f"layer {layer.path} clips {100 * layer.clipped:.1f} % of its activations: "
    most = layer.rule.count_bounds[1]
    if most < timesteps * layer.rule.max_spikes:
        return lost + f"use a rule with a larger count_max than {most}, or timesteps={most}"
    return lost + "use larger thresholds, with statistic='max' or calibrated on more images"
