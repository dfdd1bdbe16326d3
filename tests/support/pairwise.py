"""Fewer cases where each takes long: every two words that a case has together stay together."""

from collections.abc import Hashable, Sequence
from dataclasses import fields
from itertools import combinations
from typing import Any


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


def _words(comparison: Hashable, case: Any) -> list[Hashable]:
    named = [field.name for field in fields(case) if field.name != "name"]
    return [comparison, *((name, getattr(case, name)) for name in named)]
