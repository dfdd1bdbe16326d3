"""What the layers of integer networks do, in operations on numbers that traces know."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ...nn.integer import (
    IntegerConv,
    IntegerLinear,
    IntegerReadout,
    IntegerScale,
    IntegerSumPool,
    Pixels,
)

_CONVOLUTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d}
_AVERAGES: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def on_numbers(layer: nn.Module, x: Tensor) -> Any:
    """What a layer of integers makes of numbers, but for scales; None of any other layer.

    A weight that was rounded to 0 is no synapse; units are none either.

    >>> import torch
    >>> linear = IntegerLinear(torch.tensor([[3, 4]], dtype=torch.int8))
    >>> on_numbers(linear, torch.ones(1, 2).double()).item()
    7.0
    >>> on_numbers(nn.ReLU(), torch.ones(1, 2)) is None
    True
    """
    if isinstance(layer, Pixels | IntegerScale | IntegerReadout):
        return x
    if isinstance(layer, IntegerSumPool):
        pooled = _average(x, layer.size)
        return pooled.flatten(1) if layer.flat else pooled
    if isinstance(layer, IntegerLinear):
        return F.linear(x, layer.weight.double())
    if isinstance(layer, IntegerConv):
        dims = len(layer.stride)
        pooled = _average(x, layer.pool[-dims:])
        places = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return _CONVOLUTIONS[dims](pooled, layer.weight.double(), None, *places)
    return None


def _average(x: Tensor, size: tuple[int, ...]) -> Any:
    """The average over windows side by side."""
    return x if set(size) <= {1} else _AVERAGES[len(size)](x, size)
