"""Simulates a model the slow way: step by step, with a neuron for every ReLU that it calls, and a
running maximum for every max pooling."""

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from snm_kernels import SNMRule

RELUS = (F.relu, torch.relu, Tensor.relu)
RELUS_IN_PLACE = (torch.relu_, Tensor.relu_)


# Minimum and maximum by name or position behind the drive, and what they are by default.
BOUNDED = {
    F.relu6: ((), (0.0, 6.0)),
    F.hardtanh: (("min_val", "max_val"), (-1.0, 1.0)),
    torch.clamp: (("min", "max"), (None, None)),
    Tensor.clamp: (("min", "max"), (None, None)),
}
MAX_POOLINGS = (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
)


class ReplaceReLUs(TorchFunctionMode):
    """Calls ``replacement(k, drive, cap)`` in place of the k-th ReLU that a forward calls, from 0,
    and ``pool(k, pooling, x)`` in place of the k-th max pooling."""

    def __init__(
        self,
        replacement: Callable[[int, Tensor, float], Tensor],
        pool: Callable[[int, Callable[[Tensor], Tensor], Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.replacement = replacement
        self.pool = pool
        self.calls = 0
        self.pool_calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in MAX_POOLINGS and self.pool is not None:
            self.pool_calls += 1
            rest = {name: value for name, value in kwargs.items() if name != "input"}
            x = args[0] if args else kwargs["input"]
            return self.pool(self.pool_calls - 1, lambda y: func(y, *args[1:], **rest), x)
        cap = _cap(func, args, kwargs)
        if cap is None:
            return func(*args, **kwargs)
        drive = args[0] if args else kwargs["input"]
        result = self.replacement(self.calls, drive, cap)
        self.calls += 1
        in_place = func in RELUS_IN_PLACE or kwargs.get("inplace") or (func is F.relu and args[1:])
        return drive.copy_(result) if in_place else result


def _cap(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """The upper bound of a ReLU, +inf if it has none; None for any other operation."""
    if func in RELUS + RELUS_IN_PLACE:
        return math.inf
    if func not in BOUNDED:
        return None
    names, (low, high) = BOUNDED[func]
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    if names and given.get(names[0], low) != 0:
        return None
    found = given.get(names[1], high) if names else high
    return math.inf if found is None else float(found)


class RunningMaxima:
    """Max poolings of values that change over time, computed one step at a time."""

    def __init__(self) -> None:
        self.totals: dict[int, Tensor] = {}

    def __call__(self, k: int, pooling: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        before = self.totals.get(k, torch.zeros_like(x))
        self.totals[k] = before + x
        return pooling(self.totals[k]) - pooling(before)


class Neurons:
    """A layer of neurons, run one step at a time; keeps what it sent and its state after each."""

    def __init__(self, threshold: Tensor, rule: SNMRule, start: Tensor | None = None) -> None:
        self.threshold, self.rule, self.start = threshold, rule, start
        self.v: Tensor | None = None
        self.m: Tensor | None = None
        self.spikes: list[Tensor] = []
        self.membranes: list[Tensor] = []
        self.memories: list[Tensor] = []

    def __call__(self, drive: Tensor) -> Tensor:
        theta = self.threshold.to(drive.dtype).expand_as(drive)
        silent = theta.isinf()
        low, high = self.rule.count_bounds
        if self.v is None or self.m is None:
            start = self.rule.v_init * theta if self.start is None else self.start
            self.v = torch.where(silent, 0.0, start)
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
        self.membranes.append(self.v)
        self.memories.append(self.m)
        return amplitude


class Simulated(NamedTuple):
    """What a simulation gave at every time step."""

    currents: Tensor
    """The output layer's current ``[T, B, classes]``."""
    neurons: list[Neurons]
    """The layers of neurons, in the order in which the model calls its ReLUs."""


def naive_thresholds(model: nn.Module, calibration: Tensor, norm: str) -> list[Tensor]:
    """The largest activations of each call of a ReLU; +inf where they are 0."""
    found: list[Tensor] = []

    def record(k: int, drive: Tensor, cap: float) -> Tensor:
        activation = torch.where(drive > 0, drive, 0.0)
        activation = torch.where(activation < cap, activation, cap)
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
    model: nn.Module,
    images: Tensor | Sequence[Tensor],
    thresholds: list[Tensor],
    rule: SNMRule,
    timesteps: int,
    starts: Sequence[Tensor] = (),
) -> Simulated:
    """Runs the model itself once per time step, with a spiking neuron in place of each ReLU.

    Args:
        images: images that are the same at every step; or a frame for each step.
        starts: the starting membranes of the first layers; all others start as the rule says.
    """
    neurons = [
        Neurons(threshold, rule, start) for threshold, start in zip_longest(thresholds, starts)
    ]
    pools = RunningMaxima()
    currents = []
    frames = [images] * timesteps if isinstance(images, Tensor) else images[:timesteps]
    for frame in frames:
        with ReplaceReLUs(lambda k, drive, _cap: neurons[k](drive), pools):
            currents.append(model(frame.clone()))
    return Simulated(torch.stack(currents), neurons)
