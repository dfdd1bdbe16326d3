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
    """What a layer of neurons has just done over a chunk of time steps."""

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
        """Which parts of a layer's launches it wants to see, besides the states."""
        return ()

    def see(self, launch: Launch) -> None:
        """Takes note of a layer of neurons; called for each layer after each chunk of steps."""

    def see_pooling(self, step: RunningMax, sent: Tensor) -> None:
        """Takes note of the amplitudes ``[T, B, ...]`` that a max pooling sends in a chunk."""
