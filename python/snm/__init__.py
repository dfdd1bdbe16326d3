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

from . import nn, plot
from .convert import Statistics, calibrate, convert
from .convert.convertible import Convertibility, convertible
from .diagnose import diagnose
from .diagnosis import Diagnosis, LayerDiagnosis, Part
from .errors import ConversionError, DeadNeuronWarning, Offence
from .files import load, save
from .first_pass import FirstPass
from .packed import pack_spikes, unpack_spikes
from .recording import LayerRecording, Recording
from .report import Report, report
from .simulate import SpikingNetwork
from .stopping import calibrate_stop
from .surgery import replace_relu
from .tune import tune
from .tuned import Tuned
from .until import Answers, Stop

__all__ = [
    "PRESETS",
    "Answers",
    "ConversionError",
    "Convertibility",
    "DeadNeuronWarning",
    "Diagnosis",
    "FirstPass",
    "LayerDiagnosis",
    "LayerRecording",
    "Offence",
    "Part",
    "Recording",
    "Report",
    "SNMRule",
    "SpikingNetwork",
    "Statistics",
    "Stop",
    "Tuned",
    "calibrate",
    "calibrate_stop",
    "convert",
    "convertible",
    "diagnose",
    "load",
    "nn",
    "pack_spikes",
    "plot",
    "preset",
    "replace_relu",
    "report",
    "save",
    "tune",
    "unpack_spikes",
]
