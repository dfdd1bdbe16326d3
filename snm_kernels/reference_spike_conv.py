"""Convolutions of spikes in plain PyTorch: the truth that every backend reproduces bit for bit."""

from collections.abc import Sequence
from itertools import product

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
    """Sums the weights of spikes, and adds the bias.

    Args:
        x: int8 ``[T, B, C, H, W]``.
        weight: int8 or float32 ``[K, C / groups, kernel, kernel]``.
        bias: int32 ``[K]`` or ``[H', W', K]``, float32 if the weight is; None for none.
        stride, padding, dilation, groups: as for ``torch.nn.functional.conv2d``.
        pool: sizes of the windows over which spikes are summed first.

    Returns:
        int32 ``[T, B, K, H', W']``, float32 if the weight is, channels_last.
    """
    outputs = weight.shape[0]
    if weight.numel() == 0:
        # Without channels or outputs, which torch refuses: one of each, and every sum is 0.
        x, groups = x.new_zeros((*x.shape[:2], 1, *x.shape[3:])), 1
        weight = weight.new_zeros((1, 1, *weight.shape[2:]))
    sums = _integer_sums if weight.dtype == torch.int8 else _float_sums
    drive = sums(x.flatten(0, 1), weight, stride, padding, dilation, groups, pool)
    drive = drive.expand(*drive.shape[:-1], outputs)
    if bias is not None:
        drive = drive + bias
    places = drive.shape[1:]
    return drive.contiguous().view(*x.shape[:2], *places).permute(0, 1, 4, 2, 3)


def _integer_sums(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    pool: Sequence[int],
) -> Tensor:
    """Sums ``[N, H', W', K]`` of spikes ``[N, C, H, W]``. Every sum is an integer below 2**53, so
    float64 is exact; in int32 sums wrap around."""
    pooled = functional.avg_pool2d(x.to(torch.float64), tuple(pool), divisor_override=1)
    sums = functional.conv2d(
        pooled,
        weight.to(torch.float64),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
    )
    return sums.to(torch.int64).to(torch.int32).permute(0, 2, 3, 1)


def _float_sums(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    pool: Sequence[int],
) -> Tensor:
    """The same in float32: weights of positive spikes are added in the order of the kernel's
    places, of the places in a window, and of channels, then those of negative ones taken off."""
    images, channels, *size = x.shape
    (high, wide), (down, along) = pool, padding
    rows, columns = size[0] // high, size[1] // wide
    # [N, rows, columns, places of a window, groups, channels of a group]
    windows = (
        x[..., : rows * high, : columns * wide]
        .reshape(images, groups, channels // groups, rows, high, columns, wide)
        .permute(0, 3, 5, 4, 6, 1, 2)
        .flatten(3, 4)
    )
    padded = functional.pad(windows, (0, 0) * 3 + (along, along, down, down))
    kernel = weight.unflatten(0, (groups, -1))
    taken = [
        [slice(tap * apart, size - (taps - 1 - tap) * apart, step) for tap in range(taps)]
        for taps, apart, size, step in zip(
            weight.shape[2:], dilation, padded.shape[1:3], stride, strict=True
        )
    ]
    sums = torch.zeros((), dtype=torch.float32, device=x.device)
    for sign in (1, -1):
        for (i, over_rows), (j, over_columns) in product(*map(enumerate, taken)):
            # Spikes of this sign, as wide integers: -128 has an amount too.
            spikes = (padded[:, over_rows, over_columns].to(torch.int32) * sign).clamp(min=0)
            most = spikes.amax((0, 1, 2, 4)) if images else spikes.new_zeros(spikes.shape[3::2])
            for place, channel in product(*map(range, spikes.shape[3::2])):
                of_outputs = kernel[:, :, channel, i, j] * sign
                left = spikes[:, :, :, place, :, channel, None]
                sums = sums.expand(*left.shape[:-1], of_outputs.shape[1])
                for n in range(int(most[place, channel])):
                    sums = torch.where(left > n, sums + of_outputs, sums)
    return sums.flatten(3)
