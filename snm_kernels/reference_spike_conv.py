"""Convolutions of spikes in plain PyTorch: the truth that every backend reproduces bit for bit."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def spike_conv_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    pool: Sequence[int],
) -> Tensor:
    """Sums the weights of spikes; every sum is an integer below 2**53, so float64 is exact.

    Args:
        x: int8 ``[T, B, C, H, W]``.
        weight: int8 ``[K, C / groups, kernel, kernel]``.
        bias: int32 ``[K]`` or ``[H', W', K]``; None for none.
        stride, padding, dilation, groups: as for ``torch.nn.functional.conv2d``.
        pool: sizes of the windows over which spikes are summed first.

    Returns:
        int32 ``[T, B, K, H', W']``, channels_last.
    """
    spikes = x.flatten(0, 1).to(torch.float64)
    pooled = functional.avg_pool2d(spikes, tuple(pool), divisor_override=1)
    sums = functional.conv2d(
        pooled,
        weight.to(torch.float64),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
    )
    drive = sums.to(torch.int32).permute(0, 2, 3, 1)
    if bias is not None:
        drive = drive + bias
    return drive.contiguous().permute(0, 3, 1, 2).unflatten(0, x.shape[:2])
