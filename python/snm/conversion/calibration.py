"""Runs a model over calibration images and keeps what is seen of its activations."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from .inputs import Progress, batches_of, check_model, one_of
from .lowering.prepare import Prepared, prepare
from .statistics import NORMS, STATISTICS, Norm, Statistic, Statistics
from .thresholds import Choice
from .tracing.traced_model import TracedModel


class Images(NamedTuple):
    """The images that a model is calibrated with, checked and on its device."""

    first: Tensor
    """The first batch, with which the model is traced."""
    batches: Iterator[Tensor]
    """All batches, the first among them; they can be gone through once."""
    statistics: Statistics | None = None
    """What was seen of images before, in which case there are no batches left."""


@torch.no_grad()
def calibrate(
    model: nn.Module,
    calibration: Tensor | Iterable[Any],
    *,
    norm: Norm = "neuron",
    statistic: Statistic = "max",
    progress: Progress | None = None,
) -> Statistics:
    """Runs a model over calibration images and keeps what :func:`snm.convert` needs of them.

    Convert in one go if the images are at hand. Calibrate apart to share the work between
    processes and merge what they found, or to convert in several ways after one pass.

    Args:
        model: as for :func:`snm.convert`.
        calibration: images ``[N, ...]``, or batches of them, as for :func:`snm.convert`.
        norm: what shares a threshold: ``"neuron"``, ``"channel"`` or ``"layer"``.
        statistic: ``"max"`` keeps the largest activations alone; ``"percentile"`` and ``"mse"``
            keep histograms too, which answer every statistic.
        progress: wraps the calibration batches, as ``tqdm`` does.

    Returns:
        The statistics. Their memory does not grow with the number of images.

    Raises:
        ConversionError: the model cannot be converted; it names each reason.
        ValueError: the model or the images are not as :func:`snm.convert` takes them; an
            activation is NaN or infinite; the norm or statistic is unknown.
        TypeError: an argument is of the wrong type.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> statistics = calibrate(model, torch.rand(100, 4), statistic="percentile")
    >>> statistics.images, statistics.layers["1"].largest.shape
    (100, torch.Size([8]))
    """
    one_of("norm", norm, NORMS)
    one_of("statistic", statistic, STATISTICS)
    images = open_images(model, calibration, progress)
    # With the neurons of readout="count", so that they serve either readout.
    prepared = prepare(model, images.first, "direct", "count")
    return observe(prepared, images, norm, statistic)


def open_images(
    model: nn.Module, calibration: Tensor | Iterable[Any], progress: Progress | None
) -> Images:
    """Opens the calibration images of a model, see :func:`calibrate`."""
    device, dtype = check_model(model)
    batches = batches_of(calibration, progress, device, dtype)
    first = next(batches, None)
    if first is None:
        raise ValueError("convert: calibration must hold at least one image, got none")
    return Images(first, chain((first,), batches))


def open_calibration(
    model: nn.Module,
    calibration: Tensor | Iterable[Any] | Statistics,
    choice: Choice,
    progress: Progress | None,
) -> Images:
    """Opens calibration images, or takes up statistics of them, see :func:`snm.convert`."""
    if not isinstance(calibration, Statistics):
        return open_images(model, calibration, progress)
    choice.check_statistics(calibration)
    device, dtype = check_model(model)
    example = calibration.example
    if dtype is not None and example.is_floating_point():
        example = example.to(dtype)
    (first,) = batches_of((example,), None, device, dtype)
    return Images(first, iter(()), calibration)


def observe(prepared: Prepared, images: Images, norm: Norm, statistic: Statistic) -> Statistics:
    """The statistics of a prepared model's activations over images; see :func:`calibrate`."""
    if images.statistics is not None:
        return images.statistics
    statistics = Statistics(norm, statistic, prepared.example)

    def see(node: fx.Node, activation: Tensor) -> None:
        statistics.update(prepared.paths[node], activation)

    for batch in images.batches:
        _check_size(batch, prepared.traced)
        try:
            prepared.watch(batch, see)
        except RuntimeError as error:
            if batch.shape[1:] == images.first.shape[1:]:
                raise
            raise ValueError(
                f"convert: the model fails on calibration images of {list(batch.shape[1:])}, "
                f"after those of {list(images.first.shape[1:])}: {error}"
            ) from error
        statistics.images += len(batch)
    return statistics


def _check_size(images: Tensor, traced: TracedModel) -> None:
    size = list(images.shape[1:])
    if traced.fixed_size is not None and size != list(traced.fixed_size):
        raise ValueError(
            f"convert: calibration images must be {list(traced.fixed_size)} each, for which "
            f"torch.export traced the model, got {size}"
        )
