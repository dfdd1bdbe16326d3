"""Gathers what layers of neurons do while a simulation runs, and takes their errors apart."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor

from snm_kernels import SNMState

from ..network.observer import Ask, Launch, Observer
from ..network.program import Fire
from ..network.relu import rectified
from ..network.spiking import SpikingNetwork
from ..nn import SNMNeuron
from .result import PARTS, LayerDiagnosis, Part, add_up

_BITS = 32
"""To how many bits below the largest a layer's values in a batch are rounded, so that all sums are
exact."""


class Watch(Observer):
    """An observer that gathers what all layers of neurons do, batch by batch.

    Args:
        net: the network.
        timesteps: T.
    """

    def __init__(self, net: SpikingNetwork, timesteps: int) -> None:
        self._layers = {
            fire.path: _LayerWatch(fire, net.layers[fire.path], timesteps)
            for fire in net.program.neurons
        }

    def asks(self, fire: Fire) -> tuple[Ask, ...]:  # noqa: ARG002
        """Asks for the drive of every layer, and for its spikes."""
        return ("drive", "spikes")

    def see(self, launch: Launch) -> None:
        """Gathers what a layer did over a chunk of time steps."""
        self._layers[launch.fire.path].see(launch)

    def compare(self, activations: dict[str, Tensor]) -> None:
        """Compares a batch that has been simulated with the ReLU network's activations.

        Args:
            activations: those of the same images, ``[B, ...]``, by the path of the layer; each is
                taken out once it is compared, to make room.
        """
        for path, layer in self._layers.items():
            layer.compare(activations.pop(path))

    def layers(self) -> dict[str, LayerDiagnosis]:
        """What each layer loses over all batches, by the path of the layer."""
        return {path: layer.result() for path, layer in self._layers.items()}


class _LayerWatch:
    """Gathers what one layer of neurons does.

    Args:
        fire: the layer's place in the program.
        neuron: the layer.
        timesteps: T.
    """

    def __init__(self, fire: Fire, neuron: SNMNeuron, timesteps: int) -> None:
        self.fire = fire
        self.neuron = neuron
        self.timesteps = timesteps
        self.images = 0
        self.neurons = 0
        self.spikes = self.negative = self.corrected = 0
        self.saturated = self.driven = self.clipped = self.muted = self.driven_silent = 0
        self.residual, self.silent = 0.0, 0
        self.sent_ever: Tensor | None = None
        self.activation = Fraction(0)
        # For each part and the whole error, the sums of which the fields of a Part are the means.
        self.sums = {name: [Fraction(0)] * 3 for name in (*PARTS, "error")}
        self._start()

    def _start(self) -> None:
        """Forgets what belongs to one batch only."""
        self.drive: Tensor | float = 0.0
        self.state: SNMState | None = None
        self.taken_back: Tensor | None = None
        self.sent: Tensor | None = None

    def see(self, launch: Launch) -> None:
        """Adds up the drive and the spikes of a chunk of time steps."""
        drive, residual, spikes = launch.drive, launch.residual, launch.spikes
        assert drive is not None
        assert spikes is not None
        for t in range(drive.shape[0]):
            current = drive[t].float()
            if residual is not None:
                current = current + residual[t].float()
            # Steps are added one by one, so that the sum does not depend on the chunks.
            self.drive = self.drive + current.double()
        self.state = launch.after
        negative = spikes < 0
        self.negative += int(negative.count_nonzero())
        self.spikes += int(spikes.abs().sum())
        taken_back, sent = negative.any(0), (spikes != 0).any(0)
        self.taken_back = taken_back if self.taken_back is None else self.taken_back | taken_back
        self.sent = sent if self.sent is None else self.sent | sent

    def compare(self, activation: Tensor) -> None:
        """Compares a batch that has been simulated with the ReLU network's activations."""
        assert isinstance(self.drive, Tensor)
        assert self.state is not None
        mean = self.drive / self.timesteps
        unbiased = rectified(self.fire, mean)
        positive = unbiased
        if self.neuron.bias is not None:
            positive = rectified(self.fire, mean + self.neuron.bias)
        most = self._most(mean)
        constant = mean.float().expand(self.timesteps, *mean.shape)
        quantised = self.neuron.forward(constant, emit="none").state
        stages = [
            activation.double(),
            unbiased,
            positive,
            torch.minimum(positive, self._rate(most)),
            self._rate(quantised.m),
            self._rate(self.state.m),
        ]
        self._add(stages)
        self._count(unbiased, positive, most)
        self._start()

    def _most(self, like: Tensor) -> Tensor:
        """The largest spike count that each neuron can have, int64, in the shape of ``like``."""
        most = self.neuron.rule.largest_count(self.timesteps)
        return torch.full_like(like, most, dtype=torch.int64)

    def _rate(self, count: Tensor) -> Tensor:
        """The rate θ·m/T that a spike count stands for, float64; 0 for silent neurons."""
        threshold = self.neuron.threshold.double()
        return torch.where(threshold.isinf(), 0.0, threshold) * count / self.timesteps

    def _add(self, stages: Sequence[Tensor]) -> None:
        """Adds up the differences between each stage and the next."""
        largest = max(stage.abs().amax().item() for stage in stages)
        unit = Fraction(2) ** (math.frexp(largest)[1] - _BITS)
        parts, error = parts_of(stages, float(unit))
        for name, part in zip((*PARTS, "error"), (*parts, error), strict=True):
            sums = self.sums[name]
            sums[0] += int(part.sum()) * unit
            sums[1] += int((part * error.sign()).sum()) * unit
            sums[2] += int(part.abs().sum()) * unit
        self.activation += int(_on_grid(stages[0], float(unit)).sum()) * unit

    def _count(self, unbiased: Tensor, positive: Tensor, most: Tensor) -> None:
        """Counts what is dead, saturated, clipped, silent or corrected in a batch.

        Args:
            unbiased: what the ReLU makes of the mean drive.
            positive: what the ReLU makes of the mean drive and the bias.
            most: the largest spike count that each neuron can have.
        """
        assert self.state is not None
        assert self.sent is not None
        assert self.taken_back is not None
        self.images += positive.shape[0]
        self.neurons = positive[0].numel()
        silent = self.neuron.threshold.isinf().expand(positive.shape)
        ever = self.sent.any(0)
        self.sent_ever = ever if self.sent_ever is None else self.sent_ever | ever
        self.silent = int(silent[0].count_nonzero())
        self.saturated += int(((self.state.m == most) & ~silent).count_nonzero())
        self.driven += int((positive > 0).count_nonzero())
        self.clipped += int((positive > self._rate(most)).count_nonzero())
        self.muted += int(((unbiased > 0) & silent).count_nonzero())
        self.driven_silent += int(((positive > 0) & silent).count_nonzero())
        self.corrected += int(self.taken_back.count_nonzero())
        counting = (positive > 0) & ~silent
        residual = (self.state.v / self.neuron.threshold).abs().double()
        self.residual += torch.where(counting, residual, 0.0).sum().item()

    def result(self) -> LayerDiagnosis:
        """What the layer loses over all batches."""
        assert self.sent_ever is not None
        counts = self.neurons * self.images
        means = _means(self.sums, counts)
        return LayerDiagnosis(
            path=self.fire.path,
            neurons=self.neurons,
            rule=self.neuron.rule,
            activation=float(self.activation / counts),
            error=means["error"],
            parts={name: means[name] for name in PARTS},
            silent=self.silent / self.neurons,
            dead=int((~self.sent_ever).count_nonzero()) / self.neurons,
            saturated=self.saturated / counts,
            clipped=self.clipped / max(1, self.driven),
            muted=self.muted / max(1, self.driven),
            residual=self.residual / max(1, self.driven - self.driven_silent),
            negative=self.negative / max(1, self.spikes),
            corrected=self.corrected / counts,
        )


def parts_of(stages: Sequence[Tensor], unit: float) -> tuple[list[Tensor], Tensor]:
    """The differences between each stage and the next, and between the first and the last.

    Args:
        stages: the stages in order, float64.
        unit: a power of two, to whose multiples stages are rounded.

    Returns:
        The differences in units, int64, so that they add up exactly.

    >>> parts, whole = parts_of([torch.tensor([x]) for x in (0.5, 0.75, 0.25)], 0.25)
    >>> parts, whole
    ([tensor([1]), tensor([-2])], tensor([-1]))
    """
    rounded = [_on_grid(stage, unit) for stage in stages]
    parts = [after - before for before, after in pairwise(rounded)]
    return parts, rounded[-1] - rounded[0]


def _on_grid(value: Tensor, unit: float) -> Tensor:
    """Values as whole numbers of units, int64."""
    return (value / unit).round().to(torch.int64)


def _means(sums: dict[str, list[Fraction]], count: int) -> dict[str, Part]:
    """The means of the parts and of the error, rounded such that the parts add up to the error."""
    largest = max(abs(value) for kinds in sums.values() for value in kinds) / count
    grid = Fraction(2) ** (math.frexp(largest)[1] - _BITS)
    columns = []
    for kind in range(2):
        parts = add_up((sums[name][kind] / count for name in PARTS), grid)
        (error,) = add_up([sums["error"][kind] / count], grid)
        columns.append(dict(zip((*PARTS, "error"), (*parts, error), strict=True)))
    sizes = {name: float(kinds[2] / count) for name, kinds in sums.items()}
    return {name: Part(columns[0][name], columns[1][name], sizes[name]) for name in sums}
