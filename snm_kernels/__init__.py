"""Signed neurons with memory over all time steps in one launch: CPU, CUDA, Triton, PyTorch."""

from . import numpy
from ._load import BackendStatus, backends, build_info
from .ops import SNMOutput, SNMState, snm
from .rule import PRESETS, SNM, SNMRule, preset

__all__ = [
    "PRESETS",
    "SNM",
    "BackendStatus",
    "SNMOutput",
    "SNMRule",
    "SNMState",
    "backends",
    "build_info",
    "numpy",
    "preset",
    "snm",
]

__version__ = build_info().version
