"""The rule as this project's own plain PyTorch states it, under ``torch.compile``.

On the CPU one time step is compiled and called T times: unrolled in one graph, all steps take
longer, to compile and to run. On a GPU all are one graph, which saves launches; neither way is
measured there yet.
"""

import torch
from torch import Tensor

from snm.bench.workload import Inputs
from snm_kernels import SNM
from snm_kernels.reference import snm_reference


def all_steps(drive: Tensor, threshold: Tensor) -> Tensor:
    """Runs all time steps, unrolled in one graph."""
    sent, *_ = snm_reference(
        drive, threshold, None, None, None, None, None, rule=SNM, spikes_dtype=drive.dtype
    )
    return torch.stack(sent)


def one_step(drive: Tensor, threshold: Tensor, v: Tensor, m: Tensor, out: Tensor) -> None:
    """Runs one time step of a drive ``[B, ...]``; writes the state and what is sent in place."""
    [sent], membrane, memory, _ = snm_reference(
        drive[None], threshold, v, m, None, None, None, rule=SNM, spikes_dtype=drive.dtype
    )
    out.copy_(sent)
    v.copy_(membrane)
    m.copy_(memory)


class Peer:
    """Runs what a user gets who writes down the rule in PyTorch and compiles it."""

    def __init__(self, inputs: Inputs, compiled: bool) -> None:
        assert compiled
        self.drive, self.threshold, self.out = inputs
        self.whole = self.drive.is_cuda
        self.implementation = f"torch.compile, {'all steps' if self.whole else 'a step'}"
        self.run = torch.compile(all_steps if self.whole else one_step, fullgraph=True)
        self.v = torch.empty_like(self.drive[0])
        self.m = torch.empty_like(self.v, dtype=torch.int32)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        if self.whole:
            return self.run(self.drive, self.threshold)
        self.v.copy_((SNM.v_init * self.threshold).expand_as(self.v))
        self.m.zero_()
        for drive, out in zip(self.drive, self.out, strict=True):
            self.run(drive, self.threshold, self.v, self.m, out)
        return self.out
