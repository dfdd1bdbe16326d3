"""Fewer cases where each takes long: every two words that a case has together stay together."""

from collections.abc import Hashable, Sequence
from dataclasses import fields
from itertools import combinations, product
from typing import Any, TypeVar

A, B, C = (TypeVar(name) for name in "ABC")


def pairwise(runs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Of pairs of a comparison and a case as few, as far as greed goes, as have every two values
    that any of them has: of the case's fields, but for its name, and the comparison."""
    left = [{*combinations(_words(*run), 2)} for run in runs]
    chosen = []
    while any(left):
        best = max(range(len(runs)), key=lambda place: len(left[place]))
        chosen.append(best)
        found = left[best].copy()
        for each in left:
            each -= found
    return [runs[place] for place in sorted(chosen)]


def every_two(first: Sequence[A], second: Sequence[B], third: Sequence[C]) -> list[tuple[A, B, C]]:
    """Of the product as few as have every two values together; the third are the fewest."""
    if len(third) > min(len(first), len(second)):
        raise ValueError("third must be no longer than first and second")
    pairs = product(enumerate(first), enumerate(second))
    return [(a, b, third[(i + j) % len(third)]) for (i, a), (j, b) in pairs]


def _words(comparison: Hashable, case: Any) -> list[Hashable]:
    named = [field.name for field in fields(case) if field.name != "name"]
    return [comparison, *((name, getattr(case, name)) for name in named)]
