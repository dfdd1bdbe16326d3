"""Signed neurons with memory over all time steps in one launch: CPU, CUDA, Triton, PyTorch."""

from . import numpy
from ._load import BackendStatus, backends, build_info
from ._types import SILENT, Backend, Emit, SNMCounted, SNMOutput, SNMState
from .ops import snm, snm_counted
from .rule import PRESETS, SNM, SNMRule, preset
from .running_max import RunningMaxOutput, adaptive_running_max_pool, running_max_pool
from .spike_layers import pack_spike_weight, snm_conv, snm_linear, spike_conv, spike_linear

__all__ = [
    "PRESETS",
    "SILENT",
    "SNM",
    "Backend",
    "BackendStatus",
    "Emit",
    "RunningMaxOutput",
    "SNMCounted",
    "SNMOutput",
    "SNMRule",
    "SNMState",
    "adaptive_running_max_pool",
    "backends",
    "build_info",
    "numpy",
    "pack_spike_weight",
    "preset",
    "running_max_pool",
    "snm",
    "snm_conv",
    "snm_counted",
    "snm_linear",
    "spike_conv",
    "spike_linear",
]

__version__ = build_info().version
