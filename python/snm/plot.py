"""Pictures of what a spiking network does, for notebooks and papers; they need matplotlib.

Each function draws into the axes it is given, or into those of a new figure, and returns them;
``axes.figure.savefig("picture.pdf")`` writes them. pyplot is not used. Nothing is told by colour
alone.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .diagnosis.result import PARTS, Diagnosis
from .network.recording import LayerRecording, Recording
from .optional import check_installed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .reports import Report

# Colours of Okabe and Ito.
_BLACK, _GREY, _BLUE, _ORANGE = "#000000", "#999999", "#0072B2", "#E69F00"
_GREEN, _RED, _SKY = "#009E73", "#D55E00", "#56B4E9"

_PARTS = {
    "inherited": (_GREY, ""),
    "correction": (_GREEN, "xxx"),
    "clipping": (_RED, "///"),
    "quantisation": (_SKY, "..."),
    "order": (_ORANGE, "\\\\\\"),
}
_PLACES: dict[str, dict[str, Any]] = {
    "within": {"loc": "best"},
    "above": {"loc": "lower left", "bbox_to_anchor": (0, 1)},
    "beside": {"loc": "upper left", "bbox_to_anchor": (1, 1)},
}
"""Where a legend may be, in the axes' own units."""
_CURVES = ((_BLUE, "-", "o"), (_RED, "--", "s"), (_GREEN, "-.", "^"), (_BLACK, ":", "D"))


def accuracy(
    found: "Report | Tensor | Sequence[float]", axes: "Axes | None" = None, *, label: str = ""
) -> "Axes":
    """Draws the share of right answers over the number of time steps.

    Curves that are drawn into the same axes one after the other differ in line and marker.

    Args:
        found: a report, of which the accuracy is drawn, the agreement with the ReLU network and
            the latter's accuracy, as far as it has them; or shares from 0 to 1, one per step.
        axes: of matplotlib; None for a new figure.
        label: what the legend says of a curve; empty for what it is.

    Raises:
        ValueError: the report has neither, or there is not one share per step.
        ModuleNotFoundError: there is no matplotlib.

    >>> axes = accuracy([0.25, 0.5, 0.875])
    >>> axes.get_ylabel(), axes.lines[0].get_ydata().tolist()
    ('share of images (%)', [25.0, 50.0, 87.5])
    """
    curves: dict[str, Tensor] = {}
    reference = math.nan
    if isinstance(found, Tensor | Sequence):
        curves[label] = torch.as_tensor(found, dtype=torch.float64).cpu()
    else:
        about = f"{label}: " if label else ""
        if found.accuracy:
            curves[about + "accuracy"] = torch.tensor(found.accuracy, dtype=torch.float64)
            reference = found.relu_accuracy
        if found.agreement:
            agreement = torch.tensor(found.agreement, dtype=torch.float64)
            curves[about + "agreement with the ReLU network"] = agreement
    if not curves or any(curve.dim() != 1 or len(curve) == 0 for curve in curves.values()):
        raise ValueError(
            "plot: accuracy must have one share for each time step, got none; give a report made "
            "with labels or a model, or a list of shares"
        )
    axes = axes or _new_axes(4.8, 3.2)
    for name, curve in curves.items():
        colour, line, marker = _CURVES[len(axes.lines) % len(_CURVES)]
        steps = range(1, len(curve) + 1)
        axes.plot(
            steps,
            (100 * curve).tolist(),
            color=colour,
            linestyle=line,
            marker=marker,
            markersize=4,
            markevery=sorted({*(2**n - 1 for n in range(len(curve).bit_length())), len(curve) - 1}),
            label=name,
        )
    if not math.isnan(reference):
        axes.axhline(
            100 * reference, color=_GREY, linewidth=1, label="accuracy of the ReLU network"
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("time steps")
    axes.set_ylabel("share of images (%)")
    _finish(axes, "within")
    return axes


def rates(report: "Report", axes: "Axes | None" = None) -> "Axes":
    """Draws how often the neurons of each layer spike, positive spikes to the right.

    Args:
        report: of which layers.
        axes: of matplotlib; None for a new figure.

    Raises:
        ModuleNotFoundError: there is no matplotlib.

    >>> from torch import nn
    >>> from snm import convert, report
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> rates(report(convert(model, images), images, timesteps=8)).get_xlabel()
    'spikes per neuron and time step'
    """
    layers = list(report.layers.values())
    axes = axes or _new_axes(4.8, 1.1 + 0.24 * len(layers))
    places = range(len(layers))
    positive = [layer.positive_rate for layer in layers]
    negative = [-layer.negative_rate for layer in layers]
    for sizes, name, colour, hatch in (
        (positive, "positive spikes", _SKY, ""),
        (negative, "negative spikes", _ORANGE, "////"),
    ):
        axes.barh(
            places,
            sizes,
            height=0.7,
            color=colour,
            hatch=hatch,
            edgecolor=_BLACK,
            linewidth=0.5,
            label=name,
        )
    axes.axvline(0, color=_BLACK, linewidth=0.8)
    names = [
        layer.path + (" (max pooling)" if layer.kind == "max pooling" else "") for layer in layers
    ]
    axes.set_yticks(places, names)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda rate, _: f"{abs(rate):g}")
    axes.set_xlabel("spikes per neuron and time step")
    _finish(axes, "above", columns=2)
    return axes


def energy(report: "Report", axes: "Axes | None" = None) -> "Axes":
    """Draws what an image costs under each convention, beside the ReLU network.

    Args:
        report: of which network.
        axes: of matplotlib; None for a new figure.

    Raises:
        ModuleNotFoundError: there is no matplotlib.

    >>> from torch import nn
    >>> from snm import convert, report
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> energy(report(convert(model, images), images, timesteps=8)).get_xlabel()
    'energy per image'
    """
    costs = report.energy
    axes = axes or _new_axes(4.8, 1.5 + 0.5 * len(costs))
    places = range(len(costs))
    dots = (
        ("spiking network", [cost.snn for cost in costs], _BLUE, "o"),
        (f"ReLU network, {report.bits} bits", [cost.quantised for cost in costs], _RED, "s"),
        ("ReLU network, 32 bits", [cost.ann for cost in costs], _BLACK, "^"),
    )
    for place, cost in zip(places, costs, strict=True):
        ends = sorted((cost.snn, cost.quantised, cost.ann))
        axes.plot([ends[0], ends[-1]], [place, place], color=_GREY, linewidth=1, zorder=1)
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
    _finish(axes, "above")
    return axes


def raster(
    recording: Recording, path: str, axes: "Axes | None" = None, *, image: int = 0
) -> "Axes":
    """Draws when each recorded neuron of a layer sends spikes, graded ones as others.

    Args:
        recording: with spikes.
        path: of the layer.
        axes: of matplotlib; None for a new figure.
        image: which of the batch.

    Raises:
        KeyError, AttributeError, RuntimeError: there are no such spikes.
        IndexError: there is no such image.
        ModuleNotFoundError: there is no matplotlib.

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
    spikes = layer.spikes[:, image].flatten(1).cpu()
    steps, neurons = spikes.shape
    axes = axes or _new_axes(min(9.6, max(4.8, 1.2 + 0.05 * steps)), min(6.4, 1.1 + 0.1 * neurons))
    height = 72 * axes.get_window_extent().height / axes.figure.dpi / neurons
    size = min(8.0, max(1.0, 0.7 * height))
    signs = ((spikes > 0, "positive spike", _BLUE, "|"), (spikes < 0, "negative spike", _RED, "x"))
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
    axes.set_xlim(0.5, steps + 0.5)
    axes.set_ylim(neurons - 0.5, -0.5)
    _whole_steps(axes)
    chosen = layer.neurons
    if chosen is not None and neurons <= 32:
        axes.set_yticks(range(neurons), [str(index) for index in chosen.tolist()])
    elif chosen is not None:
        axes.set_yticks([])
    axes.set_ylabel(f"neuron of {path}")
    _finish(axes, "above", columns=2)
    return axes


def trace(
    recording: Recording, path: str, neuron: int, axes: "Axes | None" = None, *, image: int = 0
) -> "Axes":
    """Draws a neuron's membrane over time, its threshold and its spikes.

    Each step has two points, one above the other where a spike is sent: the membrane before the
    spike, which the spike's mark is at, and after it.

    Args:
        recording: with spikes and membrane.
        path: of the layer.
        neuron: flat index into the neurons of one image; it must have been recorded.
        axes: of matplotlib; None for a new figure.
        image: which of the batch.

    Raises:
        KeyError, AttributeError, RuntimeError: there is no such membrane.
        ValueError: the neuron was not recorded.
        IndexError: there is no such image.
        ModuleNotFoundError: there is no matplotlib.

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
    membrane = layer.membrane[:, image].flatten(1)[:, place].double().cpu()
    spikes = layer.spikes[:, image].flatten(1)[:, place].cpu()
    threshold = float(layer.threshold.flatten()[place])
    steps = torch.arange(1, len(membrane) + 1)
    axes = axes or _new_axes(min(9.6, max(4.8, 1.2 + 0.05 * len(steps))), 3.2)
    if math.isfinite(threshold):
        axes.axhline(threshold, color=_BLACK, linestyle="--", linewidth=1, label="threshold θ")
        if layer.rule.negative_threshold is not None:
            lower = -layer.rule.negative_threshold * threshold
            axes.axhline(
                lower, color=_BLACK, linestyle=":", linewidth=1, label="negative threshold"
            )
    sent = spikes * threshold if math.isfinite(threshold) else torch.zeros_like(membrane)
    before = membrane + sent
    axes.plot(
        steps.repeat_interleave(2).tolist(),
        torch.stack([before, membrane], 1).flatten().tolist(),
        color=_BLUE,
        linewidth=1,
        label=f"neuron {neuron} of {path}",
    )
    signs = ((1, "positive spike", _GREEN, "^"), (-1, "negative spike", _RED, "v"))
    for sign, name, colour, marker in signs:
        at = spikes.sign() == sign
        if bool(at.any()):
            axes.plot(
                steps[at].tolist(),
                before[at].tolist(),
                color=colour,
                linestyle="none",
                marker=marker,
                markersize=5,
                label=name,
            )
    axes.set_xlim(0.5, len(steps) + 0.5)
    _whole_steps(axes)
    axes.set_ylabel("membrane (units of the drive)")
    _finish(axes, "above", columns=2)
    return axes


def diagnosis(found: Diagnosis, axes: "Axes | None" = None) -> "Axes":
    """Draws the parts of each layer's error as stacked bars.

    Args:
        found: whose layers.
        axes: of matplotlib; None for a new figure.

    Raises:
        ModuleNotFoundError: there is no matplotlib.

    >>> from torch import nn
    >>> from snm import convert, diagnose
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> axes = diagnosis(diagnose(convert(model, images), model, images, timesteps=8))
    >>> axes.get_ylabel()
    'mean |error|, percent of the mean activation'
    """
    layers = [layer for layer in found.layers.values() if layer.activation > 0]
    axes = axes or _new_axes(max(5.6, 2.4 + 0.7 * len(layers)), 4.4)
    above, below = [0.0] * len(layers), [0.0] * len(layers)
    for part in PARTS:
        colour, hatch = _PARTS[part]
        heights = [100 * layer.parts[part].absolute / layer.activation for layer in layers]
        bottoms = [
            high if height >= 0 else low
            for height, high, low in zip(heights, above, below, strict=True)
        ]
        axes.bar(
            range(len(layers)),
            heights,
            bottom=bottoms,
            color=colour,
            hatch=hatch,
            edgecolor=_BLACK,
            linewidth=0.5,
            label=part,
        )
        above = [a + max(0.0, h) for a, h in zip(above, heights, strict=True)]
        below = [b + min(0.0, h) for b, h in zip(below, heights, strict=True)]
    axes.axhline(0, color=_BLACK, linewidth=0.8)
    axes.set_xticks(range(len(layers)), [layer.path for layer in layers], rotation=30)
    axes.set_ylabel("mean |error|, percent of the mean activation")
    axes.set_title(f"What is lost in {found.timesteps} time steps", loc="left", fontsize=11)
    _finish(axes, "beside")
    return axes


def _new_axes(width: float, height: float) -> "Axes":
    """Those of a new figure of so many inches."""
    check_installed("plot", "matplotlib", extra="demo")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=160, layout="constrained").subplots()


def _whole_steps(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("time step")


def _finish(axes: "Axes", place: str, columns: int = 1) -> None:
    """Takes away what is not needed, and lays the legend where it hides nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        where = _PLACES[place]
        axes.legend(**where, ncols=columns, frameon=False, fontsize="small", borderaxespad=0.3)


def _check_image(layer: LayerRecording, image: int) -> None:
    if not 0 <= image < layer.images:
        raise IndexError(f"plot: image must be 0 to {layer.images - 1}, got {image}")


def _place_of(layer: LayerRecording, neuron: int) -> int:
    """Where a neuron is among those recorded."""
    count = layer.shape.numel()
    if layer.neurons is None:
        if not 0 <= neuron < count:
            raise ValueError(f"plot: neuron of {layer.path} must be 0 to {count - 1}, got {neuron}")
        return neuron
    recorded = layer.neurons.tolist()
    if neuron not in recorded:
        raise ValueError(
            f"plot: neuron of {layer.path} must be one of those recorded, "
            f"{', '.join(map(str, recorded[:20]))}{'...' if len(recorded) > 20 else ''}, "
            f"got {neuron}"
        )
    return recorded.index(neuron)
