"""Which values the windows of poolings and interpolations read."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...network.program import Pooling


def pooling_windows(pooling: Pooling, size: Sequence[int]) -> list[Tensor]:
    """Which values each window of a pooling reads, in each dimension.

    Args:
        pooling: the windows, of one size or adaptive.
        size: the size of what is pooled, without its channels.

    Returns:
        For each dimension a float64 ``[windows, values]``, 1 where the window reads the value,
        else 0.

    >>> pooling_windows(Pooling((3,), (2,), (1,), (1,)), (4,))
    [tensor([[1., 1., 0., 0.],
            [0., 1., 1., 1.]], dtype=torch.float64)]
    """
    if pooling.output_size is not None:
        return [
            _marked(values, _adaptive(values, values if windows is None else windows))
            for values, windows in zip(size, pooling.output_size, strict=True)
        ]
    steps = zip(
        *(size, pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation), strict=True
    )
    found = []
    for values, kernel, stride, padding, dilation in steps:
        reach = values + 2 * padding - dilation * (kernel - 1) - 1
        windows = (math.ceil(reach / stride) if pooling.ceil_mode else reach // stride) + 1
        # A window may not begin in the padding behind.
        if pooling.ceil_mode and (windows - 1) * stride >= values + padding:
            windows -= 1
        starts = [window * stride - padding for window in range(windows)]
        found.append(_marked(values, [range(s, s + dilation * kernel, dilation) for s in starts]))
    return found


def resizing_windows(resize: Callable[[Tensor], Tensor], size: Sequence[int]) -> list[Tensor]:
    """Which values each result of an interpolation is made of, in each dimension.

    Args:
        resize: interpolates ``[B, C, ...]``, in each dimension by itself.
        size: the size of what it resizes, without its channels.

    Returns:
        For each dimension a float64 as that of :func:`pooling_windows`, a window for each result.
    """
    found = []
    for dim, values in enumerate(size):
        # In each row another value is 1, all along the other dimensions.
        shape = [1] * len(size)
        shape[dim] = values
        ones = torch.eye(values, dtype=torch.float64).view(values, 1, *shape)
        made = resize(ones.expand(values, 1, *size)).movedim(dim + 2, -1)
        found.append((made.reshape(values, -1, made.shape[-1])[:, 0] != 0).double().T)
    return found


def window_sums(rows: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """The sums over the windows of the last dimensions of ``[..., *size]``, float64."""
    for dim, window in enumerate(windows, start=-len(windows)):
        rows = (rows.movedim(dim, -1) @ window.to(rows.device).T).movedim(-1, dim)
    return rows


def _adaptive(values: int, windows: int) -> list[range]:
    """The values, by their numbers, that each window of an adaptive pooling reads."""
    return [
        range(window * values // windows, -(-(window + 1) * values // windows))
        for window in range(windows)
    ]


def _marked(values: int, windows: Sequence[range]) -> Tensor:
    """Windows as rows of 0 and 1; what they read beyond the values is padding."""
    marks = torch.zeros(len(windows), values, dtype=torch.float64)
    for mark, window in zip(marks, windows, strict=True):
        mark[[value for value in window if 0 <= value < values]] = 1
    return marks
