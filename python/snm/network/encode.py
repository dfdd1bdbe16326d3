"""Encoders, which make of images the frames that a network sees from time step to time step."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from .program import empty_over_time

Encoder = Literal["direct", "poisson", "frames"]
"""How images become frames: constant, as random spikes, or frames that are given."""

ENCODERS: tuple[str, ...] = get_args(Encoder)
"""The encoders by name."""


class Source(Protocol):
    """Gives the frames of a run, chunk by chunk."""

    images: Tensor
    """The images ``[B, ...]``, or the first frame."""

    def take(self, steps: int) -> tuple[int, Tensor | None]:
        """Takes the next time steps.

        Args:
            steps: how many are wanted.

        Returns:
            How many of them there are, and their frames ``[steps * B, ...]``; None in their place
            if images are constant in time.
        """


class Constant:
    """Direct coding: the image is a constant current, for as long as wanted.

    Args:
        images: ``[B, ...]``.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def take(self, steps: int) -> tuple[int, None]:
        """Grants every step that is wanted, and needs no frames for them."""
        return steps, None


class Poisson:
    """Bernoulli spikes in discrete time, the usual stand-in for a Poisson process.

    A pixel x sends sign(x)·a with probability abs(x) / a, where a is the largest abs(x) of its
    image; its mean over time tends to x, whatever its sign.

    Args:
        images: ``[B, ...]``.
        generator: on the images' device; None for torch's own. What it draws does not depend on
            how many steps are taken at once.

    >>> source = Poisson(torch.tensor([[0.0, -2.0, 1.0]]), torch.Generator().manual_seed(0))
    >>> steps, frames = source.take(1000)
    >>> frames.min(0).values.tolist(), frames.max(0).values.tolist()
    ([0.0, -2.0, 0.0], [0.0, -2.0, 2.0])
    """

    def __init__(self, images: Tensor, generator: torch.Generator | None = None) -> None:
        self.images = images
        self.generator = generator
        largest = images.abs().flatten(1).amax(1).view(-1, *[1] * (images.dim() - 1))
        self.probability = torch.where(largest > 0, images.abs() / largest, 0.0).float()
        self.amplitude = images.sign() * largest

    def take(self, steps: int) -> tuple[int, Tensor]:
        """Grants every step that is wanted; draws their frames ``[steps * B, ...]``."""
        frames = empty_over_time(self.images, steps)
        for frame in frames:
            spikes = torch.bernoulli(self.probability, generator=self.generator)
            torch.mul(self.amplitude, spikes.to(frame.dtype), out=frame)
        return steps, frames.flatten(0, 1)


class Frames:
    """Frames that are given one by one, such as those of an event camera.

    Args:
        frames: ``[T, B, ...]``, or an iterable of frames ``[B, ...]``.
        check: refuses a frame that the network cannot take.

    Raises:
        ValueError: there is no frame, or a frame has another shape than the first.
    """

    def __init__(self, frames: Tensor | Iterable[Tensor], check: Callable[[Tensor], None]) -> None:
        self.check = check
        self.rest: Iterator[Tensor] = iter(frames)
        first = next(self.rest, None)
        if first is None:
            raise ValueError("SpikingNetwork: frames must hold at least one frame, got none")
        check(first)
        # What yields frames may write each over the one before.
        self.images = first.clone()
        self.begun = False

    def take(self, steps: int) -> tuple[int, Tensor]:
        """Takes as many steps as there still are, and their frames ``[steps * B, ...]``."""
        frames = empty_over_time(self.images, steps)
        taken = 0
        if not self.begun:
            frames[0].copy_(self.images)
            taken = 1
            self.begun = True
        for frame in islice(self.rest, steps - taken):
            self.check(frame)
            if frame.shape != self.images.shape:
                raise ValueError(
                    f"SpikingNetwork: every frame must be {list(self.images.shape)} like the "
                    f"first, got {list(frame.shape)}"
                )
            frames[taken].copy_(frame)
            taken += 1
        return taken, frames[:taken].flatten(0, 1)
