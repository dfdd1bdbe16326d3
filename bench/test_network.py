"""The demo's network: converted, run the published way, and as the plain ReLU network.

All classify the same batch with T time steps; the ReLU network runs on T batches at once, which
is the work that a network without memory would have.
"""

from functools import lru_cache, partial
from itertools import product
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import snm
from snm.demo import load_images, load_network
from snm.demo.step_by_step import StepByStepNetwork
from timing import time_call

BATCH = 16
TIMESTEPS = 32
DEVICES = ("cpu", "cuda")
DTYPES = (torch.float32, torch.bfloat16)

CONVERTED = "snm"
PUBLISHED = "published step code"
RELU = f"ReLU network, {TIMESTEPS} batches at once"


class Networks(NamedTuple):
    """A network in both forms, and a batch for it."""

    model: nn.Module
    net: snm.SpikingNetwork
    images: Tensor


@lru_cache(maxsize=1)
@torch.no_grad()
def networks(device: str, dtype: torch.dtype) -> Networks:
    """The demo's network and its conversion, in the layout in which devices convolve fastest."""
    shown = load_images()
    layout = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
    model = load_network().to(**layout)
    calibration = [batch.to(**layout) for batch in shown.calibration_images.split(100)]
    net = snm.convert(model, calibration, preset="snm", norm="neuron")
    return Networks(model, net, shown.test_images[:BATCH].to(**layout))


def time_network(
    benchmark: BenchmarkFixture, contender: str, device: str, dtype: torch.dtype
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    model, net, images = networks(device, dtype)
    if contender == CONVERTED:
        run = partial(net, images, timesteps=TIMESTEPS)
    elif contender == PUBLISHED:
        thresholds = {path: neuron.threshold for path, neuron in net.layers.items()}
        run = partial(StepByStepNetwork(model, thresholds), images, TIMESTEPS)
    else:
        repeated = images.repeat(TIMESTEPS, 1, 1, 1).contiguous(memory_format=torch.channels_last)
        run = partial(model, repeated)
    shown = str(dtype).removeprefix("torch.")
    benchmark.group = f"network-{device}-{shown}"
    with torch.no_grad():
        time_call(
            benchmark,
            run,
            device,
            suite="network",
            contender=contender,
            dtype=shown,
            timesteps=TIMESTEPS,
            images=BATCH,
        )


@pytest.mark.parametrize("contender", [CONVERTED, RELU])
@pytest.mark.parametrize(("device", "dtype"), [*product(DEVICES, DTYPES)], ids=str)
def test_network(
    benchmark: BenchmarkFixture, contender: str, device: str, dtype: torch.dtype
) -> None:
    time_network(benchmark, contender, device, dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_published(benchmark: BenchmarkFixture, device: str) -> None:
    time_network(benchmark, PUBLISHED, device, torch.float32)
