"""Counts what layers send while a simulation runs."""

import torch
from torch import Tensor


class Tally:
    """Spikes by sign, on the network's device; with a neuron's memory, ``m + negative`` of them are
    positive.

    >>> tally = Tally()
    >>> tally.see("pool", torch.tensor([[[0.5, 0.0]], [[-0.5, 2.0]]]))
    >>> tally.see("pool", torch.tensor([[[0.0, 1.0]]]))
    >>> tally.rises["pool"].tolist(), tally.falls["pool"].tolist()
    ([[1, 2]], [[1, 0]])
    """

    def __init__(self) -> None:
        self.negative: dict[str, Tensor] = {}
        """Negative spikes of each neuron, int32 ``[B, ...]`` by the step of its layer."""
        self.rises: dict[str, Tensor] = {}
        """Steps at which each output of a max pooling sends something positive, likewise."""
        self.falls: dict[str, Tensor] = {}
        """Or negative."""

    def see(self, name: str, sent: Tensor) -> None:
        """Counts what a max pooling sends, ``[T, B, ...]``."""
        for counts, signs in ((self.rises, sent > 0), (self.falls, sent < 0)):
            count = signs.sum(0, dtype=torch.int32)
            counts[name] = counts[name] + count if name in counts else count
