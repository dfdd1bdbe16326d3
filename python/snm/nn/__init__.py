"""Spiking layers as modules: :class:`SNMNeuron`, which keeps no state, and others, which do."""

from .layers import (
    SNM,
    AdaptiveRunningMaxPool1d,
    AdaptiveRunningMaxPool2d,
    AdaptiveRunningMaxPool3d,
    RunningMaxPool1d,
    RunningMaxPool2d,
    RunningMaxPool3d,
    reset,
)
from .neuron import SNMNeuron

__all__ = [
    "SNM",
    "AdaptiveRunningMaxPool1d",
    "AdaptiveRunningMaxPool2d",
    "AdaptiveRunningMaxPool3d",
    "RunningMaxPool1d",
    "RunningMaxPool2d",
    "RunningMaxPool3d",
    "SNMNeuron",
    "reset",
]
