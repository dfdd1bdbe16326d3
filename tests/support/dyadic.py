"""A VGG-16 whose float32 sums are all exact, and what it takes to compare ways of running it."""

from functools import partial

import torch
from torch import Tensor, nn

import snm
from snm_kernels import SNMOutput

VGG_16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def dyadic(tensor: Tensor, generator: torch.Generator, nonzero: int) -> None:
    """Fills a layer's weights with a number of ±1/2 per output, so that sums stay exact."""
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
    """Thresholds that are powers of two from 1/4 to 2, one for each neuron."""
    generator = torch.Generator().manual_seed(seed)
    return 2.0 ** torch.randint(-2, 2, threshold.shape, generator=generator)


def counts_of(net: snm.SpikingNetwork, images: Tensor, timesteps: int) -> dict[str, Tensor]:
    """How many spikes every neuron sent, by the path of its layer."""
    counts: dict[str, Tensor] = {}

    def note(path: str, _module: nn.Module, _drive: object, output: SNMOutput) -> None:
        counts[path] = output.state.m

    hooks = [n.register_forward_hook(partial(note, path)) for path, n in net.layers.items()]
    net(images, timesteps=timesteps)
    for hook in hooks:
        hook.remove()
    return counts
