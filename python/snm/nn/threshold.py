"""Checks the thresholds that layers are given."""

import torch
from torch import Tensor


def checked_threshold(layer: str, threshold: Tensor | float) -> Tensor:
    """A copy of a threshold in float32, checked to be positive.

    Args:
        layer: the name of the layer that takes it, for the message.
        threshold: a number or a tensor.

    Raises:
        ValueError: a threshold is NaN, zero or negative.

    >>> checked_threshold("SNMNeuron", 0.5)
    tensor(0.5000)
    """
    kept = torch.as_tensor(threshold).detach().to(torch.float32, copy=True)
    if not bool((kept > 0).all()):
        wrong = kept[~(kept > 0)]
        raise ValueError(
            f"{layer}: threshold must be > 0 everywhere, got {wrong[0].item()} "
            f"({wrong.numel()} of {kept.numel()} values are not)"
        )
    return kept
