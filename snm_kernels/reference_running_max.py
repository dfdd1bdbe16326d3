"""Max pooling by a running maximum in plain PyTorch: the truth that every backend equals."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .windows import Windows


def larger(c: Tensor, most: Tensor) -> Tensor:
    """The larger of c and the maximum so far; the first of equals stays, and NaN stays."""
    return torch.where((c > most) | (c != c), c, most)


def carried(n: Tensor, theta: Tensor) -> Tensor:
    """What n spikes carry in float32; a silent neuron carries 0."""
    return torch.where(theta == math.inf, 0.0, n.to(torch.float32) * theta)


def window_maxima(values: Tensor, windows: Sequence[Windows]) -> Tensor:
    """The maximum of every window of ``[B, C, *spatial]``, its taps in row-major order."""
    for d, along in reversed(list(enumerate(windows, 2))):
        columns = []
        for o in range(along.output):
            first, *rest = along.taps(o)
            most = values.select(d, first)
            for i in rest:
                most = larger(values.select(d, i), most)
            columns.append(most)
        values = torch.stack(columns, d)
    return values


def running_max_pool_reference(
    x: Tensor,
    threshold: Tensor | None,
    total: Tensor | None,
    windows: Sequence[Windows],
    *,
    spikes_dtype: torch.dtype,
) -> tuple[list[Tensor], Tensor]:
    """Runs the rule one time step at a time; the loop that reads like the definition.

    Args:
        x: ``[T, B, C, *spatial]``; int8 spikes, or float32, float16 or bfloat16 amplitudes.
        threshold: of int8 spikes, float32, broadcastable to ``[C, *spatial]``.
        total: what every input has sent so far, int32 spikes or float32 amplitudes
            ``[B, C, *spatial]``; None for 0.
        windows: those along each spatial dimension.
        spikes_dtype: of what is sent; torch.int8 sends spikes.

    Returns:
        What was sent at each step (``[B, C, *output]`` each), then the inputs' totals after the
        last step.
    """
    counted = x.dtype == torch.int8
    if total is None:
        total = torch.zeros_like(x[0], dtype=torch.int32 if counted else torch.float32)
    shared = threshold is not None and all(n == 1 for n in _spatial_sizes(threshold, len(windows)))

    def value(total: Tensor) -> Tensor:
        """What the windows compare."""
        return total if threshold is None or shared else carried(total, threshold)

    before = window_maxima(value(total), windows)
    sent = []
    for t in range(x.shape[0]):
        total = total + x[t].to(total.dtype)
        most = window_maxima(value(total), windows)
        change = most - before
        before = most
        if shared and threshold is not None and spikes_dtype != torch.int8:
            change = carried(change, threshold)
        sent.append(change.to(spikes_dtype))
    return sent, total


def _spatial_sizes(threshold: Tensor, spatial: int) -> tuple[int, ...]:
    """The sizes that a threshold has along the spatial dimensions."""
    return tuple(threshold.shape[max(0, threshold.dim() - spatial) :])
