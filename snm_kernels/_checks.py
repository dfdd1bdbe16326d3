"""Checks of arguments: first those that tensors and arrays share, then those of tensors."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from ._layout import slices_have, state_like

# What rounds to a float32 of this size or more is infinite; of that size or less, zero.
_FLOAT32_OVERFLOW = 2.0**128 - 2.0**103
_FLOAT32_UNDERFLOW = 2.0**-150

AMPLITUDES_OF_INTEGERS = (
    "emit must be 'spike' or 'none' with an int32 threshold, got 'amplitude'; "
    'integer neurons send spikes: use emit="spike"'
)
"""Why neurons of int32 thresholds are refused where amplitudes would be sent."""

READ = ("x", "threshold", "state.v", "state.m", "bias", "residual", "negative")
"""The tensors that the neuron's operators read, in the order of their schemas."""


def require(
    holds: bool,
    error: type[Exception],
    argument: str,
    expected: object,
    got: object,
    op: str = "snm",
) -> None:
    """Raises ``<op>: <argument> must be <expected>, got <got>`` unless it holds."""
    if not holds:
        raise error(f"{op}: {argument} must be {expected}, got {got}")


def fits_float32(value: float) -> bool:
    """Whether a number stays finite in float32; infinity and NaN themselves are allowed."""
    return not _FLOAT32_OVERFLOW <= abs(value) < math.inf


def check_number(argument: str, value: object, kind: str, op: str = "snm") -> float:
    """Returns an argument that must be a number or ``kind``, and that float32 can hold."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{op}: {argument} must be a number or {kind}, got {value!r}")
    number = float(value)
    require(fits_float32(number), ValueError, argument, "a float32", number, op)
    return number


def check_threshold(value: object, kind: str, op: str = "snm") -> float:
    """Returns a threshold given as a number: > 0 in float32, +inf for a silent neuron."""
    number = check_number("threshold", value, kind, op)
    require(number > _FLOAT32_UNDERFLOW, ValueError, "threshold", "> 0 in float32", number, op)
    return number


def check_broadcast(
    argument: str, sizes: tuple[int, ...], shape: tuple[int, ...], op: str = "snm"
) -> None:
    """Refuses a parameter whose sizes do not broadcast to the shape of a time slice."""
    missing = len(shape) - len(sizes)
    fits = missing >= 0
    for d, size in enumerate(sizes):
        fits = fits and size in (1, shape[d + missing])
    if not fits:
        raise ValueError(f"{op}: {argument} must broadcast to {list(shape)}, got {list(sizes)}")


def check_integer(argument: str, value: object, kind: str, op: str = "snm") -> int:
    """Returns an argument that must be an integer or ``kind``, and that int32 can hold."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{op}: {argument} must be an int or {kind} with an int32 threshold, got {value!r}"
        )
    number = int(value)
    require(-(2**31) <= number < 2**31, ValueError, argument, "an int32", number, op)
    return number


def check_state(state: object, op: str = "snm") -> None:
    """Refuses a state that is not a pair of a membrane and a memory."""
    if not (isinstance(state, tuple) and len(state) == 2):
        raise TypeError(f"{op}: state must be an SNMState(v, m), got {type(state).__name__}")


def refusal(
    op: str, error: type[Exception], argument: str, expected: object, got: object
) -> Exception:
    """Makes the error for a wrong argument; an op that runs often makes no text before that."""
    return error(f"{op}: {argument} must be {expected}, got {got}")


def dtype_names(dtypes: Sequence[torch.dtype]) -> str:
    """Lists dtypes for a message: ``float32, float16``."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def number_dtype(threshold: Tensor | float) -> torch.dtype:
    """The dtype in which neurons of a threshold compute: int32 if that is its own, else float32."""
    integers = isinstance(threshold, Tensor) and threshold.dtype == torch.int32
    return torch.int32 if integers else torch.float32


def parameter(
    op: str,
    name: str,
    value: Tensor | float,
    shape: torch.Size,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Returns a threshold or bias as a tensor of this dtype, float32 or int32, that broadcasts to a
    time slice."""
    if not isinstance(value, Tensor):
        check = check_integer if dtype == torch.int32 else check_number
        number = check(name, value, "a tensor", op)
        return torch.full((), number, dtype=dtype, device=device)
    if dtype == torch.int32 and value.dtype != dtype:
        raise refusal(op, TypeError, name, "torch.int32 with an int32 threshold", value.dtype)
    if dtype != torch.int32 and not value.is_floating_point():
        expected = "floating point or torch.int32" if name == "threshold" else "floating point"
        raise refusal(op, TypeError, name, expected, value.dtype)
    if value.device != device:
        raise refusal(op, ValueError, name, f"on {device}", value.device)
    if value.dim() > 0:
        check_broadcast(name, value.shape, shape, op)
    return value if value.dtype == dtype else value.to(dtype)


def check_tensor(
    op: str,
    name: str,
    value: Tensor,
    shape: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Refuses what is no tensor of this shape, dtype and device."""
    if not isinstance(value, Tensor):
        raise refusal(op, TypeError, name, "a tensor", value)
    if value.dtype == dtype and value.device == device and value.shape == shape:
        return
    if value.dtype != dtype:
        raise refusal(op, TypeError, name, dtype, value.dtype)
    if value.shape != shape:
        raise refusal(op, ValueError, name, f"of shape {list(shape)}", list(value.shape))
    raise refusal(op, ValueError, name, f"on {device}", value.device)


def check_out(op: str, out: Tensor, x: Tensor, dtype: torch.dtype | None) -> None:
    """Refuses an out that has not the drive's shape, layout and device, and the dtype sent."""
    if dtype is None:
        raise ValueError(f"{op}: out must be None with emit='none', got a tensor")
    check_tensor(op, "out", out, x.shape, dtype, x.device)
    if out.is_contiguous() and x.is_contiguous():
        return
    like = state_like(x)
    expected = (like.numel(), *like.stride())
    apart = out.shape[0] == 1 or out.stride(0) >= expected[0]
    if not (apart and slices_have(out, expected)):
        raise ValueError(
            f"{op}: out must have the drive's strides {list(expected)}, got {list(out.stride())}"
        )


def check_overlap(op: str, out: Tensor, tensors: Sequence[Tensor | None]) -> None:
    """Refuses an out in whose memory lies what is still to be read."""
    if out.untyped_storage().device.type == "meta":
        return
    start, end = _extent(out)
    for name, read in zip(READ, tensors, strict=False):
        if read is None:
            continue
        other_start, other_end = _extent(read)
        if start >= other_end or other_start >= end:
            continue
        if name not in ("x", "residual"):
            raise ValueError(f"{op}: out must share no memory with {name}")
        if not _same_elements(out, read):
            raise ValueError(f"{op}: out must be {name} itself or share no memory with it")


def _same_elements(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape have the same elements in the same memory."""
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.dtype == b.dtype


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The addresses of a tensor's first byte and of the byte after its last; 0, 0 if empty."""
    if tensor.numel() == 0:
        return 0, 0
    start = tensor.data_ptr()
    if tensor.is_contiguous():
        return start, start + tensor.nbytes
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()


def refuse_grad(op: str, names: Sequence[str], tensors: Sequence[Tensor | None]) -> None:
    """Refuses tensors that require a gradient, and names the first."""
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is not None and tensor.requires_grad:
            raise RuntimeError(
                f"{op}: {name} requires grad, but this op has no gradient; "
                "call it under torch.no_grad()"
            )
