"""Executes the program of an integer network."""

from typing import Any

import torch
from torch import Tensor, nn

from snm_kernels import Emit

from ..nn.integer import IntegerConv, IntegerNeuron, IntegerReadout
from .fused import FusedRun, SpikeLayer, hooked
from .interpret import Values
from .observer import Ask
from .program import STEPS, Call, Fire, Program, RunningMax
from .run import Counts

INTEGER_BYTES = 2
"""How many bytes an element of a time step takes: spikes one, and what lists them another."""


class IntegerRun(FusedRun):
    """A simulation in integers: spikes are int8, and what drives neurons is int32."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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

    def spike_layer(self, call: Call) -> SpikeLayer | None:
        """The layer of integers that an operation is, unless it has hooks."""
        layer = self.model.get_submodule(str(call.target)) if call.kind == "module" else None
        return layer if isinstance(layer, IntegerConv) and not hooked(layer) else None

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
