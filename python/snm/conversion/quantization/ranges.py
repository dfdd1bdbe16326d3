"""Finds the range of calibration images, and makes integers of their pixels."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...network.spiking import SpikingNetwork
from ...nn.integer import Pixels
from ..inputs import Progress, batches_of

_PIXELS = 255
"""How many steps lie between the smallest and the largest pixel."""


class Range(NamedTuple):
    """What is known of calibration images."""

    some: Tensor
    """The first images ``[N, C, ...]``."""
    least: Tensor
    """The smallest value of each channel, float64."""
    most: Tensor
    """The largest."""


def range_of(
    net: SpikingNetwork, calibration: Tensor | Iterable[Any], progress: Progress | None
) -> Range:
    """The range of calibration images; refuses images that are not as those of the conversion."""
    first, least, most = None, None, None
    for batch in batches_of(
        calibration, progress, net.device, net.dtype, "quantize", what="calibration"
    ):
        net.inputs.check(batch)
        if tuple(batch.shape[1:]) != net.image_shape:
            raise ValueError(
                f"quantize: calibration must be images of {list(net.image_shape)} each, as those "
                f"of the conversion, got {list(batch.shape[1:])}"
            )
        if len(batch) == 0:
            continue
        first = batch if first is None else first
        low, high = batch.transpose(0, 1).flatten(1).aminmax(dim=1)
        least = low if least is None else torch.minimum(least, low)
        most = high if most is None else torch.maximum(most, high)
    if first is None or least is None or most is None:
        raise ValueError("quantize: calibration must hold at least one image, got none")
    return Range(first, least.double(), most.double())


def pixels_of(given: tuple[Sequence[float], Sequence[float]] | None, seen: Range) -> Pixels:
    """Makes integers of images.

    Args:
        given: the mean and std of each channel; None to divide what was seen.
        seen: the range of the images.
    """
    channels, device = seen.some.shape[1], seen.some.device
    if given is None:
        # Channels that lie far from 0 are divided into fewer steps, none of which is cut off.
        sizes = torch.maximum(seen.most - seen.least, torch.maximum(seen.most, -seen.least) / 2)
        return Pixels(torch.where(sizes > 0, sizes / _PIXELS, 1.0))
    try:
        mean, std = (torch.as_tensor(part, dtype=torch.float64, device=device) for part in given)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"quantize: pixels must be the mean and the std of each channel, got {given!r}"
        ) from error
    if mean.dim() != 1 or mean.shape != std.shape or len(mean) not in (1, channels):
        raise ValueError(
            f"quantize: pixels must be the mean and std of {channels} channels, "
            f"got {list(mean.shape)} and {list(std.shape)}"
        )
    if not bool((std > 0).all()):
        raise ValueError(f"quantize: pixels must have std > 0, got {std.tolist()}")
    zero = (mean * _PIXELS).expand(channels)
    return Pixels((1 / (_PIXELS * std)).expand(channels).contiguous(), zero)
