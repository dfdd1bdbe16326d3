"""Executes a program for one batch of images, chunk of time steps by chunk."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from snm_kernels import Emit, SNMState

from ..nn import SNMNeuron
from .interpret import Interpreter, Values
from .observer import Ask, Launch, Observer
from .program import Fire, Program, Repeat, RunningMax, repeat_over_time

Readout = Literal["mean", "count"]
"""What a network answers: logits from the mean output, or counts of the output layer's spikes."""

READOUTS: tuple[str, ...] = get_args(Readout)
"""The readouts by name."""

Counts = dict[str, Tensor]
"""How many spikes each neuron has sent, int32 ``[B, ...]``, by the name of its layer's step."""


class Launched(NamedTuple):
    """What a layer of neurons was driven with, ``[T, B, ...]``, what it sent, and its new state."""

    drive: Tensor | None
    """None where the neurons ran along with the layer that drives them."""
    residual: Tensor | None
    sent: Tensor | None
    state: SNMState


class Run(Interpreter):
    """The state of a simulation, advanced chunk by chunk.

    Args:
        program: what to execute.
        model: the modules that it calls.
        images: ``[B, ...]``, or the first frame.
        readout: what :meth:`answer` returns.
        observers: watch the layers; a list of them may change between chunks.
    """

    def __init__(
        self,
        program: Program,
        model: nn.Module,
        images: Tensor,
        *,
        readout: Readout = "mean",
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(program, model)
        self.batch = images.shape[0]
        self.readout: Readout = readout
        self.observers = observers
        self.steps = 0
        """How many time steps have been simulated."""
        self.states: dict[str, SNMState] = {}
        """The state of each layer of neurons, by the name of its step."""
        self.totals: dict[str, Tensor] = {}
        """The totals that each max pooling has received, by the name of its step."""
        self.negative: dict[str, Tensor] = {}
        """How many negative spikes each neuron has sent so far, by the name of its layer's step;
        only for layers of which an observer asks for them."""
        self.image_sum: Tensor | float = 0.0
        """The sum of all frames so far, float64, added one by one whatever the chunks."""
        self.dtype = images.dtype
        self.chunk = 0
        """How many time steps there are in the chunk that is being simulated."""
        self.counted: dict[str, Tensor] | None = None
        """Where the spikes of this chunk that are read out go; None if nobody wants them."""
        self.constant: Values = {}
        """What is constant in time, by name."""
        self._dtypes: dict[str, torch.dtype] = {}
        self.see(images)

    def see(self, images: Tensor) -> None:
        """Computes what is constant in time anew, from these images if they are constant too."""
        values: Values = {self.program.batch: self.batch}
        if not self.program.images_change:
            values[self.program.images] = images
        self.constant = self.execute_static(values)

    def advance(
        self, steps: int, frames: Tensor | None, *, count: bool = False
    ) -> dict[str, Tensor]:
        """Simulates the next time steps.

        Args:
            steps: how many, >= 1.
            frames: ``[steps * B, ...]`` if the images change over time, else None.
            count: whether to return the spikes that are read out.

        Returns:
            With ``count`` the spikes that are read out, int8 ``[steps, B, ...]``, by the name of
            their layer's step; else nothing.
        """
        values = dict(self.constant)
        if frames is not None:
            values[self.program.images] = frames
            if self.program.averages_images:
                for frame in frames.unflatten(0, (steps, self.batch)):
                    self.image_sum = self.image_sum + frame.double()
        counted: dict[str, Tensor] = {}
        self.chunk, self.counted = steps, counted if count else None
        self.execute_temporal(values)
        self.steps += steps
        return counted

    def counts(self) -> Counts:
        """How many spikes each neuron that is read out has sent so far."""
        return {
            fire.name: self.states[fire.name].m for fire in self.program.neurons if fire.read_out
        }

    def answer(self, counts: Counts | None = None, steps: int | None = None) -> Tensor:
        """What the network answers to the spikes that were sent.

        Args:
            counts: how many spikes were sent, of the layers that are read out; None for all so far.
            steps: in how many time steps they were sent; None for all so far.

        Returns:
            With readout="mean" the logits that the tail makes of the mean output; with "count"
            how many spikes each neuron of the output layer has sent, int32.
        """
        counts = self.counts() if counts is None else counts
        if self.readout == "count":
            return counts[self.program.output].clone()
        values = self.means(counts, self.steps if steps is None else steps)
        logits: Tensor = self.execute_tail(values)[self.program.output]
        return logits

    def means(self, counts: Counts, steps: int) -> Values:
        """The values that the tail reads.

        Args:
            counts: how many spikes each neuron sent.
            steps: in how many time steps.
        """
        values = dict(self.constant)
        if self.program.averages_images:
            assert isinstance(self.image_sum, Tensor)
            values[self.program.images] = (self.image_sum / steps).to(self.dtype)
        for fire in self.program.neurons:
            if fire.read_out:
                mean = self.neuron(fire).amplitude(counts[fire.name]) / steps
                values[fire.name] = mean.to(self._dtypes[fire.name])
        return values

    def neuron(self, fire: Fire) -> SNMNeuron:
        """The layer of neurons that a step runs."""
        neuron = self.model.get_submodule(fire.path)
        assert isinstance(neuron, SNMNeuron)
        return neuron

    def drive_of(self, fire: Fire, values: Values) -> tuple[Tensor, Tensor | None]:
        """What drives a layer of neurons, and the residual that is added: ``[T, B, ...]`` each."""
        drive = self.over_time(values[fire.drive], constant=fire.constant_drive)
        neuron = self.neuron(fire)
        if fire.per_neuron and drive.shape[2:] != neuron.threshold.shape:
            raise ValueError(
                f"SpikingNetwork: the neurons of {fire.path} were calibrated for a drive of "
                f"{list(neuron.threshold.shape)} per image, got {list(drive.shape[2:])}; use "
                "images of the calibrated size, or convert with norm='channel' or 'layer'"
            )
        self._dtypes[fire.name] = drive.dtype
        if fire.residual is None:
            return drive, None
        residual = values[fire.residual]
        return drive, self.over_time(residual, constant=fire.constant_residual)

    def over_time(self, value: Tensor, *, constant: bool) -> Tensor:
        """A value as ``[T, B, ...]``; one that is constant in time gets a stride of 0."""
        if constant:
            return value.expand(self.chunk, *value.shape)
        return value.view(self.chunk, self.batch, *value.shape[1:])

    def repeat(self, step: Repeat, values: Values) -> Tensor:
        """A value that is constant in time, copied to every time step."""
        return repeat_over_time(values[step.value], self.chunk)

    def fire(self, fire: Fire, values: Values) -> None:
        """Runs a layer of neurons over the chunk and shows it to the observers."""
        before = self.states.get(fire.name)
        asks: set[Ask] = set()
        for observer in self.observers:
            asks.update(observer.asks(fire))
        emit = self.emitted(fire, asks)
        drive, residual, sent, state = self.launch(fire, values, emit, asks)
        self.states[fire.name] = state
        if self.observers:
            launch = Launch(
                self,
                fire,
                self.neuron(fire),
                before,
                state,
                drive=drive if "drive" in asks else None,
                residual=residual if "drive" in asks else None,
                spikes=sent if "spikes" in asks else None,
                negative=self.negative[fire.name] if "negative" in asks else None,
            )
            for observer in self.observers:
                observer.see(launch)
        if emit == "spike":
            assert sent is not None
            self.send(fire, sent, values)
        elif sent is not None:
            values[fire.name] = sent.flatten(0, 1)

    def launch(self, fire: Fire, values: Values, emit: Emit, asks: set[Ask]) -> Launched:
        """Runs a layer of neurons over the chunk.

        Args:
            values: hold what drives it, which is taken out where spikes may overwrite it.
            emit: what it sends.
            asks: what observers want to see.
        """
        drive, residual = self.drive_of(fire, values)
        if fire.reuses_drive:
            del values[fire.drive]
        neuron, before = self.neuron(fire), self.states.get(fire.name)
        # An observer sees the drive after the launch.
        overwrites = fire.reuses_drive and emit == "amplitude" and "drive" not in asks
        out = drive if overwrites else None
        if "negative" not in asks:
            sent, state = neuron(drive, before, residual=residual, emit=emit, out=out)
            return Launched(drive, residual, sent, state)
        _check_hooks(fire, neuron)
        sent, state, self.negative[fire.name] = neuron.counted(
            drive, before, self.negative.get(fire.name), residual=residual, emit=emit, out=out
        )
        return Launched(drive, residual, sent, state)

    def emitted(self, fire: Fire, asks: set[Ask]) -> Emit:
        """What a layer's launch emits: integer spikes if something counts, pools or asks for them,
        else what they carry if a later step reads it."""
        counting = self.counted is not None and fire.read_out
        if counting or fire.pooled or "spikes" in asks:
            return "spike"
        return "amplitude" if fire.sends else "none"

    def send(self, fire: Fire, spikes: Tensor, values: Values) -> None:
        """Adds the values that later steps read of a layer's spikes, int8 ``[T, B, ...]``."""
        if self.counted is not None and fire.read_out:
            self.counted[fire.name] = spikes
        if fire.pooled:
            values[fire.spikes] = spikes.flatten(0, 1)
        if fire.sends:
            amplitudes = self.neuron(fire).amplitude(spikes)
            values[fire.name] = amplitudes.to(self._dtypes[fire.name]).flatten(0, 1)

    def pool(self, step: RunningMax, values: Values) -> Tensor:
        """Runs a running maximum over the chunk; returns amplitudes ``[T*B, ...]``."""
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
        x = self.over_time(x, constant=False)
        sent, total = step.pooling.running_max(x, threshold, self.totals.get(step.name), dtype)
        self.totals[step.name] = total
        for observer in self.observers:
            observer.see_pooling(step, sent)
        return sent.flatten(0, 1)


def _check_hooks(fire: Fire, neuron: SNMNeuron) -> None:
    """Refuses to count spikes where that would leave out what users have hooked in."""
    if neuron._forward_hooks or neuron._forward_pre_hooks:
        raise RuntimeError(
            f"SpikingNetwork: hooks of {fire.path} would not run where an observer asks for "
            "negative spikes; remove them, or use an observer or net.record"
        )


def _joined(parts: list[Tensor]) -> Tensor:
    """Tensors side by side along the channels, dimension 1."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _side_by_side(parts: list[tuple[Tensor, torch.Size]]) -> Tensor:
    """The thresholds of layers ``[C, ...]`` whose spikes lie side by side along the channels.

    Thresholds that are shared over all positions stay shared if those of every layer are.

    Args:
        parts: for each layer its threshold and the shape of one image's spikes.
    """
    if len(parts) == 1:
        return parts[0][0]
    positions = [
        max(theirs)
        for theirs in zip(*(_positions(own, len(size)) for own, size in parts), strict=True)
    ]
    return torch.cat([own.expand(size[0], *positions) for own, size in parts])


def _positions(threshold: Tensor, dims: int) -> tuple[int, ...]:
    """The sizes of a threshold behind the channels, for a layer of ``dims`` dimensions."""
    return (1,) * (dims - 1) if threshold.dim() < dims else tuple(threshold.shape[1:])
