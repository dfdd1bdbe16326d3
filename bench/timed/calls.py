"""Times what a call costs if there is nothing to compute: one neuron, one time step."""

from functools import partial

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from snm.bench.scale import Scale
from snm.bench.timing import time_beside
from snm_kernels import SNMState, snm

COPY, TRITON = "copy_", "snm, no state, Triton"


def cases(device: str, scale: Scale) -> list[str]:  # noqa: ARG001
    ours = ["snm, state given", "snm, state and output given", "snm, no state"]
    return [COPY, *ours, *([TRITON] if device == "cuda" else [])]


def test_call(benchmark: BenchmarkFixture, case: str, device: str, scale: Scale) -> None:
    x = torch.full((1, 1), 0.75, device=device)
    theta, out = torch.ones(1, device=device), torch.zeros_like(x)
    state = SNMState(torch.zeros(1, device=device), torch.zeros(1, dtype=torch.int32).to(device))
    known = {
        COPY: partial(out.copy_, x),
        "snm, state given": partial(snm, x, theta, state=state),
        "snm, state and output given": partial(snm, x, theta, state=state, out=out),
        "snm, no state": partial(snm, x, theta),
        TRITON: partial(snm, x, theta, backend="triton"),
    }
    time_beside(
        benchmark,
        known[case],
        device,
        scale.seconds[device],
        {} if case == COPY else {COPY: known[COPY]},
        suite="calls",
        contender=case,
        yardstick=COPY,
        dtype="float32",
        timesteps=1,
        neurons=1,
    )
