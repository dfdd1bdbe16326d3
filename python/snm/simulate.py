"""Simulates a converted network through time."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snm_kernels import SNMState

from .nn import SNMNeuron
from .program import Call, Fire, Program, Repeat, repeat_over_time


class SpikingNetwork(nn.Module):
    """A spiking network, as :func:`snm.convert` makes it.

    The image is a constant current. What comes before the first neurons is computed once, what
    comes behind the last ones once on their mean output; in between all layers run over a chunk
    of time steps, the neurons' state carried from chunk to chunk.

    Args:
        layers: the modules the program calls, :class:`snm.nn.SNMNeuron` among them.
        program: what to execute.
        image_dims: dimensions of a batch of images, the batch's own included.
        chunk_steps: how many time steps are simulated at once, >= 1. The result does not depend
            on it, but for rounding in the model's own layers.

    Raises:
        ValueError: chunk_steps is less than 1.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net = convert(model, torch.rand(32, 4))
    >>> list(net.neurons), net.anytime(torch.rand(2, 4), timesteps=5).shape
    (['1'], torch.Size([5, 2, 3]))
    """

    def __init__(
        self, layers: nn.Module, program: Program, *, image_dims: int, chunk_steps: int
    ) -> None:
        super().__init__()
        check_count("SpikingNetwork", "chunk_steps", chunk_steps)
        self.layers = layers
        self.program = program
        self.image_dims = image_dims
        self.chunk_steps = chunk_steps
        self.eval()

    @property
    def neurons(self) -> dict[str, SNMNeuron]:
        """The layers of neurons by module path, in order of execution."""
        return {fire.path: self._neuron(fire) for fire in self.program.neurons}

    @torch.no_grad()
    def forward(self, images: Tensor, *, timesteps: int) -> Tensor:
        """Logits: the mean over time of the output layer's current.

        Args:
            images: ``[B, ...]``, of the model's dtype and on its device.
            timesteps: T, >= 1.

        Returns:
            ``[B, classes]``, of the images' dtype.

        Raises:
            ValueError: the images hold NaN or infinity, have other dimensions than those of
                calibration or, with norm="neuron", another size, or are on another device;
                timesteps is less than 1.
            TypeError: the images are of another dtype; timesteps is not an integer.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net = convert(model, torch.rand(32, 4))
        >>> net(torch.rand(2, 4), timesteps=32).shape
        torch.Size([2, 3])
        """
        run = self._start(images, timesteps)
        for steps in _chunks(timesteps, self.chunk_steps):
            self._advance(run, steps, count=False)
        return self._read_out(run, {name: state.m for name, state in run.states.items()}, timesteps)

    @torch.no_grad()
    def anytime(self, images: Tensor, *, timesteps: int) -> Tensor:
        """The logits that each number of time steps up to T gives, from one pass.

        Args:
            images: as for a call.
            timesteps: T, >= 1.

        Returns:
            ``[T, B, classes]``: entry t - 1 holds the mean over the first t steps.

        Raises:
            ValueError, TypeError: as for a call.

        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net = convert(model, torch.rand(256, 4))
        >>> images = torch.rand(2, 4)
        >>> by_step = net.anytime(images, timesteps=16)
        >>> torch.allclose(by_step[-1], net(images, timesteps=16), atol=1e-5)
        True
        """
        run = self._start(images, timesteps)
        counts: dict[str, Tensor] = {}
        logits: list[Tensor] = []
        for steps in _chunks(timesteps, self.chunk_steps):
            spikes = self._advance(run, steps, count=True)
            for t in range(steps):
                for name, sent in spikes.items():
                    counts[name] = counts.get(name, 0) + sent[t].to(torch.int32)
                logits.append(self._read_out(run, counts, len(logits) + 1))
        return torch.stack(logits)

    def train(self, mode: bool = True) -> "SpikingNetwork":
        """Refused: a converted network is not trained."""
        if mode:
            raise RuntimeError("SpikingNetwork: has no training mode; train the model it is from")
        super().train(False)
        return self

    def extra_repr(self) -> str:
        total = len(self.program.neurons)
        return (
            f"{total} layer{'' if total == 1 else 's'} of neurons, chunk_steps={self.chunk_steps}"
        )

    def _neuron(self, fire: Fire) -> SNMNeuron:
        neuron = self.layers.get_submodule(fire.path)
        assert isinstance(neuron, SNMNeuron)
        return neuron

    def _start(self, images: Tensor, timesteps: int) -> "_Run":
        self._check_images(images)
        check_count("SpikingNetwork", "timesteps", timesteps)
        values: dict[str, Any] = {self.program.images: images}
        for call in self.program.static:
            values[call.name] = call.run(self.layers, values)
            self._free(values, call)
        return _Run(values, images.shape[0])

    def _advance(self, run: "_Run", steps: int, *, count: bool) -> dict[str, Tensor]:
        """Simulates the next steps; if asked, returns the spikes that are read out, int8."""
        values = dict(run.values)
        counted: dict[str, Tensor] = {}
        for step in self.program.temporal:
            if isinstance(step, Call):
                values[step.name] = step.run(self.layers, values)
            elif isinstance(step, Repeat):
                values[step.name] = repeat_over_time(values[step.value], steps)
            else:
                drive = values.pop(step.drive) if step.reuses_drive else values[step.drive]
                sent = self._fire(run, step, drive, steps, counted if count else None)
                values[step.name] = sent
            self._free(values, step)
        return counted

    def _fire(
        self, run: "_Run", fire: Fire, drive: Tensor, steps: int, counted: dict[str, Tensor] | None
    ) -> Tensor | None:
        """Runs a layer of neurons; what it sends is ``[T*B, ...]``."""
        if fire.constant_drive:
            drive = drive.expand(steps, *drive.shape)
        else:
            drive = drive.view(steps, run.batch, *drive.shape[1:])
        neuron = self._neuron(fire)
        if fire.per_neuron and drive.shape[2:] != neuron.threshold.shape:
            raise ValueError(
                f"SpikingNetwork: the neurons of {fire.path} were calibrated for a drive of "
                f"{list(neuron.threshold.shape)} per image, got {list(drive.shape[2:])}; use "
                "images of the calibrated size, or convert with norm='channel' or 'layer'"
            )
        counting = counted is not None and fire.read_out
        emit = "spike" if counting else "amplitude" if fire.sends else "none"
        out = drive if fire.reuses_drive and emit == "amplitude" else None
        spikes, state = neuron(drive, run.states.get(fire.name), emit=emit, out=out)
        run.states[fire.name] = state
        run.dtypes[fire.name] = drive.dtype
        if counted is not None and counting:
            counted[fire.name] = spikes
            spikes = neuron.amplitude(spikes).to(drive.dtype) if fire.sends else None
        return None if spikes is None else spikes.flatten(0, 1)

    def _read_out(self, run: "_Run", counts: dict[str, Tensor], steps: int) -> Tensor:
        """The tail's output, given how many spikes each neuron has sent in so many steps."""
        values = dict(run.values)
        for fire in self.program.neurons:
            if fire.read_out:
                mean = self._neuron(fire).amplitude(counts[fire.name]) / steps
                values[fire.name] = mean.to(run.dtypes[fire.name])
        for call in self.program.tail:
            values[call.name] = call.run(self.layers, values)
        logits: Tensor = values[self.program.output]
        return logits

    def _free(self, values: dict[str, Any], step: Call | Repeat | Fire) -> None:
        for name in self.program.frees[step.name]:
            values.pop(name, None)

    def _check_images(self, images: Tensor) -> None:
        if not isinstance(images, Tensor):
            raise TypeError(f"SpikingNetwork: images must be a tensor, got {type(images).__name__}")
        if images.dim() != self.image_dims:
            raise ValueError(
                f"SpikingNetwork: images must have {self.image_dims} dimensions, the batch first, "
                f"as in calibration, got {list(images.shape)}"
            )
        own = self._own_tensor()
        if images.device != own.device:
            raise ValueError(
                f"SpikingNetwork: images are on {images.device}, but the network is on "
                f"{own.device}; move one of them"
            )
        if images.dtype != own.dtype:
            raise TypeError(
                f"SpikingNetwork: images must be {_short(own.dtype)} like the network, "
                f"got {_short(images.dtype)}"
            )
        if not bool(torch.isfinite(images).all()):
            raise ValueError("SpikingNetwork: images must be finite, got NaN or infinity")

    def _own_tensor(self) -> Tensor:
        """A tensor of the network's device and dtype; a threshold if it has nothing else."""
        tensors = [*self.layers.parameters(), *self.layers.buffers()]
        return next(tensor for tensor in tensors if tensor.is_floating_point())


@dataclass(slots=True)
class _Run:
    """One batch on its way through time."""

    values: dict[str, Any]
    """What is constant in time."""
    batch: int
    states: dict[str, SNMState] = field(default_factory=dict)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    """Of each layer's drive."""


def _chunks(timesteps: int, chunk_steps: int) -> list[int]:
    """Lengths of the chunks that make up so many steps.

    >>> _chunks(10, 4)
    [4, 4, 2]
    """
    full, rest = divmod(timesteps, chunk_steps)
    return [chunk_steps] * full + [rest] * (rest > 0)


def check_count(caller: str, argument: str, value: int) -> None:
    """Refuses what is no integer, or less than 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{caller}: {argument} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{caller}: {argument} must be at least 1, got {value}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
