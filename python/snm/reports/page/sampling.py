"""Which few neurons of many to draw, and a recording of just them."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ...network.recording import Recording
from ...network.spiking import SpikingNetwork
from ..membrane import spikes_of_image

T = TypeVar("T")

NEURONS = 24
"""How many neurons are drawn at most, of all layers together."""
LAYERS = 4
"""How many layers are drawn at most."""


def record_sample(net: SpikingNetwork, image: Tensor, *, timesteps: int) -> Recording:
    """Spikes and membranes of a few neurons, for one image, which is simulated twice.

    Args:
        net: the network.
        image: ``[1, ...]`` as for a call of it.
        timesteps: T, >= 1.

    Raises:
        TypeError, ValueError: as for a call.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 80), nn.ReLU(), nn.Linear(80, 3)).eval()
    >>> net = convert(model, torch.rand(32, 4))
    >>> record_sample(net, torch.rand(1, 4), timesteps=8)["1"].membrane.shape
    torch.Size([8, 1, 24])
    """
    paths = evenly_spread(list(net.layers), LAYERS)
    with net.record(paths, what="spikes") as everything:
        net(image, timesteps=timesteps)
    each = NEURONS // len(paths)
    neurons = {
        path: sample_neurons(spikes_of_image(layer), each) for path, layer in everything.items()
    }
    with net.record(paths, what=("spikes", "membrane"), neurons=neurons) as recording:
        net(image, timesteps=timesteps)
    return recording


def sample_neurons(spikes: Tensor, most: int) -> list[int]:
    """At most so many neurons: of those that spike, evenly from the busiest to the quietest.

    Args:
        spikes: ``[T, n]``.
        most: how many neurons to take; all of them if there are no more.

    >>> sample_neurons(torch.tensor([[0, 1, 1, -1], [0, 1, 0, 1], [0, 1, 0, 0]]), 2)
    [1, 2]
    """
    sent = spikes.abs().sum(0)
    if len(sent) <= most:
        return list(range(len(sent)))
    order = torch.argsort(sent, descending=True, stable=True)
    return evenly_spread(order[: max(most, int((sent > 0).sum()))].tolist(), most)


def evenly_spread(values: Sequence[T], most: int) -> list[T]:
    """At most so many of some values, at equal distances from the first to the last.

    >>> evenly_spread("abcdef", 3), evenly_spread("ab", 3)
    (['a', 'd', 'f'], ['a', 'b'])
    """
    if len(values) <= most:
        return list(values)
    if most == 1:
        return [values[0]]
    # Halves are rounded up.
    return [values[(2 * n * (len(values) - 1) + most - 1) // (2 * (most - 1))] for n in range(most)]
