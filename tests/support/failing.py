"""A model whose preprocessing fails in one of several processes, in the middle of its work."""

import os

import torch
from torch import nn

from snm.data.samples import Picture
from support.evaluation import GREY, small_network

seen: list[int] = []


def preprocess(picture: Picture) -> torch.Tensor:
    """The preprocessing of the small network, which in rank 1 fails at the twentieth picture."""
    seen.append(1)
    if os.environ["RANK"] == "1" and len(seen) == 20:
        raise ValueError("the disk of rank 1 is on fire")
    return GREY(picture)


def network() -> tuple[nn.Module, object]:
    """The model for ``support.failing:network``."""
    return small_network(), preprocess
