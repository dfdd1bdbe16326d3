"""How large the values of an integer network can become, whatever its images and spikes."""

import builtins
import operator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import Offence
from ..nn.integer import (
    LARGEST_PIXEL,
    SILENT,
    IntegerConv,
    IntegerNeuron,
    IntegerReadout,
    IntegerScale,
    IntegerSumPool,
    Pixels,
)
from .interpret import Interpreter, Values
from .program import (
    STEPS,
    Call,
    Fire,
    Program,
    Repeat,
    RunningMax,
    Value,
    reshape_steps,
    step_shape,
    step_size,
)

LARGEST_INT8 = 127
"""The largest amount of what is int8: spikes, and sums of few of them."""
LEAST_STEPS = 8
"""For so many time steps a network has to be exact."""

_NAMES = (
    *("cat", "concat", "concatenate", "stack", "hstack", "dstack", "chunk", "split", "unbind"),
    *("split_with_sizes", "tensor_split", "index_select", "narrow", "select", "unfold", "flatten"),
    *("reshape", "unflatten", "view", "squeeze", "unsqueeze", "expand", "broadcast_to", "movedim"),
    *("moveaxis", "permute", "swapaxes", "swapdims", "transpose", "contiguous", "detach", "clone"),
    *("positive", "flip", "fliplr", "flipud", "repeat", "expand_as", "reshape_as", "view_as"),
    *("channel_shuffle", "pixel_shuffle", "pixel_unshuffle"),
)
_METHODS = frozenset(name for name in _NAMES if hasattr(torch.Tensor, name))
_FUNCTIONS = frozenset(
    [
        *(getattr(torch, name) for name in _NAMES if hasattr(torch, name)),
        *(operator.getitem, operator.pos, reshape_steps, F.unfold),
        *(F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle),
    ]
)
_MODULES = (
    *(nn.Flatten, nn.Unflatten, nn.Unfold),
    *(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    *(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    *(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
)
_CONSTANT_PADS = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
_SHAPE_FUNCTIONS = (builtins.getattr, step_shape, step_size)
_SHAPE_METHODS = ("dim", "ndimension", "size")


class Bound(NamedTuple):
    """How large a value can become at a time step."""

    largest: int
    """The largest amount of an element."""
    narrow: bool
    """Whether it is int8; else int32, and int64 behind the last neurons."""


def rearranges(call: Call, model: nn.Module) -> bool:
    """Whether an operation only copies elements to other places, and puts zeros beside them.

    Args:
        call: the operation.
        model: the modules that calls name.

    >>> rearranges(Call("y", "function", torch.cat), nn.Module())
    True
    >>> rearranges(Call("y", "function", torch.mul), nn.Module())
    False
    """
    if call.kind == "module":
        module = model.get_submodule(str(call.target))
        if isinstance(module, _CONSTANT_PADS):
            return module.value == 0
        return isinstance(module, _MODULES)
    if any(isinstance(part, torch.dtype) for part in (*call.args, *(call.kwargs or {}).values())):
        return False
    if call.kind == "method":
        return call.target in _METHODS
    if call.target is F.pad:
        arguments = dict(zip(("input", "pad", "mode", "value"), call.args, strict=False))
        return (arguments | dict(call.kwargs or {})).get("value") in (None, 0)
    return call.target in _FUNCTIONS


def renew_bounds(program: Program, model: nn.Module) -> list[Offence]:
    """Tells layers and neurons how large what they read can become, as it follows from the weights.

    Args:
        program: that of an integer network.
        model: its modules.

    Returns:
        What could leave its integers within :data:`LEAST_STEPS` time steps, and operations of
        which nothing is known.
    """
    walk = _Walk(program, model)
    constant = walk.execute_static({program.batch: None, program.images: None})
    walk.execute_temporal(dict(constant))
    walk.execute_tail({**constant, **walk.sent, STEPS: None})
    return walk.offences


class _Walk(Interpreter):
    """Follows bounds through a program; of what is no tensor of integers the bound is None."""

    def __init__(self, program: Program, model: nn.Module) -> None:
        super().__init__(program, model)
        self.sent: Values = {}
        """Of all neurons that are read out."""
        self.offences: list[Offence] = []

    def call(self, call: Call, values: Values) -> Bound | None:
        """The bound of what an operation makes."""
        layer = self.model.get_submodule(str(call.target)) if call.kind == "module" else None
        if isinstance(layer, Pixels):
            if not layer.is_valid:
                self._refuse_call(call, "its step must be above 0, and its zero finite")
            return Bound(LARGEST_PIXEL, narrow=False)
        read = [values[name] for name in call.reads]
        bounds = [bound for bound in read if bound is not None]
        if isinstance(layer, IntegerConv | IntegerSumPool | IntegerScale | IntegerReadout):
            return self._of_layer(call, layer, bounds[0]) if bounds else None
        if call.kind == "attribute":
            return self._unknown(call)
        if not bounds or call.target in (_SHAPE_FUNCTIONS if call.kind == "function" else ()):
            return None
        if call.kind == "method" and call.target in _SHAPE_METHODS:
            return None
        narrow = all(bound.narrow for bound in bounds)
        if call.target is operator.add and len(read) == len(bounds) == len(call.args) == 2:
            return self._checked(call, sum(bound.largest for bound in bounds), narrow)
        if not rearranges(call, self.model):
            return self._unknown(call)
        return Bound(max(bound.largest for bound in bounds), narrow)

    def repeat(self, step: Repeat, values: Values) -> Any:
        """The bound of the value that is repeated."""
        return values[step.value]

    def pool(self, step: RunningMax, values: Values) -> Bound | None:
        """The bound of a max pooling: a count grows by as much as the largest that it reads."""
        bounds = [values[name] for name in step.reads]
        if any(bound is None or not bound.narrow for bound in bounds):
            if not self.offences:
                self._refuse(step.path or step.name, "max pooling", "it pools what is no spikes")
            return None
        return Bound(max(bound.largest for bound in bounds), narrow=True)

    def fire(self, fire: Fire, values: Values) -> None:
        """Sets the bound of what drives neurons."""
        neuron = self.model.get_submodule(fire.path)
        assert isinstance(neuron, IntegerNeuron)
        bounds = [values[name] for name in fire.reads]
        if any(bound is None for bound in bounds) and not self.offences:
            self._refuse(fire.path, "neurons", "they are driven by what is no tensor of integers")
        known = [bound.largest for bound in bounds if bound is not None]
        # Of what nothing is known, no time step is exact.
        neuron.renew_bound(sum(known) if len(known) == len(bounds) else SILENT)
        if not neuron.has_valid_thresholds:
            self._refuse(fire.path, "neurons", "a threshold is out of range")
        if neuron.most_steps < LEAST_STEPS:
            reason = (
                f"what drives them could leave int32 within {LEAST_STEPS} time steps; "
                "give weights fewer bits"
            )
            self._refuse(fire.path, "neurons", reason)
        sent = Bound(neuron.rule.max_spikes, narrow=True)
        values[fire.name] = values[fire.spikes] = sent
        self.sent[fire.name] = Bound(neuron.rule.max_spikes, narrow=False)

    def _of_layer(self, call: Call, layer: nn.Module, x: Bound) -> Bound | None:
        """The bound of what a layer of integers makes, which is told the bound of what it reads."""
        counts = self.part == "tail" and isinstance(layer, IntegerConv | IntegerReadout)
        steps = (Value(STEPS),) if counts else ()
        if call.kwargs or len(call.args) != 1 + len(steps) or tuple(call.args[1:]) != steps:
            self._refuse_call(call, "it takes no such arguments")
            return None
        if isinstance(layer, IntegerConv):
            layer.renew_largest(x.largest)
            return self._checked(call, layer.sums, narrow=False)
        if isinstance(layer, IntegerSumPool):
            narrow = x.narrow and not layer.wide
            return self._checked(call, x.largest * layer.count, narrow)
        if isinstance(layer, IntegerScale):
            largest = int(layer.factor.long().abs().max()) if layer.factor.numel() else 0
            return self._checked(call, x.largest * largest, narrow=False)
        assert isinstance(layer, IntegerReadout)
        layer.largest = x.largest
        return None

    def _checked(self, call: Call, largest: int, narrow: bool) -> Bound | None:
        """The bound of a sum, unless integers cannot hold it."""
        kind, most = "int32", 2**31 - 1
        if narrow:
            kind, most = "int8", LARGEST_INT8
        if self.part == "tail":
            # Behind the last neurons sums over all time steps are in int64, or in float64.
            kind, most = f"2**53 within {LEAST_STEPS} time steps", (2**53 - 1) // LEAST_STEPS
        if largest > most:
            self._refuse_call(call, f"its sums could leave {kind}; give weights fewer bits")
            return None
        return Bound(largest, narrow)

    def _unknown(self, call: Call) -> Bound | None:
        self._refuse_call(call, "it has no integer form")
        return None

    def _refuse_call(self, call: Call, reason: str) -> None:
        path, operation = call.name, getattr(call.target, "__name__", str(call.target))
        if call.kind == "module":
            path = str(call.target)
            operation = type(self.model.get_submodule(path)).__name__
        self._refuse(path, operation, reason)

    def _refuse(self, path: str, operation: str, reason: str) -> None:
        self.offences.append(Offence(path, operation, reason))
