"""What the packaged network sends, spike by spike, stays what it was."""

import hashlib

import torch
from torch import Tensor

import snm
from snm.demo import load_images, load_network

SPIKES_AND_LOGITS = "7f29ede7ce5cfc21894f579d0fcd5322a43c50a86b4867260ba27c0e17fef286"
"""SHA-256 of the spikes of every layer and of the logits, 32 images at T = 8."""


def _few_digits(tensor: Tensor, unit: float) -> Tensor:
    return (tensor / unit).round() * unit


def _exact_packaged_network() -> tuple[snm.SpikingNetwork, Tensor]:
    """The packaged network and images, rounded so far that float32 holds every sum exactly.

    Whatever order a processor's convolutions add up in, the spikes are then the same.
    """
    images = load_images()
    net = snm.convert(
        load_network(), images.calibration_images[:200], preset="snm-zero", norm="channel"
    )
    for parameter in net.parameters():
        parameter.data = _few_digits(parameter.data, 2**-6)
    for neuron in net.layers.values():
        rounded = _few_digits(neuron.threshold, 2**-4).clamp(min=2**-4)
        neuron.threshold.copy_(rounded)
    return net, _few_digits(images.test_images[:32], 2**-6)


def test_the_packaged_network_sends_the_spikes_it_always_sent() -> None:
    net, images = _exact_packaged_network()
    with net.record(what="spikes") as recording:
        logits = net(images, timesteps=8)
    digest = hashlib.sha256()
    for path in net.layers:
        digest.update(recording[path].spikes.to(torch.int8).contiguous().numpy().tobytes())
    digest.update(logits.numpy().tobytes())
    assert digest.hexdigest() == SPIKES_AND_LOGITS
