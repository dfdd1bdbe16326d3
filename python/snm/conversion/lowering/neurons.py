"""Names the layers of neurons, and appends those that count the output layer's spikes."""

from collections.abc import Mapping

import torch
from torch import fx

from ..analysis.domains import neuron_nodes
from ..analysis.operations import activation_cap, is_relu
from ..tracing.paths import free_path, own_path, path_of, used_paths
from ..tracing.traced_model import TracedModel


def neuron_paths(traced: TracedModel) -> dict[fx.Node, str]:
    """Chooses a path for each layer of neurons: its ReLU's, numbered where that is called again."""
    used = {
        own_path(path)
        for path in used_paths(n for n in traced.graph.nodes if not is_relu(traced, n))
    }
    paths = {}
    for node in neuron_nodes(traced):
        path = path_of(node)
        if "layer" in node.meta:
            path = node.meta["layer"]
        elif node.op != "call_module" or not path:
            path = f"{path}.relu".removeprefix(".")
        paths[node] = free_path(path, used)
        used.add(paths[node])
    return paths


def append_neurons(traced: TracedModel) -> fx.Node:
    """Puts a layer of neurons behind the output layer and returns its node."""
    output = next(node for node in traced.graph.nodes if node.op == "output")
    logits = output.args[0]
    assert isinstance(logits, fx.Node)
    with traced.graph.inserting_before(output):
        neurons = traced.graph.call_function(torch.relu, (logits,))
    neurons.meta.update(logits.meta, path="output", layer="output", bases=[])
    output.args = (neurons,)
    return neurons


def caps_of(traced: TracedModel, paths: Mapping[fx.Node, str]) -> dict[str, float]:
    """What the activations of layers of neurons never exceed, by path; only of those with a cap."""
    caps = {path: activation_cap(traced, node) for node, path in paths.items()}
    return {path: cap for path, cap in caps.items() if cap is not None}
