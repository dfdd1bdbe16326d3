"""Makes the networks that are timed, each with weights, calibration images and a batch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snm.bench.vision import torchvision_model
from snm.demo import load_images, load_network

_VGG_16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class Model(NamedTuple):
    """A ReLU network with images for it."""

    network: nn.Module
    """The network, in evaluation mode."""
    calibration: Tensor
    """The images that it is calibrated on."""
    images: Tensor
    """The batch of images that is timed."""


def _demo() -> Model:
    shown = load_images()
    return Model(load_network(), shown.calibration_images, shown.test_images[:16])


def _vgg16() -> Model:
    layers: list[nn.Module] = []
    channels = 3
    for out in _VGG_16:
        if out == 0:
            layers.append(nn.AvgPool2d(2))
            continue
        convolution = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    return _random(nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 10)), 32)


def _vision(name: str, size: int, batch: int = 8, calibration: int = 64) -> Model:
    return _random(torchvision_model(name), size, batch, calibration)


def _random(network: nn.Module, size: int, batch: int = 8, calibration: int = 64) -> Model:
    images = torch.rand(calibration + batch, 3, size, size)
    return Model(network.eval(), images[:calibration], images[calibration:])


def sparse(model: Model, shares: Sequence[float]) -> Model:
    """A model whose batch norms are set so that its activations are sparse.

    Layer by layer, batch norms take their statistics from the calibration images, and the bias with
    which the ReLU behind them has this share: its mean by its largest value, the mean of all
    channels. That is about the share of neurons that send at a time step.

    Args:
        model: is changed.
        shares: of each batch norm, in order; the last one stands for all that follow.
    """
    network = model.network
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for i, norm in enumerate(norms):
        share = shares[min(i, len(shares) - 1)]
        seen: list[Tensor] = []
        hook = norm.register_forward_hook(lambda _m, given, _out, seen=seen: seen.append(given[0]))
        network(model.calibration)
        hook.remove()
        values = seen[0].transpose(0, 1).flatten(1)
        norm.running_mean, norm.running_var = values.mean(1), values.var(1)
        standard = (values - values.mean(1, True)) / values.std(1, keepdim=True).clamp(min=1e-6)
        low, high = -4.0, 4.0
        for _ in range(20):
            bias = (low + high) / 2
            active = (standard + bias).relu()
            mean_share = (active.mean(1) / active.amax(1).clamp(min=1e-6)).mean()
            low, high = (bias, high) if mean_share < share else (low, bias)
        norm.bias.fill_(bias)
    return model


_OF_IMAGENET = {"size": 224, "calibration": 16}

MODELS: dict[str, Callable[[], Model]] = {
    "SmallVGG, 28×28": _demo,
    "VGG-16, 32×32": _vgg16,
    "ResNet-18, 32×32": partial(_vision, "resnet18", 32),
    "ResNet-18, 64×64": partial(_vision, "resnet18", 64),
    "VGG-16, 224×224": partial(_vision, "vgg16_bn", batch=4, **_OF_IMAGENET),
    "ResNet-18, 224×224": partial(_vision, "resnet18", **_OF_IMAGENET),
    "ResNet-34, 224×224": partial(_vision, "resnet34", **_OF_IMAGENET),
    "ResNet-50, 224×224": partial(_vision, "resnet50", **_OF_IMAGENET),
}
"""What makes each network, by its name: the packaged one, a VGG-16 with batch norm and average
pooling, and torchvision's, all but the first with random weights."""

NEED_TORCHVISION = tuple(name for name in MODELS if "ResNet" in name or "224" in name)
"""The names of the networks that torchvision has."""
