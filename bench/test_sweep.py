"""From few time steps to many and from a layer in the cache to one of 2²⁴ neurons, float32: the op
in turn with ``copy_`` of its own drive."""

from functools import partial
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.scale import Scale
from snm.bench.timing import time_beside
from snm.bench.workload import Workload, inputs_of
from snm_kernels import backends, snm

BACKENDS = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}


class Case(NamedTuple):
    """A size, and a backend."""

    workload: Workload
    backend: str

    def __str__(self) -> str:
        return f"{self.backend} {self.workload}"


def cases(device: str, scale: Scale) -> list[Case]:
    return [
        Case(Workload(device, timesteps=timesteps, batch=1, features=(neurons,)), backend)
        for timesteps, neurons in scale.points()
        for backend in BACKENDS[device]
    ]


def test_sweep(benchmark: BenchmarkFixture, case: Case, scale: Scale) -> None:
    workload, backend = case
    if not (status := backends()[backend]).available:
        pytest.skip(f"backend {backend}: {status.reason}")
    drive, threshold, out = inputs_of(workload)
    time_beside(
        benchmark,
        partial(snm, drive, threshold, out=out, backend=backend),
        workload.device,
        scale.seconds[workload.device],
        {"copy_": partial(out.copy_, drive)},
        suite="sweep",
        contender="snm, amplitude",
        backend=backend,
        yardstick="copy_",
        bytes_per_neuron_step=2 * drive.itemsize,
        **workload.info(),
    )
