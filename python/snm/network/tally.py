"""Counts the spikes that layers send while a simulation runs."""

import torch
from torch import Tensor

from snm_kernels import SNMState

from .observer import Ask, Launch, Observer
from .program import Fire, RunningMax


class Tally(Observer):
    """Counts spikes by their sign, in the neurons' own launch and on the network's device.

    A tally serves one simulation only.

    Args:
        poolings: whether to count what max poolings send as well.

    >>> from snm import convert
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.ReLU()).eval()
    >>> _ = torch.nn.init.ones_(model[0].weight)
    >>> net, tally = convert(model, torch.ones(1, 1)), Tally()
    >>> _ = net.simulation(torch.full((2, 1), 0.5), timesteps=8, observers=[tally]).answer()
    >>> tally.sent()["1"].tolist()
    [[4], [4]]
    """

    def __init__(self, *, poolings: bool = True) -> None:
        self.poolings = poolings
        self.states: dict[str, SNMState] = {}
        """The state of each layer's neurons, by the layer's path."""
        self.negative: dict[str, Tensor] = {}
        """How many negative spikes each neuron has sent, int32 ``[B, ...]`` by its layer's path."""
        self._signs: dict[str, Tensor] = {}
        self._sizes: dict[str, Tensor] = {}

    def sent(self) -> dict[str, Tensor]:
        """How many spikes of either sign each neuron has sent, int32 ``[B, ...]``, by the layer's
        path."""
        # Memory is the positive spikes less the negative ones.
        return {
            path: torch.add(self.states[path].m, negative, alpha=2)
            for path, negative in self.negative.items()
        }

    def asks(self, fire: Fire) -> tuple[Ask, ...]:  # noqa: ARG002
        """Asks for the counts of negative spikes, which the memory alone does not tell."""
        return ("negative",)

    def see(self, launch: Launch) -> None:
        """Keeps the state of a layer of neurons and its counts of negative spikes."""
        assert launch.negative is not None
        self.states[launch.fire.path] = launch.after
        self.negative[launch.fire.path] = launch.negative

    def see_pooling(self, step: RunningMax, sent: Tensor) -> None:
        """Counts what a max pooling sends, ``[T, B, ...]``."""
        if not self.poolings:
            return
        # In float32, exact up to 2**24 steps: on the CPU several times as fast as bools.
        signs = sent.sign()
        for sums, part in ((self._signs, signs), (self._sizes, signs.abs())):
            count = part.sum(0, dtype=torch.float32)
            sums[step.name] = sums[step.name].add_(count) if step.name in sums else count

    def events(self, name: str) -> tuple[Tensor, Tensor]:
        """The number of steps at which each output of a max pooling sent anything, and of those at
        which it sent something negative: int32 ``[B, ...]`` each."""
        sizes, signs = self._sizes[name], self._signs[name]
        return sizes.to(torch.int32), ((sizes - signs) / 2).to(torch.int32)
