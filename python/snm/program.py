"""What a spiking network executes: a traced graph, laid out by what happens how often."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate


@dataclass(frozen=True, slots=True)
class Value:
    """Stands for the result of the step of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operation of the model, as it is in the model."""

    name: str
    kind: Literal["module", "function", "method", "attribute"]
    target: str | Callable[..., Any]
    """Module's or attribute's path, function, or method's name."""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    def run(self, layers: nn.Module, values: Mapping[str, Any]) -> Any:
        """The operation's result; ``values`` holds the results it reads."""

        def fetch(argument: Any) -> Any:
            return values[argument.name] if isinstance(argument, Value) else argument

        if self.kind == "attribute":
            return reduce(getattr, str(self.target).split("."), layers)
        args = map_aggregate(self.args, fetch)
        kwargs = map_aggregate(dict(self.kwargs or {}), fetch)
        if self.kind == "module":
            return layers.get_submodule(str(self.target))(*args, **kwargs)
        if self.kind == "method":
            return getattr(args[0], str(self.target))(*args[1:], **kwargs)
        assert callable(self.target)
        return self.target(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Repeat:
    """Spreads a value ``[B, ...]`` that is constant in time over the steps: ``[T*B, ...]``."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Fire:
    """A layer of neurons."""

    name: str
    path: str
    drive: str
    constant_drive: bool
    """The drive is ``[B, ...]``, the same at every step, not ``[T*B, ...]``."""
    sends: bool
    """Spikes are read by later steps of the same time step."""
    read_out: bool
    """The mean output is read by the tail."""
    reuses_drive: bool
    """Nothing else reads the drive's memory, so spikes may overwrite it."""
    per_neuron: bool
    """Each neuron has a threshold of its own, so the drive must be of the calibrated size."""


Step = Call | Repeat | Fire


@dataclass(frozen=True, slots=True)
class Program:
    """The three parts of a simulation, each in order of execution."""

    images: str
    """Name of the value that holds the images."""
    static: tuple[Call, ...]
    """Before the first neuron: once per batch."""
    temporal: tuple[Step, ...]
    """Between the first and the last neurons: for every time step, time folded into the batch."""
    tail: tuple[Call, ...]
    """Behind the last neurons: once, on their mean output."""
    output: str
    """Name of the value that holds the logits."""
    frees: Mapping[str, tuple[str, ...]]
    """Values that a step of the first two parts is the last to read."""

    @property
    def neurons(self) -> tuple[Fire, ...]:
        """The layers of neurons, in order."""
        return tuple(step for step in self.temporal if isinstance(step, Fire))


def repeat_over_time(value: Tensor, steps: int) -> Tensor:
    """``[B, ...]`` copied to ``[T*B, ...]`` in the same memory format.

    >>> repeat_over_time(torch.tensor([[1.0], [2.0]]), 2).flatten().tolist()
    [1.0, 2.0, 1.0, 2.0]
    """
    one = torch.empty_like(value)
    folded = value.new_empty_strided((steps, *value.shape), (one.numel(), *one.stride()))
    return folded.copy_(value).flatten(0, 1)


def step_shape(value: Tensor, batch: int) -> torch.Size:
    """The shape of one time step of ``value`` ``[T*B, ...]``.

    >>> step_shape(torch.zeros(6, 4), 3)
    torch.Size([3, 4])
    """
    return torch.Size((batch, *value.shape[1:]))


def step_size(value: Tensor, batch: int, dim: int) -> int:
    """The size in ``dim`` of one time step of ``value`` ``[T*B, ...]``.

    >>> step_size(torch.zeros(6, 4), 3, -2)
    3
    """
    return step_shape(value, batch)[dim]


def reshape_steps(value: Tensor, *sizes: Any) -> Tensor:
    """Reshapes ``value`` ``[T*B, ...]``; the first size is that of the batch, whatever it says.

    >>> reshape_steps(torch.zeros(6, 4), 3, 2, -1).shape
    torch.Size([6, 2, 2])
    """
    flat = sizes if isinstance(sizes[0], int) else sizes[0]
    return value.reshape(value.shape[0], *flat[1:])
