"""Makes of a model the spiking network that is evaluated, reported on or saved."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch

import snm_kernels
from snm_kernels import SNMRule

from ..conversion import convert
from ..conversion.inputs import Progress, rule_of
from ..conversion.quantization.quantize import quantize
from ..conversion.statistics import Norm, Statistic
from ..conversion.thresholds import Choice
from ..data.batches import Shards, shards_of
from ..errors import DeadNeuronWarning
from ..models import Loaded
from ..models.kept import kept_preprocessing
from ..network.spiking import SpikingNetwork
from ..tuning import tune
from .calibration import shared_statistics
from .neurons import Neurons
from .processes import Processes

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""The dtypes in which a network may be simulated, by name."""


@dataclass(frozen=True)
class Conversion:
    """How a model is converted; see :func:`snm.convert` and :func:`snm.tune`.

    Args:
        preset, norm, statistic, percentile: as for :func:`snm.convert`.
        max_spikes: Γ, of the preset ``"burst"`` and of tuning; None for their defaults.
        dtype: a name of :data:`DTYPES`, in which the network is tuned and simulated; None for
            float32, and for its own if it is a spiking network already. Calibration is in float32.
        tune_for: time steps to tune for; None not to tune.
        fit_weights: whether tuning may change weights.
        budget: seconds that tuning may take.
        seed: which images are for calibration.

    Raises:
        ValueError: a name is unknown or a number out of range; max_spikes is given and nothing
            uses it.
    """

    preset: str = "snm-zero"
    norm: Norm = "neuron"
    statistic: Statistic = "max"
    percentile: float = 99.9
    max_spikes: int | None = None
    dtype: str | None = None
    tune_for: int | None = None
    fit_weights: bool = True
    budget: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        Choice(self.norm, self.statistic, self.percentile).check()
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.max_spikes is not None and self.preset != "burst" and self.tune_for is None:
            raise ValueError(
                "max_spikes must be left out but with preset='burst' or tuning, got "
                f"{self.max_spikes}"
            )
        self.rule()

    def rule(self) -> SNMRule:
        """The rule of the neurons that preset and max_spikes stand for."""
        if self.preset == "burst" and self.max_spikes is not None:
            return snm_kernels.preset("burst", max_spikes=self.max_spikes)
        return rule_of(self.preset)


def spiking_network(
    loaded: Loaded,
    conversion: Conversion,
    calibration: Shards | None,
    processes: Processes,
    neurons: Neurons | None = None,
    *,
    tuning: Progress | None = None,
) -> tuple[SpikingNetwork, Neurons]:
    """Makes the spiking network, the same in all processes, and copies its neurons.

    Args:
        loaded: a ReLU network, or a spiking one, whose thresholds stay.
        conversion: how it is converted.
        calibration: images to calibrate and tune on; None for a network that needs none.
        processes: who takes part.
        neurons: those that were found before; then nobody calibrates or tunes.
        tuning: wraps the layers, as ``progress`` of :func:`snm.tune`, in the process that tunes.

    Raises:
        ValueError, TypeError: as :func:`snm.convert` and :func:`snm.tune`; calibration is missing;
            or processes do not find the same neurons.
        ConversionError: the model cannot be converted.
    """
    device = processes.device
    with warnings.catch_warnings():
        # How many are silent is reported with the results.
        warnings.simplefilter("ignore", DeadNeuronWarning)
        if isinstance(loaded.model, SpikingNetwork):
            net, example = loaded.model.to(device), torch.empty(0)
            if net.encoder != "direct":
                raise ValueError(f"network must have encoder='direct', got {net.encoder!r}")
        else:
            net, example = _converted(loaded, conversion, calibration, processes, neurons)
        if conversion.dtype is not None:
            net = net.to(DTYPES[conversion.dtype])
        if neurons is None and conversion.tune_for is not None:
            if calibration is None:
                raise ValueError("tuning needs calibration images, got none")
            if processes.rank == 0:
                net = _tuned(net, conversion, calibration, device, tuning)
            neurons = processes.share(Neurons.of(net, example))
    if neurons is None:
        neurons = Neurons.of(net, example)
    elif not net.integers:
        # A network of integers comes from a file, with its neurons.
        neurons.install(net)
    digests = processes.gather(neurons.digest())
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise ValueError(
                f"thresholds of rank {rank} must be those of rank 0, got others; do all "
                "nodes have the same model and the same versions?"
            )
    return net, neurons


def integer_network(net: SpikingNetwork, calibration: Shards, bits: int) -> SpikingNetwork:
    """Makes a network of integers of one of floating point numbers; see :func:`snm.quantize`.

    Where it is known how images are made of pixels, the network computes with these pixels.

    Args:
        net: the network, with its preprocessing noted.
        calibration: images that show the range of images.
        bits: of the weights.

    Raises:
        ValueError, ConversionError: as :func:`snm.quantize`.
    """
    preprocess = kept_preprocessing(net)
    pixels = None if preprocess is None else (preprocess.mean, preprocess.std)
    batches = calibration.read(range(len(calibration)))
    images = (batch.images.to(net.device, net.dtype) for batch in batches if len(batch.images))
    return quantize(net, images, bits=bits, pixels=pixels)


def _converted(
    loaded: Loaded,
    conversion: Conversion,
    calibration: Shards | None,
    processes: Processes,
    neurons: Neurons | None,
) -> tuple[SpikingNetwork, torch.Tensor]:
    model = loaded.model.to(processes.device)
    options: dict[str, Any] = {"preset": conversion.rule(), "norm": conversion.norm}
    if neurons is not None:
        example = neurons.example.to(processes.device)
        return convert(model, example, **options), example
    if calibration is None:
        raise ValueError("a ReLU network needs calibration images, got none")
    own = shards_of(range(len(calibration)), processes.rank, processes.world)
    statistics = shared_statistics(
        model,
        calibration.read(own),
        norm=conversion.norm,
        statistic=conversion.statistic,
        processes=processes,
    )
    options |= {"statistic": conversion.statistic, "percentile": conversion.percentile}
    return convert(model, statistics, **options), statistics.example


def _tuned(
    net: SpikingNetwork,
    conversion: Conversion,
    calibration: Shards,
    device: torch.device,
    progress: Progress | None,
) -> SpikingNetwork:
    assert conversion.tune_for is not None
    batches = calibration.read(range(len(calibration)))
    images = (batch.images.to(device, net.dtype) for batch in batches if len(batch.images))
    return tune(
        net,
        images,
        conversion.tune_for,
        max_spikes=conversion.max_spikes or 1,
        weights=conversion.fit_weights,
        budget=conversion.budget,
        progress=progress,
        seed=conversion.seed,
    ).net
