"""Which values the windows of poolings and interpolations read."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...network.program import Pooling


def windows_of(pooling: Pooling, size: Sequence[int]) -> list[Tensor]:
    """For each dimension which values each window reads: float64 ``[windows, values]`` of 0 and 1.

    Args:
        size: of what is pooled, its channels left out.

    >>> windows_of(Pooling((3,), (2,), (1,), (1,)), (4,))
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


def windows_read_by(resize: Callable[[Tensor], Tensor], size: Sequence[int]) -> list[Tensor]:
    """The same of an interpolation: which values each of its results is made of.

    Args:
        resize: the interpolation of ``[B, C, ...]``, in each dimension by itself.
        size: of what it resizes, its channels left out.
    """
    found = []
    for dim, values in enumerate(size):
        # One value after the other is 1, all along the other dimensions.
        shape = [1] * len(size)
        shape[dim] = values
        ones = torch.eye(values, dtype=torch.float64).view(values, 1, *shape)
        made = resize(ones.expand(values, 1, *size)).movedim(dim + 2, -1)
        found.append((made.reshape(values, -1, made.shape[-1])[:, 0] != 0).double().T)
    return found


def pooled(rows: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """The sums over the windows of the last dimensions of ``[..., *size]``, float64."""
    for dim, window in enumerate(windows, start=-len(windows)):
        rows = (rows.movedim(dim, -1) @ window.to(rows.device).T).movedim(-1, dim)
    return rows


def _adaptive(values: int, windows: int) -> list[range]:
    return [
        range(window * values // windows, -(-(window + 1) * values // windows))
        for window in range(windows)
    ]


def _marked(values: int, windows: Sequence[range]) -> Tensor:
    marks = torch.zeros(len(windows), values, dtype=torch.float64)
    for mark, window in zip(marks, windows, strict=True):
        mark[[value for value in window if 0 <= value < values]] = 1
    return marks
