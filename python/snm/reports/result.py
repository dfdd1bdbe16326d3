"""The numbers of a report, of each layer and of the whole network."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from snm_kernels import SNMRule

from ..diagnosis.result import Diagnosis
from .energy import Energy
from .typed_json import plain

RATE_BINS = 20
"""How many bins a histogram of rates has between 0 and 1; one more holds rates above 1."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What a layer of neurons, or a max pooling, sends; totals over images and time steps.

    A max pooling's spikes are events: steps at which one of its outputs sends anything.

    >>> layer = LayerReport("1", "neurons", neurons=2, neuron_steps=8, positive=4, negative=2,
    ...     connections=6, synaptic_operations=18, dead=0.0, saturated=0.0, residual=0.25,
    ...     rates=(0,) * 15 + (2,) + (0,) * 5)
    >>> layer.positive_rate, layer.negative_rate
    (0.5, 0.25)
    """

    path: str
    """The layer's path in the ReLU network."""
    kind: Literal["neurons", "max pooling"]
    """Whether it is a layer of neurons or a max pooling."""
    neurons: int
    """How many neurons there are per image; of a max pooling, how many outputs."""
    neuron_steps: int
    """Neurons times images times time steps."""
    positive: int
    """How many positive spikes were sent; a graded spike of size s counts as s."""
    negative: int
    """How many negative spikes were sent."""
    connections: int
    """How many synapses leave all its neurons, per image."""
    synaptic_operations: int
    """Spikes times the synapses that leave the neuron that sent them, over all its neurons."""
    dead: float
    """Share of neurons that sent nothing for any image; NaN of a max pooling, as are the next two
    numbers."""
    saturated: float
    """Share of counts, one per neuron and image, that are the largest there can be."""
    residual: float
    """Mean of abs(v)/θ after the last step, over neurons that are not silent and whose mean drive
    is above 0."""
    rates: tuple[int, ...]
    """Histogram of spikes per step of either sign, one rate per neuron and image: 20 bins of equal
    width from 0 to 1, the last with the 1, and one for rates above."""

    @property
    def positive_rate(self) -> float:
        """Positive spikes per neuron and step."""
        return self.positive / self.neuron_steps

    @property
    def negative_rate(self) -> float:
        """Negative spikes per neuron and step."""
        return self.negative / self.neuron_steps


@dataclass(frozen=True, slots=True)
class IntegerLayerReport:
    """How a layer of a network of integers is computed, and how wide its numbers are.

    >>> IntegerLayerReport("3", "events", operations=0.1, sum_bits=18).computed
    'events'
    """

    path: str
    """The path of the layer with weights."""
    computed: Literal["events", "dense"]
    """Whether each spike's weights are added up, or all spikes and zeros are multiplied."""
    operations: float
    """Synaptic operations, as a share of the multiply-accumulates that a dense layer does in as
    many time steps."""
    sum_bits: int
    """How many bits hold every sum of its weights and its bias at a time step, the sign included,
    whatever the spikes."""
    time_by_events: float = math.nan
    """Seconds spike by spike, as a share of the seconds densely, on calibration images when the
    network was quantized; NaN if it was not timed both ways, or the network is from a file."""


@dataclass(frozen=True, slots=True)
class Macs:
    """Multiply-accumulates per image, each a weight that is not 0 times a value that is there.

    >>> Macs(first=10, steps=0, readout=2, relu=30).snn
    12
    """

    first: int
    """Those before the first neurons: once with encoder="direct", else in all time steps."""
    steps: int
    """Those of layers that read what weighted layers compute without neurons in between, in all
    time steps."""
    readout: int
    """Those behind the last neurons, computed once, on the neurons' mean output."""
    relu: int
    """Those of the whole ReLU network."""

    @property
    def snn(self) -> int:
        """All that the spiking network computes beside its synaptic operations."""
        return self.first + self.steps + self.readout


@dataclass(frozen=True, slots=True)
class Result:
    """The numbers of a :class:`snm.Report`, and what follows from them."""

    timesteps: int
    """How many time steps were simulated, T."""
    images: int
    """How many images were simulated."""
    layers: Mapping[str, LayerReport]
    """What each layer of neurons and each max pooling sends, in order of execution, by path;
    poolings are numbered where their path is another's too."""
    macs: Macs
    """The multiply-accumulates of one image."""
    energy: tuple[Energy, ...]
    """What one image costs under each convention."""
    seconds: float
    """Seconds that the simulation of all images took, counting and reading out included."""
    relu_seconds: float
    """Seconds that the ReLU network took for the same images; NaN without it."""
    peak_bytes: int
    """By how many bytes the simulation raised the peak of the memory in use."""
    device: str
    """What it was computed on: ``"cpu"``, or the name of a GPU."""
    threads: int
    """How many threads torch used on the CPU."""
    dtype: str
    """The dtype of the network's weights, such as ``"float32"``."""
    encoder: str
    """How images become drives: the network's encoder."""
    rule: SNMRule
    """The rule that the first layer's neurons follow."""
    tuned_for: int | None
    """The number of time steps that the network was tuned for; None if it was not."""
    accuracy: tuple[float, ...]
    """Share of right answers after each step; empty without labels."""
    agreement: tuple[float, ...]
    """Share of images with the ReLU network's answer after each step; empty without it."""
    relu_accuracy: float
    """The ReLU network's share of right answers; NaN without it or labels."""
    diagnosis: Diagnosis | None
    """What each layer loses, if that was asked for."""
    version: str
    """The version of this library."""
    integers: Mapping[str, IntegerLayerReport] = field(default_factory=dict)
    """How the layers of a network of integers that spikes reach are computed, by path; empty of
    other networks."""
    membrane_bits: Mapping[str, int] = field(default_factory=dict)
    """How many bits hold every membrane of a layer of integer neurons in T time steps, the sign
    included, whatever the spikes, by path."""
    observed_membrane_bits: Mapping[str, int] = field(default_factory=dict)
    """How many bits hold the membranes that these layers' neurons had for the images, by path."""

    events: Mapping[str, float] = field(default_factory=dict)
    """The layers of a floating point network that are computed spike by spike on the CPU, by path:
    their synaptic operations, as a share of the multiply-accumulates that a dense layer does in as
    many time steps."""

    @property
    def bits(self) -> int:
        """How many bits an activation of the quantised network has: ceil(log2(n + 1)).

        So many tell as many levels apart as counts of spikes from 0 to n do. n is the largest count
        that the rule allows in T time steps: T, or T times as many as a step may send, and no more
        than the rule's bound.
        """
        return self.rule.largest_count(self.timesteps).bit_length()

    @property
    def spikes(self) -> int:
        """How many spikes all layers of neurons sent, of either sign."""
        layers = [layer for layer in self.layers.values() if layer.kind == "neurons"]
        return sum(layer.positive + layer.negative for layer in layers)

    @property
    def synaptic_operations(self) -> int:
        """The synaptic operations of all layers."""
        return sum(layer.synaptic_operations for layer in self.layers.values())

    @property
    def verdict(self) -> str:
        """Whether the spiking network spends less than the quantised network, in one sentence."""
        against = f"the ReLU network quantised to {self.bits} bits"
        wins = [_ratio(energy) for energy in self.energy if energy.ratio < 1]
        losses = [_ratio(energy) for energy in self.energy if energy.ratio >= 1]
        if not losses:
            return f"The spiking network spends less than {against}: {', '.join(wins)}."
        if not wins:
            return f"The spiking network does not spend less than {against}: {', '.join(losses)}."
        return (
            f"The spiking network spends less than {against} by some conventions, "
            f"{', '.join(wins)}, and does not by others, {', '.join(losses)}."
        )

    def to_json(self) -> str:
        """The whole report as JSON; NaN is null, an infinity "inf" or "-inf".

        >>> import json
        >>> import torch
        >>> from torch import nn
        >>> from snm import convert, report
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> found = report(convert(model, torch.rand(32, 4)), torch.rand(8, 4), timesteps=16)
        >>> json.loads(found.to_json())["timesteps"]
        16
        """
        return json.dumps(plain(self), indent=1, ensure_ascii=False, allow_nan=False)


def shares_by_step(result: Result) -> dict[str, tuple[float, ...]]:
    """The shares of images after each step, ``"accuracy"`` and ``"agreement"``, as far as there are
    any."""
    shares = {"accuracy": result.accuracy, "agreement": result.agreement}
    return {name: line for name, line in shares.items() if line}


def _ratio(energy: Energy) -> str:
    """How the spiking network's energy compares with the quantised network's, in words."""
    return f"{energy.ratio:.2g} times as much by {energy.convention}"
