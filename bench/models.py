"""The networks that are timed, with weights, calibration images and a batch for each."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snm.demo import load_images, load_network

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from zoo import torchvision_model

_VGG_16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class Model(NamedTuple):
    """A ReLU network, and images for it."""

    network: nn.Module
    calibration: Tensor
    images: Tensor
    """The batch that is timed."""


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


def _resnet18(size: int) -> Model:
    return _random(torchvision_model("resnet18"), size)


def _random(network: nn.Module, size: int) -> Model:
    return Model(network.eval(), torch.rand(64, 3, size, size), torch.rand(8, 3, size, size))


MODELS: dict[str, Callable[[], Model]] = {
    "SmallVGG, 28×28, batch 16": _demo,
    "VGG-16, 32×32, batch 8": _vgg16,
    "ResNet-18, 32×32, batch 8": lambda: _resnet18(32),
    "ResNet-18, 64×64, batch 8": lambda: _resnet18(64),
}
"""By name: the packaged network; a VGG-16 with batch norm and average pooling and torchvision's
ResNet-18, both with random weights."""
