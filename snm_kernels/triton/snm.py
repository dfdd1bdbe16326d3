"""The neuron's Triton operators: ``snm_triton``, ``snm_triton_counted`` and both with ``_out``.

They take what ``snm``, ``snm_counted`` and the like of csrc/ops.cpp take and return what those
return.
"""

from collections.abc import Callable
from functools import cache
from inspect import Parameter, Signature
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from torch.library import wrap_triton

from .._checks import number_dtype
from .._fakes import snm_counted_fake, snm_counted_out_fake, snm_fake, snm_out_fake
from .._layout import count_like, repeat_over, spikes_like, state_like
from .._types import AMPLITUDE_DTYPES, DRIVE_DTYPES
from .launch import (
    INTERPRETED,
    check_same,
    exact_like,
    inexact,
    loop_bound,
    on_device_of,
    register,
    require,
)
from .snm_kernel import snm_kernel

RING_BYTES = 128
"""What a thread has of shared memory for the drive that is on its way, and as much for the
residual's."""


class Shape(NamedTuple):
    """How neurons are dealt out to threads; docs/gpu.md has the arithmetic."""

    warps: int
    """How many warps a block has."""
    vector_bytes: int
    """How many bytes a thread moves at once, of the wider of drive and spikes."""
    unroll: int
    """How many time steps there are in one pass of the loop, which waits once."""

    def each(self, drive: int, spikes: int) -> int:
        """How many neurons a thread has, by the bytes of an element; a copy moves 4 at least."""
        return max(self.vector_bytes // max(drive, spikes), 4 // drive)

    def block(self, drive: int, spikes: int) -> int:
        """How many neurons a block has."""
        return 32 * self.warps * self.each(drive, spikes)

    def ahead(self, drive: int, spikes: int) -> int:
        """How many time steps before its use a row is asked for."""
        return RING_BYTES // (drive * self.each(drive, spikes))

    def stages(self, drive: int, spikes: int) -> int:
        """How many passes of the loop are under way: the one that computes, and those ahead."""
        return self.ahead(drive, spikes) // self.unroll + 1


WIDE = Shape(warps=4, vector_bytes=16, unroll=1)
"""The shape for layers that fill the device."""
NARROW = Shape(warps=1, vector_bytes=4, unroll=4)
"""The shape for layers too small to fill the device."""

_SPIKE_DTYPES = (*AMPLITUDE_DTYPES, torch.int8)


class _Repeated(NamedTuple):
    """A threshold or bias as the kernel takes it: neuron n has value ``(n // inner) % period``."""

    values: Tensor | None
    inner: int = 1
    period: int = 1


def _emit(op: str, *arguments: Any) -> tuple[Tensor, ...]:
    """Runs an operator whose last argument is the dtype of the spikes that it makes, or None."""
    x, spikes_dtype = arguments[0], arguments[-1]
    spikes = spikes_like(x, state_like(x), spikes_dtype)
    return spikes, *_run(op, *arguments[:-1], None if spikes_dtype is None else spikes)


def _emit_to(op: str, *arguments: Any) -> tuple[Tensor, ...]:
    """Runs an operator whose last argument is the tensor that takes the spikes."""
    _check_out(op, arguments[-1], arguments[0])
    return _run(op, *arguments)


def _run(
    op: str,
    x: Tensor,
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    *more: Any,
) -> tuple[Tensor, ...]:
    """Runs the kernel on x's device and current stream.

    Args:
        more: an operator that counts has the number of negative spikes so far here; then the
            rule, and the tensor that takes the spikes or None.

    Returns:
        v, m and, of an operator that counts, the number of negative spikes.
    """
    *given, v_init, negative_threshold, strict, max_spikes, count_min, count_max, spikes = more
    require(op, x.dtype in DRIVE_DTYPES, "x", f"one of {DRIVE_DTYPES}", x.dtype)
    require(op, x.shape[0] >= 1, "x", "[T, *shape] with T >= 1", x.shape)
    number = number_dtype(threshold)
    integers = number == torch.int32
    expected = "torch.int32 with an int32 threshold"
    require(op, x.dtype == number or not integers, "x", expected, x.dtype)
    v_out = state_like(x, number)
    m_out = count_like(v_out)
    counted = [count_like(v_out) for _ in given]
    drive = _aligned(x, v_out)
    theta = _repeated(op, "threshold", threshold, v_out)
    offset = _repeated(op, "bias", bias, v_out)
    added = None
    if residual is not None:
        check_same(op, "residual", residual, x.shape, x.dtype, x)
        added = _aligned(residual, v_out)
    if spikes is not None:
        expected = f"one of {_SPIKE_DTYPES}"
        require(op, spikes.dtype in _SPIKE_DTYPES, "spikes", expected, spikes.dtype)
        fits = spikes.dtype == torch.int8 or not integers
        require(op, fits, "spikes", "torch.int8 with an int32 threshold", spikes.dtype)
    neurons = v_out.numel()
    if neurons == 0:
        return v_out, m_out, *counted
    sent = None if spikes is None else exact_like(spikes)

    sizes = drive.element_size(), 0 if sent is None else sent.element_size()
    shape = _shape_for(neurons, sizes, x.device)
    block = shape.block(*sizes)
    run = snm_kernel if INTERPRETED else wrap_triton(snm_kernel)
    with on_device_of(x):
        run[(triton.cdiv(neurons, block),)](
            *_rows(drive),
            *_rows(added),
            *theta,
            *offset,
            _state(op, "v", v, v_out),
            _state(op, "m", m, m_out),
            _state(op, "negative", given[0], m_out) if given else None,
            v_out,
            m_out,
            counted[0] if counted else None,
            *_rows(sent),
            loop_bound(x.shape[0]),
            neurons,
            v_init,
            negative_threshold,
            max_spikes,
            count_min,
            count_max,
            STRICT=strict,
            GRADED=max_spikes > 1,
            THRESHOLD_SHARED=theta.period == 1,
            BIAS_SHARED=offset.period == 1,
            NARROW=neurons < 2**31,
            BLOCK=block,
            STAGES=shape.stages(*sizes),
            UNROLL=shape.unroll,
            num_warps=shape.warps,
            enable_fp_fusion=False,
        )
    if sent is not spikes:
        spikes.copy_(sent)
    return v_out, m_out, *counted


def _shape_for(neurons: int, sizes: tuple[int, int], device: torch.device) -> Shape:
    """Chooses the wide shape where it fills the device, else the narrow one."""
    # Two wide blocks on every multiprocessor are enough for the memory's bandwidth.
    fills = triton.cdiv(neurons, WIDE.block(*sizes)) >= 2 * multiprocessors(device)
    return WIDE if fills else NARROW


@cache
def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors a GPU has; 0 where there is no GPU."""
    if not torch.cuda.is_available():
        return 0
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def _check_out(op: str, out: Tensor, x: Tensor) -> None:
    """Refuses an out that is not shaped and laid out as the drive."""
    like = state_like(x)
    check_same(op, "out", out, x.shape, out.dtype, x)
    adjacent = out.shape[0] == 1 or out.stride(0) >= like.numel()
    fits = adjacent and _same_places(out.select(0, 0), like)
    require(op, fits, "out", "laid out as x", out.stride())


def _same_places(tensor: Tensor, like: Tensor) -> bool:
    """Whether two tensors of one shape put every element in the same place."""
    strides = zip(tensor.shape, tensor.stride(), like.stride(), strict=True)
    return all(size <= 1 or stride == wanted for size, stride, wanted in strides)


def _aligned(tensor: Tensor, like: Tensor) -> Tensor:
    """Returns a tensor with time slices laid out as ``like``; copies it only if they aren't."""
    widened = inexact(tensor.dtype)
    if _same_places(tensor.select(0, 0), like) and not widened:
        return tensor
    return spikes_like(tensor, like, torch.float32 if widened else tensor.dtype).copy_(tensor)


def _rows(tensor: Tensor | None) -> tuple[Tensor | None, int]:
    """What the kernel takes of a tensor with time: itself, and its step from slice to slice."""
    return (None, 0) if tensor is None else (tensor, tensor.stride(0))


def _state(op: str, argument: str, given: Tensor | None, like: Tensor) -> Tensor | None:
    """Returns a part of the state laid out as ``like``; copies it only if it isn't."""
    if given is None:
        return None
    check_same(op, argument, given, like.shape, like.dtype, like)
    return given if _same_places(given, like) else torch.empty_like(like).copy_(given)


def _repeated(op: str, argument: str, given: Tensor | None, like: Tensor) -> _Repeated:
    """Returns a threshold or bias in the memory order of ``like``, as short as it can be."""
    if given is None:
        return _Repeated(None)
    missing = like.dim() - given.dim()
    fits = missing >= 0 and all(
        size in (1, full) for size, full in zip(given.shape, like.shape[missing:], strict=True)
    )
    require(op, fits, argument, f"broadcastable to {list(like.shape)}", list(given.shape))
    require(op, given.dtype == like.dtype, argument, like.dtype, given.dtype)
    require(op, given.device == like.device, argument, f"on {like.device}", given.device)
    # What is expanded counts as broadcast.
    once = given[tuple(slice(1 if stride == 0 else None) for stride in given.stride())]
    order = sorted(range(like.dim()), key=like.stride, reverse=True)
    ordered = once.reshape((1,) * missing + once.shape).permute(order)
    sizes, inner = repeat_over([like.shape[d] for d in order], ordered.shape)
    values = ordered.expand(sizes).contiguous().view(-1)
    return _Repeated(values, inner, values.numel())


_TENSORS = {
    "x": Tensor,
    "threshold": Tensor,
    "v": Tensor | None,
    "m": Tensor | None,
    "bias": Tensor | None,
    "residual": Tensor | None,
}
_COUNT = {"negative": Tensor | None}
_RULE = {
    "v_init": float,
    "negative_threshold": float | None,
    "strict": bool,
    "max_spikes": int,
    "count_min": int,
    "count_max": int,
}


def _register(
    op: str, counts: bool, fake: Callable[..., Any], fake_out: Callable[..., Any]
) -> None:
    """Registers an operator of csrc/ops.cpp, and its variant with ``out``, for Triton."""
    name = op.replace("snm", "snm_triton")
    kinds = {**_TENSORS, **(_COUNT if counts else {}), **_RULE}
    after = (Tensor,) * (3 if counts else 2)

    def run(*arguments: Any) -> tuple[Tensor, ...]:
        return _emit(op, *arguments)

    def run_out(*arguments: Any) -> tuple[Tensor, ...]:
        return _emit_to(op, *arguments)

    register(
        name,
        _signed(run, {**kinds, "spikes_dtype": torch.dtype | None}, (Tensor, *after)),
        fake,
    )
    register(f"{name}_out", _signed(run_out, {**kinds, "out": Tensor}, after), fake_out, ("out",))


def _signed(
    run: Callable[..., Any], kinds: dict[str, Any], returned: tuple[Any, ...]
) -> Callable[..., Any]:
    """Gives a function the signature from which PyTorch makes its operator's schema."""
    parameters = [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
        for name, kind in kinds.items()
    ]
    signature = Signature(parameters, return_annotation=tuple[returned])  # type: ignore[valid-type]
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


_register("snm", False, snm_fake, snm_out_fake)
_register("snm_counted", True, snm_counted_fake, snm_counted_out_fake)
