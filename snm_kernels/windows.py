"""The windows of max pooling: of which inputs each output is the maximum."""

from typing import NamedTuple

from ._checks import require

POOL = "running_max_pool"
ADAPTIVE_POOL = "adaptive_running_max_pool"
"""The names of the two ops, in messages and as operators."""


class Windows(NamedTuple):
    """The windows of max pooling along one spatial dimension.

    >>> Windows(5, 3, 3, stride=2, padding=1).taps(0)
    range(0, 2)
    """

    size: int
    """How many inputs there are."""
    output: int
    """How many windows there are."""
    kernel: int
    """How many inputs a window has, padding included; where adaptive, the most that one has."""
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    adaptive: bool = False
    """Whether window o covers ``[floor(o * size / output), ceil((o + 1) * size / output))``."""

    def taps(self, o: int) -> range:
        """The places of the inputs of window o, without those in the padding."""
        if self.adaptive:
            return range(o * self.size // self.output, -(-(o + 1) * self.size // self.output))
        start = o * self.stride - self.padding
        first = start + max(0, -(start // self.dilation)) * self.dilation
        return range(first, min(start + self.kernel * self.dilation, self.size), self.dilation)


def max_pool_windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> Windows:
    """The windows of ``torch.nn.functional.max_pool`` along one dimension.

    >>> max_pool_windows(5, 2, 2, 0, 1, True).output
    3
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    output = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (output - 1) * stride >= size + padding:
        output -= 1
    return Windows(size, output, kernel, stride, padding, dilation)


def adaptive_windows(size: int, output: int) -> Windows:
    """The windows of ``torch.nn.functional.adaptive_max_pool`` along one dimension.

    >>> [list(adaptive_windows(5, 3).taps(o)) for o in range(3)]
    [[0, 1], [1, 2, 3], [3, 4]]
    """
    if size % output == 0:
        return Windows(size, output, size // output, size // output)
    return Windows(size, output, size // output + 2, adaptive=True)


def checked_windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> Windows:
    """Returns :func:`max_pool_windows`; refuses windows that don't fit the input."""
    reach = dilation * (kernel - 1) + 1
    require(
        padding <= reach // 2,
        ValueError,
        "padding",
        f"at most half of the effective kernel size {reach}",
        padding,
        POOL,
    )
    windows = max_pool_windows(size, kernel, stride, padding, dilation, ceil_mode)
    require(
        windows.output >= 1,
        ValueError,
        "x",
        f"as large as a window of {reach} in every spatial dimension, padding included",
        size,
        POOL,
    )
    # Only taps that lie further apart than the input is long can all miss it.
    if dilation > size:
        for o in range(-(-padding // stride)):
            if not windows.taps(o):
                raise ValueError(
                    f"{POOL}: x must have an input in every window, got none in window {o} of a "
                    f"dimension of size {size}"
                )
    return windows
