"""Histograms of activations whose ranges are powers of two, so that they add up exactly.

A histogram has a row for each threshold. Its bins divide [0, 2^e) evenly, where 2^e is the power
of two next above the row's largest activation: a larger one doubles the range by adding pairs of
neighbouring bins, which gives the very counts that the larger range would have given from the
start. So the counts depend on the activations alone, not on their order or how they were split.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

SLICE = 2**21
"""How many elements a temporary tensor has at most."""

_LEAST_BINS = 16
_MOST_BINS = 2048
_COUNTERS = 2**23
"""How many counters the rows of a layer share, unless the least bins need more."""
# From here on the scale from activations to bins is a normal float32 whatever the bins.
_LEAST_EXPONENT = -115
_CANDIDATES = 128


def bins_for(rows: int) -> int:
    """How many bins each row of a histogram of so many rows has: a power of two.

    >>> bins_for(1), bins_for(25088), bins_for(10**7)
    (2048, 256, 16)
    """
    fitting = max(_COUNTERS // max(rows, 1), _LEAST_BINS)
    return int(min(1 << (fitting.bit_length() - 1), _MOST_BINS))


def count(counts: Tensor, largest: Tensor, values: Tensor) -> None:
    """Counts values above zero in a histogram.

    Args:
        counts: ``[rows, bins]``, int32 or int64; written in place.
        largest: ``[rows]``, float32, what the range is for; no value is above it.
        values: ``[rows, n]``, finite and not negative.
    """
    bins = counts.shape[1]
    scale = _power_of_two(bins.bit_length() - 1 - _exponents(largest)).unsqueeze(1)
    for block, one_scale, rows in _blocks(values.shape[1], counts, scale, values):
        for part in rows.split(SLICE, dim=1):
            # Laid out row by row, each row's counters stay in cache.
            value = torch.empty(part.shape, dtype=torch.float32, device=part.device).copy_(part)
            fired = (value > 0).to(counts.dtype)
            block.scatter_add_(1, value.mul_(one_scale).to(torch.int64), fired)


def widen(counts: Tensor, before: Tensor, largest: Tensor) -> None:
    """Widens the ranges of a histogram to hold larger activations.

    Args:
        counts: ``[rows, bins]``; written in place.
        before: ``[rows]``, float32, what the ranges are for now.
        largest: ``[rows]``, float32, what they are to be for; nowhere less.
    """
    bins = counts.shape[1]
    doublings = (_exponents(largest) - _exponents(before)).clamp(max=bins.bit_length() - 1)
    doublings = torch.where(before > 0, doublings, 0)
    for times in doublings.unique().tolist():
        if times == 0:
            continue
        for rows in (doublings == times).nonzero().squeeze(1).split(max(1, SLICE // bins)):
            merged = counts[rows].unflatten(1, (-1, 1 << times)).sum(2, dtype=counts.dtype)
            counts[rows] = torch.nn.functional.pad(merged, (0, bins - merged.shape[1]))


def percentile(counts: Tensor, largest: Tensor, percent: float) -> Tensor:
    """The value that so many percent of each row's values do not exceed, to one bin's width.

    Args:
        counts: ``[rows, bins]``.
        largest: ``[rows]``, float32.
        percent: above 0; 100 gives ``largest`` itself.

    Returns:
        ``[rows]``, float32, above 0 wherever ``largest`` is, and nowhere above it.
    """
    bins = counts.shape[1]
    found = torch.empty_like(largest)
    for block, top, result in _blocks(bins, counts, largest, found):
        below = block.cumsum(1)
        rank = (below[:, -1:].double() * percent / 100).ceil().clamp(min=1).to(torch.int64)
        chosen = torch.searchsorted(below, rank).clamp(max=bins - 1)
        inside = block.gather(1, chosen)
        first = below.gather(1, chosen) - inside
        position = chosen + (rank - first).double() / inside.clamp(min=1)
        value = position.squeeze(1) * _range(top) / bins
        result.copy_(value.float().clamp(min=torch.finfo(torch.float32).tiny).minimum(top))
    return found


def least_squared_error(counts: Tensor, largest: Tensor, levels: int) -> Tensor:
    """The clipping point at which so many equal steps represent each row's values best.

    Values count as spread evenly inside their bin. The candidates are each 128th of the range,
    as far as they are below the largest value, and that value.

    Args:
        counts: ``[rows, bins]``.
        largest: ``[rows]``, float32.
        levels: steps between 0 and the clipping point.

    Returns:
        ``[rows]``, float32, above 0 wherever ``largest`` is, and nowhere above it.
    """
    bins = counts.shape[1]
    edges = torch.arange(bins + 1, dtype=torch.float64, device=counts.device) / bins
    candidates = torch.arange(1, _CANDIDATES, device=counts.device).double() / _CANDIDATES
    errors = _squared_errors(candidates.unsqueeze(1), edges, levels).t()
    found = torch.empty_like(largest)
    for block, top, result in _blocks(bins, counts, largest, found):
        weights = block.double()
        share = torch.where(top > 0, top / _range(top), 1.0)
        clipped = (weights @ errors).masked_fill(candidates >= share.unsqueeze(1), torch.inf)
        best = clipped.min(1)
        whole = (weights * _squared_errors(share.unsqueeze(1), edges, levels)).sum(1)
        chosen = torch.where(best.values < whole, candidates[best.indices], share)
        result.copy_(torch.where(top > 0, chosen * _range(top), 0.0))
    return found


def _squared_errors(clip: Tensor, edges: Tensor, levels: int) -> Tensor:
    """The mean squared error of values between neighbouring edges, by the integral in closed form.

    Up to x it is k·s³/12 + (x - k·s)³/3, with steps of s = clip / levels, the k-th nearest to x.
    """
    step = clip / levels
    nearest = (edges / step).round().clamp(max=levels)
    integral = nearest * step**3 / 12 + (edges - nearest * step) ** 3 / 3
    return integral.diff(dim=1) / edges.diff()


def _blocks(columns: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cuts tensors in the same blocks of rows, small enough for temporaries of so many columns."""
    rows = max(1, SLICE // max(columns, 1))
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _exponents(largest: Tensor) -> Tensor:
    """The exponent e of each row's range [0, 2^e), int32."""
    exponents = torch.frexp(largest).exponent
    return torch.where(largest > 0, exponents, _LEAST_EXPONENT).clamp(min=_LEAST_EXPONENT)


def _range(largest: Tensor) -> Tensor:
    """The end 2^e of each row's range, float64, for in float32 the largest would overflow."""
    return 2 * _power_of_two(_exponents(largest) - 1).double()


def _power_of_two(exponents: Tensor) -> Tensor:
    """Exactly 2^exponents in float32, for int32 exponents of normal numbers."""
    return ((exponents + 127) << 23).view(torch.float32)
