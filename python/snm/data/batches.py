"""Cuts a data set into shards, which do not depend on how many processes there are."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from .preprocess import Preprocess
from .samples import CorruptImage, Dataset

Item = tuple[Tensor, int] | CorruptImage
"""An image and its class; or the error that it cannot be decoded."""


class Batch(NamedTuple):
    """The images of a shard, with their classes."""

    shard: int
    """The number of the shard, from 0."""
    images: Tensor
    """``[B, C, H, W]``, float32; ``[0]`` if all of them are corrupt."""
    labels: Tensor
    """The class of each image, int64 ``[B]``."""
    corrupt: tuple[str, ...]
    """The images that were left out, and why."""


class Shards:
    """A data set as shards of consecutive images, each of them one batch.

    Args:
        dataset: the images.
        preprocess: makes an image of a picture.
        order: the numbers of the images, in the order in which they are read.
        size: images a shard, >= 1; the last one may have fewer.
        skip_corrupt: leave corrupt images out of their shard, instead of raising.
        workers: processes that read ahead; 0 to read in this one.

    Attributes:
        left_out: the corrupt images of what was read so far, and why.

    >>> import numpy as np
    >>> from .preprocess import Preprocessing
    >>> from .samples import ArrayDataset
    >>> dataset = ArrayDataset(np.zeros((5, 4, 4), np.uint8), np.arange(5), "zeros")
    >>> shards = Shards(dataset, Preprocessing((0.0,), (1.0,)), range(5), 2)
    >>> len(shards), [batch.labels.tolist() for batch in shards.read([2, 0])]
    (3, [[4], [0, 1]])
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Preprocess,
        order: Sequence[int],
        size: int,
        *,
        skip_corrupt: bool = False,
        workers: int = 0,
    ) -> None:
        self.items = _Items(dataset, preprocess)
        self.indices = [list(order[start : start + size]) for start in range(0, len(order), size)]
        self.skip_corrupt = skip_corrupt
        self.workers = workers
        self.left_out: set[str] = set()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return sum(map(len, self.indices))

    def digest(self) -> str:
        """SHA-256 that tells the data set from others; see :meth:`Dataset.digest`."""
        return self.items.dataset.digest()

    def read(self, shards: Sequence[int]) -> Iterator[Batch]:
        """Reads some shards, in the order asked for, a batch each.

        Raises:
            CorruptImage: an image is corrupt, and is not to be left out.
            ValueError: the images of a shard are of several sizes.
        """
        loader: DataLoader[Item] = DataLoader(
            self.items,
            batch_sampler=[self.indices[shard] for shard in shards],
            collate_fn=list,
            num_workers=self.workers,
        )
        for shard, items in zip(shards, loader, strict=True):
            corrupt = [item for item in items if isinstance(item, CorruptImage)]
            if corrupt and not self.skip_corrupt:
                raise corrupt[0]
            self.left_out.update(map(str, corrupt))
            good = [item for item in items if not isinstance(item, CorruptImage)]
            yield Batch(
                shard,
                _stacked([image for image, _ in good]),
                torch.tensor([label for _, label in good], dtype=torch.int64),
                tuple(map(str, corrupt)),
            )


def shards_of(shards: Sequence[int], rank: int, world: int) -> Sequence[int]:
    """The shards that one of several processes takes.

    >>> shards_of(range(5), 1, 2)
    range(1, 5, 2)
    """
    return shards[rank::world]


class _Items(TorchDataset[Item]):
    """A data set for torch's loader: images with their classes. That one is corrupt is handed on as
    a value, which passes unchanged from a process that reads."""

    def __init__(self, dataset: Dataset, preprocess: Preprocess) -> None:
        self.dataset = dataset
        self.preprocess = preprocess

    def __getitem__(self, index: int) -> Item:
        try:
            sample = self.dataset[index]
        except CorruptImage as error:
            return error
        return self.preprocess(sample.image), sample.label


def _stacked(images: list[Tensor]) -> Tensor:
    if not images:
        return torch.empty(0)
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise ValueError(
            "images must be of one size, got "
            f"{' and '.join(str(list(shape)) for shape in shapes[:2])}; give resize and crop"
        )
    return torch.stack(images)
