"""Times a contender in turn with what it is compared with, and notes the ratios.

Whatever slows the machine down for a while slows down all of them, so a ratio of one round is worth
more than a ratio of two times that were taken one after the other.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture

HEAP_VARIABLES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
HEAP = "warm" if all(name in os.environ for name in HEAP_VARIABLES) else "cold"
"""Whether freed memory is kept ("warm"), so that a fresh tensor lies on pages that are mapped."""

SHORTEST_ROUND = {"cpu": 1e-3, "cuda": 20e-3}
"""The fewest seconds that a round takes; shorter calls are repeated within it, which hides the cost
of the clock, and on a GPU that of the host."""

WARM_UP_SECONDS = 0.1
MIN_ROUNDS, MAX_ROUNDS = 5, 300


def time_beside(
    benchmark: BenchmarkFixture,
    run: Callable[[], object],
    device: str,
    seconds: float,
    beside: Mapping[str, Callable[[], object]],
    calls: int = 1,
    **info: Any,
) -> None:
    """Benchmarks a call; every round runs the calls beside it first.

    Args:
        benchmark: pytest-benchmark's fixture. Its ``extra_info`` becomes a row of the record:
            ``seconds`` per call (median), ``spread`` (their interquartile range), ``rounds``, and
            for each call beside it its ``seconds``, the median ``ratio`` of a round of ``run`` to
            one of it, and that ratio's ``spread``.
        run: what is timed.
        device: ``"cpu"`` or ``"cuda"``.
        seconds: about how long all rounds take; a slow call gets ``MIN_ROUNDS`` all the same.
        beside: what it is compared with, by name.
        calls: how many calls each of these stands for, kept with the row; times are of one.
        info: kept with the row.
    """
    timed = [run, *beside.values()]
    warm_up = min(WARM_UP_SECONDS, seconds)
    each = [_launches(call, device, warm_up) for call in timed]
    rounds_of = [
        _round(call, launches, device) for call, (launches, _) in zip(timed, each, strict=True)
    ]
    a_round = sum(launches * took for launches, took in each)
    rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, math.ceil(seconds / a_round)))
    others: list[list[float]] = [[] for _ in beside]

    def run_others() -> None:
        for a_round_of, times in zip(rounds_of[1:], others, strict=True):
            start = time.perf_counter()
            a_round_of()
            times.append(time.perf_counter() - start)

    benchmark.extra_info.update(info, device=device, calls=calls)
    benchmark.pedantic(rounds_of[0], setup=run_others, rounds=rounds)
    if benchmark.stats is None:
        return
    own = [took / each[0][0] / calls for took in benchmark.stats.stats.data]
    row: dict[str, Any] = {
        "seconds": statistics.median(own),
        "spread": spread(own),
        "rounds": len(own),
        "beside": {},
    }
    for name, times, (launches, _) in zip(beside, others, each[1:], strict=True):
        other = [took / launches / calls for took in times]
        ratios = [a / b for a, b in zip(own, other, strict=True)]
        row["beside"][name] = {
            "seconds": statistics.median(other),
            "ratio": statistics.median(ratios),
            "spread": spread(ratios),
        }
    benchmark.extra_info.update(row)


def spread(values: Sequence[float]) -> float:
    """The interquartile range of values; 0 for a single value.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    2.0
    """
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def _launches(call: Callable[[], object], device: str, warm_up: float) -> tuple[int, float]:
    """How often a round makes a call, and about how many seconds one call takes."""
    once = _round(call, 1, device)
    once()
    start = time.perf_counter()
    while True:
        before = time.perf_counter()
        once()
        after = time.perf_counter()
        if after - start > warm_up:
            break
    took = after - before
    return max(1, math.ceil(SHORTEST_ROUND[device] / took)), took


def _round(call: Callable[[], object], launches: int, device: str) -> Callable[[], None]:
    def run() -> None:
        for _ in range(launches):
            call()
        if device == "cuda":
            torch.cuda.synchronize()

    return run
