"""The neuron as in the code published with the paper: one eager call per step, a float memory."""

import torch
from torch import Tensor

from snm.bench.workload import Inputs
from snm.demo.step_by_step import StepByStepSNM


class Peer:
    """Runs ``snm.demo.step_by_step.StepByStepSNM`` over all time steps; results are not stacked."""

    implementation = "eager"

    def __init__(self, inputs: Inputs, compiled: bool) -> None:
        assert not compiled
        self.drive, threshold, _ = inputs
        self.neuron = StepByStepSNM(threshold)

    @torch.no_grad()
    def __call__(self) -> list[Tensor]:
        self.neuron.reset()
        return [self.neuron(drive) for drive in self.drive]
