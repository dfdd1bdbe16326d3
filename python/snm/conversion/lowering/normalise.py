"""Moves thresholds into weights, so that all neurons fire at 1 and send 1.

A value's unit says what 1 stands for in each of its elements. Neurons send in units of their
thresholds and want their drives in the same; the logits stay in the model's units. In between:

- An operation passes units on if multiplying by them before it or after it is the same, as in a
  rearrangement, or in an average over elements of one unit. Random numbers tell.
- Convolutions, linear layers and batch norms take the unit of what they read into their weights,
  and that of the neurons which they alone drive, directly or through a sum.
- Anything else is multiplied by a factor, one per channel, where it is read.
"""

import copy
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import ConversionError, Offence, refuse
from ...network.checks import dtype_name
from ..analysis.domains import Domain, changes_over_time, domain_of
from ..analysis.shapes import holds_tensors, is_tensor
from ..tracing.arguments import first_argument
from ..tracing.compare import agree
from ..tracing.paths import PREFIX, free_path
from ..tracing.trace import remove_unused
from .fold import WeightedLayer, replace_called_module, replace_weights, weighted_layer_of
from .prepare import Prepared

_SCALABLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SUMS = (operator.add, operator.sub, torch.add, torch.sub, torch.subtract)
_SUM_METHODS = ("add", "sub", "subtract")
# Far above the rounding of float64, in which units are compared, and far below that of float32.
_ROUNDING = 1e-10


def normalise(
    prepared: Prepared, thresholds: Mapping[fx.Node, Tensor]
) -> tuple[dict[fx.Node, Tensor], dict[str, tuple[float, ...]]]:
    """Rewrites a network to thresholds of 1 without changing what it computes.

    Args:
        prepared: its graph and modules are changed; the model they were copied from is not.
        thresholds: of each layer of neurons, float32.

    Returns:
        The new thresholds, in the shapes of the old ones: 1, and +inf for silent neurons. And the
        caps of layers, by path, in units of the old ones.

    Raises:
        ConversionError: a layer's thresholds differ between positions, so weights cannot carry
            them; it names each. Or the rewritten network computes something else, as when scaled
            weights leave the range of the model's dtype.
    """
    _refuse_positions(prepared, thresholds)
    normaliser = _Normaliser(prepared, thresholds)
    normaliser.rewrite()
    normaliser.check()
    ones = {node: torch.where(t.isinf(), t, 1.0) for node, t in thresholds.items()}
    return ones, _caps_in_units(prepared, thresholds)


def _refuse_positions(prepared: Prepared, thresholds: Mapping[fx.Node, Tensor]) -> None:
    """Refuses layers whose thresholds differ between the positions of a channel."""
    offences = []
    for node, path in prepared.paths.items():
        size = list(thresholds[node].shape)
        if any(length > 1 for length in size[1:]):
            reason = (
                "form='normalised' needs thresholds that weights can carry, which all positions "
                f"share, but norm='neuron' has one for each of {size}; use norm='channel' or "
                "form='payload'"
            )
            operation = prepared.traced.operation(node)
            offences.append(Offence(path, operation, reason, node.meta.get("line", "")))
    refuse(offences)


def _caps_in_units(
    prepared: Prepared, thresholds: Mapping[fx.Node, Tensor]
) -> dict[str, tuple[float, ...]]:
    """Caps of layers in units of the thresholds that weights take in, +inf standing for 1."""
    by_path = {path: thresholds[node] for node, path in prepared.paths.items()}
    found = {}
    for path, cap in prepared.caps.items():
        unit = torch.where(by_path[path].isinf(), 1.0, by_path[path])
        found[path] = tuple((cap / unit.double()).flatten().tolist())
    return found


class _Channels(NamedTuple):
    """The channels that a layer's weights are for."""

    dim: int
    """The dimension of channels in what the layer reads and in its result, from the last."""
    inputs: int
    outputs: int


class _Normaliser:
    """Rewrites a graph so that neurons fire at 1.

    Units are float64, of the shape of their value; a value that has none is in the model's.
    """

    def __init__(self, prepared: Prepared, thresholds: Mapping[fx.Node, Tensor]) -> None:
        self.traced = prepared.traced
        self.graph = prepared.traced.graph
        self.model = prepared.traced.root.get_submodule(PREFIX)
        self.counted = prepared.output
        self.example = prepared.example
        self.interpreter = fx.Interpreter(
            self.traced.root, garbage_collect_values=False, graph=self.graph
        )
        self.interpreter.run(self.example.clone())
        self.values: dict[fx.Node, Any] = dict(self.interpreter.env)
        self.units: dict[fx.Node, Any] = {
            node: torch.where(t.isinf(), 1.0, t).double().expand(self.values[node].shape)
            for node, t in thresholds.items()
        }
        self.inputs: dict[fx.Node, Tensor] = {}
        """The factors by which layers multiply the weights of their input channels, ``[C]``."""
        self.outputs: dict[fx.Node, Tensor] = {}
        """The factors by which they multiply those of their output channels, and by which inserted
        multiplications do."""
        self.factors: dict[fx.Node, str] = {}
        """The name under which the model keeps what an inserted multiplication multiplies by."""
        self.lost = False
        """Whether scaling made a weight infinite, or 0."""
        self.random = torch.Generator().manual_seed(0)

    def rewrite(self) -> None:
        """Follows units through the graph, then changes weights and inserts multiplications."""
        for node in list(self.graph.nodes):
            if node.op == "output":
                if node.args[0] is not self.counted:
                    self._bring(node.args[0], node)
            elif domain_of(node) is Domain.NEURON:
                self._bring(first_argument(node), node, self.units[node])
            elif holds_tensors(node) and any(n in self.units for n in node.all_input_nodes):
                self._carry(node)
        for node in list(self.graph.nodes):
            if node in self.factors:
                factor = _factor(self.outputs[node], self.values[node].dtype)
                setattr(self.model, self.factors[node], factor)
            elif node in self.inputs or node in self.outputs:
                self._set_weights(node)
        remove_unused(self.graph)

    def check(self) -> None:
        """Compares the results of the rewritten network of ReLUs with those before.

        Raises:
            ConversionError: they differ by more than rounding.
        """
        output = next(node for node in self.graph.nodes if node.op == "output")
        before = next(self.values[n] for n in self.values if n.op == "output")
        after = _InUnits(self.traced.root, self.graph, self.units).run(self.example.clone())
        if self.counted is not None:
            after = after * self.units[output.args[0]].to(after.dtype)
        if not agree(after, before):
            dtype = dtype_name(before.dtype)
            what = "changes what the model computes"
            if self.lost:
                what = f"scales weights beyond what {dtype} can hold"
            reason = f"form='normalised' {what}; use form='payload'" + (
                "" if before.dtype == torch.float32 else " or a float32 model"
            )
            raise ConversionError([Offence("", "forward", reason)])

    def _carry(self, node: fx.Node) -> None:
        """Lets a node read its operands in their units if it can, else in those of the model."""
        channels = self._channels(node)
        if channels is None:
            unit = self._passed_on(node)
            if unit is not None:
                self.units[node] = unit
                return
        else:
            unit = self.units[first_argument(node)]
            factor = _per_channel(unit, channels.dim, channels.inputs)
            if factor is not None:
                self.inputs[node] = factor
                return
        for operand in node.all_input_nodes:
            if operand in self.units:
                self._bring(operand, node)

    def _bring(self, node: fx.Node, user: fx.Node, wanted: Tensor | None = None) -> None:
        """Lets ``user`` read a value in the wanted unit; None is the unit of the model."""
        ratio = self.units.get(node, 1.0) / (1.0 if wanted is None else wanted)
        if isinstance(ratio, float) or bool((ratio == 1).all()):
            return
        alone = list(node.users) == [user]
        channels = self._channels(node)
        if alone and self._is_sum(node):
            for addend in node.all_input_nodes:
                self._bring(addend, node, wanted)
            self.units.pop(node, None)
            if wanted is not None:
                self.units[node] = wanted
        elif alone and node in self.factors:
            self.outputs[node] = self.outputs[node] * ratio
        else:
            factor = None
            if alone and channels is not None:
                factor = _per_channel(ratio, channels.dim, channels.outputs)
            if factor is None:
                self._multiply(node, user, ratio)
            else:
                self.outputs[node] = factor

    def _is_sum(self, node: fx.Node) -> bool:
        """Whether a node adds or subtracts two tensors, not a tensor and a number."""
        known = node.target in (_SUM_METHODS if node.op == "call_method" else _SUMS)
        tensors = [n for n in node.args[:2] if isinstance(n, fx.Node) and is_tensor(n)]
        return known and len(tensors) == 2

    def _channels(self, node: fx.Node) -> _Channels | None:
        """The channels of a layer whose weights can be scaled; None for anything else."""
        layer, norm = weighted_layer_of(self.traced, node), self._batch_norm(node)
        if norm is not None:
            return _Channels(1 - self.values[node].dim(), norm.num_features, norm.num_features)
        if layer is None:
            return None
        first, second = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
        dim = -1 if layer.linear else 1 - self.values[node].dim()
        return _Channels(dim, first, second) if layer.transposed else _Channels(dim, second, first)

    def _batch_norm(self, node: fx.Node) -> _BatchNorm | None:
        """The batch norm that a node calls; None if it calls none."""
        module = self.traced.module(node)
        return module if isinstance(module, _BatchNorm) and type(module) in _SCALABLE else None

    def _passed_on(self, node: fx.Node) -> Any:
        """The unit of a node's result if the node passes its operands' units on; else None."""
        found: list[Tensor] = []
        for trial in range(2):
            drawn = {operand: self._draw(operand) for operand in node.all_input_nodes}
            scaled = {n: _times(drawn[n], self.units.get(n)) for n in drawn}
            pairs = list(zip(self._run(node, scaled), self._run(node, drawn), strict=True))
            if trial == 0:
                found = [_without_gaps(after / before).float().double() for after, before in pairs]
            elif not all(
                torch.allclose(after, unit * before, rtol=_ROUNDING, atol=0.0)
                for unit, (after, before) in zip(found, pairs, strict=True)
            ):
                return None
        return found[0] if is_tensor(node) else tuple(found)

    def _draw(self, node: fx.Node) -> Any:
        """A node's value, its tensors filled with random numbers from 1 to 2; sizes stay."""

        def draw(value: Any) -> Any:
            if not (isinstance(value, Tensor) and value.is_floating_point()):
                return value
            drawn = torch.rand(value.shape, dtype=torch.float64, generator=self.random) + 1
            return drawn.to(value.device)

        return map_aggregate(self.values[node], draw)

    def _run(self, node: fx.Node, operands: Mapping[fx.Node, Any]) -> list[Tensor]:
        """The tensors that result from a node's operation on these operands."""
        args, kwargs = (map_arg(a, operands.__getitem__) for a in (node.args, node.kwargs))
        result = getattr(self.interpreter, node.op)(node.target, args, kwargs)
        return [result] if isinstance(result, Tensor) else list(result)

    def _multiply(self, node: fx.Node, user: fx.Node, ratio: Tensor) -> None:
        """Puts a multiplication between a value and the node that reads it."""
        name = free_path(f"{node.name}_scale", set(dir(self.model)))
        self.model.register_buffer(name, ratio)
        with self.graph.inserting_before(user):
            factor = self.graph.get_attr(f"{PREFIX}.{name}")
            product = self.graph.call_function(operator.mul, (node, factor))
        user.replace_input_with(node, product)
        self.factors[product], self.outputs[product] = name, ratio
        self.values[factor] = _factor(ratio, self.values[node].dtype)
        self.values[product] = self.values[node] * self.values[factor]
        size = tuple(self.values[factor].shape)
        shapes = {batch: shape for batch, (shape,) in node.meta["shapes"].items()}
        product.meta.update(node.meta, bases=[], domain=_between(node, user))
        product.meta["shapes"] = {
            batch: [tuple(torch.broadcast_shapes(shape, size))] for batch, shape in shapes.items()
        }
        factor.meta.update(product.meta, path="", domain=Domain.STATIC)
        factor.meta["shapes"] = {batch: [size] for batch in shapes}

    def _set_weights(self, node: fx.Node) -> None:
        """Lets a node compute with scaled weights, in a copy of the module that it calls."""
        channels, layer, norm = (
            self._channels(node),
            weighted_layer_of(self.traced, node),
            self._batch_norm(node),
        )
        assert channels is not None
        one = self.example.new_ones(1, dtype=torch.float64)
        inputs = self.inputs.get(node, one.expand(channels.inputs))
        outputs = self.outputs.get(node, one.expand(channels.outputs))
        if norm is not None:
            replace_called_module(self.traced, node, _scaled_norm(norm, inputs, outputs))
            return
        assert layer is not None
        weight, bias = _scaled_layer(layer, inputs, outputs)
        vanished = (weight == 0) & (layer.weight != 0)
        self.lost |= bool((vanished | ~weight.isfinite()).any())
        module = copy.copy(self.traced.module(node))
        if module is None:
            none = _parameter(torch.zeros_like(outputs), layer.weight)
            replace_weights(self.traced, node, weight, none if bias is None else bias)
        else:
            # A shallow copy shares the table of parameters with what it is copied from.
            module._parameters = {"weight": weight, "bias": bias}
            replace_called_module(self.traced, node, module)


class _InUnits(fx.Interpreter):
    """Runs a rewritten graph with ReLUs for its neurons, which may cap in the model's units."""

    def __init__(self, root: nn.Module, graph: fx.Graph, units: Mapping[fx.Node, Any]) -> None:
        super().__init__(root, graph=graph)
        self.units = units

    def run_node(self, n: fx.Node) -> Any:
        if domain_of(n) is not Domain.NEURON:
            return super().run_node(n)
        drive = first_argument(n)
        in_units = self.env[drive]
        unit = self.units[n].to(in_units.dtype)
        self.env[drive] = in_units * unit
        result = super().run_node(n) / unit
        self.env[drive] = in_units
        return result


def _between(node: fx.Node, user: fx.Node) -> Domain:
    """The domain of a multiplication between a node and one that reads it."""
    if not changes_over_time(node):
        return Domain.STATIC
    return Domain.TAIL if domain_of(user) is Domain.TAIL else Domain.TEMPORAL


def _times(value: Any, unit: Any) -> Any:
    """A value multiplied by its unit, part by part if it holds several tensors."""
    if unit is None:
        return value
    if isinstance(value, Tensor):
        return value * unit
    return tuple(part * own for part, own in zip(value, unit, strict=True))


def _without_gaps(unit: Tensor) -> Tensor:
    """Fills in units that are unknown, as behind padding: the channel's if it has one, else 1."""
    known = unit.nan_to_num(0.0)
    positions = list(range(2, unit.dim()))
    channel = known.amax(positions, keepdim=True) if positions and unit.numel() else known
    filled = torch.where(known == 0, channel, known)
    return torch.where(filled == 0, 1.0, filled)


def _shared(values: Tensor) -> Tensor:
    """Shrinks each dimension along which all values are the same to size 1."""
    for dim in range(values.dim()):
        first = values.narrow(dim, 0, 1)
        if bool((values == first).all()):
            values = first
    return values


def _per_channel(values: Tensor, dim: int, channels: int) -> Tensor | None:
    """Values as ``[channels]`` if they differ along ``dim`` alone; else None."""
    values = _shared(values)
    if values.numel() == 1:
        return values.reshape(1).expand(channels)
    return values.flatten() if values.numel() == values.shape[dim] == channels else None


def _factor(ratio: Tensor, dtype: torch.dtype) -> Tensor:
    """The factor for one image's value, with as few elements as it can have."""
    factor = _shared(ratio)[0].to(dtype)
    return factor.reshape(()) if factor.numel() == 1 else factor


def _scaled_layer(
    layer: WeightedLayer, inputs: Tensor, outputs: Tensor
) -> tuple[nn.Parameter, nn.Parameter | None]:
    """The weight and bias of a layer, multiplied channel by channel."""
    weight, groups = layer.weight, layer.groups
    first, second = (inputs, outputs) if layer.transposed else (outputs, inputs)
    scaled = weight.double().reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
    scaled.mul_(first.view(groups, -1, 1, 1)).mul_(second.view(groups, 1, -1, 1))
    bias = None if layer.bias is None else _parameter(layer.bias * outputs, layer.bias)
    return _parameter(scaled.view(weight.shape), weight), bias


def _scaled_norm(norm: _BatchNorm, inputs: Tensor, outputs: Tensor) -> _BatchNorm:
    """A copy of a batch norm, multiplied channel by channel; its mean is in units of its input."""
    scaled = copy.deepcopy(norm)
    mean = scaled.running_mean
    assert mean is not None
    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
    scaled.affine = True
    scaled.weight = _parameter(weight * inputs * outputs, mean)
    scaled.bias = _parameter(bias * outputs, mean)
    mean.copy_(mean / inputs)
    return scaled


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    """A parameter of these values, in the dtype of another, and in its memory format if it has the
    same shape."""
    made = torch.empty_like(like) if values.shape == like.shape else like.new_empty(values.shape)
    return nn.Parameter(made.copy_(values), requires_grad=False)
