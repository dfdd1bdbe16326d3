"""SpikingJelly's ST-BIF neuron, the ternary neuron of SpikeZIP."""

import torch
from spikingjelly.activation_based.functional import neuron_implementation
from spikingjelly.activation_based.neuron import STBIFNode
from torch import Tensor

from snm.bench.peers import ST_BIF_LEVELS
from snm.bench.workload import Inputs


class Peer:
    """Runs the rule ``st-bif`` with one threshold for all neurons."""

    def __init__(self, inputs: Inputs, compiled: bool) -> None:
        assert inputs.threshold == 1
        assert not compiled
        self.drive = inputs.drive
        self.neuron = STBIFNode(1.0, level=ST_BIF_LEVELS, step_mode="m").to(self.drive.device)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        self.neuron.reset()
        return self.neuron(self.drive)

    @property
    def implementation(self) -> str:
        return neuron_implementation("stbif", self.drive.device)["implementation"]
