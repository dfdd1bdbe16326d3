"""The public op of max pooling: a running maximum over all time steps in one launch."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from . import _load
from ._checks import check_broadcast, check_threshold, require
from ._layout import dense_strides, is_channels_last
from .ops import AMPLITUDE_DTYPES, Backend
from .reference_pooling import Windows, running_max_pool_reference

Emit = Literal["amplitude", "spike"]
Sizes = int | Sequence[int]

POOL = "running_max_pool"
ADAPTIVE_POOL = "adaptive_running_max_pool"
_MOST = 2**31 - 1


class RunningMaxOutput(NamedTuple):
    """What a run of the running maximum returns.

    >>> running_max_pool(torch.ones(1, 1, 1, 4), 2).total
    tensor([[[1., 1., 1., 1.]]])
    """

    spikes: Tensor
    """``[T, B, C, *output]``: by how much every window's maximum changed at every step."""
    total: Tensor
    """``[B, C, *spatial]``: what every input has sent in total, to go on from. int32 spikes
    where the inputs are spikes, else float32 amplitudes."""


def running_max_pool(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    *,
    threshold: Tensor | float | None = None,
    total: Tensor | None = None,
    emit: Emit = "amplitude",
    out_dtype: torch.dtype | None = None,
    backend: Backend = "auto",
) -> RunningMaxOutput:
    r"""Max pooling of what neurons have sent in total, over all T time steps in one launch.

    With C_i(t) what input i has sent up to step t, a window with the inputs i sends::

        M(t) - M(t-1),   M(t) = max_i C_i(t)

    so that what it has sent in total is at every step the maximum of its inputs' totals. Where
    all inputs of a window share one threshold θ, spikes are counted in integers, a window sends
    θ·(N(t) - N(t-1)) with N(t) = max_i n_i(t), and sends at most one spike if its inputs do.
    Where thresholds differ within windows, C_i = θ_i·n_i. All floating arithmetic is float32
    with one rounding per operation; NaN passes through, and padding never wins.

    Args:
        x: ``[T, B, C, *spatial]`` with 1 to 3 spatial dimensions, time first; spikes as int8, or
            amplitudes as float32, float16 or bfloat16. It may be an expanded view with stride 0
            over time. Contiguous and channels_last slices are kept; any other is copied first.
        kernel_size, stride, padding, dilation, ceil_mode: as in
            :func:`torch.nn.functional.max_pool2d`: an integer, or one per spatial dimension;
            ``stride`` None is ``kernel_size``.
        threshold: θ of int8 spikes, in units of amplitude, > 0, +inf for a neuron that stays
            silent: a number, or a floating tensor broadcastable to ``[C, *spatial]``, read as
            float32. It is shared within windows if its spatial sizes are all 1. A tensor's
            values are not checked here. None for amplitudes.
        total: goes on from these totals, ``[B, C, *spatial]``, int32 for spikes and float32 for
            amplitudes; T steps at once equal T steps in chunks, bit for bit. None starts at 0.
            It is not changed.
        emit: ``"amplitude"`` sends what carries the threshold; ``"spike"`` sends
            N(t) - N(t-1) as int8, where the threshold is shared within windows.
        out_dtype: dtype of amplitudes: float32, float16 or bfloat16. Default: x's, and float32
            for spikes.
        backend: as for :func:`snm`.

    Returns:
        :class:`RunningMaxOutput`: what was sent, ``[T, B, C, *output]`` in x's memory format,
        and the inputs' totals.

    Raises:
        TypeError, ValueError: an argument's type, dtype, shape or device is wrong, or a window
            has no input inside; the message names it, what was expected and what was given.
        RuntimeError: grad mode is on and an input requires grad, or the backend is not
            available; the message says why.

    >>> spikes = torch.tensor([[1, 0, 0, 1], [0, 1, 0, -1]], dtype=torch.int8)
    >>> sent, total = running_max_pool(spikes[:, None, None], 2, threshold=0.5)
    >>> sent[:, 0, 0].tolist(), total[0, 0].tolist()
    ([[0.5, 0.5], [0.0, -0.5]], [1, 1, 0, 0])
    """
    spatial = _check_x(POOL, x)
    kernel = _integers("kernel_size", kernel_size, spatial, 1)
    step = kernel if stride is None else _integers("stride", stride, spatial, 1)
    pad = _integers("padding", padding, spatial, 0)
    apart = _integers("dilation", dilation, spatial, 1)
    require(isinstance(ceil_mode, bool), TypeError, "ceil_mode", "a bool", ceil_mode, POOL)
    windows = [
        checked_windows(*along, ceil_mode)
        for along in zip(x.shape[3:], kernel, step, pad, apart, strict=True)
    ]
    prepared = _prepare(POOL, x, threshold, total, emit, out_dtype)
    chosen = _load.choose(backend, x.device, POOL)
    if chosen == "reference":
        return _run_reference(x, windows, *prepared)
    theta, total, dtype = prepared
    if chosen == "triton":
        _load.load_triton()
    ops = torch.ops.snm_kernels
    run = ops.running_max_pool_triton if chosen == "triton" else ops.running_max_pool
    return RunningMaxOutput(*run(x, theta, total, kernel, step, pad, apart, ceil_mode, dtype))


def adaptive_running_max_pool(
    x: Tensor,
    output_size: int | Sequence[int | None],
    *,
    threshold: Tensor | float | None = None,
    total: Tensor | None = None,
    emit: Emit = "amplitude",
    out_dtype: torch.dtype | None = None,
    backend: Backend = "auto",
) -> RunningMaxOutput:
    """:func:`running_max_pool` with the windows of ``torch.nn.functional.adaptive_max_pool2d``.

    Args:
        x: as for :func:`running_max_pool`.
        output_size: of the output's spatial dimensions: an integer, or one per dimension, in
            which None keeps the input's size.
        threshold: as for :func:`running_max_pool`, as are the arguments that follow.
        total: as there.
        emit: as there.
        out_dtype: as there.
        backend: as there.

    Returns:
        As for :func:`running_max_pool`.

    Raises:
        TypeError, ValueError, RuntimeError: as for :func:`running_max_pool`.

    >>> x = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.0, 0.0]])
    >>> adaptive_running_max_pool(x[:, None, None], 1).spikes.flatten().tolist()
    [3.0, 2.0]
    """
    spatial = _check_x(ADAPTIVE_POOL, x)
    if not isinstance(output_size, Sequence):
        output_size = (output_size,) * spatial
    expected = f"an integer, or {spatial} of them or None"
    whole = all(n is None or _is_integer(n, 1) for n in output_size)
    require(
        len(output_size) == spatial and whole,
        ValueError,
        "output_size",
        expected,
        list(output_size),
        ADAPTIVE_POOL,
    )
    sizes = [
        full if size is None else size for size, full in zip(output_size, x.shape[3:], strict=True)
    ]
    windows = [
        adaptive_windows(size, output) for size, output in zip(x.shape[3:], sizes, strict=True)
    ]
    prepared = _prepare(ADAPTIVE_POOL, x, threshold, total, emit, out_dtype)
    chosen = _load.choose(backend, x.device, ADAPTIVE_POOL)
    if chosen == "reference":
        return _run_reference(x, windows, *prepared)
    theta, total, dtype = prepared
    if chosen == "triton":
        _load.load_triton()
    ops = torch.ops.snm_kernels
    run = (
        ops.adaptive_running_max_pool_triton
        if chosen == "triton"
        else ops.adaptive_running_max_pool
    )
    return RunningMaxOutput(*run(x, theta, total, sizes, dtype))


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


def pooled_like(
    x: Tensor, windows: Sequence[Windows], spikes_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Empty tensors in x's memory format for what is sent and for the totals."""
    channels_last = is_channels_last(x)
    sizes = (*x.shape[:3], *(along.output for along in windows))
    spikes = x.new_empty_strided(sizes, dense_strides(sizes, channels_last), dtype=spikes_dtype)
    total_dtype = torch.int32 if x.dtype == torch.int8 else torch.float32
    strides = dense_strides(x.shape, channels_last)[1:]
    return spikes, x.new_empty_strided(x.shape[1:], strides, dtype=total_dtype)


def checked_windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> Windows:
    """:func:`max_pool_windows`, refused where they don't fit."""
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


def _check_x(op: str, x: Tensor) -> int:
    """Checks the drive; returns the number of its spatial dimensions."""
    require(isinstance(x, Tensor), TypeError, "x", "a tensor", x, op)
    dtypes = (torch.int8, *AMPLITUDE_DTYPES)
    require(x.dtype in dtypes, TypeError, "x", f"one of {_names(dtypes)}", x.dtype, op)
    fits = 4 <= x.dim() <= 6 and x.shape[0] >= 1 and all(size >= 1 for size in x.shape[3:])
    expected = "[T, B, C, *spatial] with T >= 1 and 1 to 3 spatial sizes >= 1"
    require(fits, ValueError, "x", expected, list(x.shape), op)
    return x.dim() - 3


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int | torch.SymInt) and not isinstance(value, bool) and value >= least


def _integers(name: str, value: Sizes, spatial: int, least: int) -> list[int]:
    """One integer per spatial dimension."""
    given = list(value) if isinstance(value, Sequence) else [value] * spatial
    holds = len(given) == spatial and all(_is_integer(n, least) and n <= _MOST for n in given)
    expected = f"an integer >= {least}, or {spatial} of them"
    require(holds, ValueError, name, expected, value, POOL)
    return given


def _prepare(
    op: str,
    x: Tensor,
    threshold: Tensor | float | None,
    total: Tensor | None,
    emit: str,
    out_dtype: torch.dtype | None,
) -> tuple[Tensor | None, Tensor | None, torch.dtype]:
    """Checks what both ops share; the threshold, the totals and the dtype of what is sent."""
    counted = x.dtype == torch.int8
    theta = None
    if counted:
        require(threshold is not None, ValueError, "threshold", "given for int8 x", None, op)
    else:
        expected = f"None for {x.dtype} x, which carries it already"
        require(threshold is None, ValueError, "threshold", expected, "one", op)
    if threshold is not None:
        theta = _threshold(op, threshold, x)
    if total is not None:
        _check_total(op, total, x, torch.int32 if counted else torch.float32)
    if torch.is_grad_enabled():
        for name, tensor in (("x", x), ("threshold", theta), ("total", total)):
            if tensor is not None and tensor.requires_grad:
                raise RuntimeError(
                    f"{op}: {name} requires grad, but this op has no gradient; "
                    "call it under torch.no_grad()"
                )
    return theta, total, _sent_dtype(op, x, theta, emit, out_dtype)


def _threshold(op: str, value: Tensor | float, x: Tensor) -> Tensor:
    """The threshold as a float32 tensor that broadcasts to ``[C, *spatial]``."""
    if not isinstance(value, Tensor):
        number = check_threshold(value, "a tensor", op)
        return torch.full((), number, dtype=torch.float32, device=x.device)
    require(value.is_floating_point(), TypeError, "threshold", "floating point", value.dtype, op)
    require(value.device == x.device, ValueError, "threshold", f"on {x.device}", value.device, op)
    check_broadcast("threshold", value.shape, x.shape[2:], op)
    return value.to(torch.float32)


def _check_total(op: str, total: Tensor, x: Tensor, dtype: torch.dtype) -> None:
    require(isinstance(total, Tensor), TypeError, "total", "a tensor", total, op)
    require(total.dtype == dtype, TypeError, "total", dtype, total.dtype, op)
    shape = x.shape[1:]
    require(
        total.shape == shape, ValueError, "total", f"of shape {list(shape)}", list(total.shape), op
    )
    require(total.device == x.device, ValueError, "total", f"on {x.device}", total.device, op)


def check_arguments(
    op: str,
    x: Tensor,
    threshold: Tensor | None,
    total: Tensor | None,
    sent_dtype: torch.dtype,
) -> None:
    """The checks of an operator that is called directly."""
    _check_x(op, x)
    counted = x.dtype == torch.int8
    expected = "given for int8 x" if counted else "None for floating x"
    require(counted == (threshold is not None), ValueError, "threshold", expected, threshold, op)
    if threshold is not None:
        require(
            threshold.dtype == torch.float32, TypeError, "threshold", "float32", threshold.dtype, op
        )
        _threshold(op, threshold, x)
    if total is not None:
        _check_total(op, total, x, torch.int32 if counted else torch.float32)
    spikes = threshold is not None and is_shared(threshold, x.dim() - 3)
    dtypes = (*AMPLITUDE_DTYPES, torch.int8) if spikes else AMPLITUDE_DTYPES
    require(sent_dtype in dtypes, TypeError, "sent", f"one of {_names(dtypes)}", sent_dtype, op)


def _sent_dtype(
    op: str, x: Tensor, threshold: Tensor | None, emit: str, out_dtype: torch.dtype | None
) -> torch.dtype:
    """The dtype of what is sent."""
    if emit == "amplitude":
        if out_dtype is None:
            return torch.float32 if x.dtype == torch.int8 else x.dtype
        expected = f"one of {_names(AMPLITUDE_DTYPES)}"
        require(out_dtype in AMPLITUDE_DTYPES, TypeError, "out_dtype", expected, out_dtype, op)
        return out_dtype
    require(emit == "spike", ValueError, "emit", "'amplitude' or 'spike'", emit, op)
    if threshold is None:
        raise ValueError(
            f"{op}: emit must be 'amplitude' for {x.dtype} x, got 'spike': the maximum of "
            "amplitudes changes by no whole number of thresholds"
        )
    if not is_shared(threshold, x.dim() - 3):
        raise ValueError(
            f"{op}: emit must be 'amplitude' where thresholds differ within windows, got 'spike': "
            "a maximum that passes from one threshold to another changes by no whole number of "
            "either"
        )
    require(out_dtype is None, ValueError, "out_dtype", "None with emit='spike'", out_dtype, op)
    return torch.int8


def is_shared(threshold: Tensor, spatial: int) -> bool:
    """Whether a threshold that broadcasts to ``[C, *spatial]`` is one for a whole window."""
    return all(size == 1 for size in threshold.shape[max(0, threshold.dim() - spatial) :])


def _run_reference(
    x: Tensor,
    windows: Sequence[Windows],
    threshold: Tensor | None,
    total: Tensor | None,
    spikes_dtype: torch.dtype,
) -> RunningMaxOutput:
    out, out_total = pooled_like(x, windows, spikes_dtype)
    sent, total = running_max_pool_reference(
        x, threshold, total, windows, spikes_dtype=spikes_dtype
    )
    for t, spikes in enumerate(sent):
        out[t].copy_(spikes)
    return RunningMaxOutput(out, out_total.copy_(total))


@torch.library.register_fake("snm_kernels::running_max_pool")
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
    """What the operator returns, by shape, dtype and layout alone."""
    along = zip(x.shape[3:], kernel_size, stride, padding, dilation, strict=True)
    return pooled_like(x, [max_pool_windows(*each, ceil_mode) for each in along], sent_dtype)


@torch.library.register_fake("snm_kernels::adaptive_running_max_pool")
def adaptive_running_max_pool_fake(
    x: Tensor,
    threshold: Tensor | None,  # noqa: ARG001
    total: Tensor | None,  # noqa: ARG001
    output_size: Sequence[int],
    sent_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """What the operator returns, by shape, dtype and layout alone."""
    windows = [adaptive_windows(*each) for each in zip(x.shape[3:], output_size, strict=True)]
    return pooled_like(x, windows, sent_dtype)


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
