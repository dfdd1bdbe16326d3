"""The rule as this project's own plain PyTorch states it, under ``torch.compile``."""

import torch
from torch import Tensor

from snm.bench.workload import Inputs
from snm_kernels import SNM
from snm_kernels.reference import snm_reference


def run(drive: Tensor, threshold: Tensor) -> Tensor:
    """All time steps, unrolled."""
    sent, _, _ = snm_reference(
        drive, threshold, None, None, None, None, rule=SNM, spikes_dtype=drive.dtype
    )
    return torch.stack(sent)


class Peer:
    """What a user gets who writes the rule down and compiles it."""

    implementation = "torch.compile"

    def __init__(self, inputs: Inputs, compiled: bool) -> None:
        assert compiled
        self.drive, self.threshold, _ = inputs
        self.run = torch.compile(run, fullgraph=True)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        return self.run(self.drive, self.threshold)
