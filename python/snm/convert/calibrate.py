"""Runs the network over calibration images and turns its activations into thresholds."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx

from ..errors import DeadNeuronWarning
from .trace import Traced

Norm = Literal["neuron", "channel", "layer"]
Statistic = Literal["max"]

NORMS: tuple[str, ...] = get_args(Norm)
STATISTICS: tuple[str, ...] = get_args(Statistic)


def thresholds(
    traced: Traced, neurons: Mapping[fx.Node, str], batches: Iterable[Tensor], norm: Norm
) -> dict[fx.Node, Tensor]:
    """The largest activation of each ReLU over the calibration images, +inf where it is 0.

    Args:
        neurons: the ReLUs, and the name of each.
        batches: images ``[B, ...]``, on the model's device and in its dtype.
        norm: ``"neuron"``: one threshold per neuron, ``[C, H, W]``, in the memory format of the
            activations; ``"channel"``: one per channel, ``[C, 1, 1]``; ``"layer"``: one, ``[]``.

    Raises:
        ValueError: an activation is NaN or infinite, or its size changes between batches.
    """
    calibration = _Calibration(traced, neurons, norm)
    for images in batches:
        calibration.run(images)
    for node, largest in calibration.largest.items():
        if not bool(torch.isfinite(largest).all()):
            raise ValueError(
                f"convert: the activations of {neurons[node]} must be finite in calibration, "
                "got NaN or infinity; check the model's weights"
            )
    _warn_of_the_dead(neurons, calibration.largest, norm)
    return {
        node: torch.where(largest > 0, largest, torch.inf)
        for node, largest in calibration.largest.items()
    }


class _Calibration(fx.Interpreter):
    def __init__(self, traced: Traced, neurons: Mapping[fx.Node, str], norm: Norm) -> None:
        super().__init__(traced.root, graph=traced.graph)
        self.neurons = neurons
        self.norm = norm
        self.largest: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.neurons:
            largest = _largest(result, self.norm)
            before = self.largest.get(n)
            if before is not None and before.shape != largest.shape:
                raise ValueError(
                    f"convert: with norm={self.norm!r} all calibration images must be of one "
                    f"size, got activations of {list(before.shape)} and {list(largest.shape)} "
                    f"in {self.neurons[n]}"
                )
            self.largest[n] = largest if before is None else torch.maximum(before, largest)
        return result


def _largest(activation: Tensor, norm: Norm) -> Tensor:
    """The maximum over the batch, and over what shares a threshold; float32."""
    if norm == "layer":
        return activation.amax().float()
    if norm == "channel":
        shared = [0, *range(2, activation.dim())]
        return activation.amax(shared, keepdim=True)[0].float()
    # Thresholds laid out as the drive is are read by the neuron without a copy.
    laid_out = torch.empty_like(activation[0], dtype=torch.float32)
    return laid_out.copy_(activation.amax(0))


def _warn_of_the_dead(
    neurons: Mapping[fx.Node, str], largest: dict[fx.Node, Tensor], norm: Norm
) -> None:
    silent = {node: int((values == 0).sum()) for node, values in largest.items()}
    total = sum(silent.values())
    if total == 0:
        return
    everything = sum(values.numel() for values in largest.values())
    layers = ", ".join(
        f"{neurons[node]} {count} of {largest[node].numel()}"
        for node, count in silent.items()
        if count > 0
    )
    warnings.warn(
        f"convert: {total} of {everything} {norm}s never fired in calibration; their threshold "
        f"is +inf and they stay silent ({layers}); if that is too many, calibrate on more images",
        DeadNeuronWarning,
        stacklevel=5,
    )
