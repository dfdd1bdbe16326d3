"""The paper's published way of computing: one time step of one layer after another, in eager mode.

It is what the demo and the benchmarks compare with. The neuron keeps its memory as a float sum of
thresholds, and every operation is a pass over memory of its own.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class StepByStepSNM(nn.Module):
    """A layer of signed neurons with memory that computes one time step per call.

    Args:
        threshold: θ, float32, broadcastable to a drive ``[B, ...]``; +inf becomes the largest
            finite number, for 0·inf is no number.
        float_memory: keep the memory as published, a float sum of thresholds, which drifts; else
            count spikes.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022, equations 7 to 9, in
    the order of operations of the code published with it.

    >>> neuron = StepByStepSNM(torch.tensor(1.0))
    >>> [neuron(torch.tensor([drive])).item() for drive in (0.6, 0.6, -1.5)]
    [0.0, 1.0, -1.0]
    """

    def __init__(self, threshold: Tensor, *, float_memory: bool = True) -> None:
        super().__init__()
        self.float_memory = float_memory
        self.register_buffer("threshold", threshold.clamp(max=torch.finfo(torch.float32).max))
        self.threshold: Tensor
        self.reset()

    def reset(self) -> None:
        """Forgets membrane and memory."""
        self.membrane: Tensor | None = None
        self.memory: Tensor | None = None

    def forward(self, drive: Tensor) -> Tensor:
        """Amplitudes ``[B, ...]`` that a drive ``[B, ...]`` of the next time step causes."""
        if self.membrane is None or self.memory is None:
            self.membrane = torch.zeros_like(drive)
            self.memory = torch.zeros_like(drive)
        self.membrane = self.membrane + drive
        positive = (self.membrane >= self.threshold).to(drive.dtype)
        sent = positive * self.threshold
        self.membrane = self.membrane - sent
        self.memory = self.memory + (sent if self.float_memory else positive)
        negative = ((self.membrane <= -self.threshold) & (self.memory > 0)).to(drive.dtype)
        taken_back = negative * self.threshold
        self.membrane = self.membrane + taken_back
        self.memory = self.memory - (taken_back if self.float_memory else negative)
        return sent - taken_back


class StepByStepNetwork:
    """A network that runs the published way: all layers at one time step, then at the next.

    Args:
        model: a network in eval mode whose neurons are :class:`torch.nn.ReLU` modules, each called
            once; it is copied.
        thresholds: θ of each, by module path.
        float_memory: as of :class:`StepByStepSNM`.

    Raises:
        ValueError: the paths are not those of the model's ReLU modules.
    """

    def __init__(
        self, model: nn.Module, thresholds: Mapping[str, Tensor], *, float_memory: bool = True
    ) -> None:
        own = {name for name, module in model.named_modules() if isinstance(module, nn.ReLU)}
        if own != set(thresholds):
            raise ValueError(
                f"StepByStepNetwork: thresholds must be for {sorted(own)}, got {sorted(thresholds)}"
            )
        self.network = copy.deepcopy(model)
        self.neurons = {
            name: StepByStepSNM(threshold, float_memory=float_memory)
            for name, threshold in thresholds.items()
        }
        for name, neuron in self.neurons.items():
            self.network.set_submodule(name, neuron)

    @torch.no_grad()
    def __call__(self, images: Tensor, timesteps: int) -> Tensor:
        """Logits ``[B, classes]``: the mean over time of the output layer's current."""
        for neuron in self.neurons.values():
            neuron.reset()
        total = self.network(images)
        for _ in range(timesteps - 1):
            total = total + self.network(images)
        logits: Tensor = total / timesteps
        return logits
