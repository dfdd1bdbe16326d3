"""Opens data sets by the kind and the folder that a command line names."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .cifar import cifar
from .idx import mnist
from .packaged import NAME, packaged_images
from .photos import PhotoDataset
from .samples import Dataset

KINDS: dict[str, Callable[[Path, str], Dataset]] = {
    "cifar10": partial(cifar, "cifar10"),
    "cifar100": partial(cifar, "cifar100"),
    "mnist": mnist,
    "fashion-mnist": mnist,
    "folder": PhotoDataset,
}
"""What opens a data set of each kind: a function of its folder and its split."""


def open_dataset(text: str, split: str) -> Dataset:
    """Opens the data set that a command line names.

    Args:
        text: ``KIND:FOLDER``, a kind of :data:`KINDS`; or ``demo``, for the packaged images.
        split: ``"train"``, ``"test"``; with photos any folder's name.

    Raises:
        ValueError: the kind or split is unknown, a file is damaged, or there is no image.
        FileNotFoundError: the folder does not hold it.
        PackageError: what reads it is not installed.

    >>> open_dataset("emnist:data", "test")
    Traceback (most recent call last):
    ...
    ValueError: data must be KIND:FOLDER with a kind of cifar10, cifar100, mnist, \
fashion-mnist, folder, or demo, got 'emnist:data'
    """
    if text == NAME:
        return packaged_images(split)
    kind, colon, folder = text.partition(":")
    if kind not in KINDS or not colon or not folder:
        raise ValueError(
            f"data must be KIND:FOLDER with a kind of {', '.join(KINDS)}, or {NAME}, got {text!r}"
        )
    found = KINDS[kind](Path(folder), split)
    if len(found) == 0:
        raise ValueError(f"data must hold at least one image, got none in {text}")
    return found
