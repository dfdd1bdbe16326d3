"""Counts the spikes that a network sends, layer by layer."""

from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from snm_kernels import SNMOutput

from ..network.spiking import SpikingNetwork
from ..nn import SNMNeuron


class SpikeCounter:
    """Counts the spikes of each layer while it is entered, negative ones too.

    The counts stay on the device until they are asked for.

    Args:
        net: the network.

    Attributes:
        neurons: how many neurons each layer has, once it has run.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1)).eval()
    >>> _ = nn.init.ones_(model[0].weight)
    >>> net = convert(model, torch.ones(1, 1))
    >>> with SpikeCounter(net) as counter:
    ...     _ = net.anytime(torch.full((2, 1), 0.5), timesteps=8)
    >>> counter.counts(), counter.neurons
    ({'1': 8}, {'1': 1})
    """

    def __init__(self, net: SpikingNetwork) -> None:
        self.net = net
        self.neurons: dict[str, int] = {}
        self._sent: dict[str, Tensor] = {}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> "SpikeCounter":
        self._hooks = [
            neuron.register_forward_hook(partial(self._see, path), with_kwargs=True)
            for path, neuron in self.net.layers.items()
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def counts(self) -> dict[str, int]:
        """How many spikes each layer has sent, by its path."""
        return {path: int(count) for path, count in self._sent.items()}

    def _see(
        self,
        path: str,
        neuron: SNMNeuron,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
        output: SNMOutput,
    ) -> None:
        spikes = output.spikes
        if spikes is None:
            # Nothing reads them in the network, so only the state was asked for.
            spikes = neuron.forward(*arguments, **{**options, "emit": "spike"}).spikes
            assert spikes is not None
        self.neurons[path] = output.state.m[0].numel()
        sent = _number_of(spikes, neuron)
        self._sent[path] = self._sent[path] + sent if path in self._sent else sent


def _number_of(spikes: Tensor, neuron: SNMNeuron) -> Tensor:
    """How many spikes these are: s, or θ·s."""
    if neuron.rule.max_spikes == 1:
        return torch.count_nonzero(spikes)
    if spikes.dtype != torch.int8:
        spikes = (spikes / neuron.threshold).round()
    return spikes.abs().sum(dtype=torch.float64).to(torch.int64)
