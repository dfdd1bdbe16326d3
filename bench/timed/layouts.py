"""Times layouts, parameters and residuals, float32, each in turn with the plain case.

Bytes are those that have to be moved per neuron and step. A share of 1 means that a case takes the
plain case's time per byte.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from snm.bench.scale import Scale
from snm.bench.timing import time_beside
from snm.bench.workload import Workload, inputs_of
from snm_kernels import snm

PLAIN = "plain: contiguous, θ per neuron"


class Case(NamedTuple):
    """A layer, and how many bytes it has to move per neuron and step."""

    workload: Workload
    contender: str
    bytes_moved: float

    def __str__(self) -> str:
        return f"{self.contender} {self.workload}"


def cases(device: str, scale: Scale) -> list[Case]:
    workload = Workload(device, features=scale.features)
    drive_once = 4 / workload.timesteps
    moved = {
        PLAIN: 8,
        "channels_last": 8,
        "θ per channel": 8,
        "channels_last, θ per channel": 8,
        "bias": 8,
        "residual": 12,
        "constant drive": 4 + drive_once,
    }
    return [Case(workload, name, bytes_moved) for name, bytes_moved in moved.items()]


@lru_cache(maxsize=1)
def calls(workload: Workload) -> dict[str, Callable[[], object]]:
    """Every case as a call, by its name."""
    drive, threshold, out = inputs_of(workload)
    in_last, out_last = _channels_last(drive), _channels_last(out)
    per_channel = threshold[:, :1, :1].contiguous()
    bias = threshold.new_full(threshold.shape, 0.125)
    constant = drive[:1].expand_as(drive)
    return {
        PLAIN: partial(snm, drive, threshold, out=out),
        "channels_last": partial(snm, in_last, threshold, out=out_last),
        "θ per channel": partial(snm, drive, per_channel, out=out),
        "channels_last, θ per channel": partial(snm, in_last, per_channel, out=out_last),
        "bias": partial(snm, drive, threshold, bias=bias, out=out),
        "residual": partial(snm, drive, threshold, residual=drive.flip(0), out=out),
        "constant drive": partial(snm, constant, threshold, out=out),
    }


def _channels_last(steps: Tensor) -> Tensor:
    return steps.movedim(2, -1).contiguous().movedim(-1, 2)


def test_layout(benchmark: BenchmarkFixture, case: Case, scale: Scale) -> None:
    workload, contender, bytes_moved = case
    known = calls(workload)
    time_beside(
        benchmark,
        known[contender],
        workload.device,
        scale.seconds[workload.device],
        {PLAIN: known[PLAIN]} if contender != PLAIN else {},
        suite="layouts",
        contender=contender,
        yardstick=PLAIN,
        bytes_per_neuron_step=bytes_moved,
        **workload.info(),
    )
