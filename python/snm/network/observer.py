"""The interface by which layers of neurons are watched while a simulation runs."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from snm_kernels import SNMState

from ..nn import SNMNeuron
from .program import Fire, RunningMax

Ask = Literal["drive", "spikes", "negative"]
"""The parts of a launch that cost time or memory, so that they are there only if asked for."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a layer of neurons has just done over a chunk of time steps.

    >>> import torch
    >>> from torch import nn
    >>> from snm import Observer, convert
    >>> class Told(Observer):
    ...     def asks(self, fire): return ("drive", "spikes")
    ...     def see(self, launch): print(launch.drive.shape, launch.spikes.dtype, launch.negative)
    >>> net = convert(nn.Sequential(nn.Linear(4, 8), nn.ReLU()).eval(), torch.ones(1, 4))
    >>> _ = net.simulation(torch.ones(2, 4), timesteps=3, observers=[Told()]).answer()
    torch.Size([3, 2, 8]) torch.int8 None
    """

    simulation: object
    """An object that is the same for all launches of a simulation, and another for each one."""
    fire: Fire
    """The layer's step in the program."""
    neuron: SNMNeuron
    """The layer itself."""
    before: SNMState | None
    """The state of the neurons before the chunk; None at the start."""
    after: SNMState
    """The state of the neurons after the chunk."""
    drive: Tensor | None = None
    """What drove the layer, ``[T, B, ...]``; None if no observer asks for it."""
    residual: Tensor | None = None
    """What was added to the drive, ``[T, B, ...]``; None if no observer asks for the drive, or if
    nothing was added."""
    spikes: Tensor | None = None
    """The spikes that the layer sent, int8 ``[T, B, ...]``; None if no observer asks for them."""
    negative: Tensor | None = None
    """How many negative spikes each neuron has sent since the start, int32 ``[B, ...]``; None if
    no observer asks for them."""


class Observer:
    """Watches the layers of a simulation without changing it: the one way to look inside a run.

    >>> import torch
    >>> from snm import convert
    >>> class Largest(Observer):
    ...     def see(self, launch): print(launch.fire.path, launch.after.m.max().item())
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> net = convert(model, torch.ones(1, 4))
    >>> _ = net.simulation(torch.ones(1, 4), timesteps=3, observers=[Largest()]).answer()
    1 3
    """

    def asks(self, fire: Fire) -> tuple[Ask, ...]:  # noqa: ARG002
        """What it wants to see of a layer's launches beside the states; nothing unless overridden.

        Args:
            fire: the layer; ``fire.path`` is its path in the ReLU network.

        Returns:
            Any of ``"drive"``, ``"spikes"`` and ``"negative"``: fields of :class:`Launch`, which
            are None where no observer asks for them.

        >>> import torch
        >>> from snm import convert
        >>> net = convert(torch.nn.Sequential(torch.nn.ReLU()).eval(), torch.ones(1, 4))
        >>> Observer().asks(net.program.neurons[0])
        ()
        """
        return ()

    def see(self, launch: Launch) -> None:
        """Is shown each layer of neurons after each chunk of time steps.

        >>> import torch
        >>> from snm import convert
        >>> class Steps(Observer):
        ...     def asks(self, fire): return ("spikes",)
        ...     def see(self, launch): print(launch.fire.path, len(launch.spikes))
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
        >>> net = convert(model, torch.ones(1, 4), chunk_steps=3)
        >>> _ = net.simulation(torch.ones(1, 4), timesteps=5, observers=[Steps()]).answer()
        1 3
        1 2
        """

    def see_pooling(self, step: RunningMax, sent: Tensor) -> None:
        """Is shown what each max pooling sends in each chunk: amplitudes ``[T, B, ...]``.

        >>> import torch
        >>> from snm import convert
        >>> class Pooled(Observer):
        ...     def see_pooling(self, step, sent): print(step.path, sent.shape)
        >>> layers = (torch.nn.Conv1d(1, 2, 3), torch.nn.ReLU(), torch.nn.MaxPool1d(2))
        >>> model = torch.nn.Sequential(*layers, torch.nn.Conv1d(2, 2, 3), torch.nn.ReLU()).eval()
        >>> net = convert(model, torch.rand(16, 1, 10))
        >>> _ = net.simulation(torch.rand(2, 1, 10), timesteps=3, observers=[Pooled()]).answer()
        2 torch.Size([3, 2, 2, 4])
        """
