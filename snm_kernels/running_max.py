"""The public ops of max pooling: a running maximum over all time steps in one launch."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from . import _load
from ._checks import dtype_names, refuse_grad, require
from ._fakes import adaptive_running_max_pool_fake, running_max_pool_fake
from ._layout import pooled_like
from ._running_max_checks import check_total, check_x, checked_threshold, is_shared
from ._types import AMPLITUDE_DTYPES, Backend
from .reference_running_max import running_max_pool_reference
from .windows import ADAPTIVE_POOL, POOL, Windows, adaptive_windows, checked_windows

Emit = Literal["amplitude", "spike"]
Sizes = int | Sequence[int]

_MOST = 2**31 - 1


class RunningMaxOutput(NamedTuple):
    """What max pooling over all time steps returns.

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
    spatial = check_x(POOL, x)
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
    spatial = check_x(ADAPTIVE_POOL, x)
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


def _is_integer(value: object, least: int) -> bool:
    """Whether a value is an integer of at least this size; True and False are none."""
    return isinstance(value, int | torch.SymInt) and not isinstance(value, bool) and value >= least


def _integers(name: str, value: Sizes, spatial: int, least: int) -> list[int]:
    """Returns an argument as one integer per spatial dimension."""
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
    """Checks what both ops share; returns the threshold, the totals and the dtype to send."""
    counted = x.dtype == torch.int8
    theta = None
    if counted:
        require(threshold is not None, ValueError, "threshold", "given for int8 x", None, op)
    else:
        expected = f"None for {x.dtype} x, which carries it already"
        require(threshold is None, ValueError, "threshold", expected, "one", op)
    if threshold is not None:
        theta = checked_threshold(op, threshold, x)
    if total is not None:
        check_total(op, total, x, torch.int32 if counted else torch.float32)
    if torch.is_grad_enabled():
        refuse_grad(op, ("x", "threshold", "total"), (x, theta, total))
    return theta, total, _sent_dtype(op, x, theta, emit, out_dtype)


def _sent_dtype(
    op: str, x: Tensor, threshold: Tensor | None, emit: str, out_dtype: torch.dtype | None
) -> torch.dtype:
    """The dtype of what is sent."""
    if emit == "amplitude":
        if out_dtype is None:
            return torch.float32 if x.dtype == torch.int8 else x.dtype
        expected = f"one of {dtype_names(AMPLITUDE_DTYPES)}"
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


def _run_reference(
    x: Tensor,
    windows: Sequence[Windows],
    threshold: Tensor | None,
    total: Tensor | None,
    spikes_dtype: torch.dtype,
) -> RunningMaxOutput:
    """Returns what the operators would, computed by the reference."""
    out, out_total = pooled_like(x, [along.output for along in windows], spikes_dtype)
    sent, total = running_max_pool_reference(
        x, threshold, total, windows, spikes_dtype=spikes_dtype
    )
    for t, spikes in enumerate(sent):
        out[t].copy_(spikes)
    return RunningMaxOutput(out, out_total.copy_(total))


for _name, _fake in (
    (POOL, running_max_pool_fake),
    (ADAPTIVE_POOL, adaptive_running_max_pool_fake),
):
    torch.library.register_fake(f"snm_kernels::{_name}", _fake)
