"""Finds out how far the largest logit must be ahead of the second for an image to stop."""

import math
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion.inputs import batches_of, check_model
from ..conversion.tracing.compare import result_of
from ..network.checks import check_count
from ..network.inputs import check_direct
from ..network.spiking import SpikingNetwork
from ..network.until import Stop, check_classes, lead_of

_BATCH = 100
"""How many images of a tensor are simulated at once."""
_NO_DEVIATION = 1e-30
"""The deviation that a step without any deviation is taken to have."""
_ROUNDING = 1e-9
"""What is added to a number of images, so that rounding cannot make it one less."""
_USUAL = 0.95
"""The confidence of ``agreement_at_least`` if none is asked for."""


@torch.no_grad()
def calibrate_stop(
    net: SpikingNetwork,
    model: nn.Module | None,
    images: Tensor | Iterable[Any],
    *,
    agreement: float = 0.995,
    confidence: float | None = None,
    min_steps: int = 1,
    max_steps: int = 64,
) -> Stop:
    """Finds when to stop simulating an image, for :meth:`snm.SpikingNetwork.until`.

    After t steps a logit is off by what the network has not yet evened out. How much that is, is
    measured for each t: the root mean square, over the images, of how far the lead of the largest
    logit over the second still is from the lead after ``max_steps``. An image stops once its lead
    is at least κ times that. κ is the smallest factor with which, and with every larger one, the
    images agree as often as asked.

    Args:
        net: a network with encoder="direct".
        model: the ReLU network, in evaluation mode, whose classes are to be given; None for those
            that the network itself gives after ``max_steps``.
        images: ``[N, ...]``, or batches of them, or tuples that start with a batch; no labels are
            needed. They should be like the images to come, and best be neither trained nor
            calibrated on, as both networks are surer of such images than of others.
        agreement: the share of images that are to get the class they should, in (0, 1).
        confidence: None to reach that share on these very images; others then fall short of it in
            about half of all cases, as κ is fitted to these. Or how sure to be, in (0, 1), such as
            0.95, that as large a share of all such images agrees, which takes more steps.
        min_steps: the fewest time steps that an image takes.
        max_steps: the most time steps that an image takes.

    Returns:
        The leads, what share of these images agrees with them, and how many steps the images take
        on average. ``agreement_at_least`` is the share of all such images that can be relied on to
        agree, with 95 % confidence or the confidence that was asked for.

    Raises:
        ValueError: fewer images agree even after ``max_steps``, there are too few images for the
            confidence, an argument is out of its range, or the encoder is not "direct"; or the
            images are not as for a call.
        TypeError: an argument is of the wrong type.

    Source: stopping where confidence passes a threshold: Li et al., "SEENN: Towards Temporal
    Spiking Early Exit Neural Networks", NeurIPS 2023. Testing one κ after another until the first
    that fails: Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve
    Risk Control", 2021, arXiv:2110.01052.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    >>> from snm import convert
    >>> net = convert(model, torch.rand(256, 4), preset="snm-zero")
    >>> stop = calibrate_stop(net, model, torch.rand(300, 4), agreement=0.9, max_steps=32)
    >>> answers = net.until(torch.rand(50, 4), stop)
    >>> stop.agreement >= 0.9, bool(answers.steps.max() <= 32)
    (True, True)
    """
    last = check_count("calibrate_stop", "max_steps", max_steps)
    first = check_count("calibrate_stop", "min_steps", min_steps)
    if first > last:
        raise ValueError(
            f"calibrate_stop: min_steps must be at most max_steps={last}, got {min_steps}"
        )
    _check_share("agreement", agreement)
    if confidence is not None:
        _check_share("confidence", confidence)
    _check_networks(net, model)
    leads, right, deviation = _observe(net, model, images, last)
    count = leads.shape[1]
    allowed = _allowed(agreement, confidence, count)
    disagreeing = count - int(right[-1].count_nonzero())
    if disagreeing > allowed:
        raise ValueError(
            f"calibrate_stop: agreement must be at most the {(count - disagreeing) / count:.4f} "
            f"that {last} steps reach on these {count} images, got {agreement}"
        )
    # Where leads are no longer off, any lead will do.
    deviation = deviation.clamp(min=_NO_DEVIATION)
    ratios = leads / deviation.unsqueeze(1)
    ratios[: first - 1] = -torch.inf
    needed = _smallest_factor(ratios[:-1], right, allowed) * deviation
    needed[: first - 1] = torch.inf
    needed[-1] = 0.0
    stops = (leads >= needed.unsqueeze(1)).to(torch.uint8).argmax(0)
    agreeing = right.gather(0, stops.unsqueeze(0)).double().mean().item()
    return Stop(
        tuple(needed.tolist()),
        agreeing,
        (stops + 1).double().mean().item(),
        at_least(round(agreeing * count), count, _USUAL if confidence is None else confidence),
    )


def _check_share(argument: str, value: object) -> None:
    """Refuses anything but a number above 0 and below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"calibrate_stop: {argument} must be a number, got {value!r}")
    if not 0 < value < 1:
        raise ValueError(f"calibrate_stop: {argument} must be above 0 and below 1, got {value}")


def _allowed(agreement: float, confidence: float | None, count: int) -> int:
    """How many of ``count`` images may get another class than they should."""
    most = math.floor((1 - agreement) * count + _ROUNDING)
    if confidence is None:
        return most
    while most >= 0 and at_least(count - most, count, confidence) < agreement:
        most -= 1
    if most < 0:
        fewest = math.ceil(math.log(1 - confidence) / math.log(agreement))
        raise ValueError(
            f"calibrate_stop: images must be at least {fewest} for agreement={agreement} with "
            f"confidence={confidence}, got {count}"
        )
    return most


def at_least(agreeing: int, count: int, confidence: float) -> float:
    """The smallest share of all images that may agree, given how many of a sample do.

    With a smaller share, as many or more of the sample would agree in less than 1 - ``confidence``
    of all draws.

    Args:
        agreeing: how many images of the sample agree.
        count: how many images there are in the sample.
        confidence: how sure to be, in (0, 1).

    Source: Clopper, Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of
    the Binomial", Biometrika 1934.

    >>> round(at_least(1990, 2000, 0.95), 4), at_least(0, 10, 0.95)
    (0.9915, 0.0)
    """
    if agreeing == 0:
        return 0.0
    counts = torch.arange(agreeing, count + 1, dtype=torch.float64)
    ways = torch.lgamma(torch.tensor(count + 1.0, dtype=torch.float64)) - (
        torch.lgamma(counts + 1) + torch.lgamma(count - counts + 1)
    )
    low, high = 0.0, agreeing / count
    for _ in range(60):
        share = (low + high) / 2
        chance = (ways + counts * math.log(share) + (count - counts) * math.log1p(-share)).exp()
        low, high = (share, high) if chance.sum().item() < 1 - confidence else (low, share)
    return low


def _check_networks(net: SpikingNetwork, model: nn.Module | None) -> None:
    """Refuses a network whose images change over time, and a model that is not in eval mode."""
    if not isinstance(net, SpikingNetwork):
        raise TypeError(f"calibrate_stop: net must be a SpikingNetwork, got {type(net).__name__}")
    if model is not None:
        check_model(model, "calibrate_stop")
    check_direct("calibrate_stop", net.encoder)


def _observe(
    net: SpikingNetwork, model: nn.Module | None, images: Tensor | Iterable[Any], steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Simulates the images and reads their answers after each step.

    Returns:
        For each step and image the lead, and whether the class is right, ``[T, N]`` each; and for
        each step by how much leads are off, as a root mean square, ``[T]``.
    """
    leads, right = [], []
    squares = torch.zeros(steps, dtype=torch.float64)
    for batch in batches_of(
        images, None, net.device, None, "calibrate_stop", what="images", size=_BATCH
    ):
        answers = net.anytime(batch, timesteps=steps)
        check_classes(answers[-1])
        found = answers.argmax(-1)
        wanted = found[-1] if model is None else _classes(model, batch, answers[-1])
        leads.append(lead_of(answers).cpu())
        right.append((found == wanted).cpu())
        best = answers.topk(2, dim=-1).indices
        final = answers[-1].expand_as(answers).gather(-1, best).double()
        if net.readout == "count":
            share = torch.arange(1, steps + 1, device=final.device) / steps
            final = final * share.view(-1, 1, 1)
        off = leads[-1] - (final[..., 0] - final[..., 1]).cpu()
        squares += off.square().sum(1)
    if not leads:
        raise ValueError("calibrate_stop: images must hold at least one image, got none")
    count = sum(part.shape[1] for part in leads)
    return torch.cat(leads, 1), torch.cat(right, 1), (squares / count).sqrt()


def _classes(model: nn.Module, images: Tensor, like: Tensor) -> Tensor:
    """The classes that the ReLU network gives images; ``like`` are the spiking network's logits."""
    logits: Tensor = result_of(model, images)
    if logits.shape != like.shape:
        raise ValueError(
            f"calibrate_stop: model must answer {list(like.shape)} like the network, "
            f"got {list(logits.shape)}"
        )
    return logits.argmax(-1)


def _smallest_factor(ratios: Tensor, right: Tensor, allowed: int) -> float:
    """The smallest κ at which, and above which, no more images than allowed end up wrong.

    Args:
        ratios: ``[T - 1, N]``, after each step but the last the largest κ that stops the image.
        right: ``[T, N]``, whether an image that stops after a step is right.
        allowed: how many images may be wrong, at least as many as are after the last step.
    """
    count = right.shape[1]
    stops = [right.shape[0] - 1] * count
    rights: list[list[bool]] = right.tolist()
    wrong = count - sum(rights[-1])
    larger = math.inf
    # As κ falls from the largest one, pairs of a step and an image come to stop one by one.
    ratio_of: list[float] = ratios.flatten().tolist()
    order = sorted(range(len(ratio_of)), key=ratio_of.__getitem__, reverse=True)
    for place, following in zip_longest(order, order[1:]):
        ratio = ratio_of[place]
        if ratio == -math.inf:
            break
        step, image = divmod(place, count)
        if step < stops[image]:
            wrong += rights[stops[image]][image] - rights[step][image]
            stops[image] = step
        if following is not None and ratio_of[following] == ratio:
            continue
        if wrong > allowed:
            # κ lies between the two, so that rounding cannot let these images stop.
            return (ratio + larger) / 2
        larger = ratio
    return 0.0
