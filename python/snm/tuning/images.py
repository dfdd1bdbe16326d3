"""Chooses the images that tuning uses: those that layers are fitted to, and those held back."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..conversion.inputs import batches_of
from ..network.batches import rows_of
from ..network.memory import images_that_fit
from ..network.spiking import SpikingNetwork

_MOST_IMAGES = 1000
"""How many calibration images are used at most."""
_SEEN_MOST = 128
"""How many images layers are fitted to at most, however few time steps there are."""
_SEEN_STEPS = 1024
"""How many images times time steps layers are fitted to."""
_SEEN_LEAST = 32
"""How many images layers are fitted to at least, however many time steps there are."""
_HELD_STEPS = 2048
"""How many images times time steps are held back."""
_HELD_LEAST = 64
"""How many images are held back at least, however many time steps there are."""


def images_in_random_order(
    calibration: Tensor | Iterable[Any],
    device: torch.device | None,
    dtype: torch.dtype | None,
    seed: int,
) -> Tensor:
    """The calibration images to use, in an order that ``seed`` draws.

    Args:
        calibration: images or batches of them, as :func:`snm.tune` takes them.
        device: the device that they have to be on; None for any.
        dtype: the dtype that they have to be of; None for any.
        seed: that of the order.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(calibration, Tensor) and calibration.dim() > 1:
        order = torch.randperm(len(calibration), generator=generator)
        calibration = rows_of(calibration, order[:_MOST_IMAGES])
        for images in batches_of((calibration,), None, device, dtype, "snm.tune"):
            return _at_least_two(images)
        return _at_least_two(calibration)
    found: list[Tensor] = []
    for batch in batches_of(calibration, None, device, dtype, "snm.tune"):
        found.append(batch)
        if batch.shape[1:] != found[0].shape[1:]:
            raise ValueError(
                f"snm.tune: calibration must be images of one size, got {list(batch.shape[1:])} "
                f"after {list(found[0].shape[1:])}"
            )
        if sum(map(len, found)) >= _MOST_IMAGES:
            break
    if not found:
        return _at_least_two(torch.empty(0))
    images = torch.cat(found)[:_MOST_IMAGES]
    return _at_least_two(rows_of(images, torch.randperm(len(images), generator=generator)))


def _at_least_two(images: Tensor) -> Tensor:
    """The images themselves; refuses fewer than two."""
    if len(images) < 2:
        raise ValueError(f"snm.tune: calibration must hold at least two images, got {len(images)}")
    return images


def check_size(net: SpikingNetwork, images: Tensor) -> None:
    """Refuses images that the network cannot take, also by their size where it matters."""
    net.inputs.check(images)
    bound = net.fixed_size or any(fire.per_neuron for fire in net.program.neurons)
    if bound and tuple(images.shape[1:]) != net.image_shape:
        raise ValueError(
            f"snm.tune: calibration must be images of {list(net.image_shape)} each, got "
            f"{list(images.shape[1:])}"
        )


def held_back(images: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Splits images into those that are held back and all others."""
    held = min(len(images) // 3 or 1, max(_HELD_STEPS // steps, _HELD_LEAST))
    return images[:held], images[held:]


def most_seen(net: SpikingNetwork, images: Tensor, steps: int) -> int:
    """How many images to fit layers to, if there is time, by how many fit in memory."""
    bytes_per_image = images.element_size() * steps * net.elements_per_step(images)
    wanted = min(_SEEN_MOST, max(_SEEN_STEPS // steps, _SEEN_LEAST))
    return int(min(wanted, images_that_fit(bytes_per_image, images.device)))


def affordable(images: Tensor, count: float) -> tuple[Tensor, bool]:
    """The first images, as many as there is time for, and whether these are all.

    Args:
        images: those to take from.
        count: how many there is time for; at least one is taken.
    """
    taken = max(1, int(min(count, len(images))))
    return images[:taken], taken == len(images)
