"""Makes one hash of all spikes that a network sends."""

import hashlib

import torch
from torch import Tensor

from .observer import Ask, Launch, Observer
from .packed import pack_spikes, unpack_spikes
from .program import Fire


class SpikeDigest(Observer):
    """Keeps the spikes of every layer, and makes one SHA-256 of them, whatever the chunks.

    A digest serves one simulation only. Until it ends, spikes take 1/4 byte each on the network's
    device, 1 byte with a rule of several spikes a step.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).eval()
    >>> _ = nn.init.ones_(model[0].weight)
    >>> net, digest = convert(model, torch.ones(1, 1)), SpikeDigest()
    >>> _ = net.simulation(torch.full((1, 1), 0.5), timesteps=4, observers=[digest]).answer()
    >>> digest.hexdigest() == hashlib.sha256(bytes([0, 1, 0, 1])).hexdigest()
    True
    """

    def __init__(self) -> None:
        # For each layer its chunks, packed where spikes are ternary, each with its shape.
        self._sent: dict[str, list[tuple[Tensor, torch.Size]]] = {}

    def hexdigest(self) -> str:
        """SHA-256 of int8 spikes ``[T, B, ...]``, in hexadecimal, layer by layer in the order in
        which they run; each layer's time steps one after the other, in C order."""
        digest = hashlib.sha256()
        for chunks in self._sent.values():
            for sent, shape in chunks:
                spikes = sent if sent.dtype == torch.int8 else unpack_spikes(sent, shape)
                digest.update(spikes.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    def asks(self, fire: Fire) -> tuple[Ask, ...]:  # noqa: ARG002
        """Asks for the spikes of every layer."""
        return ("spikes",)

    def see(self, launch: Launch) -> None:
        """Keeps what a layer sent in a chunk of time steps."""
        spikes = launch.spikes
        assert spikes is not None
        ternary = launch.neuron.rule.max_spikes == 1
        kept = pack_spikes(spikes) if ternary else spikes.clone()
        self._sent.setdefault(launch.fire.name, []).append((kept, spikes.shape))
