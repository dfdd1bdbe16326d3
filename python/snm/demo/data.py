"""Loads the images and the trained network that come with the package."""

from importlib.resources import files
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from .vgg import SmallVGG

MEAN = 0.2860
"""Mean of the training pixels, scaled to [0, 1]."""

STD = 0.3530
"""Standard deviation of the training pixels, scaled to [0, 1]."""


class DemoImages(NamedTuple):
    """Fashion-MNIST images as the demo network takes them.

    Attributes:
        test_images: float32 [2000, 1, 28, 28], the first 2,000 test images, normalised.
        test_labels: int64 [2000], their classes, 0 to 9.
        calibration_images: float32 [1000, 1, 28, 28], training images drawn at random, normalised.
    """

    test_images: Tensor
    test_labels: Tensor
    calibration_images: Tensor


def normalise(images: Tensor) -> Tensor:
    """Standardises grey images as ``(images / 255 - MEAN) / STD``, and adds a channel axis.

    Args:
        images: uint8 [N, H, W].

    Returns:
        float32 [N, 1, H, W].

    Raises:
        TypeError: ``images`` is not uint8.
        ValueError: ``images`` does not have three dimensions.

    Example:
        >>> normalise(torch.zeros(2, 28, 28, dtype=torch.uint8)).shape
        torch.Size([2, 1, 28, 28])
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"normalise: images must be torch.uint8, got {images.dtype}")
    if images.dim() != 3:
        raise ValueError(f"normalise: images must be [N, H, W], got {list(images.shape)}")
    return images.unsqueeze(1).float().div_(255.0).sub_(MEAN).div_(STD)


def load_images() -> DemoImages:
    """Reads the packaged test and calibration images.

    Returns:
        ``DemoImages``: test images float32 [2000, 1, 28, 28] with labels int64 [2000], and
        calibration images float32 [1000, 1, 28, 28], all normalised.

    Raises:
        FileNotFoundError: the package was installed without ``assets/images.npz``.

    Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms", 2017, arXiv:1708.07747.

    Example:
        >>> images = load_images()
        >>> images.test_images.shape, images.calibration_images.shape
        (torch.Size([2000, 1, 28, 28]), torch.Size([1000, 1, 28, 28]))
    """
    with np.load(BytesIO(read_asset("images.npz")), allow_pickle=False) as arrays:
        return DemoImages(
            test_images=normalise(torch.from_numpy(arrays["test_images"])),
            test_labels=torch.from_numpy(arrays["test_labels"].astype(np.int64)),
            calibration_images=normalise(torch.from_numpy(arrays["calibration_images"])),
        )


def load_network() -> SmallVGG:
    """Loads the demo network with its trained weights, float32, in eval mode.

    Returns:
        ``SmallVGG`` that takes float32 [B, 1, 28, 28] images as ``load_images`` gives them.

    Raises:
        FileNotFoundError: the package was installed without ``assets/vgg.safetensors``.

    Source: trained on Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747) by
    ``examples/train_fashion_mnist.py``.

    Example:
        >>> load_network().training
        False
    """
    network = SmallVGG()
    network.load_state_dict(load_safetensors(read_asset("vgg.safetensors")))
    return network.eval()


def read_asset(name: str) -> bytes:
    """Reads a file that is packaged with the demo, such as ``images.npz``.

    Raises:
        FileNotFoundError: the package was installed without it.
    """
    return (files("snm.demo") / "assets" / name).read_bytes()
