"""Times the op at its usual size, T = 32 and 2²⁰ neurons, in every dtype and with every emit.

On a GPU the variants of docs/gpu.md at other sizes too, and kernels alone, see rotation.py.

``copy_`` of the drive is the yardstick of bandwidth, and ``sum`` of it, as float32, that of a
kernel which only reads. A kernel whose stores go past the caches can be faster than ``copy_``,
which reads every line before it writes it.
"""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.rotation import Call, in_turn, sets_of
from snm.bench.scale import Scale
from snm.bench.timing import time_beside
from snm.bench.workload import Inputs, Workload
from snm_kernels import backends, snm

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BACKENDS = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}
EMITS = ("amplitude", "spike", "none")
COPY, READ = "copy_", "sum, a pure read"
ELSEWHERE = {
    torch.float32: EMITS,
    torch.bfloat16: ("amplitude",),
    torch.float16: ("spike", "none"),
}
"""What is sent, by dtype, in the runs at other sizes than the usual one."""


class Case(NamedTuple):
    """The op on a backend, or a yardstick that moves the same bytes."""

    workload: Workload
    contender: str
    emit: str
    backend: str = ""

    def __str__(self) -> str:
        return " ".join((self.contender, self.backend, str(self.workload))).strip()


def cases(device: str, scale: Scale) -> list[Case]:
    found = []
    for dtype in DTYPES:
        found += _cases_of(Workload(device, dtype, features=scale.features), EMITS)
    for timesteps, neurons in scale.layers[device]:
        for dtype, emits in ELSEWHERE.items():
            found += _cases_of(Workload(device, dtype, timesteps, 1, (neurons,)), emits)
    return found


def _cases_of(workload: Workload, emits: tuple[str, ...]) -> list[Case]:
    return [
        Case(workload, COPY, "amplitude"),
        Case(workload, READ, "none"),
        *(
            Case(workload, f"snm, {emit}", emit, backend)
            for backend in BACKENDS[workload.device]
            for emit in emits
        ),
    ]


def test_neuron(benchmark: BenchmarkFixture, case: Case, scale: Scale) -> None:
    workload, contender, emit, backend = case
    if backend and not (status := backends()[backend]).available:
        pytest.skip(f"backend {backend}: {status.reason}")
    yardsticks = {COPY: copy, READ: read}
    compared = yardsticks if workload.device == "cpu" else [READ if emit == "none" else COPY]
    sent_bytes = {"amplitude": workload.dtype.itemsize, "spike": 1, "none": 0}
    time_beside(
        benchmark,
        in_turn(workload, yardsticks.get(contender) or partial(neuron, emit, backend)),
        workload.device,
        scale.seconds[workload.device],
        {name: in_turn(workload, yardsticks[name]) for name in compared if name != contender},
        calls=len(sets_of(workload)),
        suite="op",
        contender=contender,
        backend=backend,
        yardstick=READ if emit == "none" else COPY,
        bytes_per_neuron_step=workload.dtype.itemsize + sent_bytes[emit],
        **workload.info(),
    )


def copy(inputs: Inputs) -> Call:
    return partial(inputs.out.copy_, inputs.drive)


def read(inputs: Inputs) -> Call:
    return inputs.drive.view(torch.float32).sum


def neuron(emit: str, backend: str, inputs: Inputs) -> Call:
    drive, threshold, out = inputs
    out_of = {"amplitude": out, "spike": torch.zeros_like(drive, dtype=torch.int8), "none": None}
    return partial(snm, drive, threshold, emit=emit, out=out_of[emit], backend=backend)
