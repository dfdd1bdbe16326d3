"""The neuron's op on NumPy arrays, which runs the CPU kernels without torch."""

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _host
from ._checks import (
    AMPLITUDES_OF_INTEGERS,
    check_broadcast,
    check_integer,
    check_number,
    check_state,
    check_threshold,
    require,
)
from ._layout import repeat_over
from ._types import Emit
from .rule import SNM, SNMRule

Array = NDArray[Any]

_AMPLITUDE_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))
_DRIVE_DTYPES = (*_AMPLITUDE_DTYPES, np.dtype(np.int32))


class SNMState(NamedTuple):
    """What neurons keep between time steps: membranes (float32, or int32 where thresholds are) and
    memories (int32)."""

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
            ``shape``; or an int32 array, with which all is int32 and exact.
        rule: which neuron.
        state: goes on from this state, which is not changed.
        bias: a number, or a floating array broadcastable to ``shape``; an int or an int32 array
            where thresholds are int32.
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
    x = _checked_drive(x)
    require(isinstance(rule, SNMRule), TypeError, "rule", "an SNMRule", rule)
    threads = _checked_threads(threads)
    if not isinstance(threshold, np.ndarray):
        threshold = check_threshold(threshold, "an array")
    shape = x.shape[1:]
    integers = isinstance(threshold, np.ndarray) and _native(threshold).dtype == np.int32
    number = np.dtype(np.int32 if integers else np.float32)
    if integers:
        require(x.dtype == number, TypeError, "x", "int32 with an int32 threshold", x.dtype)
    spikes_dtype = _spikes_dtype(x, number, emit, out_dtype)
    theta = _parameter("threshold", threshold, shape, number)
    offset: tuple[Array | None, int] = (None, 1)
    if bias is not None:
        offset = _parameter("bias", bias, shape, number)
    if residual is not None:
        residual = _checked_residual(residual, x)
    v, m = (None, None) if state is None else _checked_state(state, shape, number)
    if out is not None:
        _check_out(out, x, spikes_dtype)
        _check_overlap(out, x=x, residual=residual)
        _check_apart(out, **{"threshold": theta[0], "bias": offset[0], "state.v": v, "state.m": m})
    spikes = out
    if spikes is None and spikes_dtype is not None:
        spikes = np.empty(x.shape, spikes_dtype)
    after = SNMState(np.empty(shape, number), np.empty(shape, np.int32))
    _host.run(
        _sliced(x),
        *theta,
        v,
        m,
        *offset,
        None if residual is None else _sliced(residual),
        rule.v_init,
        rule.negative_threshold,
        rule.strict,
        rule.max_spikes,
        *rule.count_bounds,
        spikes,
        *after,
        threads,
    )
    return SNMOutput(spikes, after)


def _checked_drive(x: Array) -> Array:
    """Returns the drive in this machine's byte order; refuses what is no drive."""
    require(isinstance(x, np.ndarray), TypeError, "x", "an array", x)
    x = _native(x)
    require(x.dtype in _DRIVE_DTYPES, TypeError, "x", "float32, float16 or int32", x.dtype)
    timed = x.ndim >= 1 and x.shape[0] >= 1
    require(timed, ValueError, "x", "[T, *shape] with T >= 1", list(x.shape))
    return x


def _checked_threads(threads: int | None) -> int:
    """Returns how many threads to use at most; by default the processors this process may use."""
    if threads is None:
        threads = len(os.sched_getaffinity(0))
    counted = isinstance(threads, int) and not isinstance(threads, bool)
    require(counted, TypeError, "threads", "an int", repr(threads))
    require(1 <= threads < 2**31, ValueError, "threads", ">= 1 and an int32", threads)
    return threads


def _checked_residual(residual: Array, x: Array) -> Array:
    """Returns the residual in this machine's byte order; refuses one unlike the drive."""
    require(isinstance(residual, np.ndarray), TypeError, "residual", "an array", residual)
    residual = _native(residual)
    _check("residual", residual, x.shape, x.dtype)
    return residual


def _checked_state(
    state: SNMState, shape: tuple[int, ...], number: np.dtype[Any]
) -> tuple[Array, Array]:
    """Returns membrane and memory as C-contiguous arrays; refuses those unlike the drive."""
    check_state(state)
    _check("state.v", state[0], shape, number)
    _check("state.m", state[1], shape, np.dtype(np.int32))
    return np.ascontiguousarray(state[0]), np.ascontiguousarray(state[1])


def _check_out(out: Array, x: Array, spikes_dtype: np.dtype[Any] | None) -> None:
    """Refuses an array that cannot take the spikes."""
    require(spikes_dtype is not None, ValueError, "out", "None with emit='none'", "an array")
    _check("out", out, x.shape, spikes_dtype)
    require(out.flags.writeable, ValueError, "out", "writeable", "a read-only array")
    apart = len(out) == 1 or abs(out.strides[0]) >= out[0].nbytes
    require(_is_sliced(out) and apart, ValueError, "out", _SLICED, out.strides)


def _spikes_dtype(
    x: Array, number: np.dtype[Any], emit: str, out_dtype: Any
) -> np.dtype[Any] | None:
    """The dtype of what is sent; None if nothing is."""
    if emit == "amplitude":
        if number == np.int32:
            raise ValueError(f"snm: {AMPLITUDES_OF_INTEGERS}")
        if out_dtype is None:
            return np.dtype(np.float32 if x.dtype.kind == "i" else x.dtype)
        dtype: np.dtype[Any] = np.dtype(out_dtype)
        require(dtype in _AMPLITUDE_DTYPES, TypeError, "out_dtype", "float32 or float16", dtype)
        return dtype
    require(emit in ("spike", "none"), ValueError, "emit", "'amplitude', 'spike' or 'none'", emit)
    require(out_dtype is None, ValueError, "out_dtype", f"None with emit={emit!r}", out_dtype)
    return np.dtype(np.int8) if emit == "spike" else None


def _parameter(
    name: str, value: Array | float, shape: tuple[int, ...], number: np.dtype[Any]
) -> tuple[Array, int]:
    """Returns a threshold or bias as a flat vector of numbers, float32 or int32, and how often each
    value repeats."""
    integers = number == np.int32
    if not isinstance(value, np.ndarray):
        check = check_integer if integers else check_number
        return np.array([check(name, value, "an array")], number), 1
    if integers:
        fits = _native(value).dtype == number
        require(fits, TypeError, name, "int32 with an int32 threshold", value.dtype)
    else:
        expected = "floating point or int32" if name == "threshold" else "floating point"
        require(value.dtype.kind == "f", TypeError, name, expected, value.dtype)
    check_broadcast(name, value.shape, shape)
    sizes, inner = repeat_over(shape, value.shape)
    spread = np.broadcast_to(value.astype(number, copy=False), sizes)
    return np.ascontiguousarray(spread).reshape(-1), inner


def _check(name: str, value: Array, shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> None:
    """Refuses what is no array of this shape and dtype."""
    require(isinstance(value, np.ndarray), TypeError, name, "an array", value)
    require(value.dtype == dtype, TypeError, name, dtype, value.dtype)
    require(value.shape == shape, ValueError, name, f"of shape {list(shape)}", list(value.shape))


_SLICED = "apart over time and C-contiguous in each time slice"


def _native(array: Array) -> Array:
    """The array in this machine's byte order."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _is_sliced(array: Array) -> bool:
    """Whether every time slice is C-contiguous and starts on a whole element."""
    whole = array.strides[0] % array.itemsize == 0 and array.flags.aligned
    return bool(whole and array[0].flags.c_contiguous)


def _sliced(array: Array) -> Array:
    """The array with C-contiguous time slices; copied only if it has others."""
    return array if _is_sliced(array) else np.ascontiguousarray(array)


def _check_overlap(out: Array, **read: Array | None) -> None:
    """Refuses an out that shares memory with the drive or residual but is not that very array."""
    for name, array in read.items():
        if array is None or not np.may_share_memory(out, array):
            continue
        same = out.ctypes.data == array.ctypes.data and out.strides == array.strides
        if not same or out.dtype != array.dtype:
            raise ValueError(f"snm: out must be {name} itself or share no memory with it")


def _check_apart(out: Array, **read: Array | None) -> None:
    """Refuses an out that shares memory with what must not be overwritten."""
    for name, array in read.items():
        if array is not None and np.may_share_memory(out, array):
            raise ValueError(f"snm: out must share no memory with {name}")
