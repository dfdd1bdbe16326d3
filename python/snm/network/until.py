"""Simulates each image for only as many time steps as its answer needs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from snm_kernels import SNMState

from .batches import rows_of
from .checks import check_count
from .run import Readout, Run

_SHRINK_AT = 0.75
"""The share of a batch that still runs at which it is compacted. Libraries prepare anew for each
size of a batch, so there should not be many sizes."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Says when an image's answer is good enough: after step t, if the largest logit is ahead of
    the second by ``leads[t - 1]`` or more.

    :func:`snm.calibrate_stop` finds the leads that keep a stated agreement.

    Args:
        leads: one for each step up to the last, >= 0, in units of the logits; +inf for a step after
            which no image stops. After the last step every image stops.
        agreement: the share of the calibration images that got the answer they should; None if the
            leads were not calibrated.
        mean_steps: how many steps the calibration images took on average; None if the leads were
            not calibrated.
        agreement_at_least: the share of all such images that agrees at least, with 95 % confidence
            or the confidence that was asked for; None if the leads were not calibrated.

    Raises:
        ValueError: there is no step, or a lead is negative or NaN.

    >>> stop = Stop((float("inf"), 2.0, 1.0))
    >>> stop.max_steps, stop.after(torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.0]]), 2).tolist()
    (3, [True, False])
    >>> stop.min_steps
    2
    """

    leads: tuple[float, ...]
    agreement: float | None = None
    mean_steps: float | None = None
    agreement_at_least: float | None = None

    def __post_init__(self) -> None:
        if not self.leads:
            raise ValueError("Stop: leads must hold at least one step, got none")
        for lead in self.leads:
            if not lead >= 0:
                raise ValueError(f"Stop: leads must be >= 0, got {lead}")

    @property
    def min_steps(self) -> int:
        """The fewest steps that an image takes."""
        finite = (step for step, lead in enumerate(self.leads, start=1) if lead < math.inf)
        return next(finite, self.max_steps)

    @property
    def max_steps(self) -> int:
        """The most steps that an image takes."""
        return len(self.leads)

    def after(self, logits: Tensor, step: int) -> Tensor:
        """Which images stop after a step, bool ``[B]``.

        Args:
            logits: ``[B, classes]``, those of the images after the step.
            step: the step's number, from 1.

        Raises:
            ValueError: there is no such step.

        >>> Stop((1.0, 0.5, 0.0)).after(torch.tensor([[1.0, 0.25, 0.0], [1.0, 0.0, 0.0]]), 1)
        tensor([False,  True])
        """
        if not 1 <= step <= self.max_steps:
            raise ValueError(f"Stop: step must be 1 to {self.max_steps}, got {step}")
        if step == self.max_steps:
            return torch.ones(logits.shape[0], dtype=torch.bool, device=logits.device)
        if math.isinf(self.leads[step - 1]):
            return torch.zeros(logits.shape[0], dtype=torch.bool, device=logits.device)
        return lead_of(logits) >= self.leads[step - 1]


class Answers(NamedTuple):
    """The answer to each image of a batch, and how long it took.

    >>> logits = torch.tensor([[0.5, 2.0]])
    >>> Answers(logits.argmax(1), logits, torch.tensor([3])).steps
    tensor([3])
    """

    predictions: Tensor
    """The class of the largest logit, int64 ``[B]``."""
    logits: Tensor
    """What a call of as many steps returns for each image, ``[B, classes]``."""
    steps: Tensor
    """How many time steps each image took, int64 ``[B]``."""


def lead_of(logits: Tensor) -> Tensor:
    """How far the largest logit of ``[..., classes]`` is ahead of the second, float64 ``[...]``.

    >>> lead_of(torch.tensor([[1.0, 4.0, 2.5]]))
    tensor([1.5000], dtype=torch.float64)
    """
    best = logits.double().topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def certain(probability: float) -> Callable[[Tensor, int], Tensor]:
    """A function of logits and step: whether the softmax gives a class at least ``probability``.

    >>> certain(0.9)(torch.tensor([[3.0, 0.0], [2.0, 0.0]]), 1)
    tensor([ True, False])
    """

    def enough(logits: Tensor, _step: int) -> Tensor:
        return logits.double().softmax(1).amax(1) >= probability

    return enough


def stopping(
    confidence: object, min_steps: int, max_steps: int | None, readout: Readout
) -> tuple[Callable[[Tensor, int], Tensor], range]:
    """Checks the arguments that say when images stop; see :meth:`snm.SpikingNetwork.until`.

    Returns:
        A function of logits ``[B, classes]`` and the step after which they were read, which says
        which images may stop, bool ``[B]``; and the steps after which images may stop.
    """
    enough: Callable[[Tensor, int], Tensor]
    first = check_count("SpikingNetwork", "min_steps", min_steps)
    if isinstance(confidence, Stop):
        longest = confidence.max_steps
        last = longest
        if max_steps is not None:
            last = check_count("SpikingNetwork", "max_steps", max_steps)
        if last > longest:
            raise ValueError(
                f"SpikingNetwork: max_steps must be at most the {longest} of the Stop, got {last}"
            )
        enough = confidence.after
        earliest = min(confidence.min_steps, last)
    elif isinstance(confidence, bool) or not isinstance(confidence, int | float):
        raise TypeError(
            "SpikingNetwork: confidence must be a Stop or a probability, got "
            f"{type(confidence).__name__}"
        )
    elif not 0 < confidence < 1 or readout == "count":
        raise ValueError(
            "SpikingNetwork: confidence must be above 0 and below 1, of a network with "
            f"readout='mean', or a Stop, got {confidence} with readout={readout!r}"
        )
    else:
        last = check_count("SpikingNetwork", "max_steps", max_steps)
        enough, earliest = certain(confidence), 1
    if first > last:
        raise ValueError(f"SpikingNetwork: min_steps must be at most max_steps={last}, got {first}")
    return enough, range(max(first, earliest), last + 1)


def simulate_until(
    run: Run,
    images: Tensor,
    enough: Callable[[Tensor, int], Tensor],
    steps: range,
    at_once: int,
) -> Answers:
    """What :meth:`snm.SpikingNetwork.until` returns, computed without its checks.

    Args:
        run: a simulation of the images, before the first step.
        images: ``[B, ...]``.
        enough: says of logits and a step which images may stop, bool ``[B]``.
        steps: the steps after which images may stop; after the last one all do.
        at_once: how many of the steps before these are simulated at once.

    Raises:
        ValueError: the network's answer is not ``[B, classes]`` with two classes or more.
    """
    # The number of the image that each row of the run is of, and whether it still runs.
    row_of = torch.arange(images.shape[0], device=images.device)
    running = torch.ones_like(row_of, dtype=torch.bool)
    taken = torch.zeros_like(row_of)
    while run.steps < steps[0] - 1:
        run.advance(min(at_once, steps[0] - 1 - run.steps), None)
    logits: Tensor | None = None
    for step in steps:
        run.advance(1, None)
        answer = run.answer()
        if logits is None:
            check_classes(answer)
            logits = torch.empty_like(answer)
        done = running & (enough(answer, step) if step < steps[-1] else running)
        logits[row_of[done]] = answer[done]
        taken[row_of[done]] = step
        running &= ~done
        left = int(running.count_nonzero())
        if left == 0:
            break
        if left <= _SHRINK_AT * run.batch:
            rows = running.nonzero().flatten()
            images, row_of, running = rows_of(images, rows), row_of[rows], running[rows]
            _keep(run, rows, images)
    assert logits is not None
    return Answers(logits.argmax(1), logits, taken)


def check_classes(logits: Tensor) -> None:
    """Refuses an answer that is not ``[B, classes]`` with at least two classes to compare."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            "SpikingNetwork: the answer must be [B, classes] with at least two classes for an "
            f"image to stop early, got {list(logits.shape)}"
        )


def _keep(run: Run, rows: Tensor, images: Tensor) -> None:
    """Reduces a run to some of its rows, whose images are given."""
    run.batch = images.shape[0]
    run.states = {
        name: SNMState(rows_of(state.v, rows), rows_of(state.m, rows))
        for name, state in run.states.items()
    }
    run.totals = {name: rows_of(total, rows) for name, total in run.totals.items()}
    run.see(images)
