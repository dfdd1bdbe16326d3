"""A model whose images fail in one of several processes, in the middle of its work."""

import os

import torch
from torch import nn

from snm.data.samples import Picture
from support.evaluation import GREY, small_network

seen: list[int] = []


def preprocess(picture: Picture) -> torch.Tensor:
    """That of the small network; in rank 1 the twentieth picture fails."""
    seen.append(1)
    if os.environ["RANK"] == "1" and len(seen) == 20:
        raise ValueError("the disk of rank 1 is on fire")
    return GREY(picture)


def network() -> tuple[nn.Module, object]:
    """The model for ``support.failing:network``."""
    return small_network(), preprocess
