"""Sorts the nodes of a graph by when a spiking network computes them."""

from enum import Enum, auto

from torch import fx

from ..tracing.traced_model import TracedModel
from .operations import is_relu


class Domain(Enum):
    """The time at which a spiking network computes a node."""

    STATIC = auto()
    """The node is constant in time and computed once: no neuron and no changing image comes before
    it."""
    NEURON = auto()
    """The node is a ReLU and becomes a layer of neurons."""
    TEMPORAL = auto()
    """The node lies between neurons and is computed at every time step."""
    TAIL = auto()
    """No neuron comes behind the node: it is computed once, on the neurons' mean output."""


def sort_nodes(traced: TracedModel, *, images_change: bool = False) -> None:
    """Notes on each node the domain that it belongs to.

    Args:
        images_change: the images are another frame at every time step.
    """
    nodes = list(traced.graph.nodes)
    reads_images: set[fx.Node] = set()
    after_neuron = {node for node in nodes if images_change and node.op == "placeholder"}
    neurons: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or any(n in reads_images for n in node.all_input_nodes):
            reads_images.add(node)
            if is_relu(traced, node):
                neurons.add(node)
        if any(n in after_neuron or n in neurons for n in node.all_input_nodes):
            after_neuron.add(node)
    before_neuron: set[fx.Node] = set()
    for node in reversed(nodes):
        if any(n in before_neuron or n in neurons for n in node.users):
            before_neuron.add(node)
    for node in nodes:
        if node in neurons:
            node.meta["domain"] = Domain.NEURON
        elif node not in after_neuron:
            node.meta["domain"] = Domain.STATIC
        elif node in before_neuron:
            node.meta["domain"] = Domain.TEMPORAL
        else:
            node.meta["domain"] = Domain.TAIL


def domain_of(node: fx.Node) -> Domain:
    """The domain that :func:`sort_nodes` noted on a node."""
    domain: Domain = node.meta["domain"]
    return domain


def neuron_nodes(traced: TracedModel) -> list[fx.Node]:
    """The ReLUs that become layers of neurons, in order of execution."""
    return [node for node in traced.graph.nodes if domain_of(node) is Domain.NEURON]


def changes_over_time(node: fx.Node) -> bool:
    """Whether a node's value differs between time steps."""
    return domain_of(node) is not Domain.STATIC
