"""The neurons of a network apart from its weights, but those that tuning fitted: to compare, send
and keep."""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from snm_kernels import SNMRule

from ..files.whole import write_whole
from ..models.checkpoint import digest_of_tensors
from ..network.fitted import fitted_layers, replace_layer
from ..network.spiking import SpikingNetwork
from ..nn import SNMNeuron


class Layer(NamedTuple):
    """What makes the neurons of a layer."""

    threshold: Tensor
    """float32, on the CPU."""
    bias: Tensor | None
    rule: SNMRule


class Neurons(NamedTuple):
    """The neurons of a network.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net, other = (convert(model, torch.rand(32, 4)) for _ in range(2))
    >>> neurons_of(net).install(other)
    >>> neurons_of(net).digest() == neurons_of(other).digest()
    True
    """

    example: Tensor
    """Images with which the model is traced, on the CPU."""
    layers: dict[str, Layer]
    weights: dict[str, Tensor]
    """Weights and biases that tuning fitted, by parameter path; on the CPU."""
    tuned_for: int | None
    """The time steps that :func:`snm.tune` made them for."""
    tuning: str
    """What it reported."""

    def install(self, net: SpikingNetwork) -> None:
        """Puts them into a network in the place of its own.

        Raises:
            ValueError: the network has other layers.
        """
        own = net.layers
        if set(own) != set(self.layers):
            raise ValueError(f"neurons must be of the layers {list(own)}, got {list(self.layers)}")
        for path, (threshold, bias, rule) in self.layers.items():
            before = own[path]
            neuron = SNMNeuron(threshold, rule, bias=bias, backend=before.backend)
            neuron = neuron.to(before.threshold.device).eval()
            if before.threshold.shape == neuron.threshold.shape:
                # In the memory format of its activations.
                neuron.threshold = torch.empty_like(before.threshold).copy_(neuron.threshold)
            net.model.set_submodule(path, neuron)
        for path in dict.fromkeys(name.rpartition(".")[0] for name in self.weights):
            layer = copy.deepcopy(net.model.get_submodule(path))
            for name, parameter in layer.named_parameters():
                # In its memory format.
                parameter.data.copy_(self.weights[f"{path}.{name}"])
            replace_layer(net.model, path, layer)
        net.tuned_for, net.tuning = self.tuned_for, self.tuning

    def digest(self) -> str:
        """SHA-256 of their thresholds, biases, rules and fitted weights."""
        tensors = self._tensors()
        rules = json.dumps(self._rules(), sort_keys=True)
        return digest_of_tensors({**tensors, rules: torch.empty(0)})

    def save(self, path: Path) -> None:
        """Writes them to a safetensors file."""
        text = {"rules": self._rules(), "tuned_for": self.tuned_for, "tuning": self.tuning}
        # One entry, for several are written in any order.
        metadata = {"neurons": json.dumps(text)}
        write_whole(path, save({"example": self.example, **self._tensors()}, metadata))

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for path, layer in self.layers.items():
            tensors[f"threshold.{path}"] = layer.threshold.contiguous()
            if layer.bias is not None:
                tensors[f"bias.{path}"] = layer.bias.contiguous()
        fitted = {f"fitted.{name}": value.contiguous() for name, value in self.weights.items()}
        return tensors | fitted

    def _rules(self) -> dict[str, dict[str, object]]:
        return {path: asdict(layer.rule) for path, layer in self.layers.items()}


def neurons_of(net: SpikingNetwork, example: Tensor | None = None) -> Neurons:
    """The neurons of a network."""
    layers = {
        path: Layer(
            neuron.threshold.cpu(),
            None if neuron.bias is None else neuron.bias.cpu(),
            neuron.rule,
        )
        for path, neuron in net.layers.items()
    }
    weights = {
        f"{path}.{name}": parameter.detach().cpu()
        for path, layer in fitted_layers(net.model).items()
        for name, parameter in layer.named_parameters()
    }
    kept = torch.empty(0) if example is None else example.float().cpu().contiguous()
    return Neurons(kept, layers, weights, net.tuned_for, net.tuning)


def load_neurons(path: Path) -> Neurons:
    """What :meth:`Neurons.save` wrote.

    Raises:
        ValueError: the file is another, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            text = json.loads((file.metadata() or {})["neurons"])
        layers = {
            layer: Layer(
                tensors[f"threshold.{layer}"], tensors.get(f"bias.{layer}"), SNMRule(**rule)
            )
            for layer, rule in text["rules"].items()
        }
        weights = {
            name.removeprefix("fitted."): value
            for name, value in tensors.items()
            if name.startswith("fitted.")
        }
        return Neurons(tensors["example"], layers, weights, text["tuned_for"], text["tuning"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must hold neurons, but does not: {error}") from error
