"""Times converted networks on a GPU, with chunks of time steps of several sizes.

Chunks that fit into the second-level cache leave each layer's drive and spikes there for the next;
larger ones need fewer launches, which a CUDA graph makes cheap.
"""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.models import NEED_TORCHVISION
from snm.bench.peers import missing
from snm.bench.scale import Scale
from snm.bench.timed.network import CAPTURED, OURS, TIMESTEPS, build, prepared
from snm.bench.timing import time_beside

MEBIBYTES = (1024, 256, 48, 32)
NETWORKS = ("VGG-16, 32×32", "ResNet-18, 224×224")
DTYPE = torch.float16


class Case(NamedTuple):
    """A network, how it is called, and how much memory a chunk of its time steps may take."""

    network: str
    contender: str
    mebibytes: int

    def __str__(self) -> str:
        return f"{self.contender}, {self.network}, chunks of {self.mebibytes} MiB"


def cases(device: str, scale: Scale) -> list[Case]:
    return [
        Case(network, contender, mebibytes)
        for network in NETWORKS
        if network in scale.networks[device]
        for contender in (CAPTURED, OURS)
        for mebibytes in MEBIBYTES
    ]


def steps_of(bytes_of_chunk: int, bytes_per_step: int, timesteps: int) -> int:
    """How many steps the longest chunks of equal length have that fit; at least one.

    >>> [steps_of(size, 100, timesteps=32) for size in (10, 1700, 10_000)]
    [1, 16, 32]
    """
    most = max(1, bytes_of_chunk // bytes_per_step)
    return math.ceil(timesteps / math.ceil(timesteps / most))


@torch.no_grad()
def test_chunks(benchmark: BenchmarkFixture, case: Case, device: str, scale: Scale) -> None:
    network, contender, mebibytes = case
    if reason := missing(*(["torchvision"] if network in NEED_TORCHVISION else [])):
        pytest.skip(reason)
    model, net = prepared(network, device, DTYPE)
    bytes_per_step = net.program.elements_per_step * len(model.images) * DTYPE.itemsize

    def steps(mebibytes: int) -> int:
        return steps_of(mebibytes * 2**20, bytes_per_step, TIMESTEPS)

    def call(mebibytes: int) -> Callable[[], object]:
        chunked = copy.copy(net)
        chunked.chunk_steps = steps(mebibytes)
        return build(contender, model, chunked)

    largest = MEBIBYTES[0]
    time_beside(
        benchmark,
        call(mebibytes),
        device,
        scale.seconds[device],
        {} if mebibytes == largest else {f"{largest} MiB": call(largest)},
        suite="chunks",
        network=network,
        contender=contender,
        chunk_mebibytes=mebibytes,
        chunk_steps=steps(mebibytes),
        yardstick=f"{largest} MiB",
        dtype=str(DTYPE).removeprefix("torch."),
        timesteps=TIMESTEPS,
        images=len(model.images),
    )
