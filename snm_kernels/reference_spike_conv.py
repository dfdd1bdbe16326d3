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
    """Sums the weights of spikes; every sum is an integer below 2**53, so float64 is exact. In
    int32 sums wrap around.

    Args:
        x: int8 ``[T, B, C, H, W]``.
        weight: int8 ``[K, C / groups, kernel, kernel]``.
        bias: int32 ``[K]`` or ``[H', W', K]``; None for none.
        stride, padding, dilation, groups: as for ``torch.nn.functional.conv2d``.
        pool: sizes of the windows over which spikes are summed first.

    Returns:
        int32 ``[T, B, K, H', W']``, channels_last.
    """
    outputs = weight.shape[0]
    if weight.numel() == 0:
        # Without channels or outputs, which torch refuses: one of each, and every sum is 0.
        x, groups = x.new_zeros((*x.shape[:2], 1, *x.shape[3:])), 1
        weight = weight.new_zeros((1, 1, *weight.shape[2:]))
    pooled = functional.avg_pool2d(
        x.flatten(0, 1).to(torch.float64), tuple(pool), divisor_override=1
    )
    sums = functional.conv2d(
        pooled,
        weight.to(torch.float64),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
    )
    sums = sums.expand(-1, outputs, -1, -1)
    drive = sums.to(torch.int64).to(torch.int32).permute(0, 2, 3, 1)
    if bias is not None:
        drive = drive + bias
    places = drive.shape[1:]
    return drive.contiguous().view(*x.shape[:2], *places).permute(0, 1, 4, 2, 3)
