"""SpikingJelly's integrate-and-fire neuron, multi-step, reset by subtraction."""

import torch
from spikingjelly.activation_based.functional import neuron_implementation
from spikingjelly.activation_based.neuron import IFNode
from torch import Tensor

from snm.bench.workload import Inputs


class Peer:
    """Runs the rule ``if`` with one threshold for all neurons; its spikes are ones."""

    def __init__(self, inputs: Inputs, compiled: bool) -> None:
        assert inputs.threshold == 1
        self.drive = inputs.drive
        self.neuron = IFNode(v_threshold=1.0, v_reset=None, step_mode="m")
        self.run = torch.compile(self.neuron) if compiled else self.neuron
        self.execution = "compile" if compiled else "eager"

    @torch.no_grad()
    def __call__(self) -> Tensor:
        self.neuron.reset()
        return self.run(self.drive)

    @property
    def implementation(self) -> str:
        found = neuron_implementation("if", self.drive.device, execution=self.execution)
        return f"{self.execution}, {found['implementation']}"
