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
from .conversion import Statistics, calibrate, convert
from .conversion.convertibility import Convertibility, convertible
from .conversion.faster import by_events
from .conversion.quantization.quantize import quantize
from .conversion.surgery import replace_relu
from .diagnosis import diagnose
from .diagnosis.result import Diagnosis, LayerDiagnosis, Part
from .errors import ConversionError, DeadNeuronWarning, Offence
from .files import load, save
from .former import keep_former_places
from .network.capture import CapturedNetwork
from .network.first_pass import FirstPass
from .network.observer import Launch, Observer
from .network.packed import pack_spikes, unpack_spikes
from .network.recording import LayerRecording, Recording
from .network.simulation import Simulation
from .network.spiking import SpikingNetwork
from .network.until import Answers, Stop
from .reports import LayerReport, Report, report
from .tuning import tune
from .tuning.result import Tuned, TunedLayer
from .tuning.stopping import calibrate_stop

keep_former_places()

__all__ = [
    "PRESETS",
    "Answers",
    "CapturedNetwork",
    "ConversionError",
    "Convertibility",
    "DeadNeuronWarning",
    "Diagnosis",
    "FirstPass",
    "Launch",
    "LayerDiagnosis",
    "LayerRecording",
    "LayerReport",
    "Observer",
    "Offence",
    "Part",
    "Recording",
    "Report",
    "SNMRule",
    "Simulation",
    "SpikingNetwork",
    "Statistics",
    "Stop",
    "Tuned",
    "TunedLayer",
    "by_events",
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
    "quantize",
    "replace_relu",
    "report",
    "save",
    "tune",
    "unpack_spikes",
]
