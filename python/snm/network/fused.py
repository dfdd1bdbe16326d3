"""Executes programs in which layers of spikes are launched along with the neurons they drive."""

from collections import Counter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from snm_kernels import Emit, SNMOutput, SNMState

from ..nn import SNMNeuron
from .interpret import Values
from .observer import Ask
from .program import Call, Fire
from .run import Launched, Run


class SpikeLayer(Protocol):
    """A layer with weights that reads spikes."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """What it makes of spikes, int8 ``[N, C, ...]``."""

    def fire(
        self,
        x: Tensor,
        neuron: Any,
        state: SNMState | None,
        residual: Tensor | None,
        emit: Emit,
    ) -> SNMOutput:
        """Runs the layer on spikes ``[T, B, C, ...]``, and the neurons that it drives."""


class Waiting(NamedTuple):
    """A layer that is computed when its neurons are run, along with them."""

    layer: SpikeLayer
    x: Tensor


class FusedRun(Run):
    """A simulation in which layers read int8 spikes.

    One whose result drives one layer of neurons, and is not read otherwise, is computed in one
    launch with them, unless an observer asks for what drives them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._fused: set[str] = set()
        super().__init__(*args, **kwargs)
        reads = Counter(name for step in self.program.temporal for name in step.reads)
        drives = {fire.drive for fire in self.program.neurons if not fire.constant_drive}
        self._fused = {name for name in drives if reads[name] == 1}

    def spike_layer(self, call: Call) -> SpikeLayer | None:
        """The layer that an operation between the neurons is; None if it is none of spikes."""
        raise NotImplementedError

    def call(self, call: Call, values: Values) -> Any:
        """The result of an operation; of a layer that runs along with its neurons, the layer."""
        layer = self.spike_layer(call) if self.part == "temporal" else None
        if layer is None or values[call.reads[0]].dtype != torch.int8:
            return super().call(call, values)
        x = values[call.reads[0]]
        return Waiting(layer, x) if call.name in self._fused else layer(x)

    def launch(self, fire: Fire, values: Values, emit: Emit, asks: set[Ask]) -> Launched:
        """Runs a layer of neurons, with the layer that drives them if that waits for it."""
        waiting = values[fire.drive]
        if not isinstance(waiting, Waiting):
            return super().launch(fire, values, emit, asks)
        neuron, before = self.neuron(fire), self.states.get(fire.name)
        if asks & {"drive", "negative"} or hooked(neuron) or _sized(fire, neuron):
            values[fire.drive] = waiting.layer(waiting.x)
            return super().launch(fire, values, emit, asks)
        residual = None
        if fire.residual is not None:
            residual = self.over_time(values[fire.residual], constant=fire.constant_residual)
        x = self.over_time(waiting.x, constant=False)
        sent, state = waiting.layer.fire(x, neuron, before, residual, emit)
        self._dtypes[fire.name] = state.v.dtype
        return Launched(None, None, sent, state)


def hooked(module: nn.Module) -> bool:
    """Whether users have hooked something into a module, which then has to be called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _sized(fire: Fire, neuron: SNMNeuron) -> bool:
    """Whether neurons have to check that what drives them has the calibrated size."""
    return fire.per_neuron and neuron.threshold.dim() > 1
