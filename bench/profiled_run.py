"""Launches each main kernel once, for ncu to look into, with 2²² neurons over 32 time steps."""

from itertools import product

import torch

from snm.bench.workload import Workload, inputs_of
from snm_kernels import snm

BACKENDS = ("cuda", "triton")
KERNELS = (
    (torch.float32, "amplitude"),
    (torch.bfloat16, "amplitude"),
    (torch.float32, "spike"),
)


def main() -> None:
    for backend, (dtype, emit) in product(BACKENDS, KERNELS):
        workload = Workload("cuda", dtype, batch=1, features=(2**22,))
        drive, threshold, _ = inputs_of(workload)
        snm(drive, threshold, emit=emit, backend=backend)
        torch.cuda.synchronize()
        print(f"{backend}, {workload}, {emit}")


if __name__ == "__main__":
    main()
