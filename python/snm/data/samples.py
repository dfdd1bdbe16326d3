"""What every data set gives, whatever files it lies in: pictures with their classes."""

import hashlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, Union

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Union[npt.NDArray[np.uint8], "Image"]
"""A picture, before it is preprocessed: uint8 ``[H, W]`` or ``[H, W, 3]``, or a PIL image."""


class Sample(NamedTuple):
    """A picture of a data set, with its class."""

    image: Picture
    label: int
    """Its class, counted from 0."""
    name: str
    """What messages call it: a path, or a file and a number."""


class Dataset(Protocol):
    """Pictures with their classes, read one at a time."""

    def __len__(self) -> int:
        """How many pictures there are."""

    def __getitem__(self, index: int) -> Sample:
        """Reads one of them; raises :class:`CorruptImage` if it cannot be decoded."""

    def digest(self) -> str:
        """SHA-256 that tells the data set from others: of all pixels and labels where they lie in
        memory, of names and labels where they are photos."""


class CorruptImage(ValueError):
    """An image that cannot be decoded; the message starts with its name."""


class ArrayDataset:
    """A data set whose pictures lie in memory.

    Args:
        images: the pictures, uint8 ``[N, H, W]`` or ``[N, H, W, 3]``.
        labels: the class of each, integers ``[N]``.
        name: of the file that they are from, for messages.

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
