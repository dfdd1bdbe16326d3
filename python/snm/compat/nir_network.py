"""Makes a network of a NIR graph."""

import operator
from collections.abc import Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple, get_args

import nir
import numpy as np
import torch
from torch import Tensor, fx, nn

from snm_kernels import SNMRule

from ..conversion.analysis.domains import sort_nodes
from ..conversion.analysis.shapes import record_shapes, shape_for
from ..conversion.lowering.layers import build_layers
from ..conversion.lowering.layout import lay_out
from ..conversion.tracing.paths import PREFIX, free_path
from ..conversion.tracing.traced_model import TracedModel
from ..errors import ConversionError, Offence
from ..module_paths import put_at_path
from ..network.encode import Encoder
from ..network.program import Fire, Program
from ..network.run import Readout
from ..network.spiking import SpikingNetwork
from ..network.tree import origin_of
from ..nn import SNMNeuron
from .nir_error import GraphError, Refusal
from .nir_nodes import RunningMaxPool, SignedNeuronMemory

_IF = (
    "NIR's IF fires above its threshold and is then at v_reset, which no rule here does; where it "
    "is meant to be reset by subtraction, from_nir(graph, if_reset='subtract') says so"
)


class _Neurons(NamedTuple):
    """A layer of neurons that a node stands for."""

    threshold: Tensor
    rule: SNMRule
    bias: Tensor | None
    shape: tuple[int, ...]
    cap: tuple[float, ...]


def network_of_graph(graph: nir.NIRGraph, *, subtract: bool) -> SpikingNetwork:
    """Makes the network that :func:`snm.compat.nir.from_nir` returns.

    Args:
        subtract: IF nodes are reset by subtraction.
    """
    if not isinstance(graph, nir.NIRGraph):
        raise TypeError(f"from_nir: graph must be a nir.NIRGraph, got {type(graph).__name__}")
    return _Reader(graph, subtract).network()


class _Reader:
    """Walks a graph and builds the network of ReLUs in whose place its neurons are."""

    def __init__(self, graph: nir.NIRGraph, subtract: bool) -> None:
        self.source = graph
        self.subtract = subtract
        self.model = nn.Module()
        root = nn.Module()
        root.add_module(PREFIX, self.model)
        self.graph = fx.Graph()
        self.traced = TracedModel(root, self.graph)
        self.neurons: dict[fx.Node, _Neurons] = {}
        self.paths: dict[fx.Node, str] = {}
        self.used: set[str] = set()
        self.made: dict[str, fx.Node] = {}
        self.first: dict[str, str] = {}
        """The value that is the first of the terms that drive a layer of neurons, by its name."""
        self.offences: list[Offence] = []

    def network(self) -> SpikingNetwork:
        before = self._sources()
        for name in self._order(before):
            node = self.source.nodes[name]
            try:
                if len(before[name]) == 0 and not isinstance(node, nir.Input):
                    raise Refusal("reads nothing")
                self._read(name, node, [self.made.get(source) for source in before[name]])
            except Refusal as refusal:
                self._refuse(name, str(refusal))
        if self.offences:
            raise GraphError(self.offences)
        if not self.neurons:
            raise GraphError([Offence("", "NIRGraph", "has no neurons")])
        settings = self._settings()
        encoder: Encoder = settings["encoder"]
        shape = tuple(int(size) for size in self._only(nir.Input)[1].input_type["input"])
        self._record(shape)
        sort_nodes(self.traced, images_change=encoder != "direct")
        thresholds = {node: neurons.threshold for node, neurons in self.neurons.items()}
        layers = build_layers(
            self.traced, self.paths, thresholds, SNMRule.integrate_and_fire(), torch.float32
        )
        for node, neurons in self.neurons.items():
            layer = SNMNeuron(neurons.threshold, neurons.rule, bias=neurons.bias)
            layers.set_submodule(self.paths[node], layer)
        net = SpikingNetwork(
            layers.eval(),
            self._program(encoder != "direct"),
            image_shape=shape,
            fixed_size=settings["fixed_size"],
            encoder=encoder,
            readout=settings["readout"],
            origin=origin_of(self.model),
            tuned_for=settings["tuned_for"],
        )
        net.preprocessing = settings["preprocessing"]
        return net

    def _program(self, images_change: bool) -> Program:
        caps = {self.paths[node]: neurons.cap for node, neurons in self.neurons.items()}
        program = lay_out(
            self.traced, self.paths, per_neuron=False, images_change=images_change, caps=caps
        )
        own = {
            self.paths[node]: tuple(neurons.threshold.shape) == neurons.shape
            for node, neurons in self.neurons.items()
        }
        temporal = tuple(
            replace(self._in_order(step), per_neuron=own[step.path])
            if isinstance(step, Fire)
            else step
            for step in program.temporal
        )
        return replace(program, temporal=temporal)

    def _in_order(self, fire: Fire) -> Fire:
        """Puts the term to which the bias is added first, whichever memory may be reused."""
        if fire.residual is None or fire.residual != self.first[fire.path]:
            return fire
        return replace(
            fire,
            drive=fire.residual,
            constant_drive=fire.constant_residual,
            residual=fire.drive,
            constant_residual=fire.constant_drive,
            reuses_drive=False,
        )

    def _sources(self) -> dict[str, list[str]]:
        """The nodes that each node reads, in the order of their edges."""
        found: dict[str, list[str]] = {name: [] for name in self.source.nodes}
        for source, target in self.source.edges:
            reason = ""
            if source not in found or target not in found:
                reason = f"{source} is connected to it, but no node"
            elif source in found[target]:
                reason = f"{source} is connected to it twice"
            elif isinstance(self.source.nodes[source], nir.Output):
                reason = f"{source} is connected to it, but the output"
            if reason:
                raise GraphError([Offence(target, "edge", reason)])
            found[target].append(source)
        return found

    def _order(self, before: Mapping[str, list[str]]) -> list[str]:
        for kind in (nir.Input, nir.Output):
            self._only(kind)
        try:
            return list(TopologicalSorter(before).static_order())
        except CycleError as error:
            path = " -> ".join(error.args[1])
            raise GraphError(
                [Offence(error.args[1][0], "edge", f"is part of a cycle: {path}")]
            ) from error

    def _only(self, kind: type[nir.NIRNode]) -> tuple[str, nir.NIRNode]:
        found: list[tuple[str, nir.NIRNode]] = [
            item for item in self.source.nodes.items() if isinstance(item[1], kind)
        ]
        if len(found) != 1:
            what = kind.__name__
            raise GraphError([Offence("", what, f"must be there once, got {len(found)} of them")])
        return found[0]

    def _refuse(self, name: str, reason: str) -> None:
        self.offences.append(Offence(name, type(self.source.nodes[name]).__name__, reason))

    def _settings(self) -> dict[str, Any]:
        """The settings of the simulation, as :func:`snm.compat.nir.to_nir` noted them."""
        given = self.source.metadata.get("snm", {})
        settings = {
            "encoder": str(given.get("encoder", "direct")),
            "readout": str(given.get("readout", "mean")),
            "fixed_size": bool(given.get("fixed_size", False)),
            "tuned_for": int(given["tuned_for"]) if "tuned_for" in given else None,
            "preprocessing": str(given.get("preprocessing", "")),
        }
        for name, known in (("encoder", get_args(Encoder)), ("readout", get_args(Readout))):
            if settings[name] not in known:
                reason = f"the metadata have {name}={settings[name]!r}, known are {known}"
                raise GraphError([Offence("", "NIRGraph", reason)])
        last = self.made[self._only(nir.Output)[0]]
        if settings["readout"] == "count" and last not in self.neurons:
            reason = "the metadata have readout='count', but no neurons are last"
            raise GraphError([Offence("", "NIRGraph", reason)])
        return settings

    def _record(self, shape: tuple[int, ...]) -> None:
        """Finds out all shapes, and checks those that nodes declare."""
        try:
            record_shapes(self.traced, torch.ones(1, *shape))
        except ConversionError as error:
            raise GraphError(error.offences) from error
        for node, neurons in self.neurons.items():
            found = shape_for(node, 2)[1:]
            if found != neurons.shape:
                reason = f"is for {list(neurons.shape)} neurons, but is driven by {list(found)}"
                self.offences.append(Offence(self.paths[node], "neurons", reason))
        name, output = self._only(nir.Output)
        found, declared = shape_for(self.made[name], 2)[1:], output.output_type["output"]
        if declared is not None and list(found) != np.asarray(declared).tolist():
            wanted = np.asarray(declared).tolist()
            self._refuse(name, f"is declared as {wanted}, but gets {list(found)}")
        if self.offences:
            raise GraphError(self.offences)

    def _read(self, name: str, node: nir.NIRNode, terms: list[fx.Node | None]) -> None:
        """Adds a node's operations to the graph, or refuses the node."""
        metadata = node.metadata or {}
        wanted = str(metadata.get("path", name))
        if isinstance(node, nir.Input):
            self.made[name] = self._noted(self.graph.placeholder("images"), "")
            return
        neurons = self._neurons_in(node)
        layer = None if neurons is not None else _torch_layer(node)
        known = [term for term in terms if term is not None]
        if len(known) < len(terms):
            # What it reads is refused already.
            return
        x = known[0]
        for term in known[1:]:
            x = self._function(operator.add, (x, term), name)
        if isinstance(node, nir.Output):
            self.graph.output(x)
            self.made[name] = x
            self._noted(next(iter(reversed(self.graph.nodes))), "")
        elif neurons is not None:
            self.made[name] = self._fire(wanted, node, neurons, x, known[0])
        elif layer is not None:
            self.made[name] = self._module(wanted, layer, x)
        elif len(known) > 1 and _is_one(node):
            self.made[name] = x
        else:
            self.made[name] = self._times(operator.mul, x, node.scale, f"{wanted}_scale")

    def _neurons_in(self, node: nir.NIRNode) -> _Neurons | None:
        """The layer of neurons that a node stands for; None if it is no such node."""
        if isinstance(node, SignedNeuronMemory):
            try:
                rule = node.rule
            except (TypeError, ValueError) as error:
                raise Refusal(str(error)) from error
            shape = tuple(int(size) for size in node.shape)
            bias = None if node.bias is None else _float_tensor(node.bias)
            cap = tuple(float(value) for value in node.metadata.get("cap", ()))
            threshold = _threshold(node.threshold)
            for name, values in (("threshold", threshold), ("bias", bias)):
                if values is not None and not _fits(values, shape):
                    raise Refusal(f"has a {name} of {list(values.shape)} for {list(shape)} neurons")
            return _Neurons(threshold, rule, bias, shape, cap)
        if not isinstance(node, nir.IF):
            return None
        if not self.subtract:
            raise Refusal(_IF)
        if np.any(node.v_reset != 0):
            raise Refusal("has a v_reset other than 0, but is to be reset by subtraction")
        threshold = _threshold(node.v_threshold)
        return _Neurons(threshold, SNMRule.integrate_and_fire(), None, tuple(threshold.shape), ())

    def _fire(
        self, path: str, node: nir.NIRNode, neurons: _Neurons, x: fx.Node, first: fx.Node
    ) -> fx.Node:
        """Adds neurons to the graph, as the ReLU in whose place they are."""
        plain = isinstance(node, nir.IF)
        if plain and np.any(node.r != 1):
            x = self._times(operator.mul, x, node.r, f"{path}_r")
        fired = self._module(path, nn.ReLU(), x)
        self.paths[fired] = str(fired.target).removeprefix(f"{PREFIX}.")
        self.neurons[fired] = neurons
        self.first[self.paths[fired]] = first.name
        if plain and np.any(node.v_threshold != 1):
            # A spike carries its threshold; divided by it, it is exactly 1.
            return self._times(operator.truediv, fired, node.v_threshold, f"{path}_threshold")
        return fired

    def _module(self, wanted: str, layer: nn.Module, x: fx.Node) -> fx.Node:
        path = self._free(wanted)
        put_at_path(self.model, path, layer.eval())
        return self._noted(self.graph.call_module(f"{PREFIX}.{path}", (x,)), path)

    def _times(self, function: Any, x: fx.Node, factor: Any, wanted: str) -> fx.Node:
        path = self._free(wanted.replace(".", "_"))
        self.model.register_buffer(path, _float_tensor(factor))
        constant = self._noted(self.graph.get_attr(f"{PREFIX}.{path}"), path)
        return self._function(function, (x, constant), path)

    def _free(self, wanted: str) -> str:
        """Takes a path that no module, constant or attribute of a module has."""
        holder, parts = self.model, []
        for part in filter(None, wanted.split(".")):
            taken = hasattr(holder, part) and part not in holder._modules
            parts.append(f"{part}_" if taken else part)
            holder = holder._modules.get(part) or nn.Module()
        path = free_path(".".join(parts) or "node", self.used)
        ends = [end for end, letter in enumerate(path) if letter == "."]
        self.used |= {path, *(path[:end] for end in ends)}
        return path

    def _function(self, function: Any, arguments: tuple[fx.Node, ...], path: str) -> fx.Node:
        return self._noted(self.graph.call_function(function, arguments), path)

    def _noted(self, node: fx.Node, path: str) -> fx.Node:
        node.meta.update(path=path, line="")
        return node


def _torch_layer(node: nir.NIRNode) -> nn.Module | None:
    """The layer of torch that does what a node does; None for what is no layer."""
    if isinstance(node, nir.Output | nir.Scale):
        return None
    if isinstance(node, nir.Affine | nir.Linear):
        return _linear(node)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        return _convolution(node)
    if isinstance(node, nir.AvgPool2d | nir.SumPool2d):
        return _pooling(node)
    if isinstance(node, nir.Flatten):
        start, end = (int(dim) + (dim >= 0) for dim in (node.start_dim, node.end_dim))
        return nn.Flatten(start, end)
    if isinstance(node, RunningMaxPool):
        return _max_pooling(node)
    raise Refusal("has no counterpart in a network of signed neurons with memory")


def _linear(node: nir.NIRNode) -> nn.Module:
    weight = _float_tensor(node.weight)
    if weight.dim() != 2:
        raise Refusal(f"has a weight of {list(weight.shape)}, known are those of two dimensions")
    bias = _float_tensor(node.bias) if isinstance(node, nir.Affine) else None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    return _with_weights(layer, weight, bias)


def _convolution(node: nir.NIRNode) -> nn.Module:
    weight, bias = _float_tensor(node.weight), _float_tensor(node.bias)
    kind, dims = (nn.Conv1d, 1) if isinstance(node, nir.Conv1d) else (nn.Conv2d, 2)
    padding: Any = node.padding if isinstance(node.padding, str) else _sizes(node.padding, dims)
    groups = int(node.groups)
    layer = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        _sizes(node.stride, dims),  # type: ignore[arg-type]
        padding,
        _sizes(node.dilation, dims),  # type: ignore[arg-type]
        groups,
        device="meta",
    )
    return _with_weights(layer, weight, bias)


def _with_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _pooling(node: nir.NIRNode) -> nn.Module:
    kernel, stride, padding = (
        _sizes(value, 2) for value in (node.kernel_size, node.stride, node.padding)
    )
    if "output_size" in (node.metadata or {}):
        return nn.AdaptiveAvgPool2d(_sizes(node.metadata["output_size"], 2))
    divisor = 1 if isinstance(node, nir.SumPool2d) else None
    return nn.AvgPool2d(kernel, stride, padding, divisor_override=divisor)  # type: ignore[arg-type]


def _max_pooling(node: RunningMaxPool) -> nn.Module:
    windows, dims = node.pooling, len(node.input_shape) - 1
    if windows.output_size is not None:
        adaptive = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)[dims - 1]
        return adaptive(windows.output_size)
    plain = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1]
    return plain(
        windows.kernel_size,
        windows.stride,
        windows.padding,
        windows.dilation,
        ceil_mode=windows.ceil_mode,
    )


def _is_one(node: nir.NIRNode) -> bool:
    """Whether a scale multiplies by 1, and so only adds up its inputs."""
    return bool(np.all(node.scale == 1))


def _sizes(value: Any, dims: int) -> tuple[int, ...]:
    """The sizes of a window, one integer for each dimension."""
    return tuple(int(size) for size in np.broadcast_to(np.asarray(value), (dims,)))


def _threshold(values: Any) -> Tensor:
    threshold = _float_tensor(values)
    if not bool((threshold > 0).all()):
        raise Refusal("has a threshold that is not > 0")
    return threshold


def _fits(values: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether values can be broadcast to a shape."""
    sizes = zip(reversed(values.shape), reversed(shape), strict=False)
    return values.dim() <= len(shape) and all(own in (1, size) for own, size in sizes)


def _float_tensor(values: Any) -> Tensor:
    """A copy of values as a float32 tensor."""
    return torch.from_numpy(np.array(values, dtype=np.float32))
