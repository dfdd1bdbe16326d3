"""What people publish about a converted network, from one simulation."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..conversion.inputs import check_model
from ..diagnosis.result import Diagnosis
from ..network.checks import check_count
from ..network.spiking import SpikingNetwork
from .count.batches import labelled_batches
from .count.gather import Gathering
from .energy import Energy
from .output import Report
from .result import LayerReport, Macs

__all__ = ["Energy", "LayerReport", "Macs", "Report", "report"]


@torch.no_grad()
def report(
    net: SpikingNetwork,
    images: Tensor | Iterable[Any],
    *,
    timesteps: int,
    model: nn.Module | None = None,
    labels: Tensor | None = None,
    diagnosis: Diagnosis | None = None,
    generator: torch.Generator | None = None,
) -> Report:
    """What people publish about a converted network, from one simulation of it.

    Spikes are counted in the neurons' own launch. A synaptic operation is a spike that arrives over
    one synapse, that is, one weight that is not 0 and one position that there is: strides, borders,
    dilation, groups and pruned weights are counted as they are, not estimated. A spike that reaches
    a weighted layer through sums, concatenations, padding or average pooling costs its synapses
    there, one of size s costs s times as much, and one that neurons or a max pooling read without
    weights costs one operation for each that reads it. Whatever a threshold or a batch norm scales
    a spike by does not change that. Weighted layers that read no spikes are counted as
    multiply-accumulates, see :class:`snm.reports.result.Macs`.

    Args:
        net: with any encoder and readout.
        images: ``[N, ...]`` as for a call of the network, cut to fit into memory; or batches of
            them, all of one size; or tuples of a batch and its classes, as data loaders yield. With
            encoder="frames", frames ``[T, N, ...]``, or batches of such.
        timesteps: T, >= 1.
        model: the ReLU network that it was converted from, to be timed and to be compared with;
            None for neither. Not with encoder="frames", whose frames it does not take.
        labels: the class of each image, integers ``[N]``; None for those of the batches, if any.
        diagnosis: what :func:`snm.diagnose` found in as many time steps, to be part of the report.
        generator: with encoder="poisson", what draws.

    Returns:
        :class:`snm.Report`; print it, or save it as JSON or as a page.

    Raises:
        ValueError: as for a call; images are of several sizes, or there are none; an operation
            cannot be counted, which is then named; the model computes something else than the
            network with ReLUs does, or meets encoder="frames"; there are not as many labels as
            images, or the answers are not ``[B, classes]`` with two classes or more; the diagnosis
            is another network's or of another T.
        RuntimeError: as for a call; a layer of neurons has hooks, which would not run.
        TypeError: as for a call; labels are no integers.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2),
    ...                       nn.ReLU(), nn.Linear(2, 2)).eval()
    >>> for layer in model[::2]: _ = nn.init.ones_(layer.weight)
    >>> images = torch.tensor([[1.0], [0.5]])
    >>> found = report(convert(model, images), images, timesteps=4, model=model)
    >>> found.layers["1"].positive, found.layers["1"].synaptic_operations, found.macs.relu
    (6, 12, 7)
    """
    if not isinstance(net, SpikingNetwork):
        raise TypeError(f"report: net must be a SpikingNetwork, got {type(net).__name__}")
    steps = check_count("report", "timesteps", timesteps)
    net.checked_timesteps(steps)
    _check_diagnosis(net, diagnosis, steps)
    if model is not None:
        check_model(model, "report")
        if net.encoder == "frames":
            raise ValueError(
                "report: model must be None with encoder='frames': it takes images, not frames"
            )
    gathering = Gathering(net, steps, model, generator)
    for batch, classes in labelled_batches(net, images, labels):
        gathering.add(batch, classes)
    return gathering.result(diagnosis)


def _check_diagnosis(net: SpikingNetwork, diagnosis: Diagnosis | None, timesteps: int) -> None:
    if diagnosis is None:
        return
    if not isinstance(diagnosis, Diagnosis):
        raise TypeError(
            f"report: diagnosis must be what snm.diagnose returns, got {type(diagnosis).__name__}"
        )
    if list(diagnosis.layers) != list(net.layers) or diagnosis.timesteps != timesteps:
        raise ValueError(
            f"report: diagnosis must be of this network in {timesteps} time steps, got one of "
            f"{len(diagnosis.layers)} layers in {diagnosis.timesteps}"
        )
