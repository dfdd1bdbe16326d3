"""Times the op from few time steps to many, and from a layer in the cache to one of 2²⁴ neurons,
float32, in turn with ``copy_`` of its own drive; on a GPU kernels alone, see rotation.py."""

from functools import partial
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.rotation import in_turn, sets_of
from snm.bench.scale import Scale
from snm.bench.timed.neuron import COPY, copy, neuron
from snm.bench.timing import time_beside
from snm.bench.workload import Workload
from snm_kernels import backends

BACKENDS = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}


class Case(NamedTuple):
    """A size of layer, and the backend that runs it."""

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
    time_beside(
        benchmark,
        in_turn(workload, partial(neuron, "amplitude", backend)),
        workload.device,
        scale.seconds[workload.device],
        {COPY: in_turn(workload, copy)},
        calls=len(sets_of(workload)),
        suite="sweep",
        contender="snm, amplitude",
        backend=backend,
        yardstick=COPY,
        bytes_per_neuron_step=2 * workload.dtype.itemsize,
        **workload.info(),
    )
