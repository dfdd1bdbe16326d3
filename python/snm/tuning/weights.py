"""Fits a layer's weights to what it reads in a spiking network, by least squares."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..nn.small_maps import SmallMapConv2d

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, SmallMapConv2d)
_ITERATIONS = 32
_PATIENCE = 3
"""Iterations that make nothing better before they end."""
_CHECKED = 4
"""One image in so many says when to end, and is not fitted to."""
_FEWEST = 8
"""Images for which that is worth while."""


class WeightFit(NamedTuple):
    """A layer with fitted weights."""

    layer: nn.Module
    change: float
    """Of the weights, in their norms."""
    error: float
    """Mean squared error of its output, in variances of what is wanted, on images not fitted to."""
    before: float
    """The same with the weights that it had."""


def can_be_fitted(layer: nn.Module) -> bool:
    """Whether a layer's output is linear in its weights, and nobody listens to it.

    >>> can_be_fitted(nn.Linear(2, 2)), can_be_fitted(nn.PReLU())
    (True, False)
    """
    return type(layer) in _LINEAR and not (layer._forward_hooks or layer._forward_pre_hooks)


@torch.no_grad()
def fit_weights(
    layer: nn.Module, inputs: Tensor, wanted: Tensor, go_on: Callable[[], bool]
) -> WeightFit | None:
    """Weights with which a layer makes of its inputs what is wanted, as far as it can.

    Conjugate gradients of the least squares, from the weights that it has and ended early: by the
    error on every fourth image, which the others are not fitted to.

    Args:
        layer: stays as it is.
        inputs: ``[B, ...]``, as the layer takes them.
        wanted: as the layer makes it, ``[B, ...]``.
        go_on: whether there is time for another iteration.

    Returns:
        None if nothing became better.

    Source: Hestenes and Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems",
    1952. Weights that make up for what those before lose, layer by layer on unlabelled images:
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
    fitted = torch.arange(len(inputs), device=inputs.device) % _CHECKED != 0
    fit, check = _Output(made, inputs[fitted]), _Output(made, inputs[~fitted])
    error, mean = fit.centred(wanted[fitted] - fit.of(weight))
    other = wanted[~fitted] - check.of(weight) - mean
    change = best = torch.zeros_like(weight)
    before = least = other.square().mean()
    since = 0
    gradient = fit.gradient(error)
    direction, power = gradient, gradient.square().sum()
    for _ in range(_ITERATIONS):
        if not power > 0 or since == _PATIENCE or not go_on():
            break
        step, mean = fit.centred(fit.of(direction))
        length = power / step.square().sum()
        change = change + length * direction
        error = error - length * step
        other = other - length * (check.of(direction) - mean)
        distance = other.square().mean()
        since = 0 if distance < least else since + 1
        if since == 0:
            best, least = change, distance
        gradient = fit.gradient(error)
        previous, power = power, gradient.square().sum()
        direction = gradient + power / previous * direction
    if not least < before:
        return None
    relative = (best.norm() / weight.norm()).item()
    weight.add_(best)
    if bias is not None:
        bias.add_(fit.centred(wanted - made(inputs))[1].flatten())
    variance = wanted.var(correction=0).clamp(min=torch.finfo(torch.float32).tiny)
    dtype = cast(Tensor, layer.weight).dtype
    return WeightFit(
        made.to(dtype), relative, (least / variance).item(), (before / variance).item()
    )


class _Output:
    """What a layer makes of some inputs, without its bias: linear in its weights."""

    def __init__(self, layer: nn.Module, inputs: Tensor) -> None:
        self.layer = layer
        self.inputs = inputs
        bias = cast(Tensor | None, layer.bias)
        self.others: dict[str, Any] = {} if bias is None else {"bias": torch.zeros_like(bias)}

    def of(self, weight: Tensor) -> Tensor:
        """The output for these weights."""
        out: Tensor = functional_call(self.layer, {"weight": weight, **self.others}, (self.inputs,))
        return out

    def gradient(self, error: Tensor) -> Tensor:
        """By the weights, of the sum of the output times ``error``."""
        with torch.enable_grad():
            weight = torch.zeros_like(cast(Tensor, self.layer.weight), requires_grad=True)
            (gradient,) = torch.autograd.grad(self.of(weight), weight, error)
        return gradient

    def centred(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """An output less each channel's mean, and the means."""
        channels = value.dim() - 1 if isinstance(self.layer, nn.Linear) else 1
        others = [dim for dim in range(value.dim()) if dim != channels]
        mean = value.mean(others, keepdim=True)
        return value - mean, mean
