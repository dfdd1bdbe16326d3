"""The op on NumPy arrays: the CPU kernels without torch's threads or tensors."""

import os
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _host
from ._layout import repeat_over
from .rule import SNM, SNMRule

Emit = Literal["amplitude", "spike", "none"]
Array = NDArray[Any]

_DRIVE_DTYPES = ("float32", "float16", "int32")
_AMPLITUDE_DTYPES = ("float32", "float16")


class SNMState(NamedTuple):
    """Membrane (float32) and memory (int32), one entry per neuron."""

    v: Array
    m: Array


class SNMOutput(NamedTuple):
    """What a run returns: spikes ``[T, *shape]`` or None, and the state after the last step."""

    spikes: Array | None
    state: SNMState


def snm(
    x: Array,
    threshold: Array | float,
    *,
    rule: SNMRule = SNM,
    state: SNMState | None = None,
    bias: Array | float | None = None,
    residual: Array | None = None,
    emit: Emit = "amplitude",
    out: Array | None = None,
    out_dtype: Any = None,
    threads: int | None = None,
) -> SNMOutput:
    """Runs signed neurons with memory over all T time steps of NumPy arrays.

    The same op as :func:`snm_kernels.snm`, bit for bit. Arrays are read in place where each
    time slice ``x[t]`` is C-contiguous (the stride over time may be anything, 0 included) and
    copied otherwise; the interpreter lock is released while it runs.

    Args:
        x: drive ``[T, *shape]``; float32, float16 or int32.
        threshold: θ > 0 in units of the drive: a number, or a floating array broadcastable to
            ``shape``.
        rule: which neuron.
        state: goes on from this state, which is not changed.
        bias: a number, or a floating array broadcastable to ``shape``.
        residual: ``[T, *shape]`` of x's dtype.
        emit: ``"amplitude"`` for θ·s, ``"spike"`` for s as int8, ``"none"``.
        out: C-contiguous time slices of x's shape and the emitted dtype; may be ``x`` itself.
        out_dtype: dtype of amplitudes, float32 or float16; default x's, float32 for int32.
        threads: most threads to use; default the processors this process may use.

    Raises:
        TypeError, ValueError: an argument's type, dtype or shape is wrong.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022.

    >>> spikes, state = snm(np.array([[0.6], [0.6]], dtype=np.float32), 1.0, emit="spike")
    >>> spikes.ravel().tolist(), state.m.tolist()
    ([0, 1], [1])
    """
    _require(isinstance(x, np.ndarray), TypeError, "x", "an array", x)
    _require(x.dtype.name in _DRIVE_DTYPES, TypeError, "x", f"one of {_DRIVE_DTYPES}", x.dtype)
    _require(x.ndim >= 1 and x.shape[0] >= 1, ValueError, "x", "[T, *shape] with T >= 1", x.shape)
    _require(isinstance(rule, SNMRule), TypeError, "rule", "an SNMRule", rule)
    if not isinstance(threshold, np.ndarray):
        _require(threshold > 0, ValueError, "threshold", "> 0", threshold)
    shape = x.shape[1:]
    spikes_dtype = _spikes_dtype(x, emit, out_dtype)
    if out is not None:
        _require(spikes_dtype is not None, ValueError, "out", "None with emit='none'", "an array")
        _check("out", out, x.shape, spikes_dtype)
        _require(_is_sliced(out), ValueError, "out", "C-contiguous in each time slice", out.strides)
        _check_overlap(out, x, "x")
        if residual is not None:
            _check_overlap(out, residual, "residual")
    drive = _sliced(x)
    theta, theta_inner = _parameter("threshold", threshold, shape)
    offset, offset_inner = (None, 1) if bias is None else _parameter("bias", bias, shape)
    added = None
    if residual is not None:
        _check("residual", residual, x.shape, x.dtype)
        added = _sliced(residual)
    v = m = None
    if state is not None:
        _check("state.v", state[0], shape, np.dtype(np.float32))
        _check("state.m", state[1], shape, np.dtype(np.int32))
        v, m = np.ascontiguousarray(state[0]), np.ascontiguousarray(state[1])
    spikes = out
    if spikes is None and spikes_dtype is not None:
        spikes = np.empty(x.shape, spikes_dtype)
    after = SNMState(np.empty(shape, np.float32), np.empty(shape, np.int32))
    _host.run(
        drive,
        theta,
        theta_inner,
        v,
        m,
        offset,
        offset_inner,
        added,
        rule.v_init,
        rule.negative_threshold,
        rule.strict,
        rule.max_spikes,
        *rule.count_bounds,
        spikes,
        *after,
        threads or len(os.sched_getaffinity(0)),
    )
    return SNMOutput(spikes, after)


def _require(
    holds: bool, error: type[Exception], argument: str, expected: object, got: object
) -> None:
    if not holds:
        raise error(f"snm: {argument} must be {expected}, got {got}")


def _spikes_dtype(x: Array, emit: str, out_dtype: Any) -> np.dtype[Any] | None:
    if emit == "amplitude":
        if out_dtype is None:
            return np.dtype(np.float32 if x.dtype.kind == "i" else x.dtype)
        dtype: np.dtype[Any] = np.dtype(out_dtype)
        _require(
            dtype.name in _AMPLITUDE_DTYPES,
            TypeError,
            "out_dtype",
            f"one of {_AMPLITUDE_DTYPES}",
            dtype,
        )
        return dtype
    _require(emit in ("spike", "none"), ValueError, "emit", "'amplitude', 'spike' or 'none'", emit)
    _require(out_dtype is None, ValueError, "out_dtype", f"None with emit={emit!r}", out_dtype)
    return np.dtype(np.int8) if emit == "spike" else None


def _parameter(name: str, value: Array | float, shape: tuple[int, ...]) -> tuple[Array, int]:
    """A threshold or bias as a flat float32 vector and its inner repeat."""
    array = np.asarray(value)
    if isinstance(value, np.ndarray):
        _require(array.dtype.kind == "f", TypeError, name, "floating point", array.dtype)
    fits = array.ndim <= len(shape) and all(
        size in (1, full)
        for size, full in zip(reversed(array.shape), reversed(shape), strict=False)
    )
    if not fits:
        raise ValueError(f"snm: {name} must broadcast to {list(shape)}, got {list(array.shape)}")
    sizes, inner = repeat_over(shape, array.shape)
    spread = np.broadcast_to(array.astype(np.float32, copy=False), sizes)
    return np.ascontiguousarray(spread).reshape(-1), inner


def _check(name: str, value: Array, shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> None:
    _require(isinstance(value, np.ndarray), TypeError, name, "an array", value)
    _require(value.dtype == dtype, TypeError, name, dtype, value.dtype)
    _require(value.shape == shape, ValueError, name, f"of shape {list(shape)}", list(value.shape))


def _is_sliced(array: Array) -> bool:
    """Whether every time slice is C-contiguous and starts on a whole element."""
    whole = array.strides[0] % array.itemsize == 0 and array.flags.aligned
    return bool(whole and array[0].flags.c_contiguous)


def _sliced(array: Array) -> Array:
    return array if _is_sliced(array) else np.ascontiguousarray(array)


def _check_overlap(out: Array, read: Array, name: str) -> None:
    same = out.ctypes.data == read.ctypes.data and out.strides == read.strides
    if not (same and out.dtype == read.dtype) and np.may_share_memory(out, read):
        raise ValueError(f"snm: out must be {name} itself or share no memory with it")
