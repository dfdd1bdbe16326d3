"""How a layer of neurons is watched while a simulation runs."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from snm_kernels import SNMState

from ..nn import SNMNeuron
from .program import Fire, RunningMax

Ask = Literal["drive", "spikes", "negative"]
"""What of a launch costs something, so that it is only there if an observer asks for it."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a layer of neurons has just done over a chunk of time steps."""

    simulation: object
    """Tells the launches of one simulation from those of another."""
    fire: Fire
    neuron: SNMNeuron
    before: SNMState | None
    """The state from which it went on; None at the start."""
    after: SNMState
    """The state that it left."""
    drive: Tensor | None = None
    """What drove it, ``[T, B, ...]``; None if no observer asks for it."""
    residual: Tensor | None = None
    """What was added to the drive, likewise; None also if nothing was."""
    spikes: Tensor | None = None
    """The spikes, int8 ``[T, B, ...]``; None if no observer asks for them."""
    negative: Tensor | None = None
    """How many negative spikes each neuron has sent since the start, int32 ``[B, ...]``; None if
    no observer asks for them."""


class Observer:
    """Watches the layers of a simulation and changes nothing: the one way to look inside a run.

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
        """What it wants to see of a layer's launches beside the states."""
        return ()

    def see(self, launch: Launch) -> None:
        """Is shown each layer of neurons after each chunk of time steps."""

    def see_pooling(self, step: RunningMax, sent: Tensor) -> None:
        """Is shown what each max pooling sends in each chunk: amplitudes ``[T, B, ...]``."""
