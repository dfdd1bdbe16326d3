"""Times one call and notes what it did."""

import os
from collections.abc import Callable
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture

HEAP_VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
HEAP = "warm heap" if all(name in os.environ for name in HEAP_VARIABLES) else "cold heap"
"""Whether memory that is freed is kept: a fresh tensor then lies on pages that are mapped."""

LAUNCHES = 20
"""Calls per synchronisation on a GPU, so that the host's share of a call is hidden."""

WARM_UPS = 2


def time_call(
    benchmark: BenchmarkFixture, run: Callable[[], object], device: str, **info: Any
) -> float | None:
    """Benchmarks a call on a device.

    Args:
        benchmark: pytest-benchmark's fixture.
        run: what to time.
        device: ``"cpu"`` or ``"cuda"``; on the latter a round is ``LAUNCHES`` calls and one
            synchronisation.
        info: kept with the result.

    Returns:
        The median of a call in seconds; None if benchmarks are disabled.
    """
    launches = LAUNCHES if device == "cuda" else 1

    def launch() -> None:
        for _ in range(launches):
            run()
        torch.cuda.synchronize()

    timed = launch if device == "cuda" else run
    for _ in range(WARM_UPS):
        timed()
    benchmark.extra_info.update(info, device=device, launches=launches)
    benchmark(timed)
    if benchmark.stats is None:
        return None
    seconds: float = benchmark.stats.stats.median / launches
    benchmark.extra_info["seconds"] = seconds
    return seconds
