"""The steps that a spiking network executes, grouped by how often each of them happens."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn

import snm_kernels


@dataclass(frozen=True, slots=True)
class Value:
    """Stands in a call's arguments for the result of another step."""

    name: str
    """Name of the value, which is that of the step that makes it."""


def replaced(argument: Any, change: Callable[[Any], Any]) -> Any:
    """A call's argument with every part changed that is not itself a container.

    torch.fx has a function for this, but it makes lists of its own kind, which torch.compile does
    not know.

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
    """An operation that is executed just as the model does it."""

    name: str
    """Name of the value that it makes."""
    kind: Literal["module", "function", "method", "attribute"]
    """What the target is."""
    target: str | Callable[..., Any]
    """The path of the module or attribute, the function itself, or the name of the method."""
    args: tuple[Any, ...] = ()
    """Positional arguments, in which a :class:`Value` stands for the result of another step."""
    kwargs: Mapping[str, Any] | None = None
    """Keyword arguments, with :class:`Value` for results of other steps; None for none."""

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

    def compute(self, layers: nn.Module, values: Mapping[str, Any]) -> Any:
        """The operation's result.

        Args:
            layers: the modules, by the paths that calls have for them.
            values: at least the results that it reads, by name.
        """

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
    """Copies a value ``[B, ...]`` that is constant in time to every time step: ``[T*B, ...]``."""

    name: str
    """Name of the value that it makes."""
    value: str
    """Name of the value that it copies."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Name of the value that it copies."""
        return (self.value,)

    @property
    def makes(self) -> tuple[str, ...]:
        """Name of the value that it makes."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Fire:
    """A layer of neurons that is driven, and what becomes of its spikes."""

    name: str
    """Name of the value that holds the amplitudes that it sends."""
    path: str
    """Path of its :class:`snm.nn.SNMNeuron` among the modules."""
    drive: str
    """Name of the value that drives it."""
    constant_drive: bool
    """Whether the drive is ``[B, ...]``, the same at every step, instead of ``[T*B, ...]``."""
    residual: str | None
    """Name of the value that is added to the drive; None if nothing is."""
    constant_residual: bool
    """Whether the residual is ``[B, ...]``, the same at every step, instead of ``[T*B, ...]``."""
    sends: bool
    """Whether later steps of the program read the amplitudes in the same time step."""
    pooled: bool
    """Whether a running maximum reads the integer spikes."""
    read_out: bool
    """Whether the tail reads the mean output."""
    reuses_drive: bool
    """Whether spikes may overwrite the drive, whose memory nothing else reads."""
    per_neuron: bool
    """Whether each neuron has a threshold of its own, so that the drive must have the calibrated
    size."""
    cap: tuple[float, ...]
    """The upper bound of the ReLU that the neurons replace, as in ReLU6, in units of the drive: one
    number, or one per channel; empty for no bound."""

    @property
    def spikes(self) -> str:
        """Name of the value that holds the layer's integer spikes, int8."""
        return spikes_of(self.name)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the drive and of what is added to it."""
        return (self.drive,) if self.residual is None else (self.drive, self.residual)

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the values that hold the amplitudes and the integer spikes that it sends."""
        return (self.name, self.spikes)


@dataclass(frozen=True, slots=True)
class Pooling:
    """The windows of a max pooling, given as ``torch.nn.functional`` takes them."""

    kernel_size: tuple[int, ...] = ()
    """Size of a window in each dimension."""
    stride: tuple[int, ...] = ()
    """Distance between neighbouring windows in each dimension."""
    padding: tuple[int, ...] = ()
    """Places of padding on either side of each dimension."""
    dilation: tuple[int, ...] = ()
    """Distance between the values that a window reads, in each dimension."""
    ceil_mode: bool = False
    """Whether the number of windows is rounded up, not down."""
    output_size: tuple[int | None, ...] | None = None
    """Sizes of the output of an adaptive pooling, which has no other field; None if the pooling is
    not adaptive."""

    def running_max(
        self, x: Tensor, threshold: Tensor | None, total: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """The running maximum over time, and the new totals.

        Args:
            x: amplitudes ``[T, B, C, ...]``, or int8 spikes that carry ``threshold``.
            threshold: what a spike carries; None if ``x`` holds amplitudes.
            total: the totals to go on from; None to start afresh.
            dtype: that of the result; int8 for the numbers of spikes.
        """
        sends: dict[str, Any] = {"out_dtype": dtype}
        if dtype == torch.int8:
            sends = {"emit": "spike"}
        if self.output_size is not None:
            return snm_kernels.adaptive_running_max_pool(
                x, self.output_size, threshold=threshold, total=total, **sends
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
            **sends,
        )


@dataclass(frozen=True, slots=True)
class RunningMax:
    """A max pooling of values that change over time, executed as a running maximum."""

    name: str
    """Name of the value that it makes."""
    path: str
    """Path of its module in the ReLU network, or of the module that calls it."""
    value: str
    """Name of the value that holds the amplitudes to pool."""
    fires: tuple[str, ...]
    """Names of the layers of neurons whose spikes, side by side along the channels, are those
    amplitudes; their spikes are counted instead, which is exact. Empty if there are none."""
    pooling: Pooling
    """The windows."""

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
"""Any step of a program."""

# Not an identifier, so no step's value has it.
STEPS = "time steps"
"""Name of the value that tells the tail of an integer network how many time steps there were."""


@dataclass(frozen=True, slots=True)
class Program:
    """The three parts of a simulation, each in order of execution."""

    images: str
    """Name of the value that holds the images."""
    batch: str
    """Name of the value that holds the number of images."""
    images_change: bool
    """Whether there is another frame at every time step; if not, images are constant in time."""
    averages_images: bool
    """Whether images change over time and the tail reads their mean."""
    tail_reads_images: bool
    """Whether the tail reads the images, or what is computed from them alone."""
    tail_pools: bool
    """Whether the tail holds a max pooling; what it makes of a mean is right only if the mean
    begins at the first step."""
    static: tuple[Call, ...]
    """Steps before the first neurons, executed once per batch."""
    temporal: tuple[Step, ...]
    """Steps between the first and the last neurons, executed for every time step; several time
    steps are folded into the batch."""
    tail: tuple[Call, ...]
    """Steps behind the last neurons, executed once, on their mean output."""
    output: str
    """Name of the value that holds the logits."""
    frees: Mapping[str, tuple[str, ...]]
    """Names of the values that each step of the first two parts is the last to read, by the name of
    the step."""
    elements_per_step: int
    """The most elements that the values of one time step of one image hold at the same time."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of all three parts, in order."""
        return (*self.static, *self.temporal, *self.tail)

    @property
    def neurons(self) -> tuple[Fire, ...]:
        """The layers of neurons, in order."""
        return tuple(step for step in self.temporal if isinstance(step, Fire))


def last_reads(steps: Iterable[Step], kept: set[str]) -> dict[str, tuple[str, ...]]:
    """For each step the results of these steps that nothing reads after it."""
    steps = list(steps)
    own = {name for step in steps for name in step.makes} - kept
    frees = {}
    for step in reversed(steps):
        last = own & {*step.makes, *step.reads}
        own -= last
        frees[step.name] = tuple(sorted(last))
    return frees


def empty_over_time(value: Tensor, steps: int) -> Tensor:
    """An uninitialised ``[T, B, ...]`` with room for T = ``steps`` tensors like ``value``
    ``[B, ...]``, in the same memory format.

    >>> empty_over_time(torch.zeros(2, 3), 4).shape
    torch.Size([4, 2, 3])
    """
    one = torch.empty_like(value)
    return value.new_empty_strided((steps, *value.shape), (one.numel(), *one.stride()))


def repeat_over_time(value: Tensor, steps: int) -> Tensor:
    """A value ``[B, ...]`` copied to ``[T*B, ...]``, in the same memory format.

    >>> repeat_over_time(torch.tensor([[1.0], [2.0]]), 2).flatten().tolist()
    [1.0, 2.0, 1.0, 2.0]
    """
    return empty_over_time(value, steps).copy_(value).flatten(0, 1)


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
    """Reshapes ``value`` ``[T*B, ...]``; its first size is kept, whatever ``sizes`` says of it.

    >>> reshape_steps(torch.zeros(6, 4), 3, 2, -1).shape
    torch.Size([6, 2, 2])
    """
    # Sizes that torch.export leaves open are not of type int.
    flat = sizes[0] if isinstance(sizes[0], tuple | list) else sizes
    return value.reshape(value.shape[0], *flat[1:])
