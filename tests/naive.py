"""The slow way to simulate a model: step it through time, a neuron for every ReLU it calls."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from snm_kernels import SNMRule

RELUS = (F.relu, torch.relu, Tensor.relu)
RELUS_IN_PLACE = (torch.relu_, Tensor.relu_)


class ReplaceReLUs(TorchFunctionMode):
    """Calls ``replacement(k, drive)`` for the k-th ReLU that a forward calls, from 0."""

    def __init__(self, replacement: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.replacement = replacement
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in RELUS + RELUS_IN_PLACE:
            return func(*args, **kwargs)
        drive = args[0] if args else kwargs["input"]
        result = self.replacement(self.calls, drive)
        self.calls += 1
        in_place = func in RELUS_IN_PLACE or kwargs.get("inplace") or (func is F.relu and args[1:])
        return drive.copy_(result) if in_place else result


class Neurons:
    """A layer of neurons, one step at a time; keeps what it sent."""

    def __init__(self, threshold: Tensor, rule: SNMRule) -> None:
        self.threshold, self.rule = threshold, rule
        self.v: Tensor | None = None
        self.m: Tensor | None = None
        self.spikes: list[Tensor] = []

    def __call__(self, drive: Tensor) -> Tensor:
        theta = self.threshold.to(drive.dtype).expand_as(drive)
        silent = theta.isinf()
        low, high = self.rule.count_bounds
        if self.v is None or self.m is None:
            self.v = torch.where(silent, 0.0, self.rule.v_init * theta)
            self.m = torch.zeros_like(drive, dtype=torch.int64)
        u = self.v + drive
        fires = (u >= theta) & (self.m < high) & ~silent
        s = torch.where(fires, torch.floor(u / theta), 0.0).clamp(max=self.rule.max_spikes)
        s = torch.minimum(s.to(torch.int64), high - self.m)
        if self.rule.negative_threshold is not None:
            lower = -self.rule.negative_threshold * theta
            below = u < lower if self.rule.strict else u <= lower
            s = torch.where(~fires & below & (self.m > low) & ~silent, -1, s)
        amplitude = torch.where(silent, 0.0, s * theta)
        self.v, self.m = u - amplitude, self.m + s
        self.spikes.append(s)
        return amplitude


class Simulated(NamedTuple):
    """What every time step gave."""

    currents: Tensor
    """The output layer's current ``[T, B, classes]``."""
    neurons: list[Neurons]
    """In the order in which the model calls its ReLUs."""


def naive_thresholds(model: nn.Module, calibration: Tensor, norm: str) -> list[Tensor]:
    """Each ReLU call's largest activation; +inf where it is 0."""
    found: list[Tensor] = []

    def record(k: int, drive: Tensor) -> Tensor:
        activation = drive.clamp(min=0)
        dims = {"neuron": [0], "channel": [0, *range(2, drive.dim())], "layer": None}[norm]
        largest = activation.amax() if dims is None else activation.amax(dims, keepdim=True)
        assert k == len(found)
        found.append(torch.where(largest > 0, largest, torch.inf))
        return activation

    with ReplaceReLUs(record):
        model(calibration.clone())
    return found


@torch.no_grad()
def simulate_naively(
    model: nn.Module, images: Tensor, thresholds: list[Tensor], rule: SNMRule, timesteps: int
) -> Simulated:
    """Runs the model itself once per time step, a spiking neuron in the place of each ReLU."""
    neurons = [Neurons(threshold, rule) for threshold in thresholds]
    currents = []
    for _ in range(timesteps):
        with ReplaceReLUs(lambda k, drive: neurons[k](drive)):
            currents.append(model(images.clone()))
    return Simulated(torch.stack(currents), neurons)
