"""Fits a layer's weights to what it reads in a spiking network, by least squares."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..nn.small_maps import SmallMapConv2d

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, SmallMapConv2d)
"""The layers whose output is linear in their weights."""
_ITERATIONS = 32
"""How many iterations there are at most."""
_PATIENCE = 3
"""After how many iterations without improvement to end."""
_CHECKED = 4
"""One image in so many is not fitted to, but decides when to end."""
_FEWEST = 8
"""The fewest images for which fitting weights is worth while."""


class FittedLayer(NamedTuple):
    """A layer with fitted weights, and how much better it is."""

    layer: nn.Module
    """The layer."""
    change: float
    """The norm of the change of the weights, over the norm of the weights before."""
    error: float
    """The mean squared error of its output on images not fitted to, in units of the variance of
    what is wanted."""
    before: float
    """The error with the weights before, on the same images and in the same units."""


def can_be_fitted(layer: nn.Module) -> bool:
    """Whether a layer's output is linear in its weights and no hook listens to it.

    >>> can_be_fitted(nn.Linear(2, 2)), can_be_fitted(nn.PReLU())
    (True, False)
    """
    return type(layer) in _LINEAR and not (layer._forward_hooks or layer._forward_pre_hooks)


@torch.no_grad()
def fit_weights(
    layer: nn.Module, inputs: Tensor, wanted: Tensor, go_on: Callable[[], bool]
) -> FittedLayer | None:
    """Fits a layer's weights so that it makes what is wanted of its inputs, as far as it can.

    Least squares are solved by conjugate gradients that start at the weights before and end early,
    when the error on every fourth image, which weights are not fitted to, falls no more.

    Args:
        layer: the layer before; it is not changed.
        inputs: ``[B, ...]``, as the layer takes them.
        wanted: ``[B, ...]``, in the form of the layer's output.
        go_on: whether there is time for another iteration.

    Returns:
        The layer with fitted weights; None if there are too few images, or if no other weights are
        better.

    Source: Hestenes and Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems",
    1952. Weights that make up for what layers before lose, layer by layer on unlabelled images:
    Hubara et al., "Accurate Post Training Quantization With Small Calibration Sets", ICML 2021.

    >>> _ = torch.manual_seed(0)
    >>> layer, inputs = nn.Linear(2, 1), torch.rand(64, 2)
    >>> found = fit_weights(layer, inputs, inputs.sum(1, keepdim=True), lambda: True)
    >>> found.layer.weight.round(decimals=3).tolist(), found.error < found.before
    ([[1.0, 1.0]], True)
    """
    if len(inputs) < _FEWEST:
        return None
    made = copy.deepcopy(layer).float()
    weight, bias = cast(Tensor, made.weight), cast(Tensor | None, made.bias)
    inputs, wanted = inputs.float(), wanted.float()
    fitted_to = torch.arange(len(inputs), device=inputs.device) % _CHECKED != 0
    output, checked_output = _Output(made, inputs[fitted_to]), _Output(made, inputs[~fitted_to])
    error, mean = output.centred(wanted[fitted_to] - output.of(weight))
    other = wanted[~fitted_to] - checked_output.of(weight) - mean
    change = best = torch.zeros_like(weight)
    before = least = other.square().mean()
    since = 0
    gradient = output.gradient(error)
    direction, power = gradient, gradient.square().sum()
    for _ in range(_ITERATIONS):
        if not power > 0 or since == _PATIENCE or not go_on():
            break
        step, mean = output.centred(output.of(direction))
        length = power / step.square().sum()
        change = change + length * direction
        error = error - length * step
        other = other - length * (checked_output.of(direction) - mean)
        distance = other.square().mean()
        since = 0 if distance < least else since + 1
        if since == 0:
            best, least = change, distance
        gradient = output.gradient(error)
        previous, power = power, gradient.square().sum()
        direction = gradient + power / previous * direction
    if not least < before:
        return None
    relative = (best.norm() / weight.norm()).item()
    weight.add_(best)
    if bias is not None:
        bias.add_(output.centred(wanted - made(inputs))[1].flatten())
    variance = wanted.var(correction=0).clamp(min=torch.finfo(torch.float32).tiny)
    dtype = cast(Tensor, layer.weight).dtype
    return FittedLayer(
        made.to(dtype), relative, (least / variance).item(), (before / variance).item()
    )


class _Output:
    """What a layer makes of some inputs without its bias, as a linear function of its weights."""

    def __init__(self, layer: nn.Module, inputs: Tensor) -> None:
        self.layer = layer
        self.inputs = inputs
        bias = cast(Tensor | None, layer.bias)
        self.others: dict[str, Any] = {} if bias is None else {"bias": torch.zeros_like(bias)}

    def of(self, weight: Tensor) -> Tensor:
        """The output that the layer has with these weights."""
        out: Tensor = functional_call(self.layer, {"weight": weight, **self.others}, (self.inputs,))
        return out

    def gradient(self, error: Tensor) -> Tensor:
        """The gradient, with respect to the weights, of the sum of the output times ``error``."""
        with torch.enable_grad():
            weight = torch.zeros_like(cast(Tensor, self.layer.weight), requires_grad=True)
            (gradient,) = torch.autograd.grad(self.of(weight), weight, error)
        return gradient

    def centred(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """An output minus each channel's mean, and the means."""
        channels = value.dim() - 1 if isinstance(self.layer, nn.Linear) else 1
        others = [dim for dim in range(value.dim()) if dim != channels]
        mean = value.mean(others, keepdim=True)
        return value - mean, mean
