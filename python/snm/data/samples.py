"""What a data set gives, whatever files it lies in."""

import hashlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, Union

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Union[npt.NDArray[np.uint8], "Image"]
"""uint8 ``[H, W]`` or ``[H, W, 3]``, or a PIL image."""


class Sample(NamedTuple):
    """One image of a data set."""

    image: Picture
    label: int
    """Its class, counted from 0."""
    name: str
    """What messages call it: a path, or a file and a number."""


class Dataset(Protocol):
    """Images with labels."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> Sample:
        """One of them; raises :class:`CorruptImage` if it cannot be decoded."""

    def digest(self) -> str:
        """What tells it from other images: of arrays SHA-256 of all, of photos that of names."""


class CorruptImage(ValueError):
    """An image that cannot be decoded; the message starts with its name."""


class ArrayDataset:
    """Images that lie in memory.

    Args:
        images: uint8 ``[N, H, W]`` or ``[N, H, W, 3]``.
        labels: integers ``[N]``.
        name: of the file that they are from.

    Raises:
        ValueError: there are not as many labels as images.

    >>> images = ArrayDataset(np.zeros((2, 28, 28), np.uint8), np.array([3, 4]), "t10k")
    >>> len(images), images[1].label, images[1].name
    (2, 4, 't10k, image 1')
    """

    def __init__(
        self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], name: str
    ) -> None:
        if len(images) != len(labels):
            raise ValueError(
                f"{name} must have as many labels as images, got {len(labels)} labels "
                f"and {len(images)} images"
            )
        self.images, self.labels, self.name = images, labels, name

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        label = int(self.labels[index])
        return Sample(self.images[index], label, f"{self.name}, image {index}")

    def digest(self) -> str:
        digest = hashlib.sha256(f"{self.images.shape}".encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.astype(np.int64).tobytes())
        return digest.hexdigest()
