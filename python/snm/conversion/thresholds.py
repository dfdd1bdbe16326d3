"""Turns what calibration has seen of activations into thresholds."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, fx

from ..errors import DeadNeuronWarning
from ..frames import callers_level
from .inputs import one_of
from .lowering.prepare import Prepared
from .statistics import NORMS, STATISTICS, LayerStatistics, Norm, Statistic, Statistics, largest_of

Dead = Literal["silent", "channel", "layer"]
DEAD: tuple[Dead, ...] = get_args(Dead)

# What a dead neuron may take its threshold from: what holds more than it shares one with.
_DEAD_OF: dict[Norm, tuple[Dead, ...]] = {
    "neuron": ("silent", "channel", "layer"),
    "channel": ("silent", "layer"),
    "layer": ("silent",),
}


class LayerThresholds(NamedTuple):
    """The thresholds of one layer of neurons."""

    threshold: Tensor
    """The thresholds, float32, > 0, +inf for what stays silent: ``[C, H, W]`` in the memory format
    of the activations with norm="neuron", ``[C, 1, 1]`` with "channel", ``[]`` with "layer"."""
    dead: int
    """How many of the neurons, or of what shares a threshold, never fired in calibration."""
    total: int
    """How many neurons there are, or channels or layers that share a threshold."""


class Choice(NamedTuple):
    """How thresholds are to follow from statistics; each field is an argument of
    :func:`snm.convert`."""

    norm: Norm = "neuron"
    statistic: Statistic = "max"
    percentile: float = 99.9
    levels: int = 32
    dead: Dead = "silent"

    def check(self) -> None:
        """Refuses names that are unknown, numbers out of range, and what has no effect.

        Raises:
            ValueError: a name is unknown, percentile is not in (0, 100], levels is less than 1,
                or dead does not go with the norm.
            TypeError: percentile is no number, levels no integer.
        """
        one_of("norm", self.norm, NORMS)
        one_of("statistic", self.statistic, STATISTICS)
        one_of("dead", self.dead, DEAD)
        if isinstance(self.percentile, bool) or not isinstance(self.percentile, int | float):
            raise TypeError(f"convert: percentile must be a number, got {self.percentile!r}")
        if not 0 < self.percentile <= 100:
            raise ValueError(
                f"convert: percentile must be above 0 and at most 100, got {self.percentile}"
            )
        if isinstance(self.levels, bool) or not isinstance(self.levels, int):
            raise TypeError(f"convert: levels must be an integer, got {self.levels!r}")
        if self.levels < 1:
            raise ValueError(f"convert: levels must be at least 1, got {self.levels}")
        if self.dead not in _DEAD_OF[self.norm]:
            known = ", ".join(map(repr, _DEAD_OF[self.norm]))
            raise ValueError(
                f"convert: dead={self.dead!r} says nothing with norm={self.norm!r}, where each "
                f"{self.norm} has one threshold; dead must be one of {known}"
            )

    def check_statistics(self, statistics: Statistics) -> None:
        """Refuses statistics from which such thresholds cannot follow.

        Raises:
            ValueError: they are of another norm, keep too little, or have seen no image.
        """
        if statistics.norm != self.norm:
            raise ValueError(
                f"convert: norm must be that of the statistics, {statistics.norm!r}, "
                f"got {self.norm!r}"
            )
        if self.statistic != "max" and not statistics.keeps_histograms:
            raise ValueError(
                f"convert: statistic={self.statistic!r} needs histograms, but the statistics are "
                "of statistic='max'; calibrate with statistic='percentile'"
            )
        if statistics.images == 0:
            raise ValueError("convert: calibration must hold at least one image, got none")


def choose_thresholds(
    prepared: Prepared,
    statistics: Statistics,
    choice: Choice,
    *,
    caps: Mapping[str, float],
    max_spikes: int,
) -> dict[fx.Node, LayerThresholds]:
    """Chooses the thresholds of each layer of neurons.

    Args:
        choice: checked.
        caps: by path, what a layer's activations never exceed, as in ReLU6; the thresholds of
            the others have no such bound.
        max_spikes: the most spikes of a neuron in one step, Γ: its rate stays within Γ·θ, and so
            within the cap.

    Raises:
        ValueError: the statistics lack a layer, by its path, or hold it in another shape.

    Warns:
        DeadNeuronWarning: neurons never fired in calibration.
    """
    room = _room_for_thresholds(prepared, statistics)
    found = {}
    for node, path in prepared.paths.items():
        cap = caps.get(path, torch.inf)
        layer = threshold_of(statistics.layers[path], choice, cap=cap, max_spikes=max_spikes)
        threshold = room[node].copy_(layer.threshold)
        if node is prepared.output:
            # One for all of them, so that their counts can be compared.
            largest = torch.where(threshold.isfinite(), threshold, 0.0).amax()
            threshold = torch.where(largest > 0, largest, torch.inf)
            layer = LayerThresholds(threshold, int(largest == 0), 1)
        found[node] = layer._replace(threshold=threshold)
    warn_of_the_dead(zip(prepared.paths.values(), found.values(), strict=True), choice)
    return found


def threshold_of(
    layer: LayerStatistics, choice: Choice, *, cap: float, max_spikes: int
) -> LayerThresholds:
    """Chooses the thresholds of one layer; see :func:`choose_thresholds`."""
    level = layer.level(choice.statistic, percentile=choice.percentile, levels=choice.levels)
    alive = level.clamp(max=_largest_within(cap, max_spikes))
    fired = layer.largest > 0
    filled = torch.where(fired, alive, _of_the_dead(alive, choice.dead))
    threshold = torch.where(filled > 0, filled, torch.inf)
    return LayerThresholds(threshold, int((~fired).sum()), fired.numel())


def _largest_within(cap: float, max_spikes: int) -> float:
    """The largest float32 whose multiple by max_spikes does not exceed the cap as a float32."""
    limit = torch.tensor(cap, dtype=torch.float32)
    found = limit / max_spikes
    if max_spikes * found.double() > limit.double():
        found = torch.nextafter(found, torch.zeros(()))
    return found.item()


def _of_the_dead(alive: Tensor, dead: Dead) -> Tensor:
    """The thresholds that dead neurons get, from those of all, which are 0 for the dead."""
    if dead == "layer":
        return alive.amax()
    if dead == "channel" and alive.dim() > 1:
        return alive.amax(list(range(1, alive.dim())), keepdim=True)
    return torch.zeros_like(alive)


def _room_for_thresholds(prepared: Prepared, statistics: Statistics) -> dict[fx.Node, Tensor]:
    """Tensors for the thresholds of each layer, in the memory format of its activations."""
    room: dict[fx.Node, Tensor] = {}

    def see(node: fx.Node, activation: Tensor) -> None:
        room[node] = largest_of(activation, statistics.norm)

    prepared.watch(prepared.example, see)
    expected = {path: list(room[node].shape) for node, path in prepared.paths.items()}
    known = {path: list(layer.largest.shape) for path, layer in statistics.layers.items()}
    if not expected.items() <= known.items():
        raise ValueError(
            f"convert: the statistics must be of the model's layers of neurons, {expected}, "
            f"got those of {known}"
        )
    return room


def warn_of_the_dead(found: Iterable[tuple[str, LayerThresholds]], choice: Choice) -> None:
    """Warns of neurons that never fired in calibration, and says what becomes of them."""
    layers = [(path, layer) for path, layer in found]
    dead = sum(layer.dead for _, layer in layers)
    if dead == 0:
        return
    total = sum(layer.total for _, layer in layers)
    silent = "their threshold is +inf and they stay silent"
    if choice.dead != "silent":
        silent = (
            f"they take the largest threshold of their {choice.dead}, and stay silent where all "
            "of it is dead"
        )
    counted = ", ".join(
        f"{path} {layer.dead} of {layer.total}" for path, layer in layers if layer.dead
    )
    warnings.warn(
        f"convert: {dead} of {total} {choice.norm}s never fired in calibration; {silent} "
        f"({counted}); if that is too many, calibrate on more images",
        DeadNeuronWarning,
        stacklevel=callers_level(),
    )
