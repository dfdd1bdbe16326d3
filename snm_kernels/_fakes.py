"""Fake kernels, with which PyTorch traces: empty tensors of the operators' shapes and dtypes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._checks import number_dtype
from ._layout import count_like, pooled_like, spikes_like, state_like
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
