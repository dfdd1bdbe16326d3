"""A network's neurons, and the weights that tuning fitted to them: to compare, send and keep."""

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
from ..network.fitted import layers_with_fitted_weights, replace_layer
from ..network.spiking import SpikingNetwork
from ..nn import SNMNeuron


class LayerNeurons(NamedTuple):
    """The neurons of one layer."""

    threshold: Tensor
    """θ, float32, on the CPU, broadcastable to the layer's activations of one image."""
    bias: Tensor | None
    """What is added to their drive at each time step; None where nothing is."""
    rule: SNMRule
    """The rule by which they fire."""


class Neurons(NamedTuple):
    """The neurons of a network, without the weights between them but those that tuning fitted.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net, other = (convert(model, torch.rand(32, 4)) for _ in range(2))
    >>> Neurons.of(net).install(other)
    >>> Neurons.of(net).digest() == Neurons.of(other).digest()
    True
    """

    example: Tensor
    """Images with which the model is traced, on the CPU."""
    layers: dict[str, LayerNeurons]
    """The neurons of each layer, by its path."""
    weights: dict[str, Tensor]
    """Weights and biases that tuning fitted, by parameter path; on the CPU."""
    tuned_for: int | None
    """The time steps that :func:`snm.tune` made them for; None where it did not."""
    tuning: str
    """What :func:`snm.tune` reported; empty where it was not called."""

    @classmethod
    def of(cls, net: SpikingNetwork, example: Tensor | None = None) -> "Neurons":
        """Copies the neurons of a network.

        Args:
            net: the network.
            example: images with which its model was traced; None where nobody has to trace it.
        """
        layers = {
            path: LayerNeurons(
                neuron.threshold.cpu(),
                None if neuron.bias is None else neuron.bias.cpu(),
                neuron.rule,
            )
            for path, neuron in net.layers.items()
        }
        weights = {
            f"{path}.{name}": parameter.detach().cpu()
            for path, layer in layers_with_fitted_weights(net.model).items()
            for name, parameter in layer.named_parameters()
        }
        kept = torch.empty(0) if example is None else example.float().cpu().contiguous()
        return cls(kept, layers, weights, net.tuned_for, net.tuning)

    @classmethod
    def load(cls, path: Path) -> "Neurons":
        """Reads the neurons that :meth:`save` wrote.

        Raises:
            ValueError: the file holds something else, or is damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                text = json.loads((file.metadata() or {})["neurons"])
            layers = {
                layer: LayerNeurons(
                    tensors[f"threshold.{layer}"], tensors.get(f"bias.{layer}"), SNMRule(**rule)
                )
                for layer, rule in text["rules"].items()
            }
            weights = {
                name.removeprefix("fitted."): value
                for name, value in tensors.items()
                if name.startswith("fitted.")
            }
            return cls(tensors["example"], layers, weights, text["tuned_for"], text["tuning"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} must hold neurons, but does not: {error}") from error

    def install(self, net: SpikingNetwork) -> None:
        """Puts the neurons into a network, in the place of its own.

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
        """SHA-256 of all thresholds, biases, rules and fitted weights."""
        tensors = self._tensors()
        rules = json.dumps(self._rules(), sort_keys=True)
        return digest_of_tensors({**tensors, rules: torch.empty(0)})

    def save(self, path: Path) -> None:
        """Writes the neurons to a safetensors file, which :meth:`load` reads."""
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
