"""Signed neurons with memory over all time steps in one launch: CPU, CUDA, Triton, PyTorch."""

from . import numpy
from ._load import BackendStatus, backends, build_info
from .ops import SNMOutput, SNMState, snm
from .pooling import RunningMaxOutput, adaptive_running_max_pool, running_max_pool
from .rule import PRESETS, SNM, SNMRule, preset

__all__ = [
    "PRESETS",
    "SNM",
    "BackendStatus",
    "RunningMaxOutput",
    "SNMOutput",
    "SNMRule",
    "SNMState",
    "adaptive_running_max_pool",
    "backends",
    "build_info",
    "numpy",
    "preset",
    "running_max_pool",
    "snm",
]

__version__ = build_info().version
