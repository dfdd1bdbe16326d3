"""Checks arguments that several functions have in common."""

import operator

import torch


def check_count(caller: str, argument: str, value: object) -> int:
    """A value as a plain integer; refuses anything that is not an integer of at least 1."""
    if isinstance(value, bool) or not (isinstance(value, int) or hasattr(value, "__index__")):
        raise TypeError(f"{caller}: {argument} must be an integer, got {value!r}")
    count = value if isinstance(value, int) else operator.index(value)
    if count < 1:
        raise ValueError(f"{caller}: {argument} must be at least 1, got {count}")
    return count


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype without its module.

    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")
