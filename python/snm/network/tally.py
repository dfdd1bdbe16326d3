"""Counts what layers send while a simulation runs."""

import torch
from torch import Tensor


class Tally:
    """Spikes by sign, on the network's device.

    >>> tally = Tally()
    >>> tally.see("pool", torch.tensor([[[0.5, 0.0]], [[-0.5, 2.0]]]))
    >>> tally.see("pool", torch.tensor([[[0.0, 1.0]]]))
    >>> [count.tolist() for count in tally.events("pool")]
    [[[2, 2]], [[1, 0]]]
    """

    def __init__(self) -> None:
        self.negative: dict[str, Tensor] = {}
        """Negative spikes of each neuron, int32 ``[B, ...]`` by the step of its layer; ``m`` and
        this are the positive ones."""
        self._signs: dict[str, Tensor] = {}
        self._sizes: dict[str, Tensor] = {}

    def see(self, name: str, sent: Tensor) -> None:
        """Counts what a max pooling sends, ``[T, B, ...]``."""
        # In float32, exact up to 2**24 steps: on the CPU several times as fast as bools.
        signs = sent.sign()
        for sums, part in ((self._signs, signs), (self._sizes, signs.abs())):
            count = part.sum(0, dtype=torch.float32)
            sums[name] = sums[name].add_(count) if name in sums else count

    def events(self, name: str) -> tuple[Tensor, Tensor]:
        """Steps at which each output of a max pooling sent anything, and anything negative: int32
        ``[B, ...]``."""
        sizes, signs = self._sizes[name], self._signs[name]
        return sizes.to(torch.int32), ((sizes - signs) / 2).to(torch.int32)
