"""Chooses units, and rounds weights to whole numbers of them."""

import math

import torch
from torch import Tensor

from ...nn.integer import IntegerConv, IntegerLinear, IntegerScale
from .values import Group, Layer, Scaled, rows, spread

_FINEST = 2**20
"""The most parts that a threshold or a bias is divided into that no weight tells how to divide."""
_LARGEST_BIAS = 2**30
"""The most parts that a bias is divided into beside weights: int32 holds it, and a sum of it."""
_LARGEST_THRESHOLD = 2**24 - 1


def largest_weights(group: Group) -> Tensor:
    """The largest amount of a weight of each channel, or of what is added as it is."""
    sizes = [
        rows(term.weight).abs().amax(1) if isinstance(term, Layer) else term.worth
        for term in group.terms
    ]
    return torch.stack(sizes).amax(0)


def unit_by_itself(group: Group, limit: int) -> Tensor:
    """The unit of a sum that no neurons read, float64 ``[K]``: the finest that the bits allow.

    Args:
        group: all that has this unit.
        limit: the largest weight.

    >>> weight = torch.tensor([[0.25, -0.5], [0.0, 0.0]]).double()
    >>> unit_by_itself(Group([Layer("", weight, torch.zeros(2).double(), ())]), limit=2)
    tensor([0.2500, 0.2500], dtype=torch.float64)
    """
    most = largest_weights(group)
    unit = most / limit
    [first, *others] = group.terms
    if isinstance(first, Layer) and first.fine and not others:
        # Weights that are all the same, as those of averages and batch norms, are 1 or -1.
        weight = rows(first.weight).abs()
        unit = torch.where(((weight == 0) | (weight == most[:, None])).all(1), most, unit)
    for term in group.terms:
        if isinstance(term, Layer):
            # Of channels without weights the bias is all that matters.
            finest = torch.where(most > 0, _LARGEST_BIAS, _FINEST)
            unit = torch.maximum(unit, term.bias.abs() / finest)
    known = unit[unit > 0]
    return torch.where(unit > 0, unit, known.min() if len(known) else 1.0)


def unit_of_thresholds(group: Group, thresholds: Tensor, limit: int) -> Tensor:
    """The unit of a sum that drives neurons, float64 ``[K]``: a whole part of their thresholds.

    Args:
        group: all that has this unit.
        thresholds: float64 ``[K]``, 0 of channels that are silent.
        limit: the largest weight.

    >>> weight = torch.tensor([[0.3]]).double()
    >>> group = Group([Layer("", weight, torch.zeros(1).double(), ())])
    >>> unit_of_thresholds(group, torch.ones(1).double(), limit=4)
    tensor([0.0769], dtype=torch.float64)
    """
    most = torch.zeros_like(thresholds)
    for term in group.terms:
        # Integers that are added as they are get factors as large as they need.
        if isinstance(term, Layer):
            most = torch.maximum(most, rows(term.weight).abs().amax(1))
    fits = thresholds * limit / torch.where(most > 0, most, 1.0)
    parts = torch.where(most > 0, fits.floor(), float(_FINEST)).clamp(max=_LARGEST_THRESHOLD)
    fine = (parts >= 1) & (thresholds > 0)
    return torch.where(fine, thresholds / parts.clamp(min=1), unit_by_itself(group, limit))


def integers_of(
    term: Layer | Scaled, unit: Tensor, limit: int
) -> tuple[IntegerConv | IntegerScale, str | None]:
    """A term with weights, bias or factors in whole units; and why int32 cannot hold these.

    >>> layer = Layer("", torch.tensor([[0.5]]).double(), torch.ones(1).double(), ())
    >>> made, _ = integers_of(layer, torch.tensor([0.125]).double(), limit=127)
    >>> made.weight, made.bias
    (tensor([[4]], dtype=torch.int8), tensor([8], dtype=torch.int32))
    """
    reason = None
    if isinstance(term, Scaled):
        factor = (term.worth / unit).round()
        if bool((factor.abs() >= 2**31).any()):
            reason = "what it adds as it is is too large for int32"
            factor = torch.zeros_like(factor)
        return IntegerScale(factor.to(torch.int32)), reason
    weight = (term.weight / spread(unit, term.weight.dim())).round().clamp(-limit, limit)
    bias = (term.bias / unit).round()
    if bool((bias.abs() >= 2**31).any()):
        reason = "its bias is too large for int32 in units of a weight"
        bias = torch.zeros_like(bias)
    own = bias.to(torch.int32) if bool(bias.any()) else None
    whole = weight.to(torch.int8)
    if term.places:
        return IntegerConv(whole, own, *term.places), reason
    return IntegerLinear(whole, own), reason


def typical_size(made: IntegerConv | IntegerScale, term: Layer | Scaled) -> float:
    """About how large the sums of a term are, if what it reads is random.

    >>> layer = Layer("", torch.empty(0), torch.empty(0), (), typical=2.0)
    >>> typical_size(IntegerLinear(torch.tensor([[3, -4]], dtype=torch.int8)), layer)
    10.0
    """
    if isinstance(made, IntegerScale) or isinstance(term, Scaled):
        return float(made.factor.abs().max()) if isinstance(made, IntegerScale) else 1.0
    return max(1.0, float(rows(made.weight.double()).norm(dim=1).max()) * term.typical)


def common_unit(groups: list[Group], limit: int) -> Tensor | None:
    """The unit of what is added up, float64 ``[K]``; None if it can be chosen later.

    Weights are rounded to parts of the unit, and what they read multiplies the error. So the unit
    is such that of no part the error becomes larger than it is already.

    Args:
        groups: of all parts, some of which have a unit.
        limit: the largest weight.

    >>> known = Group(unit=torch.tensor([0.5]).double())
    >>> layer = Layer("", torch.tensor([[0.25]]).double(), torch.zeros(1).double(), (), typical=4.0)
    >>> common_unit([known, Group([layer])], limit=127)
    tensor([0.1250], dtype=torch.float64)
    """
    known = [group.unit for group in groups if group.unit is not None]
    free = [group for group in groups if group.unit is None]
    reads = [group.reads for group in free]
    if not known and max(reads) == min(reads):
        return None
    own = [unit_by_itself(group, limit) for group in free]
    errors = [unit * size for unit, size in zip(own, reads, strict=True)]
    fits = torch.stack([*known, *errors]).amax(0) / max(reads, default=1.0)
    if not known:
        return fits
    unit = _finest(known, own)
    return unit / (unit / fits).floor().clamp(min=1)


def _finest(units: list[Tensor], others: list[Tensor]) -> Tensor:
    """The smallest unit of each channel; of those that are always 0, that of others, or any."""
    unit = torch.full_like(units[0], math.inf)
    for some in (units, others):
        for other in some:
            smaller = torch.where(other > 0, other, math.inf).minimum(unit)
            unit = smaller if some is units else torch.where(unit.isinf(), smaller, unit)
    return torch.where(unit.isinf(), 1.0, unit)


def multiples(group: Group, unit: Tensor, limit: int) -> Tensor:
    """How many of a unit, whole numbers ``[K]``, are as fine as a sum can be with these bits.

    >>> layer = Layer("", torch.tensor([[5.0]]).double(), torch.zeros(1).double(), ())
    >>> multiples(Group([layer]), torch.ones(1).double(), limit=2)
    tensor([3.], dtype=torch.float64)
    """
    most = torch.ones_like(unit)
    for term in group.terms:
        if isinstance(term, Layer):
            most = torch.maximum(most, (rows(term.weight).abs().amax(1) / limit / unit).ceil())
    return most
