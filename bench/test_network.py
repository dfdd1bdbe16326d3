"""Whole networks: converted, run the published way, converted by SpikingJelly, and as they are.

All classify the same batch with T time steps; the ReLU network runs on T batches at once, which
is the work that a network without memory would have. All are channels_last.
"""

import importlib.util
from functools import lru_cache, partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import snm
from models import MODELS, Model
from snm.demo.step_by_step import StepByStepNetwork
from timing import time_call

TIMESTEPS = 32
DEVICES = ("cpu", "cuda")
DTYPES = (torch.float32, torch.bfloat16)

CONVERTED = "snm"
RELU = f"ReLU network, {TIMESTEPS} batches at once"
PUBLISHED = "published step code"
SPIKINGJELLY = "SpikingJelly, converted, multi-step"


@lru_cache(maxsize=1)
@torch.no_grad()
def prepared(name: str, device: str, dtype: torch.dtype) -> tuple[Model, snm.SpikingNetwork]:
    """A model on a device, and its conversion."""
    torch.manual_seed(0)
    layout = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
    network, calibration, images = (part.to(**layout) for part in MODELS[name]())
    model = Model(network.requires_grad_(False), calibration, images)
    batches = [batch.to(**layout) for batch in calibration.split(64)]
    return model, snm.convert(network, batches, preset="snm", norm="neuron")


class SpikingJelly(nn.Module):
    """A network that SpikingJelly's converter made: plain IF neurons, one threshold a layer."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        from spikingjelly.activation_based import ann2snn, functional

        recipe = ann2snn.RateCodingRecipe([model.calibration], mode="max")
        self.network = ann2snn.Converter(recipe).convert(model.network)
        functional.set_step_mode(self.network, "m")
        self.reset = partial(functional.reset_net, self.network)
        self.images = model.images.expand(TIMESTEPS, *model.images.shape)

    def forward(self) -> Tensor:
        self.reset()
        return self.network(self.images).mean(0)


def build(contender: str, name: str, device: str, dtype: torch.dtype) -> partial:
    """What is timed."""
    model, net = prepared(name, device, dtype)
    if contender == CONVERTED:
        return partial(net, model.images, timesteps=TIMESTEPS)
    if contender == PUBLISHED:
        thresholds = {path: neuron.threshold for path, neuron in net.layers.items()}
        return partial(StepByStepNetwork(model.network, thresholds), model.images, TIMESTEPS)
    if contender == SPIKINGJELLY:
        return partial(SpikingJelly(model))
    images = model.images.repeat(TIMESTEPS, 1, 1, 1)
    return partial(model.network, images.contiguous(memory_format=torch.channels_last))


def cases() -> list[tuple[str, str, torch.dtype]]:
    """Network, contender and dtype; the published code takes ReLUs that are called once."""
    found = []
    for name in MODELS:
        found += [(name, which, dtype) for dtype in DTYPES for which in (CONVERTED, RELU)]
        found += [(name, SPIKINGJELLY, dtype) for dtype in DTYPES]
        if "ResNet" not in name:
            found.append((name, PUBLISHED, torch.float32))
    return sorted(found, key=lambda case: (case[0], str(case[2])))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "contender", "dtype"), cases(), ids=str)
def test_network(
    benchmark: BenchmarkFixture, name: str, contender: str, dtype: torch.dtype, device: str
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    if contender == SPIKINGJELLY and importlib.util.find_spec("spikingjelly") is None:
        pytest.skip("spikingjelly not installed; see bench/README.md")
    shown = str(dtype).removeprefix("torch.")
    benchmark.group = f"{name}, {device}, {shown}"
    with torch.no_grad():
        time_call(
            benchmark,
            build(contender, name, device, dtype),
            device,
            suite="network",
            network=name,
            contender=contender,
            dtype=shown,
            timesteps=TIMESTEPS,
            images=len(prepared(name, device, dtype)[0].images),
        )
