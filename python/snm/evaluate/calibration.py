"""Calibration that several processes share, bit for bit that of one."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..conversion import calibrate
from ..conversion.histogram import widen
from ..conversion.statistics import LayerStatistics, Norm, Statistic, Statistics
from ..data.batches import Batch
from .processes import Processes


def shared_statistics(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    norm: Norm,
    statistic: Statistic,
    processes: Processes,
) -> Statistics:
    """Collects the statistics of all processes' images, the same in each of them.

    The largest activations are reduced to their maximum; each process widens its histograms to
    them, whose ranges are powers of two, and the counts add up exactly.

    Args:
        model: the same in all processes, on their device.
        batches: those of this process; there may be none.
        norm, statistic: as for :func:`snm.calibrate`.
        processes: who takes part.

    Raises:
        ValueError: as :func:`snm.calibrate`; or nobody has an image.

    >>> from snm.evaluate.processes import Processes
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> batch = Batch(0, torch.rand(16, 4), torch.zeros(16), ())
    >>> with Processes("cpu") as alone:
    ...     shared_statistics(model, [batch], norm="neuron", statistic="max", processes=alone)
    Statistics(images=16, norm='neuron', statistic='max', layers=['1', 'output'])
    """
    own, first = _own(model, batches, norm, statistic)
    layouts = processes.gather(None if own is None else _layout(own, first))
    known = [(layout, rank) for rank, layout in enumerate(layouts) if layout is not None]
    if not known:
        raise ValueError("calibration must hold at least one image, got none")
    layout, source = min(known, key=lambda pair: pair[0].first)
    for other, rank in known:
        if other.layers != layout.layers:
            raise ValueError(
                f"calibration images must be of one size with norm={norm!r}, got "
                f"activations of {layout.layers} and, in rank {rank}, {other.layers}"
            )
    device = processes.device
    # That the model is traced with the same images everywhere.
    example = torch.empty(layout.example, device=device)
    if own is not None and source == processes.rank:
        example.copy_(own.example)
    processes.broadcast(example, source)
    layers = _empty(layout, device) if own is None else own.layers
    images = torch.tensor(0 if own is None else own.images, device=device)
    processes.total(images)
    merged = {path: _merged(layers[path], processes) for path in layout.layers}
    return Statistics(norm, statistic, example, images=int(images), layers=merged)


class _Layout(NamedTuple):
    """The shapes of one process's statistics, by which the others lay out their own."""

    first: int
    """The first of its shards that has an image."""
    example: tuple[int, ...]
    """The shape of the images with which the model is traced."""
    layers: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None, torch.dtype | None]]
    """By layer, the shapes of the largest activations and of the histograms, and these' dtype."""


def _own(
    model: nn.Module, batches: Iterable[Batch], norm: Norm, statistic: Statistic
) -> tuple[Statistics | None, int]:
    """The statistics of this process's images, and the first of its shards that has any."""
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    some: Iterator[Batch] = (batch for batch in batches if len(batch.images))
    first = next(some, None)
    if first is None:
        return None, 0
    images = (batch.images.to(device) for batch in chain((first,), some))
    return calibrate(model, images, norm=norm, statistic=statistic), first.shard


def _layout(statistics: Statistics, first: int) -> _Layout:
    layers = {
        path: (
            tuple(layer.largest.shape),
            None if layer.counts is None else tuple(layer.counts.shape),
            None if layer.counts is None else layer.counts.dtype,
        )
        for path, layer in statistics.layers.items()
    }
    return _Layout(first, tuple(statistics.example.shape), layers)


def _empty(layout: _Layout, device: torch.device) -> dict[str, LayerStatistics]:
    """The statistics that no images have, laid out as another process's."""
    layers = {}
    for path, (shape, histograms, dtype) in layout.layers.items():
        counts: Tensor | None = None
        if histograms is not None:
            counts = torch.zeros(histograms, dtype=dtype, device=device)
        layers[path] = LayerStatistics(torch.zeros(shape, device=device), counts)
    return layers


def _merged(layer: LayerStatistics, processes: Processes) -> LayerStatistics:
    largest = layer.largest.clone()
    processes.largest(largest)
    if layer.counts is not None:
        widen(layer.counts, layer.largest.flatten(), largest.flatten())
        processes.total(layer.counts)
    return LayerStatistics(largest, layer.counts)
