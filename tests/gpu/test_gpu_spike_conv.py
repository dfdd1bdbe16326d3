"""Layers of spikes on a GPU: parity of the Triton kernel, whole networks of integers."""

import warnings

import pytest
import torch

import snm
from snm_kernels import backends
from support.networks import exact_network
from support.spike_conv_cases import CONV_CASES, ConvCase
from support.spike_conv_parity import compare_layer

DEVICE = "cuda"

if not torch.cuda.is_available():
    pytest.skip(backends()["triton"].reason, allow_module_level=True)

EVERY = 8
"""Compiling takes longer than running, so not all cases run."""


@pytest.mark.parametrize("case", CONV_CASES[::EVERY], ids=str)
def test_triton_equals_reference(case: ConvCase) -> None:
    assert compare_layer(case, "triton", DEVICE) == case.neuron_steps


@pytest.mark.parametrize("name", ["plain", "residual", "conv1d"])
def test_networks_send_the_same_spikes_as_on_the_cpu(name: str) -> None:
    model, calibration, images = exact_network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        net = snm.convert(model, calibration, preset="snm-zero", norm="channel")
    integers = snm.quantize(net, calibration)
    digest = integers.digest(images, timesteps=12)
    logits = integers(images, timesteps=12)
    integers.to(DEVICE)
    assert integers.digest(images.to(DEVICE), timesteps=12) == digest
    assert torch.equal(integers(images.to(DEVICE), timesteps=12).cpu(), logits)
