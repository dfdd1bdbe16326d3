"""What calibration keeps of the activations it has seen, and what it tells about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from . import histogram

Norm = Literal["neuron", "channel", "layer"]
Statistic = Literal["max", "percentile", "mse"]

NORMS: tuple[Norm, ...] = get_args(Norm)
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)

_Name = TypeVar("_Name")


@dataclass(frozen=True, slots=True, eq=False)
class LayerStatistics:
    """What is known of the activations of one layer of neurons."""

    largest: Tensor
    """The largest activation for each threshold, float32 ``[C, H, W]``, ``[C, 1, 1]`` or ``[]``."""
    counts: Tensor | None
    """How many activations above zero fell in each bin, ``[thresholds, bins]``; int32 with
    norm="neuron", else int64. None if histograms are not kept."""

    def updated(self, activation: Tensor, norm: Norm, peak: Tensor) -> "LayerStatistics":
        """The statistics with the activations of more images; the counts are written in place.

        Args:
            activation: ``[B, ...]``.
            peak: the largest of them, for each threshold.
        """
        largest = torch.maximum(self.largest, peak).contiguous()
        if self.counts is not None:
            after = largest.flatten()
            histogram.widen(self.counts, self.largest.flatten(), after)
            per_image = max(1, activation.numel() // len(activation))
            for images in activation.split(max(1, histogram.SLICE // per_image)):
                histogram.count(self.counts, after, _rows(images, norm))
        return LayerStatistics(largest, self.counts)

    def merged(self, other: "LayerStatistics") -> "LayerStatistics":
        """The statistics of what both have seen; neither is changed."""
        largest = torch.maximum(self.largest, other.largest)
        if self.counts is None or other.counts is None:
            return LayerStatistics(largest, None)
        counts, more = self.counts.clone(), other.counts.clone()
        histogram.widen(counts, self.largest.flatten(), largest.flatten())
        histogram.widen(more, other.largest.flatten(), largest.flatten())
        return LayerStatistics(largest, counts.add_(more))

    def moved(self, device: torch.device) -> "LayerStatistics":
        """The same statistics on another device."""
        counts = None if self.counts is None else self.counts.to(device)
        return LayerStatistics(self.largest.to(device), counts)

    def level(self, statistic: Statistic, *, percentile: float, levels: int) -> Tensor:
        """The thresholds that a statistic asks for, laid out as ``largest``; 0 where none fired."""
        if statistic == "max" or self.counts is None:
            return self.largest
        rows = self.largest.flatten()
        if statistic == "percentile":
            found = histogram.percentile(self.counts, rows, percentile)
        else:
            found = histogram.least_squared_error(self.counts, rows, levels)
        return found.view(self.largest.shape)


class Statistics:
    """What calibration has seen of each layer's activations; :func:`snm.calibrate` makes it.

    Each layer keeps the largest activation for each threshold and, unless it was made with
    ``statistic="max"``, a histogram of those above zero. A histogram's bins divide [0, 2^e), where
    2^e is the power of two next above the largest activation; they are 16 to 2048, as many as keep
    the layer at 2^23 counters, so a layer takes no more than 32 MiB, or 64 bytes a neuron where
    that is more, with ``norm="neuron"`` (int32), and 16 KiB a channel or layer otherwise (int64).
    Updating takes some 50 MiB beside that. How many images there are makes no difference.

    The result depends neither on the order of the images nor on how they were split: merged
    statistics are, bit for bit, those of one pass.

    Attributes:
        norm: what shares a threshold: ``"neuron"``, ``"channel"`` or ``"layer"``.
        statistic: what it was made for. ``"percentile"`` and ``"mse"`` keep the same and answer
            everything; ``"max"`` answers ``"max"`` alone.
        images: how many images it has seen.
        example: a few of them, ``[N, ...]``, with which a model is traced.
        layers: what is known of each layer of neurons, by its path, among them those
            that ``readout="count"`` adds.

    >>> from torch import nn
    >>> from snm import calibrate, convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(64, 4)
    >>> halves = [calibrate(model, half, statistic="percentile") for half in images.split(32)]
    >>> both = halves[0].merge(halves[1])
    >>> both
    Statistics(images=64, norm='neuron', statistic='percentile', layers=['1', 'output'])
    >>> net = convert(model, both, statistic="percentile", percentile=99.0)
    """

    def __init__(
        self,
        norm: Norm,
        statistic: Statistic,
        example: Tensor,
        *,
        images: int = 0,
        layers: Mapping[str, LayerStatistics] | None = None,
    ) -> None:
        self.norm: Norm = norm
        self.statistic: Statistic = statistic
        self.images = images
        self.example = example.clone()
        self.layers = dict(layers or {})

    @property
    def keeps_histograms(self) -> bool:
        """Whether it has histograms, which tell more than the largest activation."""
        return self.statistic != "max"

    def update(self, path: str, activation: Tensor) -> None:
        """Adds the activations ``[B, ...]`` of a layer.

        Raises:
            ValueError: one is NaN or infinite, or their size is not that of those before.

        >>> statistics = Statistics("neuron", "max", torch.zeros(1, 3))
        >>> statistics.update("relu", torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
        >>> statistics.layers["relu"].largest
        tensor([3., 2.])
        """
        peak = largest_of(activation, self.norm)
        if not bool(torch.isfinite(peak).all()):
            raise ValueError(
                f"convert: the activations of {path} must be finite in calibration, "
                "got NaN or infinity; check the model's weights"
            )
        layer = self.layers.get(path) or self._empty(peak)
        if layer.largest.shape != peak.shape:
            raise ValueError(
                f"convert: with norm={self.norm!r} all calibration images must be of one size, "
                f"got activations of {list(layer.largest.shape)} and {list(peak.shape)} in {path}"
            )
        self.layers[path] = layer.updated(activation, self.norm, peak)

    def merge(self, other: "Statistics") -> "Statistics":
        """Merges what two objects have seen, in a new one on this one's device.

        Args:
            other: of the same model, norm and kind.

        Raises:
            ValueError: their norms or kinds differ, or the paths or shapes of their layers.
            TypeError: ``other`` is no Statistics.

        >>> first, second = (Statistics("neuron", "max", torch.zeros(1, 3)) for _ in range(2))
        >>> first.update("relu", torch.tensor([[1.0, 2.0]]))
        >>> second.update("relu", torch.tensor([[3.0, 0.0]]))
        >>> first.merge(second).layers["relu"].largest
        tensor([3., 2.])
        """
        if not isinstance(other, Statistics):
            raise TypeError(
                f"Statistics.merge: other must be a Statistics, got {type(other).__name__}"
            )
        if self.norm != other.norm:
            raise ValueError(
                f"Statistics.merge: norms must be the same, got {self.norm!r} and {other.norm!r}"
            )
        if self.keeps_histograms != other.keeps_histograms:
            raise ValueError(
                "Statistics.merge: statistic='max' keeps no histograms and cannot be merged with "
                f"what does, got {self.statistic!r} and {other.statistic!r}"
            )
        if _shapes_of_layers(self) != _shapes_of_layers(other):
            raise ValueError(
                "Statistics.merge: layers must be those of one network, "
                f"got {_shapes_of_layers(self)} and {_shapes_of_layers(other)}"
            )
        device = self.example.device
        return Statistics(
            self.norm,
            self.statistic,
            self.example,
            images=self.images + other.images,
            layers={
                path: layer.merged(other.layers[path].moved(device))
                for path, layer in self.layers.items()
            },
        )

    def state_dict(self) -> dict[str, Tensor]:
        """All statistics as contiguous tensors, to save or to send to another process.

        Returns:
            ``norm``, ``statistic`` (int64, places in the lists of known ones), ``images`` (int64),
            ``example``, and for each layer ``largest.<path>`` and, with histograms,
            ``counts.<path>``. The layers' tensors share memory with this object.

        >>> list(Statistics("layer", "max", torch.zeros(1, 3)).state_dict())
        ['norm', 'statistic', 'images', 'example']
        """
        state = {
            "norm": torch.tensor(NORMS.index(self.norm)),
            "statistic": torch.tensor(STATISTICS.index(self.statistic)),
            "images": torch.tensor(self.images),
            "example": self.example.contiguous(),
        }
        for path, layer in self.layers.items():
            state[f"largest.{path}"] = layer.largest
            if layer.counts is not None:
                state[f"counts.{path}"] = layer.counts
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> "Statistics":
        """Makes the object that :meth:`state_dict` was taken of.

        Raises:
            ValueError: an entry is missing, unknown or of the wrong shape.

        >>> made = Statistics("layer", "max", torch.zeros(1, 3))
        >>> Statistics.from_state_dict(made.state_dict())
        Statistics(images=0, norm='layer', statistic='max', layers=[])
        """
        heads = {"norm", "statistic", "images", "example"}
        paths = [key.removeprefix("largest.") for key in state if key.startswith("largest.")]
        norm = _chosen(state, "norm", NORMS)
        statistic = _chosen(state, "statistic", STATISTICS)
        kinds = ("largest",) if statistic == "max" else ("largest", "counts")
        expected = heads | {f"{kind}.{path}" for path in paths for kind in kinds}
        if set(state) != expected:
            raise ValueError(
                f"Statistics: with statistic={statistic!r} the entries must be {sorted(expected)}, "
                f"got {sorted(state)}"
            )
        layers = {}
        for path in paths:
            layer = LayerStatistics(state[f"largest.{path}"], state.get(f"counts.{path}"))
            rows = layer.largest.numel()
            shape = (rows, histogram.bins_for(rows))
            if layer.counts is not None and layer.counts.shape != shape:
                raise ValueError(
                    f"Statistics: counts.{path} must be {list(shape)} for {rows} thresholds, "
                    f"got {list(layer.counts.shape)}"
                )
            layers[path] = layer
        return cls(norm, statistic, state["example"], images=int(state["images"]), layers=layers)

    def __repr__(self) -> str:
        return (
            f"Statistics(images={self.images}, norm={self.norm!r}, "
            f"statistic={self.statistic!r}, layers={list(self.layers)})"
        )

    def _empty(self, peak: Tensor) -> LayerStatistics:
        counts = None
        if self.keeps_histograms:
            rows = peak.numel()
            # Of each image a neuron sees one activation, so int32 lasts for 2^31 images.
            dtype = torch.int32 if self.norm == "neuron" else torch.int64
            counts = torch.zeros(rows, histogram.bins_for(rows), dtype=dtype, device=peak.device)
        return LayerStatistics(torch.zeros(peak.shape, device=peak.device), counts)


def largest_of(activation: Tensor, norm: Norm) -> Tensor:
    """The largest activation of a batch for each threshold, float32.

    With norm="neuron" it is laid out in memory as an image's activation is.
    """
    if norm == "layer":
        return activation.amax().float()
    if norm == "channel":
        shared = [0, *range(2, activation.dim())]
        return activation.amax(shared, keepdim=True)[0].float()
    laid_out = torch.empty_like(activation[0], dtype=torch.float32)
    return laid_out.copy_(activation.amax(0))


def _rows(activation: Tensor, norm: Norm) -> Tensor:
    """Activations ``[B, ...]`` as ``[thresholds, n]``, in the order of the thresholds."""
    if norm == "layer":
        return activation.reshape(1, -1)
    if norm == "channel" and activation.dim() > 1:
        return activation.transpose(0, 1).flatten(1)
    return activation.reshape(len(activation), -1).t()


def _shapes_of_layers(statistics: Statistics) -> dict[str, list[int]]:
    return {path: list(layer.largest.shape) for path, layer in sorted(statistics.layers.items())}


def _chosen(state: Mapping[str, Tensor], name: str, known: tuple[_Name, ...]) -> _Name:
    if name not in state or not 0 <= int(state[name]) < len(known):
        raise ValueError(
            f"Statistics: {name} must be there and one of 0 to {len(known) - 1}, "
            f"got {state.get(name)}"
        )
    return known[int(state[name])]
