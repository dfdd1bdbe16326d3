"""The op at its usual size, T = 32 and 2²⁰ neurons: every dtype, and everything it can send.

``copy_`` of the drive is the yardstick of bandwidth, and ``sum`` of it, as float32, that of a
kernel which only reads. A kernel whose stores go past the caches can be faster than ``copy_``,
which reads every line before it writes it.
"""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.scale import Scale
from snm.bench.timing import time_beside
from snm.bench.workload import Workload, inputs_of
from snm_kernels import backends, snm

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BACKENDS = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}
EMITS = ("amplitude", "spike", "none")
COPY, READ = "copy_", "sum, a pure read"


class Case(NamedTuple):
    """The op on a backend, or a yardstick, which moves the same bytes."""

    workload: Workload
    contender: str
    emit: str
    backend: str = ""

    def __str__(self) -> str:
        return " ".join((self.contender, self.backend, str(self.workload))).strip()


def cases(device: str, scale: Scale) -> list[Case]:
    found = []
    for dtype in DTYPES:
        workload = Workload(device, dtype, features=scale.features)
        found += [Case(workload, COPY, "amplitude"), Case(workload, READ, "none")]
        found += [
            Case(workload, f"snm, {emit}", emit, backend)
            for backend in BACKENDS[device]
            for emit in EMITS
        ]
    return found


def test_neuron(benchmark: BenchmarkFixture, case: Case, scale: Scale) -> None:
    workload, contender, emit, backend = case
    if backend and not (status := backends()[backend]).available:
        pytest.skip(f"backend {backend}: {status.reason}")
    drive, threshold, out = inputs_of(workload)
    out_of = {"amplitude": out, "spike": torch.zeros_like(drive, dtype=torch.int8), "none": None}
    sent_bytes = {"amplitude": drive.itemsize, "spike": 1, "none": 0}
    yardsticks = {COPY: partial(out.copy_, drive), READ: drive.view(torch.float32).sum}
    run = yardsticks.get(contender) or partial(
        snm, drive, threshold, emit=emit, out=out_of[emit], backend=backend
    )
    time_beside(
        benchmark,
        run,
        workload.device,
        scale.seconds[workload.device],
        {name: call for name, call in yardsticks.items() if name != contender},
        suite="op",
        contender=contender,
        backend=backend,
        yardstick=READ if emit == "none" else COPY,
        bytes_per_neuron_step=drive.itemsize + sent_bytes[emit],
        **workload.info(),
    )
