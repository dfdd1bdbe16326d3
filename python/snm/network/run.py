"""Executes a program: one batch on its way through time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snm_kernels import Emit, SNMState

from ..nn import SNMNeuron
from .program import Call, Fire, Program, Repeat, RunningMax, Step, repeat_over_time
from .tally import Tally

Counts = dict[str, Tensor]
"""How many spikes each neuron has sent, by the name of its layer's step; what the tail reads."""

Observer = Callable[["Run", Fire, Tensor, Tensor | None, SNMState | None], None]
"""Is shown what a layer of neurons is about to run over: the run, the layer, its drive and what is
added to that ``[T, B, ...]``, its state before, None at the start. It changes nothing."""


class Run:
    """The state of a simulation, advanced chunk by chunk.

    Args:
        program: what to execute.
        model: the modules that it calls.
        images: ``[B, ...]``, or the first frame.
    """

    def __init__(self, program: Program, model: nn.Module, images: Tensor) -> None:
        self.program = program
        self.model = model
        self.batch = images.shape[0]
        self.steps = 0
        """How many time steps lie behind."""
        self.states: dict[str, SNMState] = {}
        self.totals: dict[str, Tensor] = {}
        self.observers: Sequence[Observer] = ()
        self.tally: Tally | None = None
        """What counts all that is sent; None to count nothing."""
        self.image_sum: Tensor | float = 0.0
        """Of the frames so far, float64, added one by one whatever the chunks."""
        self.dtype = images.dtype
        self._dtypes: dict[str, torch.dtype] = {}
        self._constant: dict[str, Any] = {}
        self.see(images)

    def see(self, images: Tensor) -> None:
        """Computes what is constant in time, from now on from these images if it reads them."""
        values: dict[str, Any] = {self.program.batch: self.batch}
        if not self.program.images_change:
            values[self.program.images] = images
        for call in self.program.static:
            values[call.name] = call.run(self.model, values)
            self._free(values, call)
        self._constant = values

    def advance(
        self, steps: int, frames: Tensor | None, *, count: bool = False
    ) -> dict[str, Tensor]:
        """Simulates the next time steps.

        Args:
            frames: ``[steps * B, ...]`` if the images change over time, else None.
            count: return the spikes that are read out, by their layer's step: int8
                ``[steps, B, ...]``.
        """
        values = dict(self._constant)
        if frames is not None:
            values[self.program.images] = frames
            if self.program.averages_images:
                for frame in frames.unflatten(0, (steps, self.batch)):
                    self.image_sum = self.image_sum + frame.double()
        counted: dict[str, Tensor] = {}
        for step in self.program.temporal:
            if isinstance(step, Call):
                values[step.name] = self._call(step, values)
            elif isinstance(step, Repeat):
                values[step.name] = repeat_over_time(values[step.value], steps)
            elif isinstance(step, RunningMax):
                values[step.name] = self._pool(step, values, steps)
            else:
                self._fire(step, values, steps, counted if count else None)
            self._free(values, step)
        self.steps += steps
        return counted

    def counts(self) -> Counts:
        """How many spikes each neuron that is read out has sent so far."""
        return {
            fire.name: self.states[fire.name].m for fire in self.program.neurons if fire.read_out
        }

    def read_out(self, counts: Counts, steps: int) -> Tensor:
        """What the tail makes of the mean over so many steps, in which neurons sent so much."""
        values = self.means(counts, steps)
        for call in self.program.tail:
            values[call.name] = call.run(self.model, values)
        logits: Tensor = values[self.program.output]
        return logits

    def means(self, counts: Counts, steps: int) -> dict[str, Any]:
        """What the tail reads of so many steps, in which neurons sent so much."""
        values = dict(self._constant)
        if self.program.averages_images:
            assert isinstance(self.image_sum, Tensor)
            values[self.program.images] = (self.image_sum / steps).to(self.dtype)
        for fire in self.program.neurons:
            if fire.read_out:
                mean = self.neuron(fire).amplitude(counts[fire.name]) / steps
                values[fire.name] = mean.to(self._dtypes[fire.name])
        return values

    def neuron(self, fire: Fire) -> SNMNeuron:
        """A layer of neurons."""
        neuron = self.model.get_submodule(fire.path)
        assert isinstance(neuron, SNMNeuron)
        return neuron

    def drive_of(
        self, fire: Fire, values: dict[str, Any], steps: int
    ) -> tuple[Tensor, Tensor | None]:
        """What drives a layer of neurons, and what is added to that: ``[T, B, ...]``."""
        drive = self._over_time(values[fire.drive], steps, constant=fire.constant_drive)
        neuron = self.neuron(fire)
        if fire.per_neuron and drive.shape[2:] != neuron.threshold.shape:
            raise ValueError(
                f"SpikingNetwork: the neurons of {fire.path} were calibrated for a drive of "
                f"{list(neuron.threshold.shape)} per image, got {list(drive.shape[2:])}; use "
                "images of the calibrated size, or convert with norm='channel' or 'layer'"
            )
        if fire.residual is None:
            return drive, None
        residual = values[fire.residual]
        return drive, self._over_time(residual, steps, constant=fire.constant_residual)

    def _call(self, call: Call, values: dict[str, Any]) -> Any:
        """Runs an operation of the model."""
        return call.run(self.model, values)

    def _fire(
        self,
        fire: Fire,
        values: dict[str, Any],
        steps: int,
        counted: dict[str, Tensor] | None,
    ) -> None:
        """Runs a layer of neurons."""
        drive, residual = self.drive_of(fire, values, steps)
        if fire.reuses_drive:
            del values[fire.drive]
        neuron = self.neuron(fire)
        counting = counted is not None and fire.read_out
        emit: Emit = "amplitude" if fire.sends else "none"
        if counting or fire.pooled:
            emit = "spike"
        out = drive if fire.reuses_drive and emit == "amplitude" else None
        before = self.states.get(fire.name)
        # Before spikes may overwrite the drive.
        for observer in self.observers:
            observer(self, fire, drive, residual, before)
        if self.tally is None:
            sent, state = neuron(drive, before, residual=residual, emit=emit, out=out)
        else:
            negative = self.tally.negative.get(fire.name)
            sent, state, self.tally.negative[fire.name] = neuron.counted(
                drive, before, negative, residual=residual, emit=emit, out=out
            )
        self.states[fire.name] = state
        self._dtypes[fire.name] = drive.dtype
        if emit == "spike":
            if counted is not None and fire.read_out:
                counted[fire.name] = sent
            if fire.pooled:
                values[fire.spikes] = sent.flatten(0, 1)
            sent = neuron.amplitude(sent).to(drive.dtype) if fire.sends else None
        if sent is not None:
            values[fire.name] = sent.flatten(0, 1)

    def _pool(self, step: RunningMax, values: dict[str, Any], steps: int) -> Tensor:
        """Runs a running maximum; returns ``[T*B, ...]`` amplitudes."""
        threshold = None
        if step.fires:
            fires = [fire for fire in self.program.neurons if fire.name in step.fires]
            spikes = {fire.name: values[fire.spikes] for fire in fires}
            sizes = {name: sent.shape[1:] for name, sent in spikes.items()}
            own = {fire.name: self.neuron(fire).threshold for fire in fires}
            x = _joined([spikes[name] for name in step.fires])
            threshold = _side_by_side([(own[name], sizes[name]) for name in step.fires])
            dtype = self._dtypes[step.fires[0]]
        else:
            x = values[step.value]
            dtype = x.dtype
        x = self._over_time(x, steps, constant=False)
        sent, total = step.pooling.run(x, threshold, self.totals.get(step.name), dtype)
        self.totals[step.name] = total
        if self.tally is not None:
            self.tally.see(step.name, sent)
        return sent.flatten(0, 1)

    def _over_time(self, value: Tensor, steps: int, *, constant: bool) -> Tensor:
        """A value as ``[T, B, ...]``: what is constant in time with a stride of 0."""
        if constant:
            return value.expand(steps, *value.shape)
        return value.view(steps, self.batch, *value.shape[1:])

    def _free(self, values: dict[str, Any], step: Step) -> None:
        for name in self.program.frees[step.name]:
            values.pop(name, None)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _side_by_side(parts: list[tuple[Tensor, torch.Size]]) -> Tensor:
    """The thresholds of layers ``[C, ...]`` that lie side by side along the channels.

    One that all neurons of a layer or of its channels share stays shared over the positions.
    """
    if len(parts) == 1:
        return parts[0][0]
    positions = [
        max(theirs)
        for theirs in zip(*(_positions(own, len(size)) for own, size in parts), strict=True)
    ]
    return torch.cat([own.expand(size[0], *positions) for own, size in parts])


def _positions(threshold: Tensor, dims: int) -> tuple[int, ...]:
    """Sizes of a threshold behind the channels, for a layer of so many dimensions."""
    return (1,) * (dims - 1) if threshold.dim() < dims else tuple(threshold.shape[1:])
