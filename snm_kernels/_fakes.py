"""Fake kernels, with which PyTorch traces: empty tensors of the operators' shapes and dtypes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._checks import number_dtype
from ._layout import count_like, dense_strides, pooled_like, spikes_like, state_like
from .windows import adaptive_windows, max_pool_windows


def snm_fake(x: Tensor, threshold: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Makes the spikes, membrane and memory of ``snm``; its last argument is the spikes' dtype."""
    v = state_like(x, number_dtype(threshold))
    return spikes_like(x, v, arguments[-1]), v, count_like(v)


def snm_out_fake(x: Tensor, threshold: Tensor, *_arguments: Any) -> tuple[Tensor, Tensor]:
    """Makes the membrane and memory of ``snm_out``."""
    v = state_like(x, number_dtype(threshold))
    return v, count_like(v)


def snm_counted_fake(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Makes what ``snm_fake`` does, and the number of negative spikes."""
    spikes, v, m = snm_fake(x, *arguments)
    return spikes, v, m, count_like(v)


def snm_counted_out_fake(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Makes what ``snm_out_fake`` does, and the number of negative spikes."""
    v, m = snm_out_fake(x, *arguments)
    return v, m, count_like(v)


def running_max_pool_fake(
    x: Tensor,
    threshold: Tensor | None,  # noqa: ARG001
    total: Tensor | None,  # noqa: ARG001
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    sent_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Makes what ``running_max_pool`` sends, and the inputs' totals."""
    along = zip(x.shape[3:], kernel_size, stride, padding, dilation, strict=True)
    return pooled_like(x, [max_pool_windows(*each, ceil_mode).output for each in along], sent_dtype)


def adaptive_running_max_pool_fake(
    x: Tensor,
    threshold: Tensor | None,  # noqa: ARG001
    total: Tensor | None,  # noqa: ARG001
    output_size: Sequence[int],
    sent_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Makes what ``adaptive_running_max_pool`` sends, and the inputs' totals."""
    along = zip(x.shape[3:], output_size, strict=True)
    return pooled_like(x, [adaptive_windows(*each).output for each in along], sent_dtype)


def spike_conv_fake(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,  # noqa: ARG001
    pool: Sequence[int],
    dense: bool,  # noqa: ARG001
) -> Tensor:
    """Makes what ``spike_conv`` drives neurons with."""
    number = torch.int32 if weight.dtype == torch.int8 else torch.float32
    return _convolved(x, weight, stride, padding, dilation, pool, number)


def snm_conv_fake(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,  # noqa: ARG001
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,  # noqa: ARG001
    bias: Tensor | None,  # noqa: ARG001
    residual: Tensor | None,  # noqa: ARG001
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,  # noqa: ARG001
    pool: Sequence[int],
    *rule: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Makes the spikes, membrane and memory of ``snm_conv``; its last argument is whether it
    sends."""
    spikes = _convolved(x, weight, stride, padding, dilation, pool, torch.int8)
    v = torch.empty_like(spikes.select(0, 0), dtype=number_dtype(threshold))
    return spikes if rule[-1] else x.new_empty(0), v, count_like(v)


def _convolved(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    pool: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """An empty result of a convolution of ``[T, B, C, H, W]``, channels_last."""
    along = zip(x.shape[3:], weight.shape[2:], stride, padding, dilation, pool, strict=True)
    output = [
        (size // window + 2 * pad - apart * (kernel - 1) - 1) // step + 1
        for size, kernel, step, pad, apart, window in along
    ]
    sizes = (*x.shape[:2], weight.shape[0], *output)
    return x.new_empty_strided(sizes, dense_strides(sizes, True), dtype=dtype)
