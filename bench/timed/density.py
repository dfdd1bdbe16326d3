"""Times layers of spikes by how many neurons send: convolutions of int8 weights with the neurons
that they drive, on random spikes.

On the CPU such a layer is computed spike by spike or densely, and runs in turn with the other way;
on a GPU there is one way, and kernels are timed alone, as in sweep.py. What they are compared with
is the float32 convolution of the same batch, time steps and images at once, that torch has
(oneDNN's or cuDNN's), without neurons.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn import functional

from snm.bench.rotation import Turns
from snm.bench.scale import Scale
from snm.bench.tables import BY_EVENTS, CONVOLUTION, DENSELY
from snm.bench.timing import time_beside
from snm_kernels import pack_spike_weight, snm_conv

TIMESTEPS, BATCH = 8, 8
THRESHOLD = 2000
NEGATIVE = 5
"""One of so many spikes is negative."""
WAYS = {"cpu": (BY_EVENTS, DENSELY), "cuda": ("snm",)}


class Case(NamedTuple):
    """A convolution of maps, the share of neurons that send at a time step, and the contender."""

    channels: int
    size: int
    density: float
    contender: str

    def __str__(self) -> str:
        return f"{self.contender}, {self.layer}, {100 * self.density:g} %"

    @property
    def layer(self) -> str:
        return f"3×3, {self.channels} channels, {self.size}×{self.size}"


def cases(device: str, scale: Scale) -> list[Case]:
    return [
        Case(channels, size, density, contender)
        for channels, size in scale.spike_layers
        for density in scale.densities
        for contender in WAYS[device]
    ]


# Contenders come one after another.
@lru_cache(maxsize=1)
def drawn(channels: int, size: int, density: float, device: str) -> tuple[Tensor, Tensor]:
    """Spikes, int8 ``[T, B, C, H, W]`` in channels_last, and a weight, int8 ``[C, C, 3, 3]``."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(
        -127, 128, (channels, channels, 3, 3), generator=generator, dtype=torch.int8
    )
    draw = torch.rand((TIMESTEPS * BATCH, channels, size, size), generator=generator)
    negative = (draw < density / NEGATIVE).to(torch.int8)
    spikes = (draw < density).to(torch.int8) - 2 * negative
    spikes = spikes.to(device).contiguous(memory_format=torch.channels_last)
    return spikes.unflatten(0, (TIMESTEPS, BATCH)), weight.to(device)


def build(contender: str, spikes: Tensor, weight: Tensor) -> Callable[[], object]:
    """The call that is timed."""
    call: Callable[[], object]
    if contender == CONVOLUTION:
        floats = weight.float().contiguous(memory_format=torch.channels_last)
        call = partial(functional.conv2d, spikes.flatten(0, 1).float(), floats, padding=1)
    else:
        dense, on_cpu = contender == DENSELY, spikes.device.type == "cpu"
        packed = pack_spike_weight(weight, dense=dense) if on_cpu else None
        threshold = torch.tensor(THRESHOLD, dtype=torch.int32, device=spikes.device)
        call = partial(snm_conv, spikes, weight, threshold, padding=1, packed=packed, dense=dense)
    return Turns([call]) if spikes.device.type == "cuda" else call


def test_density(benchmark: BenchmarkFixture, case: Case, device: str, scale: Scale) -> None:
    spikes, weight = drawn(case.channels, case.size, case.density, device)
    compared = (CONVOLUTION, *([BY_EVENTS] if case.contender == DENSELY else []))
    time_beside(
        benchmark,
        build(case.contender, spikes, weight),
        device,
        scale.seconds[device],
        {name: build(name, spikes, weight) for name in compared},
        suite="density",
        layer=case.layer,
        density=case.density,
        contender=case.contender,
        yardstick=CONVOLUTION,
        dtype="int8",
        timesteps=TIMESTEPS,
        images=BATCH,
    )
