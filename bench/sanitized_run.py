"""A small run of each GPU backend, for compute-sanitizer to watch: ragged sizes, every emit."""

from itertools import product

import torch

from snm_kernels import preset, snm

BACKENDS = ("cuda", "triton")
SHAPES = ((3, 5, 7, 11), (2, 6, 16, 16))
DTYPES = (torch.float32, torch.bfloat16)
RULES = ("snm", "burst")


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape, dtype, name, emit in product(SHAPES, DTYPES, RULES, ("amplitude", "spike", "none")):
        drive = torch.randn(9, *shape, generator=generator).to(dtype)
        threshold = torch.rand(shape[1:], generator=generator) + 0.5
        rule = preset(name)
        expected = snm(drive, threshold, rule=rule, emit=emit)
        for backend in BACKENDS:
            run = snm(drive.cuda(), threshold.cuda(), rule=rule, emit=emit, backend=backend)
            assert torch.equal(run.state.v.cpu(), expected.state.v)
            assert torch.equal(run.state.m.cpu(), expected.state.m)
            if expected.spikes is not None:
                assert torch.equal(run.spikes.cpu(), expected.spikes)
    print("every run equals the CPU's")


if __name__ == "__main__":
    main()
