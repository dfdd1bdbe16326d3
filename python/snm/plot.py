"""Draws what a spiking network does, for notebooks and papers; this needs matplotlib.

Each function draws into the axes that it is given, or into those of a new figure, and returns them;
``axes.figure.savefig("picture.pdf")`` writes the picture. pyplot is not used. Nothing is told apart
by colour alone.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .axes import BLACK, BLUE, CURVES, GREEN, GREY, ORANGE, RED, SKY, finish, new_axes, number_steps
from .diagnosis.result import Diagnosis, draw_parts
from .network.recording import LayerRecording, Recording
from .reports import Report
from .reports.membrane import (
    membrane_trace,
    numbers_in_layer,
    spikes_of_image,
    steps_of_sign,
    threshold_of,
)
from .reports.result import shares_by_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def accuracy(
    found: Report | Tensor | Sequence[float], axes: "Axes | None" = None, *, label: str = ""
) -> "Axes":
    """Draws the share of right answers over the number of time steps.

    Curves that are drawn into the same axes one after the other differ in line and marker.

    Args:
        found: a report, of which the accuracy, the agreement with the ReLU network and the accuracy
            of that network are drawn, as far as it has them; or shares from 0 to 1, one per step.
        axes: the axes of matplotlib to draw into; None for a new figure.
        label: the curve's name in the legend, or what comes before the names of a report's curves;
            empty for none.

    Raises:
        ValueError: the report has neither accuracy nor agreement, or there is not one share per
            step.
        ModuleNotFoundError: matplotlib is not installed.

    >>> axes = accuracy([0.25, 0.5, 0.875])
    >>> axes.get_ylabel(), axes.lines[0].get_ydata().tolist()
    ('share of images (%)', [25.0, 50.0, 87.5])
    """
    curves: dict[str, list[float]] = {}
    reference = math.nan
    if isinstance(found, Report):
        names = {"accuracy": "accuracy", "agreement": "agreement with the ReLU network"}
        about = f"{label}: " if label else ""
        for kind, shares in shares_by_step(found).items():
            curves[about + names[kind]] = [100 * share for share in shares]
        reference = found.relu_accuracy
    else:
        given = torch.as_tensor(found, dtype=torch.float64)
        curves = {label: (100 * given).tolist()} if given.dim() == 1 and len(given) else {}
    if not curves:
        raise ValueError(
            "plot: accuracy must have one share for each time step, got none; give a report made "
            "with labels or a model, or a list of shares"
        )
    axes = axes or new_axes(4.8, 3.2)
    for name, curve in curves.items():
        colour, line, marker = CURVES[len(axes.lines) % len(CURVES)]
        steps = range(1, len(curve) + 1)
        axes.plot(
            steps,
            curve,
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=4,
            markevery=sorted({*(2**n - 1 for n in range(len(curve).bit_length())), len(curve) - 1}),
            label=name,
        )
    if not math.isnan(reference):
        axes.axhline(100 * reference, color=GREY, linewidth=1, label="accuracy of the ReLU network")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("time steps")
    axes.set_ylabel("share of images (%)")
    finish(axes, "within")
    return axes


def rates(report: Report, axes: "Axes | None" = None) -> "Axes":
    """Draws how often the neurons of each layer spike, positive spikes to the right.

    Args:
        report: what :func:`snm.report` found.
        axes: the axes of matplotlib to draw into; None for a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    >>> from torch import nn
    >>> from snm import convert, report
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> rates(report(convert(model, images), images, timesteps=8)).get_xlabel()
    'spikes per neuron and time step'
    """
    layers = list(report.layers.values())
    axes = axes or new_axes(4.8, 1.1 + 0.24 * len(layers))
    places = range(len(layers))
    positive = [layer.positive_rate for layer in layers]
    negative = [-layer.negative_rate for layer in layers]
    for sizes, name, colour, hatch in (
        (positive, "positive spikes", SKY, ""),
        (negative, "negative spikes", ORANGE, "////"),
    ):
        axes.barh(
            places,
            sizes,
            height=0.7,
            color=colour,
            hatch=hatch,
            edgecolor=BLACK,
            linewidth=0.5,
            label=name,
        )
    axes.axvline(0, color=BLACK, linewidth=0.8)
    names = [
        layer.path + (" (max pooling)" if layer.kind == "max pooling" else "") for layer in layers
    ]
    axes.set_yticks(places, names)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda rate, _: f"{abs(rate):g}")
    axes.set_xlabel("spikes per neuron and time step")
    finish(axes, "above", columns=2)
    return axes


def energy(report: Report, axes: "Axes | None" = None) -> "Axes":
    """Draws what an image costs under each convention, beside the ReLU network.

    Args:
        report: what :func:`snm.report` found.
        axes: the axes of matplotlib to draw into; None for a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    >>> from torch import nn
    >>> from snm import convert, report
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> energy(report(convert(model, images), images, timesteps=8)).get_xlabel()
    'energy per image'
    """
    costs = report.energy
    axes = axes or new_axes(4.8, 1.5 + 0.5 * len(costs))
    places = range(len(costs))
    dots = (
        ("spiking network", [cost.snn for cost in costs], BLUE, "o"),
        (f"ReLU network, {report.bits} bits", [cost.quantised for cost in costs], RED, "s"),
        ("ReLU network, 32 bits", [cost.ann for cost in costs], BLACK, "^"),
    )
    for place, cost in zip(places, costs, strict=True):
        ends = sorted((cost.snn, cost.quantised, cost.ann))
        axes.plot([ends[0], ends[-1]], [place, place], color=GREY, linewidth=1, zorder=1)
    for name, values, colour, marker in dots:
        # Hollow, so that one does not hide another.
        axes.scatter(
            values,
            places,
            facecolor="none",
            edgecolor=colour,
            linewidth=1.5,
            marker=marker,
            s=42,
            label=name,
            zorder=2,
        )
    axes.set_yticks(places, [cost.convention.replace(", ", ",\n") for cost in costs])
    axes.set_ylim(len(costs) - 0.5, -0.5)
    axes.set_xscale("log")
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(unit="J"))
    axes.set_xlabel("energy per image")
    finish(axes, "above")
    return axes


def raster(
    recording: Recording, path: str, axes: "Axes | None" = None, *, image: int = 0
) -> "Axes":
    """Draws when each recorded neuron of a layer sends spikes; graded spikes look like all others.

    Args:
        recording: a recording that has spikes.
        path: the path of one of its layers.
        axes: the axes of matplotlib to draw into; None for a new figure.
        image: the number of the image in the batch.

    Raises:
        KeyError, AttributeError, RuntimeError: no such spikes were recorded.
        IndexError: there is no such image.
        ModuleNotFoundError: matplotlib is not installed.

    >>> from torch import nn
    >>> from snm import convert
    >>> net = convert(nn.Sequential(nn.Linear(4, 8), nn.ReLU()).eval(), torch.rand(32, 4))
    >>> with net.record() as recording:
    ...     _ = net(torch.rand(2, 4), timesteps=5)
    >>> axes = raster(recording, "1", image=1)
    >>> axes.get_xlabel(), axes.get_ylabel()
    ('time step', 'neuron of 1')
    """
    layer = recording[path]
    _check_image(layer, image)
    spikes = spikes_of_image(layer, image).cpu()
    steps, neurons = spikes.shape
    axes = axes or new_axes(min(9.6, max(4.8, 1.2 + 0.05 * steps)), min(6.4, 1.1 + 0.1 * neurons))
    height = 72 * axes.get_window_extent().height / axes.figure.dpi / neurons
    size = min(8.0, max(1.0, 0.7 * height))
    signs = ((spikes > 0, "positive spike", BLUE, "|"), (spikes < 0, "negative spike", RED, "x"))
    for sent, name, colour, marker in signs:
        at, which = sent.nonzero(as_tuple=True)
        axes.plot(
            (at + 1).tolist(),
            which.tolist(),
            color=colour,
            linestyle="none",
            marker=marker,
            markersize=size,
            markeredgewidth=1.2,
            label=name,
            rasterized=len(at) > 5000,
        )
    axes.set_ylim(neurons - 0.5, -0.5)
    number_steps(axes, steps)
    if layer.neurons is not None:
        numbers = numbers_in_layer(layer) if neurons <= 32 else []
        axes.set_yticks(range(len(numbers)), list(map(str, numbers)))
    axes.set_ylabel(f"neuron of {path}")
    finish(axes, "above", columns=2)
    return axes


def trace(
    recording: Recording, path: str, neuron: int, axes: "Axes | None" = None, *, image: int = 0
) -> "Axes":
    """Draws a neuron's membrane over time, its threshold and its spikes.

    Each step has two points, one above the other if a spike is sent: the membrane before the spike,
    which is where the spike is marked, and the membrane after it.

    Args:
        recording: a recording that has spikes and membranes.
        path: the path of one of its layers.
        neuron: the neuron, as a flat index into those of one image; it must have been recorded.
        axes: the axes of matplotlib to draw into; None for a new figure.
        image: the number of the image in the batch.

    Raises:
        KeyError, AttributeError, RuntimeError: no such membrane was recorded.
        ValueError: the neuron was not recorded.
        IndexError: there is no such image.
        ModuleNotFoundError: matplotlib is not installed.

    >>> from torch import nn
    >>> from snm import convert
    >>> net = convert(nn.Sequential(nn.Linear(4, 8), nn.ReLU()).eval(), torch.rand(32, 4))
    >>> with net.record(neurons=[3, 6]) as recording:
    ...     _ = net(torch.rand(2, 4), timesteps=5)
    >>> trace(recording, "1", 6).get_ylabel()
    'membrane (units of the drive)'
    """
    layer = recording[path]
    _check_image(layer, image)
    place = _place_of(layer, neuron)
    drawn = membrane_trace(layer, place, image)
    threshold, negative = threshold_of(layer, place), layer.rule.negative_threshold
    steps = len(drawn.spikes)
    axes = axes or new_axes(min(9.6, max(4.8, 1.2 + 0.05 * steps)), 3.2)
    levels = [(threshold, "--", "threshold θ")]
    if negative is not None:
        levels.append((-negative * threshold, ":", "negative threshold"))
    for level, line, name in levels if math.isfinite(threshold) else ():
        axes.axhline(level, color=BLACK, linestyle=line, linewidth=1, label=name)
    axes.plot(
        *zip(*drawn.points, strict=True),
        color=BLUE,
        linewidth=1,
        label=f"neuron {neuron} of {path}",
    )
    signs = ((1, "positive spike", GREEN, "^"), (-1, "negative spike", RED, "v"))
    for sign, name, colour, marker in signs:
        at = steps_of_sign(drawn.spikes, sign)
        if at:
            axes.plot(
                at,
                [drawn.before[step - 1] for step in at],
                color=colour,
                linestyle="none",
                marker=marker,
                markersize=5,
                label=name,
            )
    number_steps(axes, steps)
    axes.set_ylabel("membrane (units of the drive)")
    finish(axes, "above", columns=2)
    return axes


def diagnosis(found: Diagnosis, axes: "Axes | None" = None) -> "Axes":
    """Draws the parts of each layer's error as stacked bars.

    Args:
        found: what :func:`snm.diagnose` found.
        axes: the axes of matplotlib to draw into; None for a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    >>> from torch import nn
    >>> from snm import convert, diagnose
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> axes = diagnosis(diagnose(convert(model, images), model, images, timesteps=8))
    >>> axes.get_ylabel()
    'mean |error|, percent of the mean activation'
    """
    return draw_parts(found, axes)


def _check_image(layer: LayerRecording, image: int) -> None:
    """Refuses the number of an image that the recording does not have."""
    if not 0 <= image < layer.images:
        raise IndexError(f"plot: image must be 0 to {layer.images - 1}, got {image}")


def _place_of(layer: LayerRecording, neuron: int) -> int:
    """The place of a neuron among the recorded ones; refuses a neuron that was not recorded."""
    recorded = numbers_in_layer(layer)
    if neuron not in recorded:
        some = f"one of those recorded, {', '.join(map(str, recorded[:20]))}"
        some += "..." if len(recorded) > 20 else ""
        known = f"0 to {len(recorded) - 1}" if layer.neurons is None else some
        raise ValueError(f"plot: neuron of {layer.path} must be {known}, got {neuron}")
    return recorded.index(neuron)
