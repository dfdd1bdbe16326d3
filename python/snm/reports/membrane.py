"""One image's spikes, and one neuron's membrane, of a recording, as figures draw them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..network.recording import LayerRecording
from ..nn.integer import SILENT


class MembraneTrace(NamedTuple):
    """A neuron's membrane and spikes at every time step.

    >>> trace = MembraneTrace(before=[0.5, 1.25], after=[0.5, 0.25], spikes=[0, 1])
    >>> trace.points
    [(1, 0.5), (1, 0.5), (2, 1.25), (2, 0.25)]
    """

    before: list[float]
    """The membrane before a spike is taken from it."""
    after: list[float]
    """The membrane at the end of the step."""
    spikes: list[int]
    """What the neuron sends."""

    @property
    def points(self) -> list[tuple[int, float]]:
        """The line to draw: two points for each step, one above the other where a spike is sent."""
        pairs = enumerate(zip(self.before, self.after, strict=True), 1)
        return [(step, height) for step, pair in pairs for height in pair]


def membrane_trace(
    layer: LayerRecording, place: int, image: int = 0, *, in_thresholds: bool = False
) -> MembraneTrace:
    """A neuron's membrane over time.

    Args:
        layer: with spikes and membrane.
        place: of the neuron among those recorded.
        image: which of the batch.
        in_thresholds: in units of the neuron's threshold instead of the drive's.
    """
    threshold = threshold_of(layer, place)
    unit = threshold if in_thresholds else 1.0
    # A neuron whose threshold is infinite sends nothing.
    size = threshold / unit if math.isfinite(threshold) else 0.0
    after = (layer.membrane[:, image].flatten(1)[:, place].double() / unit).tolist()
    spikes = spikes_of_image(layer, image)[:, place].tolist()
    before = [v + spike * size for v, spike in zip(after, spikes, strict=True)]
    return MembraneTrace(before, after, spikes)


def threshold_of(layer: LayerRecording, place: int) -> float:
    """The threshold of a recorded neuron, +inf of a silent one."""
    threshold = layer.threshold.flatten()[place].item()
    return math.inf if threshold == SILENT else float(threshold)


def spikes_of_image(layer: LayerRecording, image: int = 0) -> Tensor:
    """What the recorded neurons send for one image, ``[T, n]``."""
    return layer.spikes[:, image].flatten(1)


def steps_of_sign(spikes: Sequence[int], sign: int) -> list[int]:
    """The time steps, counted from 1, at which spikes of a sign are sent.

    >>> steps_of_sign([1, 0, -1, 2], 1)
    [1, 4]
    """
    return [step for step, spike in enumerate(spikes, 1) if spike * sign > 0]


def numbers_in_layer(layer: LayerRecording) -> list[int]:
    """The numbers that the recorded neurons have in their layer, in the order of recording."""
    if layer.neurons is None:
        return list(range(layer.shape.numel()))
    numbers: list[int] = layer.neurons.tolist()
    return numbers
