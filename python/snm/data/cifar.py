"""Reads CIFAR-10 and CIFAR-100, from binary or python batches."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..optional import import_optional
from .samples import ArrayDataset

_PIXELS = 3 * 32 * 32


class _Version(NamedTuple):
    """How CIFAR-10 or CIFAR-100 lies on disk."""

    binary: str
    """The folder of the binary batches."""
    python: str
    """The folder of the python batches."""
    files: dict[str, tuple[str, ...]]
    """The names of the binary files, by split."""
    labels: int
    """How many bytes stand before an image's pixels; the last one is the class."""
    classes: int
    """How many classes there are."""
    reader: str
    """The class of torchvision that reads the python batches."""
    sign: str
    """A file that shows where the python batches are."""


_VERSIONS = {
    "cifar10": _Version(
        "cifar-10-batches-bin",
        "cifar-10-batches-py",
        {
            "train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        *(1, 10, "CIFAR10", "test_batch"),
    ),
    "cifar100": _Version(
        "cifar-100-binary",
        "cifar-100-python",
        {"train": ("train.bin",), "test": ("test.bin",)},
        *(2, 100, "CIFAR100", "test"),
    ),
}


def cifar(name: str, folder: Path, split: str) -> ArrayDataset:
    """Reads CIFAR-10, or CIFAR-100 with its fine labels.

    Args:
        name: ``"cifar10"`` or ``"cifar100"``.
        folder: holds the batches itself, or the folder that the archive unpacks to. Binary ones
            are preferred; python ones are read by torchvision, which checks their digests.
        split: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: the folder holds neither.
        ValueError: the split is unknown, or a file is damaged.
        PackageError: there are python batches, and no torchvision.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    version = _VERSIONS[name]
    if split not in version.files:
        raise ValueError(f"split must be train or test, got {split!r}")
    first = version.files[split][0]
    for inside in (folder, folder / version.binary):
        if (inside / first).is_file():
            return _binary(inside, version, split)
    for inside in (folder, folder / version.python):
        if inside.name == version.python and (inside / version.sign).is_file():
            return _python(inside.parent, version, split)
    raise FileNotFoundError(
        f"{folder} must hold {first}, {version.binary}/ or {version.python}/, got none of them"
    )


def _binary(folder: Path, version: _Version, split: str) -> ArrayDataset:
    record = version.labels + _PIXELS
    parts = []
    for name in version.files[split]:
        content = np.fromfile(folder / name, dtype=np.uint8)
        if len(content) == 0 or len(content) % record:
            raise ValueError(
                f"{folder / name} must be a multiple of {record:,} bytes, an image "
                f"each, got {len(content):,}"
            )
        rows = content.reshape(-1, record)
        largest = int(rows[:, version.labels - 1].max())
        if largest >= version.classes:
            raise ValueError(
                f"labels in {folder / name} must be below {version.classes}, got {largest}"
            )
        parts.append(rows)
    rows = np.concatenate(parts)
    images = rows[:, version.labels :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = rows[:, version.labels - 1].astype(np.int64)
    return ArrayDataset(np.ascontiguousarray(images), labels, f"{folder.name}, {split}")


def _python(parent: Path, version: _Version, split: str) -> ArrayDataset:
    readers = import_optional("torchvision.datasets", "torchvision", "reading python batches")
    try:
        read = getattr(readers, version.reader)(parent, train=split == "train", download=False)
    # What it raises where digests differ.
    except RuntimeError as error:
        raise ValueError(
            f"{parent / version.python} must hold the published files: {error}"
        ) from error
    return ArrayDataset(read.data, np.asarray(read.targets), f"{version.python}, {split}")
