"""ReLU networks turned into spiking networks of signed neurons with memory, and simulated.

>>> import torch
>>> from torch import nn
>>> _ = torch.manual_seed(0)
>>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
>>> images = torch.rand(8, 4)
>>> net = convert(model, images, preset="snm-zero")
>>> bool((net(images, timesteps=64) - model(images)).abs().max() < 0.05)
True
"""

from snm_kernels import PRESETS, SNMRule, preset

from . import nn
from .convert import convert
from .errors import ConversionError, DeadNeuronWarning, Offence
from .simulate import SpikingNetwork

__all__ = [
    "PRESETS",
    "ConversionError",
    "DeadNeuronWarning",
    "Offence",
    "SNMRule",
    "SpikingNetwork",
    "convert",
    "nn",
    "preset",
]
