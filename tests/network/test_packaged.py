"""What the packaged network sends, spike by spike, stays what it was."""

import hashlib

import pytest
import torch
from torch import Tensor

import snm
from snm.demo import load_images, load_network
from snm.nn.integer import IntegerConv

SPIKES_AND_LOGITS = "7f29ede7ce5cfc21894f579d0fcd5322a43c50a86b4867260ba27c0e17fef286"
"""SHA-256 of the spikes of every layer and of the logits, 32 images at T = 8."""


DIGESTS = {
    8: "97a76b670a3aa9f4614678b7f4709ecf5e6f64a6a4f3db3bf7b7958bd121b1cb",
    6: "310819716a5ca2578241b8070804db46cec657c522321deb882558fb2d97b9f6",
    4: "b22da891c7af2f99499746e6857e337d6071153214916b45f6f63b58742a7fec",
}
"""Digests of the same network and images in integers, by the bits of the weights."""


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


@pytest.mark.parametrize("bits", DIGESTS)
def test_the_packaged_network_in_integers_sends_the_spikes_it_always_sent(bits: int) -> None:
    # What is rounded to integers is the same everywhere, as it has few digits.
    net, images = _exact_packaged_network()
    calibration = _few_digits(load_images().calibration_images[:200], 2**-6)
    integers = snm.quantize(net, calibration, bits=bits)
    assert integers.digest(images, timesteps=8) == DIGESTS[bits]
    for path in ("events", "dense"):
        for layer in integers.modules():
            if isinstance(layer, IntegerConv):
                layer.path = path  # type: ignore[assignment]
        for chunk_steps in (3, 8):
            integers.chunk_steps = chunk_steps
            assert integers.digest(images, timesteps=8) == DIGESTS[bits]
    exact = net(images, timesteps=8).argmax(1)
    agree = (integers(images, timesteps=8).argmax(1) == exact).double().mean()
    assert agree >= (0.9 if bits == 4 else 0.96)
