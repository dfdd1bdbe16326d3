"""What is known of the values of a network that becomes one of integers."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

PER_NEURON = (
    "thresholds differ within a channel, which int8 weights cannot carry; convert with "
    "norm='channel' or 'layer'"
)
SPREAD = (
    "sums of several units lie within one channel, as a view or a permutation arranges them; let "
    "neurons read them before"
)


@dataclass
class Integers:
    """A value that counts a unit."""

    unit: Tensor
    """float64, of the shape of one image's value; 0 where an element is always 0."""
    source: str
    """The name of the step that makes it, in the new program."""
    largest: int | None
    """The largest amount of an element at a time step, before pooling, of what is int8; None of
    what is int32."""
    summed: bool = False
    """Whether it is a sum of weights, whose unit is fine, and which others take over."""
    typical: float = 1.0
    """About how large an element is, as the root of the mean square of random spikes is."""
    pool: tuple[int, ...] = ()
    """The windows over which whoever reads it has to sum it."""
    rest: Tensor | None = None
    """What has to be added to every element of one image's value, in the units of the model; None
    for nothing."""

    @property
    def of_channels(self) -> Tensor | None:
        """The unit of each channel; None if it differs between places."""
        flat = rows(self.unit)
        return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None

    @property
    def why_spread(self) -> str:
        """Why units differ within a channel, if they do."""
        return SPREAD if self.summed else PER_NEURON


@dataclass
class Layer:
    """A convolution or linear layer whose unit is not known yet."""

    path: str
    weight: Tensor
    """float64, the unit of what it reads taken in."""
    bias: Tensor
    """float64 ``[K]``."""
    places: tuple[Any, ...]
    """Stride, padding, dilation, groups and pool; none for a linear layer."""
    fine: bool = False
    """Whether it reads a sum, whose unit is fine."""
    typical: float = 1.0
    """About how large what it reads is, as of :class:`Integers`."""


@dataclass
class Scaled:
    """Integers that a sum adds as they are, times an integer for each channel."""

    path: str
    worth: Tensor
    """What 1 is worth, float64 ``[K]``."""


@dataclass
class Group:
    """All that is added up somewhere, and has to have the same unit."""

    terms: list[Layer | Scaled] = field(default_factory=list)
    unit: Tensor | None = None
    """float64 ``[K]``, once it is known; 0 for a channel that is always 0."""

    typical: float = 1.0
    """About how large a sum is, as of :class:`Integers`, once the unit is known."""

    @property
    def reads(self) -> float:
        """About how large what the largest weights read is."""
        return max((term.typical for term in self.terms if isinstance(term, Layer)), default=1.0)


@dataclass
class Sum:
    """A value that is a sum, of one term or several."""

    group: Group
    source: str
    """As of :class:`Integers`."""
    shape: torch.Size
    """Of one image's value."""
    rest: Tensor | None = None
    """As of :class:`Integers`."""
    scaled: bool = False
    """Whether it is integers as they are."""


Known = Integers | Sum | None
"""What is known of a value; None if what makes it is refused."""


def rows(values: Tensor) -> Tensor:
    """Values ``[C, ...]`` as ``[C, n]``.

    >>> rows(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 12])
    """
    return values.reshape(len(values), -1)


def spread(values: Tensor, dims: int) -> Tensor:
    """Values of channels as they broadcast to ``[C, ...]`` of so many dimensions.

    >>> spread(torch.ones(2), 3).shape
    torch.Size([2, 1, 1])
    """
    return values.view(-1, *[1] * (dims - 1))


def both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum of two rests.

    >>> both(torch.ones(1), None), both(torch.ones(1), torch.ones(1))
    (tensor([1.]), tensor([2.]))
    """
    if first is None or second is None:
        return first if second is None else second
    return first + second
