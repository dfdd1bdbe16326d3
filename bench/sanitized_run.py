"""Runs each GPU backend on small, ragged sizes with every emit, for compute-sanitizer to watch.

CUDA takes every run; Triton, which takes seconds to compile for each, those that differ most.
"""

from itertools import product

import torch
from torch import Tensor

from snm_kernels import adaptive_running_max_pool, preset, running_max_pool, snm

SHAPES = ((3, 5, 7, 11), (2, 6, 16, 16))
DTYPES = (torch.float32, torch.bfloat16)
RULES = ("snm", "burst")
ON_TRITON = (
    (torch.float32, "snm", "amplitude"),
    (torch.float32, "burst", "none"),
    (torch.bfloat16, "burst", "spike"),
)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape, dtype, name, emit in product(SHAPES, DTYPES, RULES, ("amplitude", "spike", "none")):
        drive = torch.randn(9, *shape, generator=generator).to(dtype)
        threshold = torch.rand(shape[1:], generator=generator) + 0.5
        rule = preset(name)
        expected = snm(drive, threshold, rule=rule, emit=emit)
        on_triton = shape == SHAPES[0] and (dtype, name, emit) in ON_TRITON
        for backend in backends(on_triton):
            run = snm(drive.cuda(), threshold.cuda(), rule=rule, emit=emit, backend=backend)
            assert torch.equal(run.state.v.cpu(), expected.state.v)
            assert torch.equal(run.state.m.cpu(), expected.state.m)
            if expected.spikes is not None:
                assert torch.equal(run.spikes.cpu(), expected.spikes)
    for shape in SHAPES:
        spikes = torch.randint(-1, 2, (9, *shape), generator=generator, dtype=torch.int8)
        theta = torch.rand(shape[1:], generator=generator) + 0.5
        first = shape == SHAPES[0]
        for x, threshold in ((spikes, theta[:, :1, :1]), (spikes, theta), (spikes.float(), None)):
            check_pooling(x, threshold, on_triton=first and threshold is theta)
    print("every run equals the CPU's")


def backends(on_triton: bool) -> tuple[str, ...]:
    return ("cuda", "triton") if on_triton else ("cuda",)


def check_pooling(x: Tensor, threshold: Tensor | None, on_triton: bool) -> None:
    """Runs poolings with windows of 4, 9 and many values on each backend."""
    there = None if threshold is None else threshold.cuda()
    for pool, *windows in (
        (running_max_pool, 2),
        (running_max_pool, 3, 2, 1),
        (adaptive_running_max_pool, (2, 3)),
    ):
        expected = pool(x, *windows, threshold=threshold)
        for backend in backends(on_triton):
            run = pool(x.cuda(), *windows, threshold=there, backend=backend)
            assert torch.equal(run.spikes.cpu(), expected.spikes)
            assert torch.equal(run.total.cpu(), expected.total)


if __name__ == "__main__":
    main()
