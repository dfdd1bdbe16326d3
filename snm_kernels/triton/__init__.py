"""The Triton backend: ``snm_kernels::snm_triton``, ``snm_triton_counted`` and both with ``_out``.

They take what ``snm``, ``snm_counted`` and the like of csrc/ops.cpp take and return what those
return. Under ``TRITON_INTERPRET=1`` the kernel is interpreted, and the ops take CPU tensors.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from torch.library import custom_op, triton_op, wrap_triton

from .._layout import repeat_over, spikes_like, state_like
from .kernel import snm_kernel

INTERPRETED = not isinstance(snm_kernel, triton.JITFunction)
"""Whether the kernel is interpreted. The interpreter truncates to bfloat16 and misreads its
subnormals, so that bfloat16 then passes through float32 in PyTorch."""


RING_BYTES = 128
"""What a thread has of shared memory for the drive that is on its way, and as much for the
residual's."""


class Shape(NamedTuple):
    """How neurons are dealt out to threads; docs/gpu.md has the arithmetic."""

    warps: int
    """Of a block."""
    vector_bytes: int
    """That a thread moves at once, of the wider of drive and spikes."""
    unroll: int
    """Time steps in one pass of the loop, which waits once."""

    def each(self, drive: int, spikes: int) -> int:
        """Neurons of a thread, given the sizes of elements. A copy moves 4 bytes at least."""
        return max(self.vector_bytes // max(drive, spikes), 4 // drive)

    def block(self, drive: int, spikes: int) -> int:
        """Neurons of a block."""
        return 32 * self.warps * self.each(drive, spikes)

    def ahead(self, drive: int, spikes: int) -> int:
        """Time steps by which a row is asked for before it is used."""
        return RING_BYTES // (drive * self.each(drive, spikes))

    def stages(self, drive: int, spikes: int) -> int:
        """Passes of the loop under way at once: the one that computes, and those ahead."""
        return self.ahead(drive, spikes) // self.unroll + 1


WIDE = Shape(warps=4, vector_bytes=16, unroll=1)
NARROW = Shape(warps=1, vector_bytes=4, unroll=4)
"""For layers too small to fill the device."""

_DRIVE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32)
_SPIKE_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


def _snm_triton(
    x: Tensor,
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    v_init: float,
    negative_threshold: float | None,
    strict: bool,
    max_spikes: int,
    count_min: int,
    count_max: int,
    spikes_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``snm`` of csrc/ops.cpp: spikes (size 0 without a dtype), v and m."""
    rule = (v_init, negative_threshold, strict, max_spikes, count_min, count_max)
    spikes = spikes_like(x, state_like(x), spikes_dtype)
    sent = None if spikes_dtype is None else spikes
    return spikes, *_run("snm", x, threshold, v, m, bias, residual, rule, sent)


def _snm_triton_out(
    x: Tensor,
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    v_init: float,
    negative_threshold: float | None,
    strict: bool,
    max_spikes: int,
    count_min: int,
    count_max: int,
    out: Tensor,
) -> tuple[Tensor, Tensor]:
    """``snm_out`` of csrc/ops.cpp: the spikes go to out; v and m."""
    rule = (v_init, negative_threshold, strict, max_spikes, count_min, count_max)
    _check_out("snm", out, x)
    return _run("snm", x, threshold, v, m, bias, residual, rule, out)


def _snm_triton_counted(
    x: Tensor,
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    negative: Tensor | None,
    v_init: float,
    negative_threshold: float | None,
    strict: bool,
    max_spikes: int,
    count_min: int,
    count_max: int,
    spikes_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``snm_counted`` of csrc/ops.cpp: spikes, v, m and the negative spikes."""
    rule = (v_init, negative_threshold, strict, max_spikes, count_min, count_max)
    like = state_like(x)
    spikes, counted = spikes_like(x, like, spikes_dtype), _count_like(like)
    sent = None if spikes_dtype is None else spikes
    counts = (negative, counted)
    state = _run("snm_counted", x, threshold, v, m, bias, residual, rule, sent, counts)
    return spikes, *state, counted


def _snm_triton_counted_out(
    x: Tensor,
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    negative: Tensor | None,
    v_init: float,
    negative_threshold: float | None,
    strict: bool,
    max_spikes: int,
    count_min: int,
    count_max: int,
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """``snm_counted_out`` of csrc/ops.cpp: the spikes go to out; v, m and the negative spikes."""
    rule = (v_init, negative_threshold, strict, max_spikes, count_min, count_max)
    _check_out("snm_counted", out, x)
    counted = _count_like(state_like(x))
    counts = (negative, counted)
    state = _run("snm_counted", x, threshold, v, m, bias, residual, rule, out, counts)
    return *state, counted


def _snm_triton_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, spikes_dtype = arguments[0], arguments[-1]
    v = state_like(x)
    return spikes_like(x, v, spikes_dtype), v, _count_like(v)


def _snm_triton_out_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    v = state_like(arguments[0])
    return v, _count_like(v)


def _snm_triton_counted_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    spikes, v, m = _snm_triton_fake(*arguments)
    return spikes, v, m, _count_like(v)


def _snm_triton_counted_out_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    v, m = _snm_triton_out_fake(*arguments)
    return v, m, _count_like(v)


def _run(
    op: str,
    x: Tensor,
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    rule: tuple[float, float | None, bool, int, int, int],
    spikes: Tensor | None,
    counts: tuple[Tensor | None, Tensor | None] = (None, None),
) -> tuple[Tensor, Tensor]:
    """Runs the kernel on x's device and current stream; returns v and m.

    ``counts`` are negative spikes: those sent before, and where to write all.
    """
    v_init, negative_threshold, strict, max_spikes, count_min, count_max = rule
    negative, counted = counts
    _require(op, x.dtype in _DRIVE_DTYPES, "x", f"one of {_DRIVE_DTYPES}", x.dtype)
    _require(op, x.shape[0] >= 1, "x", "[T, *shape] with T >= 1", x.shape)
    v_out = state_like(x)
    m_out = _count_like(v_out)
    drive = _aligned(x, v_out)
    theta, theta_inner = _periodic(op, "threshold", threshold, v_out)
    offset, offset_inner = (None, 1) if bias is None else _periodic(op, "bias", bias, v_out)
    added = None
    if residual is not None:
        _check(op, "residual", residual, x.shape, x.dtype, x)
        added = _aligned(residual, v_out)
    if spikes is not None:
        expected = f"one of {_SPIKE_DTYPES}"
        _require(op, spikes.dtype in _SPIKE_DTYPES, "spikes", expected, spikes.dtype)
    neurons = v_out.numel()
    if neurons == 0:
        return v_out, m_out
    sent = spikes
    if INTERPRETED and spikes is not None and spikes.dtype == torch.bfloat16:
        sent = torch.empty_like(spikes, dtype=torch.float32)

    sizes = drive.element_size(), 0 if sent is None else sent.element_size()
    # Two wide blocks on every multiprocessor are enough for the memory's bandwidth.
    fills = triton.cdiv(neurons, WIDE.block(*sizes)) >= 2 * multiprocessors(x.device)
    shape = WIDE if fills else NARROW
    block = shape.block(*sizes)
    run = snm_kernel if INTERPRETED else wrap_triton(snm_kernel)
    with torch.accelerator.device_index(x.device.index if torch.cuda.device_count() else None):
        run[(triton.cdiv(neurons, block),)](
            drive,
            drive.stride(0),
            added,
            0 if added is None else added.stride(0),
            theta,
            theta_inner,
            theta.numel(),
            offset,
            offset_inner,
            1 if offset is None else offset.numel(),
            None if v is None else _state(op, "v", v, v_out),
            None if m is None else _state(op, "m", m, m_out),
            None if negative is None else _state(op, "negative", negative, m_out),
            v_out,
            m_out,
            counted,
            sent,
            0 if sent is None else sent.stride(0),
            loop_bound(x.shape[0]),
            neurons,
            v_init,
            negative_threshold,
            max_spikes,
            count_min,
            count_max,
            STRICT=strict,
            GRADED=max_spikes > 1,
            THRESHOLD_SHARED=theta.numel() == 1,
            BIAS_SHARED=offset is None or offset.numel() == 1,
            NARROW=neurons < 2**31,
            BLOCK=block,
            STAGES=shape.stages(*sizes),
            UNROLL=shape.unroll,
            num_warps=shape.warps,
            enable_fp_fusion=False,
        )
    if spikes is not None and sent is not None and sent is not spikes:
        spikes.copy_(sent)
    return v_out, m_out


def loop_bound(time_steps: int) -> Any:
    """Time steps as the argument of a kernel that loops over them.

    Triton 3.6's interpreter makes a number an array, which NumPy 2.4 takes for no loop bound.
    """
    return triton.language.constexpr(time_steps) if INTERPRETED else time_steps


@cache
def multiprocessors(device: torch.device) -> int:
    """How many a GPU has; 0 where none is at hand, as in the interpreter."""
    if not torch.cuda.is_available():
        return 0
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def _count_like(v: Tensor) -> Tensor:
    """Empty int32 memory, or number of spikes, laid out as the membrane v."""
    return torch.empty_like(v, dtype=torch.int32)


def _require(op: str, holds: bool, argument: str, expected: object, got: object) -> None:
    if not holds:
        raise RuntimeError(f"{op}: {argument} must be {expected}, got {got}")


def _check(
    op: str, argument: str, tensor: Tensor, shape: torch.Size, dtype: torch.dtype, like: Tensor
) -> None:
    _require(op, tensor.dtype == dtype, argument, dtype, tensor.dtype)
    _require(op, tensor.shape == shape, argument, f"of shape {list(shape)}", list(tensor.shape))
    _require(op, tensor.device == like.device, argument, f"on {like.device}", tensor.device)


def _check_out(op: str, out: Tensor, x: Tensor) -> None:
    like = state_like(x)
    _check(op, "out", out, x.shape, out.dtype, x)
    adjacent = out.shape[0] == 1 or out.stride(0) >= like.numel()
    fits = adjacent and _same_places(out.select(0, 0), like)
    _require(op, fits, "out", "laid out as x", out.stride())


def _same_places(tensor: Tensor, like: Tensor) -> bool:
    """Whether two tensors of one shape put every element in the same place."""
    strides = zip(tensor.shape, tensor.stride(), like.stride(), strict=True)
    return all(size <= 1 or stride == wanted for size, stride, wanted in strides)


def _aligned(tensor: Tensor, like: Tensor) -> Tensor:
    """``[T, *shape]`` with every time slice laid out as ``like``; copied only if it isn't."""
    inexact = INTERPRETED and tensor.dtype == torch.bfloat16
    if _same_places(tensor.select(0, 0), like) and not inexact:
        return tensor
    return spikes_like(tensor, like, torch.float32 if inexact else tensor.dtype).copy_(tensor)


def _state(op: str, argument: str, given: Tensor, like: Tensor) -> Tensor:
    _check(op, argument, given, like.shape, like.dtype, like)
    return given if _same_places(given, like) else torch.empty_like(like).copy_(given)


def _periodic(op: str, argument: str, given: Tensor, like: Tensor) -> tuple[Tensor, int]:
    """A parameter in the memory order of ``like``, flat, and its inner repeat."""
    missing = like.dim() - given.dim()
    fits = missing >= 0 and all(
        size in (1, full) for size, full in zip(given.shape, like.shape[missing:], strict=True)
    )
    _require(op, fits, argument, f"broadcastable to {list(like.shape)}", list(given.shape))
    _require(op, given.dtype == torch.float32, argument, "float32", given.dtype)
    _require(op, given.device == like.device, argument, f"on {like.device}", given.device)
    # What is expanded counts as broadcast.
    once = given[tuple(slice(1 if stride == 0 else None) for stride in given.stride())]
    order = sorted(range(like.dim()), key=like.stride, reverse=True)
    ordered = once.reshape((1,) * missing + once.shape).permute(order)
    sizes, inner = repeat_over([like.shape[d] for d in order], ordered.shape)
    return ordered.expand(sizes).contiguous().view(-1), inner


# PyTorch traces into a triton_op, but not into a kernel that Python interprets.
_register: Any = custom_op if INTERPRETED else triton_op
for _op, _fake in (
    (_snm_triton, _snm_triton_fake),
    (_snm_triton_out, _snm_triton_out_fake),
    (_snm_triton_counted, _snm_triton_counted_fake),
    (_snm_triton_counted_out, _snm_triton_counted_out_fake),
):
    _name = _op.__name__.removeprefix("_")
    _written = ("out",) if _name.endswith("_out") else ()
    _register(f"snm_kernels::{_name}", _op, mutates_args=_written).register_fake(_fake)
