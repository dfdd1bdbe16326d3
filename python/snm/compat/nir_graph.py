"""Makes a NIR graph of a network."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm_kernels

from ..conversion.analysis.pooling import pooling_of_call
from ..conversion.tracing.paths import free_path
from ..errors import Offence
from ..network.inputs import check_floating
from ..network.interpret import Interpreter, Values
from ..network.program import Call, Fire, RunningMax, Step, Value, reshape_steps
from ..network.run import Run
from ..network.spiking import SpikingNetwork
from .nir_error import GraphError, Refusal
from .nir_nodes import RunningMaxPool, SignedNeuronMemory, array_of

Shape = tuple[int, ...]

_SUMS = (operator.add, torch.add, "add")
_PRODUCTS = (operator.mul, torch.mul, torch.multiply, "mul", "multiply")
_MEANS = (torch.mean, "mean")
_AVERAGES = (F.avg_pool2d,)
_ADAPTIVE_AVERAGES = (F.adaptive_avg_pool2d,)
_RESHAPES = (
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, reshape_steps),
    *("flatten", "reshape", "view", "squeeze", "unsqueeze", "contiguous", "clone", "detach"),
)
_READERS_OF_SHAPES = ("getattr", "size", "dim", "ndimension", "step_shape", "step_size")
_WEIGHTED = (F.conv1d, F.conv2d, F.linear)
_NO_LAYER = "is called as a function; only the layer of that name is written"
_NO_NODE = "NIR has no node for it"
_ENCODERS: dict[str, str] = {
    "direct": "Every image is a constant current: the input is the same at every step.",
    "poisson": "The input is random at every step: with a the largest abs(x) of an image, each x "
    "of it is sign(x) * a with probability abs(x) / a, else 0.",
    "frames": "The input is another frame at every step.",
}
_READOUTS: dict[str, str] = {
    "mean": "The answer is the mean over time of what reaches the output.",
    "count": "The answer is how many spikes the last neurons have sent, those taken back "
    "subtracted.",
}
_COMPUTED = (
    "Nodes computed 'once' are constant in time; those computed 'once, on the mean' are linear or "
    "pool totals, so that they may be computed on the mean over time of what they read."
)

_COMPUTED_IN = {"static": "once", "temporal": "every step", "tail": "once, on the mean"}
"""How often the nodes of a program's parts are computed."""


def graph_of_network(net: SpikingNetwork, image_shape: Shape | None) -> nir.NIRGraph:
    """Makes the graph that :func:`snm.compat.nir.to_nir` returns."""
    if not isinstance(net, SpikingNetwork):
        raise TypeError(f"to_nir: net must be a SpikingNetwork, got {type(net).__name__}")
    check_floating("to_nir", net.integers, "write")
    if net.dtype != torch.float32:
        raise TypeError(f"to_nir: net must be torch.float32, got {net.dtype}; use net.float()")
    shape = net.image_shape if image_shape is None else tuple(image_shape)
    return _Writer(net, shape).graph()


class _Writer(Interpreter):
    """Writes down the nodes and edges of a program: a step's value is the node that makes it.

    A value is None where that is refused.
    """

    def __init__(self, net: SpikingNetwork, shape: Shape) -> None:
        super().__init__(net.program, net.model)
        self.net = net
        self.values = _values(net, shape)
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.sources: Values = {}
        self.constants: set[str] = set()
        """The names of values that do not depend on the images."""
        self.offences: list[Offence] = []
        self.shape = shape

    def graph(self) -> nir.NIRGraph:
        """The whole graph."""
        program = self.program
        self._add("input", nir.Input(np.array(self.shape)), ())
        self.sources[program.images] = "input"
        self.execute_static(self.sources)
        self.execute_temporal(self.sources)
        self.execute_tail(self.sources)
        if self.offences:
            raise GraphError(self.offences)
        output = nir.Output(np.array(self._shape(program.output)))
        self._add("output", output, (program.output,))
        return nir.NIRGraph(self.nodes, self.edges, {"snm": self._settings()}, type_check=True)

    def execute(self, step: Step, values: Values) -> None:
        """Writes a step down unless it makes a constant, or notes why it has no form in NIR."""
        if step.name in values or self._is_constant(step):
            return
        try:
            super().execute(step, values)
        except Refusal as refusal:
            values[step.name] = None
            self.offences.append(Offence(*_named(self.net, step), str(refusal)))

    def free(self, step: Step, values: Values) -> None:
        """Forgets nothing: nodes stay."""

    def fire(self, fire: Fire, values: Values) -> None:
        """Writes a layer of neurons down."""
        node = SignedNeuronMemory.of(self.net.layers[fire.path], self._shape(fire.drive))
        more = {"cap": np.array(fire.cap)} if fire.cap else {}
        values[fire.name] = self._node(fire.path, node, fire.reads, path=fire.path, **more)

    def pool(self, step: RunningMax, values: Values) -> str | None:
        """Writes a running maximum down."""
        if step.value not in values:
            raise Refusal("pools layers side by side; NIR has no concatenation")
        node = RunningMaxPool.of(step.pooling, self._shape(step.value))
        return self._node(step.name, node, (step.value,), path=step.path)

    def _settings(self) -> dict[str, Any]:
        net = self.net
        said = (_ENCODERS[net.encoder], _READOUTS[net.readout], _COMPUTED)
        found = {
            "version": snm_kernels.__version__,
            "encoder": net.encoder,
            "readout": net.readout,
            "fixed_size": net.fixed_size,
            "simulation": " ".join(("Discrete time, steps of 1.", *said)),
        }
        if net.tuned_for is not None:
            found["tuned_for"] = net.tuned_for
        if net.preprocessing:
            found["preprocessing"] = net.preprocessing
        return found

    def _is_constant(self, step: Step) -> bool:
        """Whether a step makes a constant or a size; what reads it knows its value."""
        if isinstance(step, Call) and step.name not in self.constants:
            asks = _target_name(step) in _READERS_OF_SHAPES
            images = any(value in self.sources for value in step.reads)
            if asks or step.kind == "attribute" or not images:
                self.constants.add(step.name)
        return step.name in self.constants

    def call(self, call: Call, values: Values) -> str | None:
        """Writes an operation of the model down."""
        name, target = call.name, call.target
        module = self.net.model.get_submodule(str(target)) if call.kind == "module" else None
        operands = tuple(value for value in call.reads if value in values)
        if not all(isinstance(self.values[value], Tensor) for value in operands):
            # It takes apart what is refused already.
            return None
        if target in _SUMS and len(operands) == 2 and not call.kwargs:
            return self._join(call, operands)
        if len(operands) != 1 or not isinstance(self.values[name], Tensor):
            raise Refusal(_NO_NODE)
        before, after = self._shape(operands[0]), self._shape(name)
        path = str(target) if module is not None else ""
        pooled = pooling_of_call(call, self.net.model)
        if pooled is not None:
            node = RunningMaxPool.of(pooled, before)
            return self._node(path or name, node, operands, path=path)
        if module is not None:
            made = _weighted_node(module, before)
            if made is not None:
                return self._node(path, _typed(made, before, after), operands, path=path)
        if isinstance(module, nn.AvgPool2d) or target in _AVERAGES:
            made = _average(_pooling_arguments(call, module), before, after)
            return self._node(path or name, _typed(made, before, after), operands, path=path)
        if isinstance(module, nn.AdaptiveAvgPool2d) or target in _ADAPTIVE_AVERAGES:
            return self._adaptive(path or name, path, operands, after)
        if target in _MEANS:
            return self._mean(call, operands)
        if target in _PRODUCTS:
            scale = nir.Scale(self._factor(call, before, after))
            return self._node(path or name, scale, operands, path=path)
        if isinstance(module, nn.Flatten) or target in _RESHAPES:
            return self._flatten(path or name, path, operands, after)
        raise Refusal(_NO_LAYER if target in _WEIGHTED else _NO_NODE)

    def _join(self, call: Call, operands: tuple[str, ...]) -> str | None:
        """A sum that others than neurons read: edges into a node that hands it on."""
        first, second = operands
        shape = self._shape(call.name)
        if self._shape(first) != shape or self._shape(second) != shape:
            raise Refusal("adds values of different shapes")
        one = nir.Scale(np.ones(shape, np.float32))
        return self._node(call.name, one, operands)

    def _adaptive(
        self, name: str, path: str, operands: tuple[str, ...], after: Shape
    ) -> str | None:
        """Writes an average pooling that is told the size of its result."""
        before = self._shape(operands[0])
        if any(size % out for size, out in zip(before[1:], after[1:], strict=True)):
            raise Refusal(f"pools {list(before[1:])} to {list(after[1:])} in windows of two sizes")
        kernel = np.array(before[1:]) // np.array(after[1:])
        node = nir.AvgPool2d(kernel, kernel, np.zeros(2, np.int64))
        typed = _typed(node, before, after)
        # Told its size, PyTorch sums up in another order.
        size = np.array(after[1:])
        return self._node(name, typed, operands, path=path, output_size=size)

    def _mean(self, call: Call, operands: tuple[str, ...]) -> str | None:
        """A mean over both spatial dimensions."""
        before, after = self._shape(operands[0]), self._shape(call.name)
        arguments = dict(call.kwargs or {})
        dims = arguments.pop("dim", call.args[1] if len(call.args) > 1 else ())
        keeps = arguments.pop("keepdim", call.args[2] if len(call.args) > 2 else False)
        spatial = isinstance(dims, tuple | list) and sorted(d % 4 for d in dims) == [2, 3]
        if len(before) != 3 or not spatial or arguments:
            raise Refusal("is no mean over height and width; " + _NO_NODE)
        small = (before[0], 1, 1)
        pooled = self._adaptive(call.name, "", operands, small)
        if keeps or pooled is None:
            return pooled
        flat = _typed(nir.Flatten(np.array(small), 0, 2), small, after)
        return self._place(
            f"{call.name}_flatten", flat, [pooled], {"computed": _COMPUTED_IN[self.part]}
        )

    def _flatten(self, name: str, path: str, operands: tuple[str, ...], after: Shape) -> str | None:
        """A reshape that flattens neighbouring dimensions, or none."""
        before = self._shape(operands[0])
        if before == after:
            source: str | None = self.sources[operands[0]]
            return source
        for start in range(len(before)):
            for end in range(start + 1, len(before)):
                merged = math.prod(before[start : end + 1])
                if (*before[:start], merged, *before[end + 1 :]) == after:
                    node = nir.Flatten(np.array(before), start, end)
                    return self._node(name, _typed(node, before, after), operands, path=path)
        raise Refusal(f"makes {list(after)} of {list(before)}, which does not flatten dimensions")

    def _factor(self, call: Call, before: Shape, after: Shape) -> np.ndarray[Any, Any]:
        """The constants by which a product multiplies each element of an image."""
        others = [
            self.values[part.name] if isinstance(part, Value) else part
            for part in (*call.args, *(call.kwargs or {}).values())
            if not (isinstance(part, Value) and part.name in self.sources)
        ]
        if len(others) != 1 or before != after:
            raise Refusal("is no product of an image with constants of its shape")
        factor = torch.as_tensor(others[0], dtype=torch.float32).cpu()
        if factor.dim() > len(after) and factor.shape[0] != 1:
            raise Refusal("multiplies images of a batch by different constants")
        return array_of(factor.expand(1, *after)[0])

    def _node(
        self,
        name: str,
        node: nir.NIRNode,
        operands: tuple[str, ...],
        *,
        path: str = "",
        **more: Any,
    ) -> str | None:
        """Adds a node that reads values; None if one of those is refused."""
        sources = [self.sources[value] for value in operands]
        known = [source for source in sources if source is not None]
        if len(known) < len(sources):
            return None
        if len(set(known)) < len(known):
            raise Refusal("adds a value to itself, but NIR has one edge between two nodes at most")
        metadata = {"computed": _COMPUTED_IN[self.part], **({"path": path} if path else {}), **more}
        return self._place(name, node, known, metadata)

    def _add(self, name: str, node: nir.NIRNode, operands: tuple[str, ...]) -> None:
        sources = [self.sources[value] for value in operands]
        self._place(name, node, [source for source in sources if source is not None], {})

    def _place(
        self, name: str, node: nir.NIRNode, sources: Sequence[str], metadata: Mapping[str, Any]
    ) -> str:
        # Other tools make attributes of these names.
        own = free_path(name.replace(".", "_").replace(" ", "_"), set(self.nodes))
        node.metadata = dict(metadata)
        self.nodes[own] = node
        self.edges += [(source, own) for source in sources]
        return own

    def _shape(self, value: str) -> Shape:
        """The shape that a value has for one image."""
        found: Tensor = self.values[value]
        return tuple(found.shape[1:])


class _KeepingRun(Run):
    """A simulation that keeps every value."""

    def __init__(self, net: SpikingNetwork, images: Tensor) -> None:
        self.kept: Values = {net.program.images: images}
        super().__init__(net.program, net.model, images)

    def free(self, step: Step, values: Values) -> None:
        """Keeps all values before some are forgotten."""
        self.kept |= values
        super().free(step, values)


@torch.no_grad()
def _values(net: SpikingNetwork, shape: Shape) -> Values:
    """Every value of one image's first time step, by name."""
    images = torch.zeros(1, *shape, device=net.device)
    net.inputs.check(images)
    run = _KeepingRun(net, images)
    run.advance(1, images if net.program.images_change else None)
    kept = {fire.name: run.states[fire.name].m for fire in net.program.neurons} | run.kept
    return run.execute_tail(kept | run.means(run.counts(), 1))


def _typed(node: nir.NIRNode, before: Shape, after: Shape) -> nir.NIRNode:
    """A node with the types of its input and output, of which NIR finds some late or wrongly."""
    node.input_type = {"input": np.array(before)}
    node.output_type = {"output": np.array(after)}
    return node


def _weighted_node(module: nn.Module, before: Shape) -> nir.NIRNode | None:
    """The node of a layer with weights; None for any other layer."""
    if isinstance(module, nn.Linear):
        if len(before) != 1:
            raise Refusal("is applied to more than one dimension; NIR's Affine takes vectors")
        weight, offset = array_of(module.weight), module.bias
        return nir.Linear(weight) if offset is None else nir.Affine(weight, array_of(offset))
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        return None
    if module.padding_mode != "zeros":
        raise Refusal(f"pads with {module.padding_mode!r}; NIR's convolutions pad with zeros")
    weight = array_of(module.weight)
    given: Tensor | None = module.bias
    bias = np.zeros(len(weight), np.float32) if given is None else array_of(given)
    padding = module.padding
    if isinstance(module, nn.Conv1d):
        first = padding if isinstance(padding, str) else padding[0]
        stride, dilation = module.stride[0], module.dilation[0]
        return nir.Conv1d(before[1], weight, stride, first, dilation, module.groups, bias)
    size = (before[1], before[2])
    return nir.Conv2d(size, weight, module.stride, padding, module.dilation, module.groups, bias)


def _average(arguments: Mapping[str, Any], before: Shape, after: Shape) -> nir.NIRNode:
    """The node of an average pooling."""
    kernel = _pair(arguments["kernel_size"])
    stride = _pair(arguments.get("stride") or kernel)
    padding = _pair(arguments.get("padding", 0))
    plain = arguments.get("count_include_pad", True) or not any(padding)
    if arguments.get("divisor_override") is not None or not plain:
        raise Refusal("divides by another number than its windows have elements")
    along = zip(before[1:], kernel, stride, padding, strict=True)
    floor = tuple((size + 2 * p - k) // s + 1 for size, k, s, p in along)
    if floor != after[1:]:
        raise Refusal("rounds its size up (ceil_mode), which NIR's AvgPool2d does not")
    return nir.AvgPool2d(np.array(kernel), np.array(stride), np.array(padding))


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = value if isinstance(value, tuple | list) else (value,)
    return int(first), int(rest[0] if rest else first)


def _pooling_arguments(call: Call, module: nn.Module | None) -> dict[str, Any]:
    """The arguments of a pooling by name."""
    if module is not None:
        return dict(vars(module))
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    return {**dict(zip(names, call.args[1:], strict=False)), **(call.kwargs or {})}


def _target_name(call: Call) -> str:
    target: str | Callable[..., Any] = call.target
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def _named(net: SpikingNetwork, step: Step) -> tuple[str, str]:
    """Where in the model a step is, and what it does, by the name people call it."""
    if isinstance(step, Fire):
        return step.path, "SNMNeuron"
    if not isinstance(step, Call):
        return getattr(step, "path", step.name), type(step).__name__
    if step.kind == "module":
        return str(step.target), type(net.model.get_submodule(str(step.target))).__name__
    return step.name, _target_name(step)
