"""SpikingJelly's FlexSN with the SNM rule as its core: one Triton launch on a GPU."""

import torch
from spikingjelly.activation_based.neuron import FlexSN
from torch import Tensor

from snm.bench.workload import Inputs


def core(x: Tensor, v: Tensor, m: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the rule; the memory m counts spikes in the drive's dtype."""
    u = v + x
    positive = u >= theta
    negative = (u <= -theta) & (m > 0.0)
    s = positive.to(x.dtype) - negative.to(x.dtype)
    amplitude = s * theta
    return amplitude, u - amplitude, m + s


class Peer:
    """Runs FlexSN, whose threshold is a scalar or as large as a time step, batch included."""

    def __init__(self, inputs: Inputs, compiled: bool) -> None:
        self.drive = inputs.drive
        theta = inputs.threshold.expand(self.drive.shape[1:]).contiguous()
        self.neuron = FlexSN(core, num_states=2, static_inputs=(theta,), step_mode="m")
        self.run = torch.compile(self.neuron) if compiled else self.neuron
        self.compiled = compiled

    @torch.no_grad()
    def __call__(self) -> Tensor:
        self.neuron.reset()
        return self.run(self.drive)

    @property
    def implementation(self) -> str:
        # FlexSN has no public word for it, and falls back in silence.
        lowered = "eager" if self.neuron._triton_handle is None else "triton"
        return "torch.compile" if self.compiled else lowered
