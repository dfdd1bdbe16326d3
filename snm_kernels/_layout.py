"""How drives, states, spikes and parameters lie in memory."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def state_like(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Makes an empty membrane for the drive x, in x's memory format."""
    return torch.empty_like(x.select(0, 0), dtype=dtype)


def spikes_like(x: Tensor, v: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Makes empty spikes for the drive x, each time slice laid out as v; of size 0 for no dtype."""
    if dtype is None:
        return x.new_empty(0, dtype=torch.int8)
    return x.new_empty_strided(x.shape, (v.numel(), *v.stride()), dtype=dtype)


def count_like(v: Tensor) -> Tensor:
    """Makes an empty int32 memory, or number of spikes, laid out as the membrane v."""
    return torch.empty_like(v, dtype=torch.int32)


def dense_strides(sizes: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """The strides of ``[T, B, C, *spatial]`` without gaps, time outermost.

    >>> dense_strides([4, 2, 3, 5, 5], channels_last=True)
    (150, 75, 1, 15, 3)
    """
    innermost_first = [*range(len(sizes) - 1, 2, -1)]
    innermost_first = [2, *innermost_first] if channels_last else [*innermost_first, 2]
    strides = [0] * len(sizes)
    step = 1
    for d in (*innermost_first, 1, 0):
        strides[d] = step
        step = step * max(1, sizes[d])
    return tuple(strides)


def slices_have(x: Tensor, strides: Sequence[int]) -> bool:
    """Whether the time slices of x lie in memory as these strides say."""
    return all(
        size <= 1 or stride == wanted
        for size, stride, wanted in zip(x.shape[1:], x.stride()[1:], strides[1:], strict=True)
    )


def is_channels_last(x: Tensor) -> bool:
    """Whether the time slices of ``[T, B, C, *spatial]`` are channels_last and not contiguous."""
    return not slices_have(x, dense_strides(x.shape, False)) and slices_have(
        x, dense_strides(x.shape, True)
    )


def pooled_like(
    x: Tensor, output: Sequence[int], spikes_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Makes empty tensors in x's memory format for what pooling sends and for its totals."""
    channels_last = is_channels_last(x)
    sizes = (*x.shape[:3], *output)
    spikes = x.new_empty_strided(sizes, dense_strides(sizes, channels_last), dtype=spikes_dtype)
    total_dtype = torch.int32 if x.dtype == torch.int8 else torch.float32
    strides = dense_strides(x.shape, channels_last)[1:]
    return spikes, x.new_empty_strided(x.shape[1:], strides, dtype=total_dtype)


class Repeat(NamedTuple):
    """How a parameter repeats over a time slice: neuron n has value ``(n // inner) % period``."""

    sizes: list[int]
    """The sizes that the parameter is expanded to before it is read as a flat vector."""
    inner: int
    """How many neurons in a row have the same value."""


def repeat_over(sizes: Sequence[int], parameter_sizes: Sequence[int]) -> Repeat:
    """The shortest pattern of a parameter that broadcasts to a C-contiguous slice.

    >>> repeat_over([8, 16, 4, 4], [16, 1, 1])
    Repeat(sizes=[1, 16, 1, 1], inner=16)
    """
    own = [1] * (len(sizes) - len(parameter_sizes)) + list(parameter_sizes)
    varying = [d for d, size in enumerate(own) if size > 1]
    if not varying:
        return Repeat(own, 1)
    first, last = varying[0], varying[-1]
    inner = 1
    for size in sizes[last + 1 :]:
        inner *= size
    return Repeat([size if first <= d <= last else 1 for d, size in enumerate(sizes)], inner)
