"""Times whole networks: converted, quantized, run the published way, converted by SpikingJelly,
unchanged.

All classify the same batch with T time steps, in turn with the ReLU network on T batches at once,
which is the work that a network without memory would have, and with the converted network. All are
channels_last; on the CPU, where that is not always the faster format, all but snm run contiguous as
well. The network of integers is compared in float32. Contenders under torch.compile have a process
of their own, compiled_network.py.
"""

import copy
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import snm
from snm.bench.models import MODELS, NEED_TORCHVISION, Model
from snm.bench.peers import missing
from snm.bench.scale import Scale
from snm.bench.tables import CONTIGUOUS
from snm.bench.timing import time_beside
from snm.demo.step_by_step import StepByStepNetwork

TIMESTEPS = 32
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float16, torch.bfloat16)}

OURS = "snm"
INTEGERS = "snm, integers"
CAPTURED = "snm, captured in a CUDA graph"
COMPILED = "snm, torch.compile"
RELU = f"ReLU network, {TIMESTEPS} batches at once"
PUBLISHED = "published step code"
SPIKINGJELLY = "SpikingJelly, converted, multi-step"


class Case(NamedTuple):
    """A network, and the contender that runs it."""

    network: str
    dtype: torch.dtype
    contender: str

    def __str__(self) -> str:
        return f"{self.contender}, {self.network}, {self.dtype}"


def cases(device: str, scale: Scale) -> list[Case]:
    """All networks and contenders; the published code takes only float32 and ReLUs called once."""
    ours = [OURS, *([CAPTURED] if device == "cuda" else [])]
    formats = ("", CONTIGUOUS) if device == "cpu" else ("",)
    found = []
    for network in scale.networks[device]:
        single = [INTEGERS] if torch.float32 in DTYPES[device] else [OURS, RELU, INTEGERS]
        found += [Case(network, torch.float32, contender) for contender in single]
        for dtype in DTYPES[device]:
            others = [RELU, SPIKINGJELLY]
            if dtype == torch.float32 and "ResNet" not in network:
                others.append(PUBLISHED)
            theirs = [other + suffix for other in others for suffix in formats]
            found += [Case(network, dtype, contender) for contender in (*ours, *theirs)]
    return found


@lru_cache(maxsize=1)
@torch.no_grad()
def prepared(name: str, device: str, dtype: torch.dtype) -> tuple[Model, snm.SpikingNetwork]:
    """A model on a device, and the spiking network that it is converted to."""
    torch.manual_seed(0)
    layout = {"device": device, "dtype": dtype, "memory_format": torch.channels_last}
    network, calibration, images = (part.to(**layout) for part in MODELS[name]())
    model = Model(network.requires_grad_(False), calibration, images)
    batches = [batch.to(**layout) for batch in calibration.split(64)]
    return model, snm.convert(network, batches, preset="snm", norm="neuron")


def quantized(model: Model) -> tuple[snm.SpikingNetwork, snm.SpikingNetwork]:
    """A spiking network with thresholds for channels, and the network of integers made of it."""
    net = snm.convert(model.network, model.calibration, preset="snm-zero", norm="channel")
    return net, snm.quantize(net, model.calibration)


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


def contiguous(model: Model) -> Model:
    """A model in torch's usual memory format."""
    layout = {"memory_format": torch.contiguous_format}
    return Model(copy.deepcopy(model.network).to(**layout), *(x.to(**layout) for x in model[1:]))


def build(contender: str, model: Model, net: snm.SpikingNetwork) -> Callable[[], Tensor]:
    """The call that is timed."""
    if contender.endswith(CONTIGUOUS):
        return build(contender.removesuffix(CONTIGUOUS), contiguous(model), net)
    if contender == OURS:
        return partial(net, model.images, timesteps=TIMESTEPS)
    if contender == INTEGERS:
        # Made on the CPU, so that every device has the same network.
        network = copy.deepcopy(model.network).cpu()
        _, integers = quantized(
            model._replace(network=network, calibration=model.calibration.cpu())
        )
        return partial(integers.to(model.images.device), model.images, timesteps=TIMESTEPS)
    if contender == CAPTURED:
        return partial(net.capture(model.images, timesteps=TIMESTEPS), model.images)
    if contender == COMPILED:
        return partial(torch.compile(net), model.images, timesteps=TIMESTEPS)
    if contender == PUBLISHED:
        thresholds = {path: neuron.threshold for path, neuron in net.layers.items()}
        return partial(StepByStepNetwork(model.network, thresholds), model.images, TIMESTEPS)
    if contender == SPIKINGJELLY:
        return SpikingJelly(model)
    images = model.images.repeat(TIMESTEPS, 1, 1, 1)
    last = model.images.is_contiguous(memory_format=torch.channels_last)
    format_ = torch.channels_last if last else torch.contiguous_format
    return partial(model.network, images.contiguous(memory_format=format_))


@torch.no_grad()
def test_network(benchmark: BenchmarkFixture, case: Case, device: str, scale: Scale) -> None:
    needed = ["spikingjelly", "loguru"] if case.contender.startswith(SPIKINGJELLY) else []
    needed += ["torchvision"] if case.network in NEED_TORCHVISION else []
    if reason := missing(*needed):
        pytest.skip(reason)
    model, net = prepared(case.network, device, case.dtype)
    compared = [name for name in (RELU, OURS) if RELU != case.contender != name]
    time_beside(
        benchmark,
        build(case.contender, model, net),
        device,
        scale.seconds[device],
        {name: build(name, model, net) for name in compared},
        suite="network",
        network=case.network,
        contender=case.contender,
        yardstick=RELU,
        dtype=str(case.dtype).removeprefix("torch."),
        timesteps=TIMESTEPS,
        images=len(model.images),
    )
