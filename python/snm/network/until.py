"""Simulates every image for as many time steps as its answer needs, and no more."""

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
"""A batch is compacted once no more than this share of it still runs: libraries prepare anew for
each size of a batch, so there should not be many."""


@dataclass(frozen=True, slots=True)
class Stop:
    """When an image's answer is good enough: after step t if the largest logit is ahead of the
    second by ``leads[t - 1]`` or more.

    :func:`snm.calibrate_stop` finds the leads that keep a stated agreement.

    Args:
        leads: for each step up to the last, >= 0, in units of the logits; +inf for a step after
            which no image stops. After the last step every image stops.
        agreement: what share of the calibration images got the answer they should; None if the
            leads were not calibrated.
        mean_steps: how many steps those took on average; None likewise.
        agreement_at_least: what share of all such images agrees at least, with 95 % confidence
            or that which was asked for.

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
        """Which images stop, bool ``[B]``, whose logits ``[B, classes]`` after a step these are.

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
    """What each image's simulation ended with.

    >>> logits = torch.tensor([[0.5, 2.0]])
    >>> Answers(logits.argmax(1), logits, torch.tensor([3])).steps
    tensor([3])
    """

    predictions: Tensor
    """The class of the largest logit, int64 ``[B]``."""
    logits: Tensor
    """``[B, classes]``, what a call of as many steps returns."""
    steps: Tensor
    """How many time steps each image took, int64 ``[B]``."""


def lead_of(logits: Tensor) -> Tensor:
    """By how much the largest of ``[..., classes]`` is ahead of the second, float64.

    >>> lead_of(torch.tensor([[1.0, 4.0, 2.5]]))
    tensor([1.5000], dtype=torch.float64)
    """
    best = logits.double().topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def certain(probability: float) -> Callable[[Tensor, int], Tensor]:
    """When the softmax of an image's logits has a class of so much probability.

    >>> certain(0.9)(torch.tensor([[3.0, 0.0], [2.0, 0.0]]), 1)
    tensor([ True, False])
    """

    def enough(logits: Tensor, _step: int) -> Tensor:
        return logits.double().softmax(1).amax(1) >= probability

    return enough


def stopping(
    confidence: object, min_steps: int, max_steps: int | None, readout: Readout
) -> tuple[Callable[[Tensor, int], Tensor], range]:
    """Which images may stop, and after which steps; see :meth:`snm.SpikingNetwork.until`.

    Returns:
        Which images may stop whose logits after a step these are; and those steps.
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
    """What :meth:`snm.SpikingNetwork.until` returns, without its checks.

    Args:
        run: a simulation of the images, before the first step.
        images: ``[B, ...]``.
        enough: which images may stop, bool ``[B]``, whose logits after a step these are.
        steps: those after which images may stop; after the last all do.
        at_once: how many of the steps before are simulated at once.

    Raises:
        ValueError: the network's answer is not ``[B, classes]`` with two classes or more.
    """
    # Which image each row of the run is of, and whether it still runs.
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
    """Refuses an answer of which no two classes can be compared."""
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            "SpikingNetwork: the answer must be [B, classes] with at least two classes for an "
            f"image to stop early, got {list(logits.shape)}"
        )


def _keep(run: Run, rows: Tensor, images: Tensor) -> None:
    """Goes on with these rows of a run alone, whose images are given."""
    run.batch = images.shape[0]
    run.states = {
        name: SNMState(rows_of(state.v, rows), rows_of(state.m, rows))
        for name, state in run.states.items()
    }
    run.totals = {name: rows_of(total, rows) for name, total in run.totals.items()}
    run.see(images)
