"""Fits one layer of neurons to the activations of the ReLU that it replaces."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snm_kernels import SNMRule

from ..nn import SNMNeuron

_SCALES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15)
"""The factors to try on a channel's thresholds, before all of a layer's are stretched."""
_CORRECTIONS = 4
"""How often the mean error is taken into the bias, after which little of it is left."""
_STEP = 0.7
"""The share of the mean error that is taken in at once; not all of it, since neurons that were
silent start to fire."""
_FEWEST = 0.05
"""The share of active neurons below which a channel's bias grows no faster."""
_TILE = ((-0.375, 0.125), (0.375, -0.125))
"""The dither of 2 by 2 neurons, a quarter of a threshold apart, as in Bayer's ordered dither."""
_PAIR = (-0.25, 0.25)
"""The dither of two neurons of a layer with one dimension, half a threshold apart."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is searched for a layer of neurons; its thresholds and biases follow from this."""

    v_init: float = 0.5
    """The starting membrane, in thresholds."""
    negative: tuple[float, bool] = (0.0, True)
    """ν, and whether a negative spike takes a membrane below -ν·θ, not just at it."""
    dither: float = 0.0
    """Over how many thresholds the totals of neighbouring neurons are spread, 0 to 1."""
    stretch: float = 1.0
    """The factor on the best threshold of each channel."""
    max_spikes: int = 1
    """Γ, the most spikes that a neuron may send in one step."""

    @property
    def rule(self) -> SNMRule:
        """The rule that neurons with this setting follow."""
        ratio, strict = self.negative
        return SNMRule(
            v_init=self.v_init,
            negative_threshold=ratio,
            strict=strict,
            max_spikes=self.max_spikes,
        )


_DITHERS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The dithers to try."""
_STRETCHES = (0.75, 0.87, 1.0, 1.15, 1.3)
"""The stretches to try."""
SWEEP: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("dither", _DITHERS[::2]),
    ("stretch", _STRETCHES),
    ("v_init", (0.3, 0.4, 0.5, 0.6)),
    ("negative", ((0.0, True), (0.25, True), (0.5, True), (1.0, False))),
    ("dither", _DITHERS),
    ("stretch", _STRETCHES),
)
"""The fields of a setting and the values to try, one field after the other."""


class FittedNeurons(NamedTuple):
    """A layer of neurons that was fitted, and what it sends."""

    neuron: SNMNeuron
    """The layer."""
    rate: Tensor
    """What each neuron sends on average, θ·m(T) / T, float32 ``[B, ...]``."""
    setting: Setting
    """The setting that the layer was fitted with."""
    distance: float
    """How far the layer is from what is wanted, which the search makes small."""


class NeuronSearch:
    """Searches for the best neurons of a layer, by running candidates on the layer's drive.

    Args:
        neuron: the layer before tuning; it is not changed.
        drive: ``[T, B, ...]``.
        residual: added to the drive; None for nothing.
        target: ``[B, ...]``, the activations of the ReLU network.
        per_neuron: whether the layer only takes drives of this size, so that dithering may tell its
            neurons apart.
        shared: whether the thresholds of all channels must be scaled by one factor.
    """

    def __init__(
        self,
        neuron: SNMNeuron,
        drive: Tensor,
        residual: Tensor | None,
        target: Tensor,
        *,
        per_neuron: bool,
        shared: bool,
    ) -> None:
        self.neuron = neuron
        self.drive = drive
        self.residual = residual
        self.target = target.float()
        self.shared = shared
        self.dithers = per_neuron and target.dim() > 2
        self._others = [0, *range(2, target.dim())]
        if target.dim() < 2:
            raise ValueError(
                "snm.tune: neurons must be [B, C, ...], so that there are channels, got "
                f"{list(target.shape)}"
            )
        self._channels = (-1, *(1,) * (target.dim() - 2))
        self._scales: dict[Setting, Tensor] = {}

    def fit(self, setting: Setting, distance: Callable[[Tensor], float]) -> FittedNeurons:
        """The layer with a given setting, its thresholds and biases fitted.

        Each channel gets the threshold of least mean squared error among several multiples of its
        own, times ``stretch``; then, a few times over, the bias takes in the channel's mean error,
        divided by the share of neurons that are active and so follow the bias.

        Args:
            setting: the setting.
            distance: says of a rate how far it is from what is wanted.
        """
        key = replace(setting, stretch=1.0)
        if key not in self._scales:
            self._scales[key] = self._best_scales(key)
        scale = self._scales[key] * setting.stretch
        bias = torch.zeros_like(scale)
        made = self._neurons_with(setting, scale, bias)
        error = self._error(made)
        for _ in range(_CORRECTIONS):
            active = ((error + self.target) > 0).float().mean(self._others)
            step = _STEP * error.mean(self._others) / active.clamp(min=_FEWEST)
            bias = bias - step.reshape(self._channels)
            made = self._neurons_with(setting, scale, bias)
            error = self._error(made)
        rate = error.add_(self.target)
        return FittedNeurons(made, rate, setting, distance(rate))

    def search(
        self,
        start: Setting,
        distance: Callable[[Tensor], float],
        go_on: Callable[[], bool],
    ) -> FittedNeurons:
        """The best layer that is found by changing a setting one field at a time.

        Args:
            start: the setting to start from; the result is at least as good.
            distance: says of a rate how far it is from what is wanted.
            go_on: whether there is time to try another setting.
        """
        best = self.fit(start, distance)
        for field, values in SWEEP:
            if field == "dither" and not self.dithers:
                continue
            for value in values:
                setting = replace(best.setting, **{field: value})
                if setting == best.setting:
                    continue
                if not go_on():
                    return best
                found = self.fit(setting, distance)
                if found.distance < best.distance:
                    best = found
        return best

    def _best_scales(self, setting: Setting) -> Tensor:
        """The factor on each channel's thresholds that gives the least squared error."""
        # A graded spike is worth several, so thresholds may be as much smaller.
        shares = (1, setting.max_spikes**0.5, setting.max_spikes)
        tried = sorted({scale / share for share in shares for scale in _SCALES})
        none = self.target.new_zeros(self.target.shape[1]).reshape(self._channels)
        errors = torch.stack(
            [
                torch.linalg.vector_norm(
                    self._error(self._neurons_with(setting, none + scale, none)), dim=self._others
                ).square()
                for scale in tried
            ]
        )
        if self.shared:
            errors = errors.sum(1, keepdim=True).expand_as(errors)
        return none.new_tensor(tried)[errors.argmin(0)].reshape(self._channels)

    def _neurons_with(self, setting: Setting, scale: Tensor, bias: Tensor) -> SNMNeuron:
        """Neurons with a setting, whose thresholds are scaled and biased per channel."""
        threshold = self.neuron.threshold
        if self.shared:
            scale = scale.flatten()[0]
        if setting.dither:
            finite = torch.where(threshold.isinf(), 0.0, threshold)
            bias = bias + setting.dither / len(self.drive) * self._pattern() * finite
        neuron = SNMNeuron(threshold * scale, setting.rule, bias=bias, backend=self.neuron.backend)
        return neuron.to(self.drive.dtype).train(self.neuron.training)

    def _pattern(self) -> Tensor:
        """The pattern of the dither, with mean 0, over the last two dimensions of the layer, or the
        only one."""
        sizes = self.target.shape[2:][-2:]
        tile = self.target.new_tensor(_TILE if len(sizes) == 2 else _PAIR)
        index = [torch.arange(size, device=tile.device) % 2 for size in sizes]
        pattern = tile[torch.meshgrid(*index, indexing="ij")]
        return pattern - pattern.mean()

    def rate(self, neuron: SNMNeuron) -> Tensor:
        """What neurons send on average when the layer's drive drives them."""
        return self._error(neuron).add_(self.target)

    def _error(self, neuron: SNMNeuron) -> Tensor:
        """What neurons send on average, minus what they should send."""
        counts = neuron(self.drive, residual=self.residual, emit="none").state.m
        finite = torch.where(neuron.threshold.isinf(), 1.0, neuron.threshold)
        error: Tensor = counts.float().mul_(finite / len(self.drive)).sub_(self.target)
        return error
