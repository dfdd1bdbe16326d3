"""The network that comes with the package, as commands load it."""

from torch import nn

from ..data.preprocess import Preprocessing
from ..demo.data import MEAN, STD, load_network


def packaged_network() -> tuple[nn.Module, Preprocessing]:
    """The trained network that comes with the package, and how its images are made of pictures.

    >>> packaged_network()[1].mean
    (0.286,)
    """
    return load_network(), Preprocessing((MEAN,), (STD,))
