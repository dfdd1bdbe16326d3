"""Simulates as the code published with the paper does: step by step, layer by layer, in eager mode.

The demo and the benchmarks compare with it. The neuron keeps its memory as a float sum of
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
            finite number, as 0·inf is NaN.
        float_memory: whether to keep the memory as published, as a float sum of thresholds, which
            drifts; if not, spikes are counted.

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
        """Forgets the membrane and the memory."""
        self.membrane: Tensor | None = None
        self.memory: Tensor | None = None

    def forward(self, drive: Tensor) -> Tensor:
        """The amplitudes ``[B, ...]`` that the drive ``[B, ...]`` of the next time step causes."""
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
        model: a network in eval mode whose ReLUs are :class:`torch.nn.ReLU` modules, each of them
            called once; it is copied.
        thresholds: the threshold θ of each ReLU's neurons, by the path of its module.
        float_memory: as for :class:`StepByStepSNM`.

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
        """The logits ``[B, classes]``: the mean over time of the output layer's current."""
        for neuron in self.neurons.values():
            neuron.reset()
        total = self.network(images)
        for _ in range(timesteps - 1):
            total = total + self.network(images)
        logits: Tensor = total / timesteps
        return logits
