"""Adds up what layers of neurons and max poolings sent, batch by batch."""

import math

import torch
from torch import Tensor

from snm_kernels import SNMState

from ...nn import SNMNeuron
from ..result import RATE_BINS, LayerReport
from .synapses import Synapses

PART = 2**17
"""How many neurons are added up at once on the CPU."""


class SenderTally:
    """Adds up what a max pooling sent; the sums stay on the device until the end.

    Args:
        path: its name in the report.
        timesteps: T.
        most: the most spikes that it may send in one step.
    """

    kind = "max pooling"
    """What it is in the report."""

    def __init__(self, path: str, timesteps: int, most: int = 1) -> None:
        self.path = path
        self.timesteps = timesteps
        self.most = most
        self.images = 0
        self._negative: Tensor | int = 0
        self._sent: Tensor | int = 0
        self._counts: Tensor | int = 0

    def add(self, sent: Tensor, negative: Tensor) -> None:
        """Adds what was sent for a batch of images.

        Args:
            sent: how many spikes of either sign, int32 ``[B, ...]``.
            negative: how many of these are negative, int32 ``[B, ...]``.
        """
        self.images += sent.shape[0]
        # int32 holds the sums over the images of one batch, and is faster.
        self._negative = self._negative + negative.sum(0, dtype=torch.int32).sum()
        self._sent = self._sent + sent.sum(0, dtype=torch.int32).to(torch.int64)
        # How often each count occurred; the sum of all counts follows from that.
        lengths = self.timesteps * self.most + 1
        self._counts = self._counts + sent.flatten().bincount(minlength=lengths)

    @property
    def sent(self) -> Tensor:
        """How many spikes each neuron sent over all images, int64."""
        assert isinstance(self._sent, Tensor)
        return self._sent

    def operations(self, synapses: Synapses) -> int:
        """How many synaptic operations its spikes cause over some of the synapses that leave it."""
        return exact_sum(self.sent * synapses.fan_out)

    def result(self, connections: int, operations: int) -> LayerReport:
        """What the report says of it.

        Args:
            connections: how many synapses leave it.
            operations: how many synaptic operations its spikes cause over these.
        """
        assert isinstance(self._counts, Tensor)
        assert isinstance(self._negative, Tensor)
        counts = self._counts.tolist()
        neurons, negative = self.sent.numel(), int(self._negative)
        dead, saturated, residual = self._shares()
        return LayerReport(
            path=self.path,
            kind="neurons" if isinstance(self, NeuronTally) else "max pooling",
            neurons=neurons,
            neuron_steps=neurons * self.images * self.timesteps,
            positive=sum(sent * times for sent, times in enumerate(counts)) - negative,
            negative=negative,
            connections=connections,
            synaptic_operations=operations,
            dead=dead,
            saturated=saturated,
            residual=residual,
            rates=rates_of(counts, self.timesteps),
        )

    def _shares(self) -> tuple[float, float, float]:
        """The share of dead neurons, that of saturated counts, and the mean residual membrane in
        thresholds; NaN for a max pooling."""
        return math.nan, math.nan, math.nan


class NeuronTally(SenderTally):
    """Adds up what a layer of neurons sent, and the state in which its neurons ended.

    Args:
        path: its name in the report.
        timesteps: T.
        neuron: the layer.
    """

    def __init__(self, path: str, timesteps: int, neuron: SNMNeuron) -> None:
        super().__init__(path, timesteps, neuron.rule.max_spikes)
        self.neuron = neuron
        self._saturated: Tensor | int = 0
        self._driven: Tensor | float = 0.0
        self._residual: Tensor | float = 0.0

    def end(self, state: SNMState, negative: Tensor) -> None:
        """Adds a batch that has been simulated.

        Args:
            state: the state of the neurons after the last step.
            negative: how many negative spikes each neuron sent, int32 ``[B, ...]``.
        """
        # On the CPU it is done in parts that stay in the cache and in memory the heap has at hand.
        images = len(negative)
        if negative.device.type == "cpu":
            images = max(1, PART * images // max(1, negative.numel()))
        for v, m, taken in zip(*(x.split(images) for x in (*state, negative)), strict=True):
            self._end(v, m, taken)

    def _end(self, v: Tensor, m: Tensor, negative: Tensor) -> None:
        """Adds some images of a batch."""
        self.add(torch.add(m, negative, alpha=2), negative)
        rule, silent = self.neuron.rule, self.neuron.silent
        threshold = torch.where(silent, torch.inf, self.neuron.threshold)
        most = rule.largest_count(self.timesteps)
        # 1 and 0 as numbers: on the CPU that is several times as fast as with bools.
        full = (m - (most - 1)).clamp_(min=0)
        left = v / threshold
        # What drove a neuron in total is what it sent plus what is left.
        driven = torch.add(left, m).sub_(rule.v_init).clamp_(min=0).sign_()
        if most == 0 or rule.v_init < 0:
            full, driven = full * ~silent, driven * ~silent
        self._saturated = self._saturated + full.sum(dtype=torch.int32)
        self._driven = self._driven + driven.sum(dtype=torch.float64)
        self._residual = self._residual + left.abs_().mul_(driven).sum(dtype=torch.float64)

    def _shares(self) -> tuple[float, float, float]:
        """The share of dead neurons, that of saturated counts, and the mean residual membrane."""
        return (
            int((self.sent == 0).count_nonzero()) / self.sent.numel(),
            int(self._saturated) / (self.sent.numel() * self.images),
            float(self._residual) / max(1.0, float(self._driven)),
        )


def rates_of(counts: list[int], timesteps: int) -> tuple[int, ...]:
    """The histogram of rates that follows from a histogram of spike counts.

    Args:
        counts: how often each count occurred, from 0 on.
        timesteps: the number of steps in which the spikes were counted.

    >>> rates_of([1, 0, 0, 0, 2, 3], 4)[0], rates_of([1, 0, 0, 0, 2, 3], 4)[-2:]
    (1, (2, 3))
    """
    bins = [0] * (RATE_BINS + 1)
    for sent, times in enumerate(counts):
        above = sent > timesteps
        bins[RATE_BINS if above else min(RATE_BINS - 1, RATE_BINS * sent // timesteps)] += times
    return tuple(bins)


def exact_sum(values: Tensor) -> int:
    """The sum of int64 values >= 0, exact even where int64 cannot hold it.

    >>> exact_sum(torch.full((4,), 2**62)) == 2**64
    True
    """
    high, low = (values >> 32).sum(), (values & (2**32 - 1)).sum()
    return (int(high) << 32) + int(low)
