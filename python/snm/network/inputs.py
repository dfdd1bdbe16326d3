"""Checks of what a network takes: images, time steps, and what goes with them."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ..frames import callers_level
from .checks import check_count, dtype_name
from .encode import Encoder


@dataclass(frozen=True, slots=True)
class Inputs:
    """Describes the images that a network takes.

    >>> Inputs((3, 8, 8), False, torch.float32, torch.device("cpu")).check(torch.zeros(2, 3, 9, 9))
    """

    shape: tuple[int, ...]
    """Shape of one calibration image."""
    fixed_size: bool
    """Whether images must have that very shape; if not, only as many dimensions."""
    dtype: torch.dtype
    """The dtype that images must have."""
    device: torch.device
    """The device that images must be on."""
    pixels: bool = False
    """Whether images may also be uint8 pixels."""

    def check(self, images: object) -> None:
        """Refuses anything but a batch of such images.

        Raises:
            ValueError: the images have another number of dimensions, another size where that is
                fixed, are on another device, or hold NaN or infinity.
            TypeError: they are not a tensor, or are of another dtype.
            RuntimeError: autocast is on.
        """
        if not isinstance(images, Tensor):
            raise TypeError(f"SpikingNetwork: images must be a tensor, got {type(images).__name__}")
        dims = len(self.shape) + 1
        if images.dim() != dims:
            raise ValueError(
                f"SpikingNetwork: images must have {dims} dimensions, the batch first, "
                f"as in calibration, got {list(images.shape)}"
            )
        if self.fixed_size and tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"SpikingNetwork: images must be {list(self.shape)} each, for which "
                f"torch.export traced the model, got {list(images.shape[1:])}"
            )
        if images.device != self.device:
            raise ValueError(
                f"SpikingNetwork: images are on {images.device}, but the network is on "
                f"{self.device}; move one of them"
            )
        if images.dtype != self.dtype and not (self.pixels and images.dtype == torch.uint8):
            raise TypeError(
                f"SpikingNetwork: images must be {dtype_name(self.dtype)} like the network, "
                f"got {dtype_name(images.dtype)}"
            )
        if torch.is_autocast_enabled(self.device.type):
            raise RuntimeError(
                "SpikingNetwork: does not run under autocast, which would round spikes to another "
                "dtype than thresholds; use net.to(torch.bfloat16)"
            )
        # A compiled graph would have to wait for the answer.
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(images).all()):
            raise ValueError("SpikingNetwork: images must be finite, got NaN or infinity")


def check_direct(caller: str, encoder: Encoder) -> None:
    """Refuses a network whose encoder makes images change over time."""
    if encoder != "direct":
        raise ValueError(
            f"{caller}: takes a network with encoder='direct', whose images are constant in "
            f"time, got encoder={encoder!r}"
        )


def check_floating(caller: str, integers: bool, verb: str) -> None:
    """Refuses a network of integers, where what can be done before may be what is meant.

    Args:
        caller: the function to put before the message.
        integers: whether the network is one of integers.
        verb: what to do with the network that it was made of.
    """
    if integers:
        raise ValueError(f"{caller}: takes a floating point network; {verb} it before snm.quantize")


def check_generator(generator: torch.Generator | None, encoder: Encoder) -> None:
    """Refuses a random generator that nothing would draw from."""
    if generator is not None and encoder != "poisson":
        raise ValueError(
            f"SpikingNetwork: generator must be None with encoder={encoder!r}, which draws nothing"
        )


def checked_timesteps(
    timesteps: int | None, *, encoder: Encoder, tuned_for: int | None, most: int
) -> int | None:
    """T as a plain integer; None for as many as there are frames.

    Args:
        timesteps: T as it was given.
        encoder: that of the network; with "frames" T may be None.
        tuned_for: the number of time steps that the network was tuned for, or None; another T
            warns.
        most: the most spikes that a neuron can send in all; a larger T warns.
    """
    if timesteps is None and encoder == "frames":
        return None
    steps = check_count("SpikingNetwork", "timesteps", timesteps)
    if torch.compiler.is_compiling():
        # A graph is made for each T: what is unrolled depends on it.
        return len(range(steps))
    if tuned_for not in (None, steps):
        warnings.warn(
            f"SpikingNetwork: thresholds and biases were tuned for {tuned_for} time steps "
            f"and fit no other number, got timesteps={steps}; tune for as many",
            stacklevel=callers_level(),
        )
    if steps > most:
        warnings.warn(
            f"SpikingNetwork: neurons send no more than {most} spikes in all, so in {steps} "
            f"time steps no rate exceeds {most} / {steps} of its threshold; use "
            f"timesteps={most}, or a rule with a larger count_max",
            stacklevel=callers_level(),
        )
    return steps


def check_readout_after(readout_after: int, timesteps: int | None) -> None:
    """Refuses a number of steps to skip that leaves no step to read out."""
    if isinstance(readout_after, bool) or not isinstance(readout_after, int):
        raise TypeError(f"SpikingNetwork: readout_after must be an integer, got {readout_after!r}")
    most = math.inf if not isinstance(timesteps, int) else timesteps - 1
    if not 0 <= readout_after <= max(0, most):
        raise ValueError(
            f"SpikingNetwork: readout_after must be 0 to {most}, less than the time steps, "
            f"got {readout_after}"
        )
