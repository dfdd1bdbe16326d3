"""Converted networks against other people's way of running them: the paper's published step code,
and SpikingJelly's converter."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import snm
import snm_kernels
from snm.demo.step_by_step import StepByStepNetwork
from support.dyadic import counts_of, power_of_two, vgg16
from support.networks import exact_images

T = 32


@pytest.fixture(scope="module")
def published() -> tuple[nn.Module, Tensor]:
    return vgg16(), exact_images(2, (3, 32, 32), seed=2)


def test_published_step_code_on_vgg16(published: tuple[nn.Module, Tensor]) -> None:
    model, images = published
    with pytest.warns(snm.DeadNeuronWarning):
        net = snm.convert(model, exact_images(2, (3, 32, 32), seed=1), preset="snm", norm="neuron")
    assert len(net.layers) == 13
    for seed, neuron in enumerate(net.layers.values()):
        neuron.threshold = power_of_two(neuron.threshold, seed)
    thresholds = {path: neuron.threshold for path, neuron in net.layers.items()}

    run = StepByStepNetwork(model, thresholds, float_memory=False)
    counts: dict[str, Tensor] = dict.fromkeys(thresholds, torch.zeros(()))

    def note(path: str, module: nn.Module, _drive: object, sent: Tensor) -> None:
        counts[path] = counts[path] + sent / module.threshold

    for path in thresholds:
        run.network.get_submodule(path).register_forward_hook(partial(note, path))
    expected_logits = run(images, T)
    found = counts_of(net, images, T)
    for path, count in counts.items():
        assert torch.equal(found[path], count.to(torch.int32)), path
        assert count.count_nonzero() > 0.02 * count.numel(), path
    assert torch.equal(net(images, timesteps=T), expected_logits)


def test_spikingjelly_rate_coding(published: tuple[nn.Module, Tensor]) -> None:
    from spikingjelly.activation_based import ann2snn
    from spikingjelly.activation_based.neuron import IFNode

    model, images = published
    calibration = exact_images(2, (3, 32, 32), seed=1)
    theirs = ann2snn.Converter(ann2snn.RateCodingRecipe([calibration], mode="max")).convert(model)
    net = snm.convert(model, calibration, preset="if", norm="layer")
    spiking = [m for path, m in theirs.named_children() if path.startswith("spiking")]
    assert len(spiking) == len(net.layers) == 13
    for seed, (neuron, group) in enumerate(zip(net.layers.values(), spiking, strict=True)):
        torch.testing.assert_close(group.scaler1.scale, neuron.threshold)
        neuron.threshold = power_of_two(neuron.threshold, seed)
        group.scaler0.scale.copy_(1 / neuron.threshold)
        group.scaler1.scale.copy_(neuron.threshold)

    counts = [torch.zeros(())] * len(spiking)

    def note(layer: int, _module: nn.Module, _drive: object, spikes: Tensor) -> None:
        counts[layer] = counts[layer] + spikes

    for layer, group in enumerate(spiking):
        assert isinstance(group.if_node, IFNode)
        group.if_node.register_forward_hook(partial(note, layer))
    with torch.no_grad():
        logits = sum(theirs(images) for _ in range(T)) / T
    found = counts_of(net, images, T)
    for count, (path, own) in zip(counts, found.items(), strict=True):
        assert torch.equal(own, count.to(torch.int32)), path
        assert count.count_nonzero() > 0.02 * count.numel(), path
    assert torch.equal(net(images, timesteps=T), logits)


def test_group_neurons_are_one_neuron_with_graded_spikes() -> None:
    """Members with thresholds of 1/4, 2/4, 3/4 and 1 on one membrane, as Lv et al. 2024 have it."""
    members = 4
    drive = torch.randn(16, 1000, generator=torch.Generator().manual_seed(0))
    thresholds = torch.arange(1, members + 1).unsqueeze(1) / members
    membrane = torch.full((1000,), 0.5 / members)
    expected = []
    for current in drive:
        membrane = membrane + current
        sent = (membrane >= thresholds).sum(0) / members
        membrane = membrane - sent
        expected.append(sent)
    rule = snm.SNMRule(v_init=0.5, negative_threshold=None, max_spikes=members)
    found, _ = snm_kernels.snm(drive, 1 / members, rule=rule)
    assert torch.equal(found, torch.stack(expected))
