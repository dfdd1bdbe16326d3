"""The images that tuning uses, and for what."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..conversion.inputs import batches_of
from ..network.batches import rows_of
from ..network.memory import images_that_fit
from ..network.spiking import SpikingNetwork

_MOST_IMAGES = 1000
_SEEN_MOST, _SEEN_STEPS, _SEEN_LEAST = 128, 1024, 32
"""Images that layers are fitted to: at most; times the time steps; and at least."""
_HELD_STEPS, _HELD_LEAST = 2048, 64
"""Images held back: times the time steps; and at least."""


def images_in_random_order(
    calibration: Tensor | Iterable[Any],
    device: torch.device | None,
    dtype: torch.dtype | None,
    seed: int,
) -> Tensor:
    """The images to use, in random order."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(calibration, Tensor) and calibration.dim() > 1:
        order = torch.randperm(len(calibration), generator=generator)
        calibration = rows_of(calibration, order[:_MOST_IMAGES])
        for images in batches_of((calibration,), None, device, dtype, "snm.tune"):
            return _checked(images)
        return _checked(calibration)
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
        return _checked(torch.empty(0))
    images = torch.cat(found)[:_MOST_IMAGES]
    return _checked(rows_of(images, torch.randperm(len(images), generator=generator)))


def _checked(images: Tensor) -> Tensor:
    if len(images) < 2:
        raise ValueError(f"snm.tune: calibration must hold at least two images, got {len(images)}")
    return images


def check_size(net: SpikingNetwork, images: Tensor) -> None:
    net.inputs.check(images)
    bound = net.fixed_size or any(fire.per_neuron for fire in net.program.neurons)
    if bound and tuple(images.shape[1:]) != net.image_shape:
        raise ValueError(
            f"snm.tune: calibration must be images of {list(net.image_shape)} each, got "
            f"{list(images.shape[1:])}"
        )


def held_back(images: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The images that are held back, and the others."""
    held = min(len(images) // 3 or 1, max(_HELD_STEPS // steps, _HELD_LEAST))
    return images[:held], images[held:]


def most_seen(net: SpikingNetwork, images: Tensor, steps: int) -> int:
    """How many images layers are fitted to, if there is time."""
    bytes_per_image = images.element_size() * steps * net.elements_per_step(images)
    wanted = min(_SEEN_MOST, max(_SEEN_STEPS // steps, _SEEN_LEAST))
    return int(min(wanted, images_that_fit(bytes_per_image, images.device)))


def affordable(images: Tensor, count: float) -> tuple[Tensor, bool]:
    """As many images as there is time for, and whether these are all."""
    taken = max(1, int(min(count, len(images))))
    return images[:taken], taken == len(images)
