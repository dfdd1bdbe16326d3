"""Builds the modules of a spiking network, with neurons in the place of ReLUs."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from snm_kernels import SNMRule

from ...module_paths import put_at_path
from ...nn import SNMNeuron
from ...nn.small_maps import SmallMapConv2d, gains
from ..analysis.shapes import holds_tensors, shape_for
from ..tracing.paths import own_path
from ..tracing.traced_model import TracedModel


def build_layers(
    traced: TracedModel,
    paths: Mapping[fx.Node, str],
    thresholds: Mapping[fx.Node, Tensor],
    rule: SNMRule,
    dtype: torch.dtype,
) -> nn.Module:
    """Builds the modules, parameters and neurons that a program calls, under their own paths.

    Args:
        dtype: in which spikes are sent.
    """
    layers = nn.Module()
    swapped = _small_maps(traced)
    for node in traced.graph.nodes:
        module = traced.module(node)
        if node in paths:
            put_at_path(layers, paths[node], SNMNeuron(thresholds[node], rule).to(dtype))
        elif module is not None:
            put_at_path(layers, own_path(str(node.target)), swapped.get(module, module))
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            path = own_path(str(node.target))
            # A weight that a function reads may be that of a module which is called as well.
            if not _is_there(layers, path):
                put_at_path(layers, path, traced.attribute(node))
    return layers.eval()


def _small_maps(traced: TracedModel) -> dict[nn.Module, nn.Module]:
    """Faster modules for convolutions of small maps, where every call gains from that.

    Weights that several modules share stay shared, so those modules stay as they are.
    """
    calls: dict[nn.Module, list[bool]] = {}
    for node in traced.graph.nodes:
        module = traced.module(node)
        if module is not None and holds_tensors(node):
            calls.setdefault(module, []).append(gains(module, shape_for(node, 2)))
    holders = Counter(id(own) for module in calls for own in module.parameters())
    return {
        module: SmallMapConv2d.of(module)
        for module, wins in calls.items()
        if isinstance(module, nn.Conv2d) and all(wins) and holders[id(module.weight)] == 1
    }


def _is_there(layers: nn.Module, path: str) -> bool:
    """Whether anything is at a path of a module."""
    holder: Any = layers
    for name in path.split("."):
        if not hasattr(holder, name):
            return False
        holder = getattr(holder, name)
    return True
