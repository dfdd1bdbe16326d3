"""Checks that the entries for tensors and for arrays share."""

import math
from numbers import Real

# What rounds to a float32 of this size or more is infinite; of that size or less, zero.
_FLOAT32_OVERFLOW = 2.0**128 - 2.0**103
_FLOAT32_UNDERFLOW = 2.0**-150


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
    """Whether a number keeps its size in float32: infinite only if it is, NaN allowed."""
    return not _FLOAT32_OVERFLOW <= abs(value) < math.inf


def check_number(argument: str, value: object, kind: str, op: str = "snm") -> float:
    """A number that float32 can hold; ``kind`` is what else the argument may be."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{op}: {argument} must be a number or {kind}, got {value!r}")
    number = float(value)
    require(fits_float32(number), ValueError, argument, "a float32", number, op)
    return number


def check_threshold(value: object, kind: str, op: str = "snm") -> float:
    """A threshold given as a number: > 0 in float32, +inf for a silent neuron."""
    number = check_number("threshold", value, kind, op)
    require(number > _FLOAT32_UNDERFLOW, ValueError, "threshold", "> 0 in float32", number, op)
    return number


def check_broadcast(
    argument: str, sizes: tuple[int, ...], shape: tuple[int, ...], op: str = "snm"
) -> None:
    """Whether a parameter of these sizes broadcasts to a time slice without widening it."""
    missing = len(shape) - len(sizes)
    fits = missing >= 0
    for d, size in enumerate(sizes):
        fits = fits and size in (1, shape[d + missing])
    if not fits:
        raise ValueError(f"{op}: {argument} must broadcast to {list(shape)}, got {list(sizes)}")


def check_state(state: object, op: str = "snm") -> None:
    """Whether a state has its two parts."""
    if not (isinstance(state, tuple) and len(state) == 2):
        raise TypeError(f"{op}: state must be an SNMState(v, m), got {type(state).__name__}")
