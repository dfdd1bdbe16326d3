"""Executes the program of an integer network, in which layers run along with their neurons."""

from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from snm_kernels import Emit

from ..nn.integer import IntegerConv, IntegerNeuron, IntegerReadout
from .interpret import Values
from .observer import Ask
from .program import STEPS, Call, Fire, Program, RunningMax
from .run import Counts, Launched, Run

INTEGER_BYTES = 2
"""How many bytes an element of a time step takes: spikes one, and what lists them another."""


class Waiting(NamedTuple):
    """A layer that is computed when its neurons are run, along with them."""

    layer: IntegerConv
    x: Tensor

    def drive(self) -> Tensor:
        """What it drives neurons with, by itself."""
        drive: Tensor = self.layer(self.x)
        return drive


class IntegerRun(Run):
    """A simulation in integers: spikes are int8, and what drives neurons is int32.

    A layer whose result drives one layer of neurons, and is not read otherwise, is computed in one
    launch with them, unless an observer asks for what drives them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._fused: set[str] = set()
        super().__init__(*args, **kwargs)
        reads = Counter(name for step in self.program.temporal for name in step.reads)
        drives = {fire.drive for fire in self.program.neurons if not fire.constant_drive}
        self._fused = {name for name in drives if reads[name] == 1}
        self._most = most_steps(self.program, self.model)

    def advance(
        self, steps: int, frames: Tensor | None, *, count: bool = False
    ) -> dict[str, Tensor]:
        """Simulates the next time steps; refuses more than those in which int32 holds membranes."""
        if self.steps + steps > self._most:
            raise ValueError(
                f"SpikingNetwork: time steps must be at most {self._most}, within which no "
                f"membrane leaves int32 and logits are exact, got {self.steps + steps}; "
                f"start afresh, or call reset()"
            )
        return super().advance(steps, frames, count=count)

    def call(self, call: Call, values: Values) -> Any:
        """The result of an operation; of a layer that runs along with its neurons, the layer."""
        if self.part == "temporal" and call.name in self._fused and call.kind == "module":
            layer = self.model.get_submodule(str(call.target))
            x = values[call.reads[0]]
            if isinstance(layer, IntegerConv) and x.dtype == torch.int8 and not _hooked(layer):
                return Waiting(layer, x)
        return super().call(call, values)

    def launch(self, fire: Fire, values: Values, emit: Emit, asks: set[Ask]) -> Launched:
        """Runs a layer of neurons, with the layer that drives them if that waits for it."""
        waiting = values[fire.drive]
        if not isinstance(waiting, Waiting):
            return super().launch(fire, values, emit, asks)
        if asks & {"drive", "negative"} or _hooked(self.neuron(fire)):
            values[fire.drive] = waiting.drive()
            return super().launch(fire, values, emit, asks)
        residual = None
        if fire.residual is not None:
            residual = self.over_time(values[fire.residual], constant=fire.constant_residual)
        neuron, before = self.neuron(fire), self.states.get(fire.name)
        assert isinstance(neuron, IntegerNeuron)
        x = self.over_time(waiting.x, constant=False)
        sent, state = waiting.layer.fire(x, neuron, before, residual, emit)
        return Launched(None, None, sent, state)

    def send(self, fire: Fire, spikes: Tensor, values: Values) -> None:
        """Adds a layer's spikes, int8 ``[T, B, ...]``, to the values that later steps read."""
        if self.counted is not None and fire.read_out:
            self.counted[fire.name] = spikes
        values[fire.name] = values[fire.spikes] = spikes.flatten(0, 1)

    def pool(self, step: RunningMax, values: Values) -> Tensor:
        """Runs a running maximum over the chunk; returns int8 spikes ``[T*B, ...]``."""
        parts = [values[name] for name in step.reads]
        x = self.over_time(torch.cat(parts, 1) if len(parts) > 1 else parts[0], constant=False)
        sent, total = step.pooling.running_max(
            x, torch.ones((), device=x.device), self.totals.get(step.name), torch.int8
        )
        self.totals[step.name] = total
        for observer in self.observers:
            observer.see_pooling(step, sent)
        return sent.flatten(0, 1)

    def emitted(self, fire: Fire, asks: set[Ask]) -> Emit:
        """What a layer's launch emits: spikes, if anything reads them."""
        return "none" if super().emitted(fire, asks) == "none" else "spike"

    def means(self, counts: Counts, steps: int) -> Values:
        """The values that the tail reads: how many spikes were sent, and in how many steps."""
        values = dict(self.constant)
        values[STEPS] = steps
        for fire in self.program.neurons:
            if fire.read_out:
                values[fire.name] = counts[fire.name].to(torch.int64)
        return values


def most_steps(program: Program, model: nn.Module) -> int:
    """For how many time steps an integer network has exact sums, whatever its spikes."""
    most = []
    for fire in program.neurons:
        neuron = model.get_submodule(fire.path)
        if isinstance(neuron, IntegerNeuron):
            most.append(neuron.most_steps)
    for step in program.tail:
        if isinstance(step, Call) and step.kind == "module":
            layer = model.get_submodule(str(step.target))
            if isinstance(layer, IntegerConv | IntegerReadout):
                most.append(layer.exact_steps)
    return min(most)


def _hooked(module: nn.Module) -> bool:
    """Whether users have hooked something into a module, which then has to be called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
