"""How images are made, kept with a network: the one place that writes it there and reads it."""

from ..data.preprocess import Preprocess, Preprocessing
from ..network.spiking import SpikingNetwork


def keep_preprocessing(net: SpikingNetwork, preprocess: Preprocess) -> None:
    """Notes with a network how its images are made, so that it is saved with it.

    A function of somebody's own cannot be kept; then what the network has stays.

    >>> import torch
    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net = convert(model, torch.rand(32, 4))
    >>> kept_preprocessing(net) is None
    True
    >>> keep_preprocessing(net, Preprocessing(mean=(0.5,), std=(0.25,)))
    >>> kept_preprocessing(net).std
    (0.25,)
    """
    if isinstance(preprocess, Preprocessing):
        net.preprocessing = preprocess.to_json()


def kept_preprocessing(net: SpikingNetwork) -> Preprocessing | None:
    """How a network's images are made, as :func:`keep_preprocessing` noted it; None if it did not.

    Raises:
        ValueError: what is noted is something else.
    """
    return Preprocessing.from_json(net.preprocessing) if net.preprocessing else None
