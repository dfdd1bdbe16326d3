"""Finds how large the membranes of integer neurons become while a simulation runs."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ...network.observer import Ask, Launch, Observer
from ...network.program import Fire
from .senders import PART


class LargestMembranes(Observer):
    """Finds the largest amount of every layer's membranes, before and after each spike.

    One serves any number of simulations.

    Args:
        wait: waits until the device has done all that it was given.

    >>> from torch import nn
    >>> from snm import convert, quantize
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU()).eval()
    >>> net = quantize(convert(model, torch.rand(32, 4), norm="channel"), torch.rand(32, 4))
    >>> seen = LargestMembranes(wait=lambda: None)
    >>> _ = net.simulation(torch.rand(2, 4), timesteps=8, observers=[seen]).answer()
    >>> [seen.bits()[path] <= net.layers[path].membrane_bits(8) for path in ("1", "3")]
    [True, True]
    """

    def __init__(self, wait: Callable[[], None]) -> None:
        self.seconds = 0.0
        """How long it took, which is no part of what the simulations would have taken."""
        self._wait = wait
        self._largest: dict[str, Tensor] = {}

    def bits(self) -> dict[str, int]:
        """How many bits hold all membranes that were seen, the sign included, by path."""
        return {path: int(largest).bit_length() + 1 for path, largest in self._largest.items()}

    def asks(self, fire: Fire) -> tuple[Ask, ...]:  # noqa: ARG002
        """Asks for what the membranes of every time step follow from."""
        return ("drive", "spikes")

    def see(self, launch: Launch) -> None:
        """Follows the membranes of a layer, and notes how long that takes."""
        self._wait()
        start = time.perf_counter()
        self._follow(launch)
        self._wait()
        self.seconds += time.perf_counter() - start

    def _follow(self, launch: Launch) -> None:
        """Follows the membranes of a layer from the end of a chunk back to its start."""
        neuron, path, v = launch.neuron, launch.fire.path, launch.after.v
        # On the CPU some images after others, which then stay in the cache.
        images = max(1, PART * len(v) // max(1, v.numel())) if v.device.type == "cpu" else len(v)
        over_time = [launch.spikes, launch.drive, launch.residual]
        seen: list[Tensor] = []
        for i in range(0, len(v), images):
            own = slice(i, i + images)
            spikes, *drives = (each[:, own] for each in over_time if each is not None)
            at = v[own].clone()
            threshold = torch.empty_like(at).copy_(neuron.threshold)
            seen += torch.aminmax(at)
            for t in reversed(range(len(spikes))):
                seen += torch.aminmax(at.addcmul_(threshold, spikes[t]))
                for drive in drives:
                    at -= drive[t]
                if neuron.bias is not None:
                    at -= neuron.bias
                seen += torch.aminmax(at)
        largest = torch.stack(seen).abs().max()
        known = self._largest.get(path)
        self._largest[path] = largest if known is None else torch.maximum(known, largest)
