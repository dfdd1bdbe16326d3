"""Describes the layers of neurons that every contender runs, and makes their inputs."""

from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """The tensors that a contender reads, and one that it may write to."""

    drive: Tensor
    """The drive, ``[T, B, C, H, W]``."""
    threshold: Tensor
    """The threshold θ of each neuron, float32 ``[C, H, W]``, or a scalar."""
    out: Tensor
    """Room for amplitudes, like the drive."""


@dataclass(frozen=True)
class Workload:
    """A layer of neurons over T time steps.

    Drives are multiples of 1/64 under 2 and thresholds multiples of 1/16: all sums are exact in
    float32 and every drive is exact in half precision, so contenders that run the same rule agree
    to the last bit.
    """

    device: str
    dtype: torch.dtype = torch.float32
    timesteps: int = 32
    batch: int = 8
    features: tuple[int, ...] = (128, 32, 32)

    @property
    def neurons(self) -> int:
        return self.batch * prod(self.features)

    @property
    def neuron_steps(self) -> int:
        return self.timesteps * self.neurons

    def __str__(self) -> str:
        return f"{self.device}-{self.dtype_name}-T{self.timesteps}-{self.neurons} neurons"

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def info(self) -> dict[str, str | int]:
        """What a row of a record says of the workload."""
        return {"dtype": self.dtype_name, "timesteps": self.timesteps, "neurons": self.neurons}


# Workloads come one after another, and two of the largest drives needn't be held at once.
@lru_cache(maxsize=1)
def inputs_of(workload: Workload) -> Inputs:
    """The workload's tensors, which are the same for all contenders and in every process."""
    generator = torch.Generator(workload.device).manual_seed(0)
    drawn = partial(torch.randint, generator=generator, device=workload.device)
    sizes = (workload.timesteps, workload.batch, *workload.features)
    drive = (drawn(-64, 97, sizes, dtype=torch.int8).to(torch.float32) / 64).to(workload.dtype)
    threshold = drawn(8, 25, workload.features) / 16
    return Inputs(drive, threshold, torch.zeros_like(drive))


def at_one_threshold(inputs: Inputs) -> Inputs:
    """Inputs with θ = 1 for all neurons, which every contender can run."""
    return inputs._replace(threshold=torch.ones((), device=inputs.drive.device))
