"""Computes layers of floating point networks spike by spike, on the CPU.

A network's program stays as it is. A :class:`Plan` is made of it, of the modules, and of the names
of the layers that are to be computed so: another program, in which they read integer spikes.
"""

import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from snm_kernels import (
    Emit,
    SNMOutput,
    SNMState,
    pack_spike_weight,
    snm_conv,
    snm_linear,
    spike_conv,
    spike_linear,
)

from ..nn import SNMNeuron
from ..nn.small_maps import SmallMapConv2d
from .fused import FusedRun, SpikeLayer, hooked
from .program import Call, Fire, Program, Step, Value, last_reads, reshape_steps

_KEEPS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Modules that pass spikes on as they are."""
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
_POOLINGS = {nn.AvgPool1d: 1, nn.AvgPool2d: 2}
_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, SmallMapConv2d: 2}


class Reader(NamedTuple):
    """A convolution or linear layer that reads the spikes of a layer of neurons."""

    call: Call
    source: Fire
    between: tuple[Call, ...]
    """What spikes go through on their way: averages over windows side by side, flattenings."""
    pool: tuple[int, ...]
    """The windows of the average; empty for none."""

    def densely(self, model: nn.Module, amplitudes: Tensor) -> Tensor:
        """What the layer makes of the amplitudes that the neurons send, as the model does it."""
        values = {self.source.name: amplitudes}
        for call in (*self.between, self.call):
            values[call.name] = call.compute(model, values)
        return values[self.call.name]


@dataclass(frozen=True)
class EventLayer:
    """A layer that reads spikes, with what a spike is worth in its weight."""

    weight: Tensor
    """float32 ``[K, C / groups, *kernel]``."""
    packed: Tensor
    bias: Tensor | None
    """float32, with a dimension of size 1 for each spatial one."""
    places: dict[str, Any]
    """What else the operators take of a convolution; nothing of a linear layer."""

    @classmethod
    def of(cls, reader: Reader, model: nn.Module) -> "EventLayer":
        """Makes it of a module and of the thresholds of the neurons that it reads."""
        module: Any = model.get_submodule(str(reader.call.target))
        neuron = model.get_submodule(reader.source.path)
        assert isinstance(neuron, SNMNeuron)
        worth = _worth(module, neuron)
        assert worth is not None
        groups, bias, dims = 1, module.bias, module.weight.dim() - 2
        places: dict[str, Any] = {}
        if dims:
            groups = module.groups
            names = ("stride", "padding", "dilation", "groups")
            places = {name: getattr(module, name) for name in names}
            places["pool"] = reader.pool or 1
            bias = None if bias is None else bias.detach().view(-1, *[1] * dims)
        # [groups, 1, C / groups] beside [groups, K / groups, C / groups, *kernel].
        outputs, inputs = module.weight.shape[:2]
        one = worth.view(groups, 1, inputs).expand(groups, outputs // groups, inputs)
        weight = module.weight.detach() * one.reshape(outputs, inputs, *[1] * dims)
        for size in reader.pool:
            weight = weight / size
        return cls(weight, pack_spike_weight(weight, groups), bias, places)

    def __call__(self, x: Tensor) -> Tensor:
        """What it makes of spikes, int8 ``[N, C, ...]``."""
        run = spike_conv if self.places else spike_linear
        x = self._laid_out(x.unsqueeze(0))
        made: Tensor = run(x, self.weight, packed=self.packed, bias=self.bias, **self.places)
        return made.squeeze(0)

    def fire(
        self,
        x: Tensor,
        neuron: SNMNeuron,
        state: SNMState | None,
        residual: Tensor | None,
        emit: Emit,
    ) -> SNMOutput:
        """Runs the layer and the neurons that it drives over all time steps.

        Args:
            x: int8 spikes ``[T, B, C, ...]``.
            neuron: the neurons.
            state, residual, emit: as for a call of :class:`snm.nn.SNMNeuron`.
        """
        if self.bias is not None and neuron.bias is not None:
            # Added one after the other they round as they do where the layer runs by itself.
            drive = self(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            made: SNMOutput = neuron(drive, state, residual=residual, emit=emit)
            return made
        run = snm_conv if self.places else snm_linear
        spikes, after = run(
            self._laid_out(x),
            self.weight,
            neuron.threshold,
            packed=self.packed,
            rule=neuron.rule,
            state=state,
            bias=neuron.bias if self.bias is None else self.bias,
            residual=residual,
            emit="none" if emit == "none" else "spike",
            backend=neuron.backend,
            **self.places,
        )
        if emit == "amplitude":
            assert spikes is not None
            spikes = neuron.amplitude(spikes)
        return SNMOutput(spikes, after)

    def _laid_out(self, x: Tensor) -> Tensor:
        """Spikes ``[T, B, C, ...]`` as the operators take them."""
        return x if self.places else x.flatten(2)


class Plan(NamedTuple):
    """How a network is executed where some of its layers are computed spike by spike."""

    program: Program
    """The network's program, in which these layers read integer spikes."""
    layers: dict[str, EventLayer]
    """These layers, by the names of their steps."""
    made_of: list[tuple[Tensor, int]]
    """The tensors of the model that it depends on, and how often each had been written."""

    def fits(self, program: Program, model: nn.Module, names: Iterable[str]) -> bool:
        """Whether it is what :func:`plan_of` would make now."""
        now = _marks(_chosen(program, model, names), model)
        return len(now) == len(self.made_of) and all(
            ours is theirs and written == theirs_written
            for (ours, written), (theirs, theirs_written) in zip(now, self.made_of, strict=True)
        )


class EventRun(FusedRun):
    """A simulation in which some layers are computed spike by spike.

    Args:
        plan: what to execute.
        model, images, readout, observers: as for :class:`snm.network.run.Run`.
    """

    def __init__(self, plan: Plan, model: nn.Module, images: Tensor, **options: Any) -> None:
        self.plan = plan
        super().__init__(plan.program, model, images, **options)

    def spike_layer(self, call: Call) -> SpikeLayer | None:
        """The layer that is computed spike by spike, if an operation is one."""
        return self.plan.layers.get(call.name)


def readers_of(program: Program, model: nn.Module) -> dict[str, Reader]:
    """The layers that can be computed spike by spike, by the names of their steps."""
    makers: dict[str, Step] = {step.name: step for step in program.temporal}
    written = {name for step in program.temporal for name in _written(step)}
    found = {}
    for call in makers.values():
        reader = _reader(call, makers, model) if isinstance(call, Call) else None
        if reader is None:
            continue
        values = {reader.source.name, *(each.name for each in reader.between)}
        if not values & written:
            found[reader.call.name] = reader
    return found


def plan_of(program: Program, model: nn.Module, names: Iterable[str]) -> Plan:
    """Makes a plan in which these layers are computed spike by spike, but for those with hooks.

    Args:
        program: a floating point network's, in float32 on the CPU.
        model: the modules that it calls.
        names: of the layers' steps.

    Raises:
        ValueError: a step is no layer that can be computed so.
    """
    readers = _chosen(program, model, names)
    temporal: list[Step] = []
    for step in program.temporal:
        reader = readers.get(step.name)
        if reader is not None:
            step = replace(reader.call, args=(Value(reader.source.spikes),))
        temporal.append(step)
    # From the last on, so that what only a dropped one reads is dropped too.
    between = [call.name for reader in readers.values() for call in reader.between]
    for name in sorted(set(between), key=[step.name for step in temporal].index, reverse=True):
        if not any(name in step.reads for step in temporal):
            temporal = [step for step in temporal if step.name != name]
    read = {name for step in temporal for name in step.reads}
    temporal = [
        replace(step, sends=step.name in read, pooled=step.spikes in read)
        if isinstance(step, Fire)
        else step
        for step in temporal
    ]
    temporal = [_reshaped(step) if isinstance(step, Call) else step for step in temporal]
    tail = tuple(map(_reshaped, program.tail))
    static = {step.name: program.frees[step.name] for step in program.static}
    made = replace(
        program,
        temporal=tuple(temporal),
        tail=tail,
        frees=static | last_reads(temporal, set()),
    )
    layers = {name: EventLayer.of(reader, model) for name, reader in readers.items()}
    return Plan(made, layers, _marks(readers, model))


def _reshaped(call: Call) -> Call:
    """A call that takes values in any memory format: spikes by events are channels_last."""
    is_view = call.kind == "method" and call.target == "view"
    return replace(call, target="reshape") if is_view else call


def _chosen(program: Program, model: nn.Module, names: Iterable[str]) -> dict[str, Reader]:
    """The layers of these names that no user has hooked something into."""
    readers = readers_of(program, model)
    unknown = set(names) - readers.keys()
    if unknown:
        raise ValueError(
            f"SpikingNetwork: events must be layers that read spikes, got {sorted(unknown)}"
        )
    return {
        name: readers[name]
        for name in names
        if not any(
            hooked(model.get_submodule(str(call.target)))
            for call in (*readers[name].between, readers[name].call)
            if call.kind == "module"
        )
    }


def _marks(readers: dict[str, Reader], model: nn.Module) -> list[tuple[Tensor, int]]:
    """The tensors of these layers, and how often each has been written."""
    tensors: list[Tensor] = []
    for reader in readers.values():
        module: Any = model.get_submodule(str(reader.call.target))
        neuron = model.get_submodule(reader.source.path)
        parts = (module.weight, module.bias, neuron.threshold)
        tensors += [part for part in parts if isinstance(part, Tensor)]
    return [(each, 0 if each.is_inference() else each._version) for each in tensors]


def _reader(call: Call, makers: dict[str, Step], model: nn.Module) -> Reader | None:
    """What a call is if it can be computed spike by spike; else None."""
    layer = _module_of(call, model)
    dims = _CONVOLUTIONS.get(type(layer), 0)
    if not dims and type(layer) is not nn.Linear:
        return None
    if dims and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return None
    between: list[Call] = []
    pool: tuple[int, ...] = ()
    step = makers.get(call.reads[0])
    while isinstance(step, Call):
        window = _average(step, model) if dims else None
        if window is not None and not pool and len(window) == dims:
            pool = window
        elif not _keeps(step, model) and (dims or not _flattens(step, model)):
            return None
        between.insert(0, step)
        step = makers.get(step.reads[0])
    if not isinstance(step, Fire):
        return None
    neuron = model.get_submodule(step.path)
    if type(neuron) is not SNMNeuron or _worth(layer, neuron) is None:
        return None
    return Reader(call, step, tuple(between), pool)


def _module_of(call: Call, model: nn.Module) -> Any:
    """The module that a call applies to one value; None if it does anything else."""
    if call.kind != "module" or call.kwargs or len(call.args) != 1 or len(call.reads) != 1:
        return None
    return model.get_submodule(str(call.target))


def _keeps(call: Call, model: nn.Module) -> bool:
    """Whether a call passes spikes on as they are."""
    return type(_module_of(call, model)) in _KEEPS


def _flattens(call: Call, model: nn.Module) -> bool:
    """Whether a call makes a vector of all that an image has."""
    module = _module_of(call, model)
    if isinstance(module, nn.Flatten):
        return module.start_dim == 1 and module.end_dim == -1
    if len(call.reads) != 1 or call.kwargs or not call.args:
        return False
    sizes = call.args[1:]
    if call.target in (torch.flatten, "flatten"):
        return sizes in ((1,), (1, -1))
    if call.target is not reshape_steps:
        return False
    flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    return len(flat) == 2 and flat[1] == -1


def _average(call: Call, model: nn.Module) -> tuple[int, ...] | None:
    """The windows, side by side, over which a call averages; None if it does anything else."""
    module = _module_of(call, model)
    dims = _POOLINGS.get(type(module))
    if dims is None:
        return None
    given = (module.kernel_size, module.stride, module.padding)
    size, stride, padding = (each if isinstance(each, tuple) else (each,) * dims for each in given)
    plain = size == stride and not any(padding) and not module.ceil_mode
    return size if plain and getattr(module, "divisor_override", None) is None else None


def _worth(module: Any, neuron: SNMNeuron) -> Tensor | None:
    """What a spike is worth, for each of a layer's inputs; None if that differs within one."""
    theta = neuron.amplitude(torch.ones((), device=neuron.threshold.device))
    shared = theta.numel() == 1 or theta.numel() == theta.shape[0]
    if isinstance(module, nn.Linear):
        inputs = module.in_features
        if theta.numel() in (1, inputs):
            return theta.reshape(-1).expand(inputs)
        fits = shared and inputs % theta.numel() == 0
        return theta.reshape(-1).repeat_interleave(inputs // theta.numel()) if fits else None
    inputs = int(module.in_channels)
    return theta.reshape(-1).expand(inputs) if shared and theta.numel() in (1, inputs) else None


def _written(step: Step) -> set[str]:
    """The names of the values that an operation writes over."""
    if not isinstance(step, Call) or step.kind == "module":
        return set()
    target, given = step.target, dict(step.kwargs or {})
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    in_place = target in _IN_PLACE or name.endswith("_") or bool(given.get("inplace"))
    written = [*step.args[:1]] if in_place else []
    return {part.name for part in (*written, given.get("out")) if isinstance(part, Value)}
