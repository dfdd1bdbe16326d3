"""Dataclasses as JSON that anybody reads, and back by their annotations."""

import dataclasses
import math
import types
from collections import abc
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def plain(value: Any) -> Any:
    """A value made of what JSON knows: dataclasses and named tuples as objects, NaN as null, an
    infinity as "inf" or "-inf".

    >>> from snm_kernels import SNMRule
    >>> plain({"rule": SNMRule(), "rates": (1, math.nan)})["rates"]
    [1, None]
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, abc.Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def typed(hint: Any, raw: Any) -> Any:
    """The value that :func:`plain` made JSON of, by the value's annotation.

    Args:
        hint: the annotation.
        raw: what JSON has.

    Raises:
        KeyError, TypeError, ValueError: what JSON has is no such value.

    >>> typed(tuple[float, ...], [0.5, None])
    (0.5, nan)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (other,) = (one for one in inner if one is not type(None))
        return None if raw is None else typed(other, raw)
    if origin is tuple:
        return tuple(typed(inner[0], part) for part in raw)
    if origin is abc.Mapping:
        return {name: typed(inner[1], part) for name, part in raw.items()}
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        hints = get_type_hints(hint)
        if unknown := set(raw) - set(hints):
            raise TypeError(f"{hint.__name__} has no {', '.join(sorted(unknown))}")
        return hint(**{name: typed(hints[name], part) for name, part in raw.items()})
    if hint is float:
        return _number(raw)
    if raw not in inner if origin is Literal else type(raw) is not hint:
        raise TypeError(f"must be {hint}, got {raw!r}")
    return raw


def _number(raw: Any) -> float:
    """A float that JSON may have no number for."""
    if raw is None:
        return math.nan
    if raw in ("inf", "-inf") or type(raw) in (int, float):
        return float(raw)
    raise TypeError(f"must be a number, got {raw!r}")
