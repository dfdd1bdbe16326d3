"""Conversion of a trained ReLU network into a spiking network."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from snm_kernels import SNMRule

from ..errors import ConversionError
from ..simulate import SpikingNetwork, check_count
from .calibrate import NORMS, STATISTICS, Norm, Statistic, thresholds
from .check import find_offences
from .compare import check_traced
from .domains import sort_nodes
from .fold import fold_batch_norms
from .in_place import remove_in_place
from .inputs import Progress, batches_of, check_model, one_of, rule_of
from .rewire import build_layers, lay_out, neuron_paths
from .shapes import record_shapes
from .trace import remove_unused, trace

__all__ = ["Norm", "Progress", "Statistic", "convert"]


@torch.no_grad()
def convert(
    model: nn.Module,
    calibration: Tensor | Iterable[Any],
    *,
    preset: str | SNMRule = "snm",
    norm: Norm = "neuron",
    statistic: Statistic = "max",
    chunk_steps: int = 8,
    progress: Progress | None = None,
) -> SpikingNetwork:
    """Turns a trained ReLU network into a spiking network of signed neurons with memory.

    A copy of the model is traced, its batch norms are folded, and it is run over calibration
    images; each ReLU becomes a layer of neurons whose threshold is the largest activation seen.
    The model itself is left as it is.

    Args:
        model: in evaluation mode, on one device, in float32, float16 or bfloat16. Its forward
            takes the images first, ``[B, ...]``, and returns one tensor, the logits.
        calibration: images ``[N, ...]``, or batches of them, such as a data loader: tensors, or
            tuples that start with one. They are moved to the model's device.
        preset: the neuron: a name in :data:`snm.PRESETS`, or a rule.
        norm: what shares a threshold: ``"neuron"`` nothing, the paper's NeuronNorm, for images
            of the calibrated size alone; ``"channel"`` the neurons of a channel, dimension 1;
            ``"layer"`` all of a layer.
        statistic: ``"max"``, the largest activation.
        chunk_steps: how many time steps are simulated at once; more take more memory. The result
            does not depend on it, but for rounding in the model's own layers.
        progress: wraps the calibration batches, as ``tqdm`` does.

    Returns:
        The network. A neuron that never fired in calibration has the threshold +inf and is
        silent.

    Raises:
        ConversionError: the model holds operations that have no spiking counterpart; it names
            each. Or tracing misses something that the model does.
        ValueError: the model is in training mode, on several devices or in another dtype;
            calibration holds no image, NaN or infinity; the preset, norm or statistic is unknown;
            chunk_steps is less than 1.
        TypeError: an argument is of the wrong type.

    Warns:
        DeadNeuronWarning: neurons never fired in calibration; it counts them.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022, section 4 (NeuronNorm).

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    >>> net = convert(model.eval(), torch.rand(16, 1, 8, 8), preset="snm-zero")
    >>> net(torch.rand(2, 1, 8, 8), timesteps=16).shape
    torch.Size([2, 10])
    """
    rule = rule_of(preset)
    one_of("norm", norm, NORMS)
    one_of("statistic", statistic, STATISTICS)
    check_count("convert", "chunk_steps", chunk_steps)
    device, dtype = check_model(model)
    batches = batches_of(calibration, progress, device, dtype)
    first = next(batches, None)
    if first is None:
        raise ValueError("convert: calibration must hold at least one image, got none")

    traced = trace(model)
    record_shapes(traced, first)
    offences = remove_in_place(traced)
    remove_unused(traced.graph)
    sort_nodes(traced)
    offences += find_offences(traced)
    if offences:
        raise ConversionError(offences)
    check_traced(traced, model, first)
    fold_batch_norms(traced)
    paths = neuron_paths(traced)
    found = thresholds(traced, paths, chain((first,), batches), norm)
    return SpikingNetwork(
        build_layers(traced, paths, found, rule),
        lay_out(traced, paths, per_neuron=norm == "neuron"),
        image_dims=first.dim(),
        chunk_steps=chunk_steps,
    )
