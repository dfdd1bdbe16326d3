"""Recognises average poolings, and finds windows whose sums they are parts of."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...network.program import Call, Pooling
from ...nn.integer import sum_pool
from ..analysis.pooling import pooling_from_arguments

_ADAPTIVE = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
)
_POOLINGS: dict[Any, int] = {
    nn.AvgPool1d: 1,
    nn.AvgPool2d: 2,
    nn.AvgPool3d: 3,
    F.avg_pool1d: 1,
    F.avg_pool2d: 2,
    F.avg_pool3d: 3,
}
_MEANS = ("mean", torch.mean)
_ARGUMENTS = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_CONVOLVE = {1: F.conv1d, 2: F.conv2d}
_EIGHTH = 8
"""Averages are tried on eighths, for what rounds is none."""

Operation = Callable[[Tensor], Tensor]
"""Runs an operation on another value of the same shape."""


def is_average(call: Call, module: nn.Module | None) -> bool:
    """Whether an operation averages; ``module`` is the module that it calls."""
    target = call.target if module is None else type(module)
    return target in _ADAPTIVE or target in _POOLINGS or target in _MEANS


def pooling_of(call: Call, module: nn.Module | None) -> Pooling | None:
    """The windows of an average pooling of a size of their own; None of any other average."""
    dims = _POOLINGS.get(call.target if module is None else type(module))
    if dims is None:
        return None
    given: Mapping[str, Any] = dict(zip(_ARGUMENTS, call.args, strict=False))
    arguments = {**given, **dict(call.kwargs or {})} if module is None else vars(module)
    return pooling_from_arguments(arguments, dims, adaptive=False)


def windows_of(run: Operation, x: Tensor, generator: torch.Generator) -> tuple[int, ...] | None:
    """The windows, side by side, that an average is of; None if it is not of such.

    What is left over behind the last whole window is not read.

    Args:
        run: the average.
        x: an example ``[N, C, ...]`` of what it reads.
        generator: of the numbers on which it is tried.

    >>> pool, drawn = nn.AvgPool2d(2), torch.Generator().manual_seed(0)
    >>> windows_of(pool, torch.ones(1, 1, 3, 5), drawn)
    (2, 2)
    >>> windows_of(nn.AvgPool2d(2, ceil_mode=True), torch.ones(1, 1, 3, 5), drawn) is None
    True
    """
    dims = x.dim() - 2
    made = run(torch.zeros_like(x, dtype=torch.float64))
    sizes = made.shape[2:] or (1,) * dims
    if dims < 1 or made.shape[:2] != x.shape[:2] or len(sizes) != dims or 0 in sizes:
        return None
    window = []
    for dim, size in enumerate(x.shape[2:]):
        # The average of 0, 1, ... up to the end of the first window tells where that is.
        places = torch.arange(size, dtype=torch.float64, device=x.device)
        ramp = places.view(-1, *[1] * (dims - 1 - dim)).expand(x.shape)
        length = round(2 * float(run(ramp).flatten()[0])) + 1
        if not 1 <= length <= size or size // length != sizes[dim]:
            return None
        window.append(length)
    count = math.prod(window)
    tried = _tried(x, count, generator)
    expected = (sum_pool(tried, window) / count).view(made.shape)
    return tuple(window) if _is_same(run(tried), expected) else None


def is_convolution(run: Operation, x: Tensor, pooling: Pooling, generator: torch.Generator) -> bool:
    """Whether an average pooling averages over as many places everywhere, padding among them.

    >>> pool, drawn = nn.AvgPool1d(3, 2, 1), torch.Generator().manual_seed(0)
    >>> overlapping = Pooling((3,), (2,), (1,))
    >>> is_convolution(pool, torch.ones(1, 1, 6), overlapping, drawn)
    True
    """
    dims, channels = x.dim() - 2, x.shape[1]
    if dims not in _CONVOLVE or len(pooling.kernel_size) != dims:
        return False
    count = math.prod(pooling.kernel_size)
    tried = _tried(x, count, generator)
    ones = torch.ones(channels, 1, *pooling.kernel_size, dtype=torch.float64, device=x.device)
    places = (pooling.stride, pooling.padding, 1, channels)
    made = run(tried)
    expected = _CONVOLVE[dims](tried, ones, None, *places) / count
    return made.shape == expected.shape and _is_same(made, expected)


def why_uneven(pooling: Pooling | None, x: Tensor, made: Tensor) -> str:
    """Why an average has no integer form, and what can be done."""
    if pooling is not None:
        return (
            "some of its windows are averages over fewer places, at the border; give it "
            "count_include_pad=True, ceil_mode=False and no divisor_override"
        )
    before, behind = list(x.shape[2:]), list(made.shape[2:])
    if made.shape[:2] == x.shape[:2] and len(before) == len(behind):
        return f"its windows differ in size or overlap; pool {before} to sizes that divide it"
    return "it averages over other dimensions than the spatial ones, all of them"


def _tried(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Numbers whose averages over so many places are exact, in the shape of x, float64."""
    drawn = torch.randint(-99, 100, x.shape, generator=generator).to(x.device, torch.float64)
    return drawn * count / _EIGHTH


def _is_same(made: Tensor, expected: Tensor) -> bool:
    """Whether averages in float64 are the same but for whether they were divided by a number, or
    multiplied by a fraction, which float32 does not tell apart."""
    return torch.equal(made.to(torch.float32), expected.to(torch.float32))
