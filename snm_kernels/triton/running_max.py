"""The Triton operators of max pooling, which do what those of csrc/ops.cpp do."""

from collections.abc import Sequence
from math import prod

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from torch.library import wrap_triton

from .._fakes import adaptive_running_max_pool_fake, running_max_pool_fake
from .._layout import dense_strides, is_channels_last, pooled_like, slices_have
from .._running_max_checks import check_arguments, is_shared
from ..windows import ADAPTIVE_POOL, POOL, Windows, adaptive_windows, checked_windows
from .launch import INTERPRETED, exact_like, inexact, loop_bound, on_device_of, register
from .running_max_kernel import snm_running_max_kernel, snm_running_total_kernel

BLOCK = 128
"""How many windows a block has, one for each thread."""
MOST_TAPS = 9
"""The most inputs of a window whose totals are kept in registers, not in scratch memory."""


def _running_max_pool_triton(
    x: Tensor,
    threshold: Tensor | None,
    total: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    sent_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Does what ``running_max_pool`` of csrc/ops.cpp does."""
    along = zip(x.shape[3:], kernel_size, stride, padding, dilation, strict=True)
    windows = [checked_windows(*each, ceil_mode) for each in along]
    check_arguments(POOL, x, threshold, total, sent_dtype)
    return _run(x, threshold, total, windows, sent_dtype)


def _adaptive_running_max_pool_triton(
    x: Tensor,
    threshold: Tensor | None,
    total: Tensor | None,
    output_size: Sequence[int],
    sent_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Does what ``adaptive_running_max_pool`` of csrc/ops.cpp does."""
    windows = [adaptive_windows(*each) for each in zip(x.shape[3:], output_size, strict=True)]
    check_arguments(ADAPTIVE_POOL, x, threshold, total, sent_dtype)
    return _run(x, threshold, total, windows, sent_dtype)


def _run(
    x: Tensor,
    threshold: Tensor | None,
    total: Tensor | None,
    windows: Sequence[Windows],
    sent_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Runs the kernels on x's device and current stream; returns what is sent, and the totals."""
    spikes, total_out = pooled_like(x, [along.output for along in windows], sent_dtype)
    if total_out.numel() == 0:
        return spikes, total_out
    channels_last = is_channels_last(x)
    strides = dense_strides(x.shape, channels_last)
    drive = _dense(x, strides)
    if total is not None and not slices_have(total[None], strides):
        total = torch.empty_like(total_out).copy_(total)
    sent = exact_like(spikes)

    counts = x.dtype == torch.int8
    axes = [Windows(1, 1, 1)] * (3 - len(windows)) + list(windows)
    taps = prod(along.kernel for along in axes)
    outputs = sent[0].numel()
    scratch = None
    if taps > MOST_TAPS:
        scratch = total_out.new_empty((taps, outputs))
    run = snm_running_max_kernel if INTERPRETED else wrap_triton(snm_running_max_kernel)
    run_total = snm_running_total_kernel if INTERPRETED else wrap_triton(snm_running_total_kernel)
    with on_device_of(x):
        if not all(_covers(along) for along in windows):
            run_total[(triton.cdiv(total_out.numel(), BLOCK),)](
                drive,
                drive.stride(0),
                total,
                total_out,
                loop_bound(x.shape[0]),
                total_out.numel(),
                COUNTS=counts,
                BLOCK=BLOCK,
            )
        run[(triton.cdiv(outputs, BLOCK),)](
            drive,
            drive.stride(0),
            threshold,
            *_steps(threshold, len(windows)),
            total,
            total_out,
            sent,
            sent.stride(0),
            scratch,
            loop_bound(x.shape[0]),
            x.shape[2],
            *(along.size for along in axes),
            *(along.output for along in axes),
            *(along.stride for along in axes),
            *(along.padding for along in axes),
            outputs,
            **_constants(axes),
            CHANNELS_LAST=channels_last,
            CARRIES=threshold is not None and not is_shared(threshold, len(windows)),
            COUNTS=counts,
            TAPS=taps if scratch is None else 0,
            BLOCK=BLOCK,
            enable_fp_fusion=False,
        )
    if sent is not spikes:
        spikes.copy_(sent)
    return spikes, total_out


def _dense(x: Tensor, strides: Sequence[int]) -> Tensor:
    """The drive with these strides in its time slices; copied only if it has others."""
    widened = inexact(x.dtype)
    if slices_have(x, strides) and not widened:
        return x
    dtype = torch.float32 if widened else x.dtype
    return x.new_empty_strided(x.shape, strides, dtype=dtype).copy_(x)


def _constants(axes: Sequence[Windows]) -> dict[str, int]:
    """The constants that the windows along depth, height and width give the kernel."""
    return {
        f"{field.upper()}_{axis}": getattr(along, field)
        for field in ("kernel", "dilation", "adaptive")
        for axis, along in zip(("DEPTH", "HEIGHT", "WIDTH"), axes, strict=True)
    }


def _covers(along: Windows) -> bool:
    """Whether every input along a dimension lies in a window."""
    reach = (along.output - 1) * along.stride + along.kernel - along.padding
    gapless = along.dilation == 1 and along.stride <= along.kernel
    return along.adaptive or (gapless and reach >= along.size)


def _steps(threshold: Tensor | None, spatial: int) -> list[int]:
    """The threshold's steps over channels, depth, height and width; 0 where it is broadcast."""
    steps = [0] * (1 + spatial)
    if threshold is not None:
        for d in range(1, threshold.dim() + 1):
            steps[-d] = 0 if threshold.shape[-d] == 1 else threshold.stride(-d)
    return [steps[0], *[0] * (3 - spatial), *steps[1:]]


register("running_max_pool_triton", _running_max_pool_triton, running_max_pool_fake)
register(
    "adaptive_running_max_pool_triton",
    _adaptive_running_max_pool_triton,
    adaptive_running_max_pool_fake,
)
