"""Takes images in batches, with the class of each image if it is known."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...network.batches import cut_into_batches, images_and_labels
from ...network.memory import images_that_fit
from ...network.spiking import SpikingNetwork

_BATCH = 50
"""How many images of a tensor are simulated at once, at most."""
_BYTES = 40
"""How many bytes a neuron takes for one image: its drive, state and counts."""


def labelled_batches(
    net: SpikingNetwork, images: Tensor | Iterable[Any], labels: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The batches that are not empty, each with its images' classes, int64 on the network's device.

    Args:
        net: the network that is to simulate the images.
        images, labels: as for :func:`snm.report`.

    Raises:
        TypeError, ValueError: as for :func:`snm.report`.
    """
    if labels is not None:
        _check_classes(labels)
    axis = 1 if net.encoder == "frames" else 0
    device = net.device
    place, size = 0, None
    for batch, own in _batches(net, images, axis):
        if batch.dim() <= axis:
            raise ValueError(f"report: a batch of images must be batched, got {list(batch.shape)}")
        count = batch.shape[axis]
        if count == 0:
            continue
        size = size or batch.shape[axis + 1 :]
        if batch.shape[axis + 1 :] != size:
            raise ValueError(
                f"report: images must be {list(size)} each like the first, got "
                f"{list(batch.shape[axis + 1 :])}"
            )
        if labels is not None:
            own = labels[place : place + count]
        place += count
        if own is not None and own.shape != (count,):
            raise ValueError(
                f"report: labels must be as many as images, got {place} images or more"
            )
        yield batch, None if own is None else own.to(device, torch.int64)
    if place == 0:
        raise ValueError("report: images must hold at least one image, got none")
    if labels is not None and len(labels) != place:
        raise ValueError(f"report: labels must be of the {place} images, got {len(labels)}")


def _batches(
    net: SpikingNetwork, images: Tensor | Iterable[Any], axis: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The batches that a tensor is cut into, or those that are given, each with its classes if it
    brings them; ``axis`` is the one along which images lie."""
    size = _BATCH
    if isinstance(images, Tensor):
        # One that cannot be cut is refused as a whole.
        if images.dim() <= axis or images.shape[axis] == 0 or images.shape[0] == 0:
            return
        first = images if axis == 0 else images[0]
        size = min(_BATCH, images_that_fit(_BYTES * net.elements_per_step(first), images.device))
    for batch in cut_into_batches(images, size, caller="report", axis=axis):
        found, labels = images_and_labels(batch, caller="report")
        if labels is not None:
            _check_classes(labels)
        yield found, labels


def _check_classes(labels: object) -> None:
    """Refuses labels that are not integers."""
    known = isinstance(labels, Tensor) and not (
        labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    )
    if not known:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"report: labels must be integers, the class of each image, got {got}")
