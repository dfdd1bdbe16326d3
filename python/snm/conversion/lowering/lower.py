"""Lowers a prepared graph to what a spiking network is made of."""

from collections.abc import Mapping

from torch import Tensor, fx, nn

from snm_kernels import SNMRule

from ...network.program import Program
from .layers import build_layers
from .layout import lay_out
from .prepare import Prepared


def lower(
    prepared: Prepared,
    thresholds: Mapping[fx.Node, Tensor],
    caps: Mapping[str, tuple[float, ...]],
    rule: SNMRule,
    *,
    per_neuron: bool,
    images_change: bool,
) -> tuple[nn.Module, Program]:
    """The modules of a spiking network, and the program that calls them.

    Args:
        thresholds: of each layer of neurons, float32, > 0.
        caps: by path, what layers never exceed, see :class:`snm.network.program.Fire`.
        rule: that of all neurons.
        per_neuron: whether each neuron has a threshold of its own.
        images_change: the images are another frame at every time step.
    """
    traced, paths = prepared.traced, prepared.paths
    layers = build_layers(traced, paths, thresholds, rule, prepared.example.dtype)
    program = lay_out(traced, paths, per_neuron=per_neuron, images_change=images_change, caps=caps)
    return layers, program
