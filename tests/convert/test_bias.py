"""A layer's bias is added to its drive at every step, and to nothing else."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import snm
from snm.nn import SNMNeuron
from support.networks import exact, exact_images

BIAS = torch.tensor([0.5, -0.25, 0.0, 1.0]).view(4, 1, 1)


def network() -> nn.Module:
    return exact(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 5),
        )
    )


def with_bias(net: snm.SpikingNetwork, bias: Tensor = BIAS) -> snm.SpikingNetwork:
    made = copy.deepcopy(net)
    given = made.layers["3"]
    neuron = SNMNeuron(given.threshold, given.rule, bias=bias)
    made.model.set_submodule("3", neuron.to(net.dtype))
    return made


@pytest.fixture
def net() -> snm.SpikingNetwork:
    return snm.convert(network(), exact_images(6), preset="snm-half", norm="channel")


def test_it_is_the_same_as_a_bias_of_the_convolution(net: snm.SpikingNetwork) -> None:
    images = exact_images(3, seed=2)
    biased, shifted = with_bias(net), copy.deepcopy(net)
    with torch.no_grad():
        shifted.model.get_submodule("2").bias += BIAS.flatten()
    by_step = shifted.anytime(images, timesteps=7)
    assert not torch.equal(by_step, net.anytime(images, timesteps=7))
    assert torch.equal(biased.anytime(images, timesteps=7), by_step)
    for t in range(7):
        assert torch.equal(biased(images, timesteps=t + 1), by_step[t])
        assert torch.equal(biased.step(images), by_step[t])


def test_chunks_and_residuals_add_it_at_every_step() -> None:
    drive = exact_images(12, (4, 8, 8)).view(4, 3, 4, 8, 8)
    neuron, plain = SNMNeuron(1.5, bias=BIAS), SNMNeuron(1.5)
    sent, state = neuron(drive, residual=drive)
    expected, _ = plain(drive + BIAS, residual=drive)
    assert torch.equal(sent, expected)
    first, half = neuron(drive[:1], residual=drive[:1])
    rest, end = neuron(drive[1:], half, residual=drive[1:])
    assert torch.equal(torch.cat([first, rest]), sent)
    assert torch.equal(end.v, state.v)


def test_what_spikes_carry_is_without_it() -> None:
    neuron = SNMNeuron(torch.tensor([0.5, torch.inf]), bias=3.0)
    assert neuron.amplitude(torch.tensor([[2, 0]])).tolist() == [[1.0, 0.0]]
    assert neuron(torch.zeros(2, 1, 2)).spikes.tolist() == [[[0.5, 0.0]], [[0.5, 0.0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_move_keeps_it_in_float32(dtype: torch.dtype) -> None:
    bias = torch.tensor([1 / 3, 1e-9, 1e9])
    neuron = SNMNeuron(1.0, bias=bias).to(dtype)
    assert torch.equal(neuron.bias, bias)
    assert neuron.bias.dtype == neuron.threshold.dtype == torch.float32


def test_a_copy_and_a_file_hold_it(net: snm.SpikingNetwork, tmp_path: Path) -> None:
    biased = with_bias(net, BIAS / 3)
    snm.save(biased, tmp_path / "net.safetensors")
    loaded = snm.load(tmp_path / "net.safetensors")
    for same in (loaded, copy.deepcopy(biased)):
        assert torch.equal(same.layers["3"].bias, BIAS / 3)
        assert same.layers["1"].bias is None
        images = exact_images(3, seed=2)
        assert torch.equal(same(images, timesteps=5), biased(images, timesteps=5))
    assert loaded.layers["3"].bias is not biased.layers["3"].bias


def test_it_is_shown() -> None:
    assert "bias=[4, 1, 1], rule" in repr(SNMNeuron(1.0, bias=BIAS))
    assert "bias" not in repr(SNMNeuron(1.0))


def test_the_given_tensor_is_copied() -> None:
    bias = torch.zeros(3)
    neuron = SNMNeuron(1.0, bias=bias)
    bias += 1
    assert neuron.bias.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("bias", [float("nan"), torch.tensor([0.0, torch.inf])])
def test_what_is_not_finite_is_refused(bias: float | Tensor) -> None:
    with pytest.raises(ValueError, match=r"SNMNeuron: bias must be finite, got (nan|inf)"):
        SNMNeuron(1.0, bias=bias)
