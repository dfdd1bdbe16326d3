"""The layers of a network of integers as numbers alone, from which hardware can be built."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snm_kernels import SILENT, SNMRule
from snm_kernels.windows import Windows, adaptive_windows, max_pool_windows

from ..conversion.tracing.paths import free_path
from ..errors import Offence, refuse
from ..network.interpret import Interpreter, Values
from ..network.program import STEPS, Call, Fire, Pooling, RunningMax, Step
from ..network.spiking import SpikingNetwork
from ..nn.integer import (
    IntegerConv,
    IntegerLinear,
    IntegerNeuron,
    IntegerReadout,
    IntegerScale,
    IntegerSumPool,
    Pixels,
)

Array = np.ndarray[Any, Any]

KINDS = ("conv", "linear", "neurons", "sum_pool", "max_pool", "scale", "sum", "readout")
"""The kinds of layers."""
PARTS = {"static": "once", "temporal": "every_step", "tail": "at_the_end"}
"""When a layer is computed, by the part of the program that it is in."""

_INT32_MIN = -(2**31)


class Place(NamedTuple):
    """Where a value is kept."""

    size: int
    """How many elements it has for one image."""
    bytes: int
    """How many bytes hold an element: 1, 4 or 8, signed."""


class Known(NamedTuple):
    """What is known of a value: where it is kept, and an example of one image's."""

    number: int
    example: Tensor


@dataclass
class Layer:
    """A layer: what it reads and makes, and its constants."""

    kind: str
    path: str
    part: str
    reads: tuple[int, ...]
    """The numbers of the values that it reads."""
    makes: int
    """The number of the value that it makes; -1 for logits."""
    counts: int = -1
    """The number of the value that holds how many spikes neurons have sent; -1 for none."""
    fields: dict[str, int | tuple[int, ...]] = field(default_factory=dict)
    """Sizes and other integers by name."""
    arrays: dict[str, Array] = field(default_factory=dict)
    """int8, int32 and float64 constants by name."""


@dataclass
class Layers:
    """All layers of a network, in order of execution."""

    layers: list[Layer]
    places: list[Place]
    """The values by number; the first is the image."""
    output: int
    """The number of the value that holds the answer: the sums that the readout reads, or the counts
    of the last neurons."""
    sums: str | None
    """The name that those sums have in the program; None without a readout."""


def layers_of(net: SpikingNetwork, shape: Sequence[int]) -> Layers:
    """The layers of a network of integers for images of a shape, without the batch.

    Raises:
        ConversionError: some operations are no such layers; it names each.
    """
    return _Writer(net, tuple(shape)).written()


class _Writer(Interpreter):
    """Writes down a layer for each step; its value is where that is kept, with an example.

    A value is None where what makes it is refused.
    """

    def __init__(self, net: SpikingNetwork, shape: tuple[int, ...]) -> None:
        super().__init__(net.program, net.model)
        self.net = net
        self.image = torch.zeros(1, *shape, dtype=net.dtype, device=net.device)
        self.layers: list[Layer] = []
        self.places: list[Place] = []
        self.counts: Values = {}
        """The counts of the neurons that are read out, by the names of their steps."""
        self.offences: list[Offence] = []
        self.used = {"pixels", *net.layers}
        """The paths that are taken."""
        self.output: Known | None = None
        self.sums: str | None = None

    def written(self) -> Layers:
        """All layers; raises an error that lists what cannot be one."""
        program = self.program
        constant = self.execute_static({program.images: self.image, program.batch: 1})
        self.execute_temporal(dict(constant))
        if self.net.readout == "mean":
            self.execute_tail({**constant, **self.counts, STEPS: 1})
        else:
            self.output = self.counts[program.output]
        refuse(self.offences, "write_testbench", "written")
        assert self.output is not None
        return Layers(self.layers, self.places, self.output.number, self.sums)

    def free(self, step: Step, values: Values) -> None:
        """Forgets nothing: the tail reads what is constant in time."""

    # --- steps ---

    def fire(self, fire: Fire, values: Values) -> None:
        """Writes a layer of neurons down."""
        operands = [values[name] for name in fire.reads]
        values[fire.name] = values[fire.spikes] = self.counts[fire.name] = None
        if any(operand is None for operand in operands):
            return
        neuron = self.model.get_submodule(fire.path)
        assert isinstance(neuron, IntegerNeuron)
        if len({operand.example.shape for operand in operands}) > 1:
            self._refuse(fire.path, "SNMNeuron", "adds values of different shapes")
            return
        example = torch.zeros_like(operands[0].example, dtype=torch.int8)
        sent = self._place(example)
        own = example.shape[1:]
        low, high = neuron.rule.count_bounds
        threshold, shared = _shared(neuron.threshold, own)
        start, lower = integers_of_rule(threshold, neuron.rule)
        fields: dict[str, int | tuple[int, ...]] = {
            **_out(example),
            "threshold_shared": shared,
            "count_min": low,
            "count_max": high,
            "max_spikes": neuron.rule.max_spikes,
        }
        arrays = {"threshold": threshold, "lower": lower, "start": start}
        if neuron.bias is not None:
            arrays["bias"], fields["bias_shared"] = _shared(neuron.bias, own)
        layer = self._layer("neurons", fire.path, operands, sent.number, fields, arrays)
        values[fire.name] = values[fire.spikes] = sent
        if fire.read_out:
            counts = self._place(example.to(torch.int64))
            layer.counts, self.counts[fire.name] = counts.number, counts

    def pool(self, step: RunningMax, values: Values) -> Known | None:
        """Writes a max pooling of spikes down."""
        operands = [values[name] for name in step.reads]
        if any(operand is None for operand in operands):
            return None
        if len(operands) > 1:
            return self._refuse(step.path or step.name, "max pooling", "pools layers side by side")
        x = operands[0].example
        if x.dim() > 4:
            return self._refuse(step.path or step.name, "max pooling", _THREE)
        pooling, spatial = step.pooling, x.shape[2:]
        windows = _windows(pooling, spatial)
        made = x.new_zeros(*x.shape[:2], *(along.output for along in windows))
        result = self._place(made)
        fields = {**_in(x), **_out(made)}
        for name in ("kernel", "stride", "padding", "dilation"):
            # Windows of an adaptive pooling have no one size; what divides evenly has.
            one = 1 if name in ("stride", "dilation") else 0
            fixed = [one if along.adaptive else getattr(along, name) for along in windows]
            missing = 0 if name == "padding" else 1
            fields[name] = _two(fixed, missing)
        taps = [[along.taps(o) for o in range(along.output)] for along in windows]
        rows, columns = [[range(1)]] * (2 - len(taps)) + taps
        ends = [[taken[0], taken[-1] + 1] for taken in (*rows, *columns)]
        arrays = {"windows": np.array(ends, np.int32)}
        path = step.path or step.name
        self._layer("max_pool", path, operands, result.number, fields, arrays)
        return result

    def call(self, call: Call, values: Values) -> Any:
        """Writes an operation down, unless it only arranges a value otherwise or asks for sizes."""
        if any(name in values and values[name] is None for name in call.reads):
            return None
        operands = [values[name] for name in call.reads if isinstance(values.get(name), Known)]
        module = self.model.get_submodule(str(call.target)) if call.kind == "module" else None
        if isinstance(module, Pixels):
            return self._place(torch.zeros_like(self.image, dtype=torch.int32))
        if isinstance(module, IntegerConv):
            return self._weighted(call, module, operands)
        if isinstance(module, IntegerSumPool):
            return self._sum_pool(call, module, operands)
        if isinstance(module, IntegerScale):
            x = operands[0].example
            factor = _array(module.factor)
            return self._made(call, "scale", operands, module(x), _in(x), {"factor": factor})
        if isinstance(module, IntegerReadout):
            self.output, self.sums = operands[0], call.reads[0]
            unit = _array(module.unit.expand(operands[0].example.shape[1:]).reshape(-1))
            self._layer("readout", str(call.target), operands, -1, {}, {"unit": unit})
            return operands[0]
        if call.target is operator.add and len(operands) == 2:
            first, second = (operand.example for operand in operands)
            if first.shape != second.shape:
                return self._refuse(call.name, "add", "adds values of different shapes")
            return self._made(call, "sum", operands, first + second, {}, {})
        return self._arranged(call, operands, values)

    # --- layers ---

    def _weighted(self, call: Call, module: IntegerConv, operands: list[Known]) -> Known:
        x = operands[0].example
        made = module(x)
        is_linear = isinstance(module, IntegerLinear)
        dims = len(module.stride)
        fields = {
            **_in(x),
            "groups": module.groups,
            "kernel": _two(module.weight.shape[2:], 1),
            "stride": _two(module.stride, 1),
            "padding": _two(module.padding, 0),
            "dilation": _two(module.dilation, 1),
            "pool": _two(module.pool[len(module.pool) - dims :], 1),
        }
        arrays = {"weight": _array(module.weight)}
        if module.bias is not None:
            arrays["bias"] = _array(module.bias)
        return self._made(call, "linear" if is_linear else "conv", operands, made, fields, arrays)

    def _sum_pool(self, call: Call, module: IntegerSumPool, operands: list[Known]) -> Known | None:
        x = operands[0].example
        if x.dim() > 4:
            return self._refuse(call.name, "average pooling", _THREE)
        made = module(x)
        fields = {**_in(x), "pool": _two(module.size, 1)}
        return self._made(call, "sum_pool", operands, made, fields, {})

    def _arranged(self, call: Call, operands: list[Known], values: Values) -> Any:
        """What a call makes of sizes; or a value that it hands on, element by element."""
        examples = {
            name: value.example if isinstance(value, Known) else value
            for name, value in values.items()
        }
        if not operands:
            return call.compute(self.model, examples)
        made = call.compute(self.model, examples)
        if not isinstance(made, Tensor):
            return made
        reason = "is neither a layer of integers nor a reshape"
        if len(operands) == 1:
            x = operands[0].example
            numbers = torch.arange(x.numel(), dtype=torch.int64, device=x.device).view(x.shape)
            [name] = {name for name in call.reads if isinstance(values.get(name), Known)}
            moved = call.compute(self.model, {**examples, name: numbers})
            if torch.equal(moved.reshape(-1), numbers.reshape(-1)):
                return Known(operands[0].number, made)
            reason = "arranges elements in another order"
        target = call.target
        path, operation = call.name, getattr(target, "__name__", str(target))
        if call.kind == "module":
            path, operation = str(target), type(self.model.get_submodule(str(target))).__name__
        return self._refuse(path, operation, reason)

    def _made(
        self,
        call: Call,
        kind: str,
        operands: list[Known],
        made: Tensor,
        fields: dict[str, int | tuple[int, ...]],
        arrays: dict[str, Array],
    ) -> Known:
        """Adds the layer of a call."""
        known = self._place(made)
        path = str(call.target) if call.kind == "module" else call.name
        self._layer(kind, path, operands, known.number, {**fields, **_out(made)}, arrays)
        return known

    def _layer(
        self,
        kind: str,
        path: str,
        operands: list[Known],
        makes: int,
        fields: dict[str, int | tuple[int, ...]],
        arrays: dict[str, Array],
    ) -> Layer:
        reads = tuple(operand.number for operand in operands)
        size = math.prod(operands[0].example.shape[1:])
        more = {"size": size if makes < 0 else self.places[makes].size, **fields}
        own = path if kind == "neurons" else free_path(path, self.used)
        self.used.add(own)
        layer = Layer(kind, own, PARTS[self.part], reads, makes, fields=more, arrays=arrays)
        self.layers.append(layer)
        return layer

    def _place(self, example: Tensor) -> Known:
        """A place for a value like an example."""
        self.places.append(Place(math.prod(example.shape[1:]), example.element_size()))
        return Known(len(self.places) - 1, example)

    def _refuse(self, path: str, operation: str, reason: str) -> Known | None:
        self.offences.append(Offence(path, operation, reason))
        return None


_THREE = "has more than two spatial dimensions"


def integers_of_rule(threshold: Array, rule: SNMRule) -> tuple[Array, Array]:
    """Where membranes of int32 thresholds start, and below which integer neurons correct.

    Args:
        threshold: int32.
        rule: that of the neurons.

    Returns:
        int32 each. A silent neuron starts at 0, and corrects below -2**31, which is never.

    >>> integers_of_rule(np.array([5, 2**31 - 1]), SNMRule(v_init=0.5, negative_threshold=0.5))
    (array([2, 0], dtype=int32), array([         -2, -2147483648], dtype=int32))
    >>> integers_of_rule(np.array([4]), SNMRule(negative_threshold=0.5))[1]
    array([-1], dtype=int32)
    >>> integers_of_rule(np.array([4]), SNMRule(negative_threshold=0.5, strict=True))[1]
    array([-2], dtype=int32)
    """
    silent = threshold == SILENT
    # In float64 products of an int32 and a float32 number are exact.
    start = np.floor(np.float64(np.float32(rule.v_init)) * threshold)
    lower = np.full(threshold.shape, float(_INT32_MIN))
    if rule.negative_threshold is not None:
        real = -np.float64(np.float32(rule.negative_threshold)) * threshold
        lower = np.ceil(real) if rule.strict else np.floor(real) + 1
    start, lower = np.where(silent, 0, start), np.where(silent, _INT32_MIN, lower)
    first, second = (part.clip(_INT32_MIN, SILENT).astype(np.int32) for part in (start, lower))
    return first, second


def _shared(values: Tensor, shape: torch.Size) -> tuple[Array, int]:
    """A constant of neurons ``[*shape]``, and how many neurons in a row share each of its elements:
    all of a channel, or one."""
    full = values.view((1,) * (len(shape) - values.dim()) + values.shape).expand(shape)
    rows = full.reshape(shape[0] if shape else 1, -1)
    if bool((rows == rows[:, :1]).all()):
        return _array(rows[:, 0]), rows.shape[1]
    return _array(rows.reshape(-1)), 1


def _windows(pooling: Pooling, spatial: Sequence[int]) -> list[Windows]:
    """The windows of a pooling along each dimension."""
    if pooling.output_size is not None:
        sizes = zip(spatial, pooling.output_size, strict=True)
        return [adaptive_windows(size, size if out is None else out) for size, out in sizes]
    along = zip(
        spatial,
        pooling.kernel_size,
        pooling.stride,
        pooling.padding,
        pooling.dilation,
        strict=True,
    )
    return [max_pool_windows(*each, pooling.ceil_mode) for each in along]


def _in(x: Tensor) -> dict[str, int | tuple[int, ...]]:
    return dict(zip(("channels", "height", "width"), _sizes(x), strict=True))


def _out(x: Tensor) -> dict[str, int | tuple[int, ...]]:
    return dict(zip(("out_channels", "out_height", "out_width"), _sizes(x), strict=True))


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Channels, height and width of ``[1, C, ...]``; what is missing is 1, what is more, height."""
    channels, *spatial = x.shape[1:] or (1,)
    return channels, math.prod(spatial[:-1]), math.prod(spatial[-1:])


def _two(values: Sequence[int], missing: int) -> tuple[int, ...]:
    """Values of up to two spatial dimensions as of two."""
    return (missing,) * (2 - len(values)) + tuple(values)


def _array(values: Tensor) -> Array:
    """A tensor in C order, as a copy in the memory of the host."""
    array: Array = np.ascontiguousarray(values.detach().cpu().numpy())
    return array
