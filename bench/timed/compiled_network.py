"""Times converted networks under torch.compile, which leaves behind what would slow others down."""

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.scale import Scale
from snm.bench.timed.network import COMPILED, Case
from snm.bench.timed.network import test_network as run_network

NETWORKS = {
    "cpu": ("SmallVGG, 28×28", "VGG-16, 32×32", "ResNet-18, 32×32"),
    "cuda": ("ResNet-18, 224×224",),
}
DTYPE = {"cpu": torch.float32, "cuda": torch.float16}


def cases(device: str, scale: Scale) -> list[Case]:
    wanted = [name for name in NETWORKS[device] if name in scale.networks[device]]
    return [Case(name, DTYPE[device], COMPILED) for name in wanted]


def test_compiled_network(
    benchmark: BenchmarkFixture, case: Case, device: str, scale: Scale
) -> None:
    run_network(benchmark, case, device, scale)
