"""What a spiking network executes: a traced graph, laid out by what happens how often."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn

import snm_kernels


@dataclass(frozen=True, slots=True)
class Value:
    """Stands for the result of the step of that name."""

    name: str


def replaced(argument: Any, change: Callable[[Any], Any]) -> Any:
    """An argument of a call with every part changed that is no container.

    What torch.fx has for it makes lists of its own, which torch.compile does not know.

    >>> replaced(([1, 2], {"dim": slice(3, None)}), lambda part: part and -part)
    ([-1, -2], {'dim': slice(-3, None, None)})
    """
    if isinstance(argument, dict):
        return {name: replaced(part, change) for name, part in argument.items()}
    if isinstance(argument, slice):
        parts = (argument.start, argument.stop, argument.step)
        return slice(*(replaced(part, change) for part in parts))
    if isinstance(argument, list):
        return [replaced(part, change) for part in argument]
    if type(argument) is tuple:
        return tuple(replaced(part, change) for part in argument)
    return change(argument)


@dataclass(frozen=True, slots=True)
class Call:
    """An operation of the model, as it is in the model."""

    name: str
    kind: Literal["module", "function", "method", "attribute"]
    target: str | Callable[..., Any]
    """Module's or attribute's path, function, or method's name."""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that its arguments hold."""
        names: list[str] = []

        def note(part: Any) -> Any:
            if isinstance(part, Value):
                names.append(part.name)
            return part

        replaced((self.args, dict(self.kwargs or {})), note)
        return tuple(names)

    @property
    def makes(self) -> tuple[str, ...]:
        """Name of the value that it makes."""
        return (self.name,)

    def run(self, layers: nn.Module, values: Mapping[str, Any]) -> Any:
        """The operation's result; ``values`` holds the results it reads."""

        def fetch(argument: Any) -> Any:
            return values[argument.name] if isinstance(argument, Value) else argument

        if self.kind == "attribute":
            return reduce(getattr, str(self.target).split("."), layers)
        args = replaced(self.args, fetch)
        kwargs = replaced(dict(self.kwargs or {}), fetch)
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

    @property
    def reads(self) -> tuple[str, ...]:
        """Name of the value that it spreads."""
        return (self.value,)

    @property
    def makes(self) -> tuple[str, ...]:
        """Name of the value that it makes."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Fire:
    """A layer of neurons."""

    name: str
    path: str
    drive: str
    constant_drive: bool
    """The drive is ``[B, ...]``, the same at every step, not ``[T*B, ...]``."""
    residual: str | None
    """What is added to the drive; None for nothing."""
    constant_residual: bool
    sends: bool
    """Spikes are read by later steps of the same time step."""
    pooled: bool
    """Integer spikes are read by a running maximum."""
    read_out: bool
    """The mean output is read by the tail."""
    reuses_drive: bool
    """Nothing else reads the drive's memory, so spikes may overwrite it."""
    per_neuron: bool
    """Each neuron has a threshold of its own, so the drive must be of the calibrated size."""
    cap: tuple[float, ...]
    """What the ReLU in whose place they are never exceeds, as in ReLU6, in units of the drive: one
    number, or one per channel; empty for no bound."""

    @property
    def spikes(self) -> str:
        """Name of the value that holds integer spikes, int8."""
        return spikes_of(self.name)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the drive and of what is added to it."""
        return (self.drive,) if self.residual is None else (self.drive, self.residual)

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the values that hold what its spikes carry, and the spikes themselves."""
        return (self.name, self.spikes)


@dataclass(frozen=True, slots=True)
class Pooling:
    """The windows of a max pooling, as ``torch.nn.functional`` takes them."""

    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    ceil_mode: bool = False
    output_size: tuple[int | None, ...] | None = None
    """Of an adaptive pooling, which has none of the others; None for any other."""

    def run(
        self, x: Tensor, threshold: Tensor | None, total: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """The running maximum of ``[T, B, C, ...]`` amplitudes, or of int8 spikes that carry
        ``threshold``; goes on from ``total``."""
        if self.output_size is not None:
            return snm_kernels.adaptive_running_max_pool(
                x, self.output_size, threshold=threshold, total=total, out_dtype=dtype
            )
        return snm_kernels.running_max_pool(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            threshold=threshold,
            total=total,
            out_dtype=dtype,
        )


@dataclass(frozen=True, slots=True)
class RunningMax:
    """A max pooling of what changes over time."""

    name: str
    path: str
    """Of its module in the ReLU network, or of the module that calls it."""
    value: str
    """The amplitudes to pool."""
    fires: tuple[str, ...]
    """The layers of neurons whose spikes, side by side along the channels, are those amplitudes;
    their spikes are counted instead, which is exact. Empty where there are no such layers."""
    pooling: Pooling

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the spikes that it counts, or of the amplitudes that it pools."""
        return tuple(spikes_of(fire) for fire in self.fires) or (self.value,)

    @property
    def makes(self) -> tuple[str, ...]:
        """Name of the value that it makes."""
        return (self.name,)


def spikes_of(fire: str) -> str:
    """Name of the value that holds a layer's integer spikes, int8."""
    return f"{fire} spikes"


Step = Call | Repeat | Fire | RunningMax


@dataclass(frozen=True, slots=True)
class Program:
    """The three parts of a simulation, each in order of execution."""

    images: str
    """Name of the value that holds the images."""
    batch: str
    """Name of the value that holds the number of images."""
    images_change: bool
    """The images are another frame at every time step, not constant in time."""
    averages_images: bool
    """The images change, and the tail reads their mean."""
    tail_reads_images: bool
    """The tail reads the images, or what is computed from them alone."""
    tail_pools: bool
    """The tail holds a max pooling: of the mean it is the mean since the start alone."""
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
    elements_per_step: int
    """Elements that the values of one time step of one image hold at most at once."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of all three parts, in order."""
        return (*self.static, *self.temporal, *self.tail)

    @property
    def neurons(self) -> tuple[Fire, ...]:
        """The layers of neurons, in order."""
        return tuple(step for step in self.temporal if isinstance(step, Fire))


def spread(value: Tensor, steps: int) -> Tensor:
    """An empty ``[T, B, ...]`` for so many steps of what is like ``value`` ``[B, ...]``, in the
    same memory format.

    >>> spread(torch.zeros(2, 3), 4).shape
    torch.Size([4, 2, 3])
    """
    one = torch.empty_like(value)
    return value.new_empty_strided((steps, *value.shape), (one.numel(), *one.stride()))


def repeat_over_time(value: Tensor, steps: int) -> Tensor:
    """``[B, ...]`` copied to ``[T*B, ...]`` in the same memory format.

    >>> repeat_over_time(torch.tensor([[1.0], [2.0]]), 2).flatten().tolist()
    [1.0, 2.0, 1.0, 2.0]
    """
    return spread(value, steps).copy_(value).flatten(0, 1)


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
    # Sizes that torch.export leaves open are no int.
    flat = sizes[0] if isinstance(sizes[0], tuple | list) else sizes
    return value.reshape(value.shape[0], *flat[1:])
