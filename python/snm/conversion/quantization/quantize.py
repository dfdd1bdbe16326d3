"""Turns a spiking network into one of integers."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...frames import callers_level
from ...network.relu import relu_logits
from ...network.spiking import SpikingNetwork
from ..faster import choose_paths
from ..inputs import Progress
from .following import Quantizer
from .ranges import pixels_of, range_of

_BITS = range(2, 9)
_WATCHED = 8
"""How many images show shapes, and how many spikes there are."""
_FAR = 0.5
"""What share of their spread logits may change by without a warning."""


@torch.no_grad()
def quantize(
    net: SpikingNetwork,
    calibration: Tensor | Iterable[Any],
    *,
    bits: int = 8,
    pixels: tuple[Sequence[float], Sequence[float]] | None = None,
    progress: Progress | None = None,
) -> SpikingNetwork:
    """Turns a spiking network into one of integers, which gives the same bits everywhere.

    Weights are int8, with a scale for each output channel; thresholds, membranes and what drives
    neurons are int32; neurons send spikes. Between an image and the logits there is no floating
    point number, so no device, batch size, number of threads or of time steps at once changes a
    spike. Sums cannot overflow: their bounds are checked, for loaded weights too. Layers of
    spikes are computed spike by spike or densely, whichever was faster here on the calibration
    images; both give the same.

    Args:
        net: made with norm="channel" or "layer"; it is not changed. Tune it before.
        calibration: images ``[N, ...]`` as the network takes them, or batches of them. They show
            the range of the images, and how many spikes there are.
        bits: of the weights, 2 to 8; they are stored as int8.
        pixels: the mean and the standard deviation of each channel with which images are made of
            pixels, ``(pixel / 255 - mean) / std``; the network then takes uint8 images too, and
            of others knows exactly which pixels they are. None to divide the range of the
            calibration images, channel by channel, into 255 steps. Images are cut off at 512 steps
            on either side of 0.
        progress: wraps the calibration batches, as ``tqdm`` does.

    Returns:
        The integer network. It takes images of the same dtype, and of the size of those here where
            an adaptive pooling, a mean or a threshold of each neuron depends on it, and where
            images are padded in whose ``pixels`` none stands for 0; its logits are float32.

    Raises:
        ConversionError: operations have no integer form, thresholds differ within a channel that
            a convolution reads, or sums could overflow; it names each, and what can be done.
        ValueError: bits is out of range; calibration is empty, or has images of another size than
            the conversion's; or the network is one of integers.
        TypeError: an argument is of the wrong type.

    Source: integer arithmetic with a scale per channel: Jacob et al., "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    >>> images = torch.rand(16, 1, 8, 8)
    >>> net = convert(model.eval(), images, preset="snm-zero", norm="channel")
    >>> integers = quantize(net, images)
    >>> integers.layers["1"].threshold.dtype
    torch.int32
    >>> (integers(images, timesteps=64) - net(images, timesteps=64)).abs().max() < 0.05
    tensor(True)
    """
    if type(net) is not SpikingNetwork:
        raise TypeError(f"quantize: net must be a SpikingNetwork, got {type(net).__name__}")
    if net.integers:
        raise ValueError("quantize: net is a network of integers already")
    if isinstance(bits, bool) or not isinstance(bits, int):
        raise TypeError(f"quantize: bits must be an integer, got {bits!r}")
    if bits not in _BITS:
        raise ValueError(f"quantize: bits must be 2 to 8, got {bits!r}")
    seen = range_of(net, calibration, progress)
    some = seen.some[:_WATCHED]
    quantizer = Quantizer(net, some, 2 ** (bits - 1) - 1, pixels_of(pixels, seen))
    made = quantizer.quantized(net)
    made.preprocessing = net.preprocessing
    _warn_if_far(net, made, some)
    choose_paths(made, some)
    return made


def _warn_if_far(net: SpikingNetwork, made: SpikingNetwork, images: Tensor) -> None:
    """Warns where rounding has changed what a network computes, whatever its spikes."""
    if net.encoder != "direct" or net.readout != "mean":
        return
    logits = relu_logits(net, images).double()
    change = (relu_logits(made, images).double() - logits).square().mean().sqrt()
    size = logits.std(correction=0)
    if change > _FAR * size:
        warnings.warn(
            f"quantize: rounded weights change the logits of the ReLU network by {change:.3g}, "
            f"which differ by {size:.3g} among themselves; use more bits, or neurons between "
            "layers that read each other's sums",
            stacklevel=callers_level(),
        )
