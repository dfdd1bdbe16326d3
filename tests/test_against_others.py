"""Converted networks against other people's way of running them: the paper's published step code,
and SpikingJelly's converter."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import snm
import snm_kernels
from networks import exact_images
from snm.demo.step_by_step import StepByStepNetwork
from snm_kernels import SNMOutput

T = 32
VGG_16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def dyadic(tensor: Tensor, generator: torch.Generator, nonzero: int) -> None:
    """Fills a layer's weights with so many ±1/2 per output; their sums stay exact."""
    flat = torch.zeros(len(tensor), tensor[0].numel())
    place = torch.rand(flat.shape, generator=generator).argsort(1)[:, :nonzero]
    sign = torch.randint(0, 2, place.shape, generator=generator) - 0.5
    tensor.copy_(flat.scatter_(1, place, sign).view_as(tensor))


@torch.no_grad()
def vgg16() -> nn.Sequential:
    """A VGG-16 for images of 32x32 whose float32 sums are all exact."""
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for out in VGG_16:
        if out == 0:
            layers.append(nn.AvgPool2d(2))
            continue
        convolution = nn.Conv2d(channels, out, 3, padding=1)
        dyadic(convolution.weight, generator, nonzero=12)
        convolution.bias.copy_(torch.randint(-1, 3, (out,), generator=generator) / 8)
        layers += [convolution, nn.ReLU()]
        channels = out
    head = nn.Linear(channels, 10)
    dyadic(head.weight, generator, nonzero=100)
    head.bias.zero_()
    return nn.Sequential(*layers, nn.Flatten(), head).eval()


def power_of_two(threshold: Tensor, seed: int) -> Tensor:
    """Thresholds of 1/4 to 2, for as many neurons."""
    generator = torch.Generator().manual_seed(seed)
    return 2.0 ** torch.randint(-2, 2, threshold.shape, generator=generator)


def counts_of(net: snm.SpikingNetwork, images: Tensor, timesteps: int) -> dict[str, Tensor]:
    """How many spikes every neuron sent, by layer."""
    counts: dict[str, Tensor] = {}

    def note(path: str, _module: nn.Module, _drive: object, output: SNMOutput) -> None:
        counts[path] = output.state.m

    hooks = [n.register_forward_hook(partial(note, path)) for path, n in net.layers.items()]
    net(images, timesteps=timesteps)
    for hook in hooks:
        hook.remove()
    return counts


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
