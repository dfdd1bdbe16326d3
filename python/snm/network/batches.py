"""Images in batches: how many are cut into some, how one is taken apart, how rows are chosen."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def cut_into_batches(
    images: Tensor | Iterable[Any], size: int, *, caller: str, what: str = "images", axis: int = 0
) -> Iterable[Any]:
    """The batches that a tensor is cut into, or those that are given instead of one.

    Args:
        images: a tensor, or an iterable of batches, such as a data loader.
        size: how many images of a tensor a batch has at most.
        caller: the function whose argument this is.
        what: the argument's name.
        axis: the dimension along which images lie.

    Raises:
        TypeError: images is neither.

    >>> [len(batch) for batch in cut_into_batches(torch.zeros(5, 2), 2, caller="f")]
    [2, 2, 1]
    """
    if isinstance(images, Tensor):
        return images.split(size, dim=axis) if images.dim() > axis else (images,)
    if not isinstance(images, Iterable):
        raise TypeError(
            f"{caller}: {what} must be a tensor of images or an iterable of batches, got "
            f"{type(images).__name__}"
        )
    return images


def images_and_labels(batch: Any, *, caller: str, what: str = "images") -> tuple[Tensor, Any]:
    """The images of a batch, and their classes if it is a tuple that has them, else None.

    Raises:
        TypeError: the batch is neither a tensor nor a tuple that starts with one.

    >>> images_and_labels((torch.zeros(2, 3), torch.tensor([0, 1])), caller="f")[1]
    tensor([0, 1])
    """
    images, labels = batch, None
    if isinstance(batch, tuple | list) and batch:
        images, labels = batch[0], batch[1] if len(batch) > 1 else None
    if not isinstance(images, Tensor):
        raise TypeError(
            f"{caller}: a batch of {what} must be a tensor or a tuple that starts with one, got "
            f"{type(batch).__name__}"
        )
    return images, labels


def rows_of(value: Tensor, rows: Tensor) -> Tensor:
    """Some rows of ``[B, ...]``, no more than there are, in the same memory format.

    >>> rows_of(torch.arange(6).view(3, 2), torch.tensor([2, 0])).tolist()
    [[4, 5], [0, 1]]
    """
    kept = torch.empty_like(value[: len(rows)])
    return torch.index_select(value, 0, rows.to(value.device), out=kept)
