"""The images that come with the package, as commands read them."""

from io import BytesIO

import numpy as np

from ..demo.data import read_asset
from .samples import ArrayDataset

NAME = "demo"
"""What command lines call the packaged images, and the packaged network."""


def packaged_images(split: str) -> ArrayDataset:
    """Opens images of Fashion-MNIST: 2,000 with their classes to test on, or 1,000 to calibrate on,
    whose classes are not packaged and are given as 0.

    Args:
        split: ``"test"`` or ``"train"``.

    Raises:
        ValueError: the split is neither.

    >>> len(packaged_images("test")), packaged_images("train")[0].image.shape
    (2000, (28, 28))
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    with np.load(BytesIO(read_asset("images.npz")), allow_pickle=False) as arrays:
        if split == "test":
            return ArrayDataset(arrays["test_images"], arrays["test_labels"], "packaged test")
        images = arrays["calibration_images"]
    return ArrayDataset(images, np.zeros(len(images), np.int64), "packaged calibration")
