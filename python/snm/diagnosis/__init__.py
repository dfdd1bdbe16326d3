"""Takes a spiking network's errors apart by their causes, layer by layer."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion.inputs import batches_of, check_model
from ..conversion.tracing.compare import agree, result_of
from ..network.checks import check_count
from ..network.inputs import check_direct, check_floating
from ..network.memory import images_that_fit
from ..network.relu import relu_pass
from ..network.spiking import SpikingNetwork
from .result import PARTS, Diagnosis, LayerDiagnosis, Part
from .watch import Watch

__all__ = ["PARTS", "Diagnosis", "LayerDiagnosis", "Part", "diagnose"]

_BATCH = 50
"""How many images of a tensor are simulated at once, at most."""
_BYTES = 80
"""How many bytes a neuron takes for one image: its drive, state and the parts of its error."""


@torch.no_grad()
def diagnose(
    net: SpikingNetwork,
    model: nn.Module | None,
    images: Tensor | Iterable[Any],
    *,
    timesteps: int,
) -> Diagnosis:
    """Says for each layer how far its rates are from the ReLU network's activations, and why.

    A neuron's error is its rate θ·m(T)/T minus the activation. It is the sum of five parts, each of
    them the difference between two stages on the way from the activation to the rate. With d the
    mean over time of what drives the neuron, and b its bias in a tuned network, the stages are
    the activation and then:

    - inherited: what the ReLU makes of d. The difference is what the layers before cost, minus
      what weights that tuning fitted make up for.
    - correction: what the ReLU makes of d + b. The difference is what the bias adds to make up for
      the other parts.
    - clipping: the same, but at most the largest rate, which is θ·Γ, less if the count has a bound,
      and 0 for a silent neuron.
    - quantisation: the rate that the neuron has if d itself drives it at every step.
    - order: the neuron's rate. The difference is what it costs that drives come unevenly.

    Args:
        net: a network with encoder="direct".
        model: the ReLU network that it was converted from, to make sure that the network with ReLUs
            in place of its neurons computes the same; None to trust that it does.
        images: ``[N, ...]`` as for a call of the network, or batches of them, or tuples that start
            with a batch. Memory grows with the largest batch; a tensor is cut to fit.
        timesteps: T, >= 1.

    Returns:
        The errors and their parts, which add up exactly. Print it for a table and a sentence of
        advice, or call its ``picture``.

    Raises:
        ValueError: the encoder is not "direct"; the network is one of integers; there are no
            images; the model does not compute what the network with ReLUs computes; or as for a
            call.
        TypeError, ConversionError: as for a call and for :func:`snm.convert`.

    Source of the parts: the clipping and quantisation errors are those of Bu et al., "Optimal
    ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks", ICLR 2022.
    Their third error, unevenness, is called order here; it is what the negative spikes of Wang et
    al., IJCAI 2022, are for.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)).eval()
    >>> _ = nn.init.ones_(model[0].weight)
    >>> net = convert(model, torch.tensor([[1.0]]))
    >>> layer = diagnose(net, model, torch.tensor([[1.5]]), timesteps=4).layers["1"]
    >>> layer.error.signed, layer.parts["clipping"].signed
    (-0.5, -0.5)
    """
    if not isinstance(net, SpikingNetwork):
        raise TypeError(f"diagnose: net must be a SpikingNetwork, got {type(net).__name__}")
    check_direct("diagnose", net.encoder)
    check_floating("diagnose", net.integers, "diagnose")
    steps = check_count("diagnose", "timesteps", timesteps)
    if model is not None:
        check_model(model, "diagnose")
    watch = Watch(net, steps)
    seen = 0
    for batch in _batches(net, images):
        net.inputs.check(batch)
        if len(batch) == 0:
            continue
        seen += len(batch)
        activations, output = relu_pass(net, batch)
        if model is not None:
            check_same("diagnose", net, output, result_of(model, batch))
        net.simulation(batch, timesteps=steps, observers=[watch]).answer()
        watch.compare(activations)
    if seen == 0:
        raise ValueError("diagnose: images must hold at least one image, got none")
    return Diagnosis(steps, seen, watch.layers(), tuned=net.tuned_for is not None)


def _batches(net: SpikingNetwork, images: Tensor | Iterable[Any]) -> Iterable[Tensor]:
    """The images in batches that there is memory for."""
    size = _BATCH
    if isinstance(images, Tensor):
        net.inputs.check(images)
        bytes_per_image = _BYTES * net.elements_per_step(images)
        size = min(size, images_that_fit(bytes_per_image, images.device))
    return batches_of(images, None, None, None, "diagnose", what="images", size=size)


def check_same(caller: str, net: SpikingNetwork, found: Tensor, expected: Tensor) -> None:
    """Refuses a model that does not compute what a network with ReLUs for neurons computes.

    Args:
        caller: the name of the function to put before the message.
        net: the spiking network.
        found: what the network with ReLUs computes.
        expected: what the model computes of the same images.
    """
    if net.readout == "count":
        expected = expected.clamp(min=0)
    if not agree(found, expected):
        difference = "another shape"
        if found.shape == expected.shape:
            difference = f"logits that differ by up to {(found - expected).abs().amax():.3g}"
        raise ValueError(
            f"{caller}: model must compute what the network with ReLUs in the place of its neurons "
            f"does, got {difference}; give the model that it was converted from, unchanged since, "
            "or None"
        )
