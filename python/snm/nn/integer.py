"""Layers of integer networks: int8 weights, int32 sums, and neurons with int32 thresholds."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snm_kernels import (
    SNM,
    Backend,
    Emit,
    SNMOutput,
    SNMRule,
    SNMState,
    pack_spike_weight,
    snm_conv,
    spike_conv,
)

from .neuron import SNMNeuron

SILENT = 2**31 - 1
"""The threshold of a neuron that never fires."""

Path = Literal["events", "dense"]
"""How a layer of spikes is computed: spike by spike, or all of it, spikes and zeros."""

_LARGEST_DENSE = 63
"""The largest sum of pooled spikes that a dense convolution takes: twice it fits in 7 bits."""


class IntegerNeuron(SNMNeuron):
    """A layer of neurons in integers; it sends spikes, whose worth is in the weights behind it.

    Args:
        threshold: int32, 1 to 2**24 - 1, or 2**31 - 1 for a neuron that stays silent; broadcastable
            to ``[B, ...]``.
        rule: the rule that the neurons follow.
        backend: as in :func:`snm_kernels.snm`.

    Raises:
        ValueError: a threshold is out of range.
        TypeError: the threshold is not int32, or rule is not an SNMRule.

    >>> neuron = IntegerNeuron(torch.tensor([10], dtype=torch.int32))
    >>> neuron(torch.full((4, 1), 5, dtype=torch.int32), emit="spike").spikes.flatten().tolist()
    [0, 1, 0, 1]
    """

    def __init__(
        self, threshold: Tensor, rule: SNMRule = SNM, *, backend: Backend = "auto"
    ) -> None:
        super().__init__(1.0, rule, backend=backend)
        if threshold.dtype != torch.int32:
            raise TypeError(f"IntegerNeuron: threshold must be int32, got {threshold.dtype}")
        fits = (threshold == SILENT) | ((threshold >= 1) & (threshold < 2**24))
        if not bool(fits.all()):
            raise ValueError(
                f"IntegerNeuron: threshold must be 1 to 2**24 - 1, or 2**31 - 1, "
                f"got {threshold[~fits][0].item()}"
            )
        self.threshold = threshold.clone()

    def amplitude(self, spikes: Tensor) -> Tensor:
        """What integer spikes carry: themselves, and 0 for a silent neuron."""
        return spikes

    def moved(self, fn: Callable[[Tensor], Tensor]) -> Tensor:
        """The threshold as it is after a move of the layer, in int32 as before."""
        return fn(self.threshold)

    def extra_repr(self) -> str:
        silent = int((self.threshold == SILENT).sum())
        return f"threshold={list(self.threshold.shape)}, silent={silent}, rule={self.rule}"


class IntegerConv2d(nn.Module):
    """A convolution of integers with int8 weights; what it makes is int32, exact in any order.

    Args:
        weight: int8 ``[K, C / groups, *kernel]``, -127 to 127, with one or two spatial dimensions.
        bias: int32 ``[K]``, or None.
        stride, padding, dilation, groups: as for ``torch.nn.Conv2d``.
        pool: sizes of windows, side by side, over which inputs are summed first.
        largest: the largest amount of an input, before pooling.
        path: how spikes are computed; both give the same.

    Raises:
        TypeError, ValueError: as :func:`snm_kernels.pack_spike_weight`.

    >>> conv = IntegerConv2d(torch.full((1, 1, 1, 2), 3, dtype=torch.int8))
    >>> conv(torch.ones(1, 1, 1, 3, dtype=torch.int8)).flatten().tolist()
    [6, 6]
    """

    weight: Tensor
    bias: Tensor | None
    packed: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
        pool: Sequence[int] = (1, 1),
        largest: int = 1,
        path: Path = "events",
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("packed", pack_spike_weight(weight, groups), persistent=False)
        self.stride = tuple(stride)
        self.padding = tuple(padding)
        self.dilation = tuple(dilation)
        self.groups = groups
        self.pool = tuple(pool)
        self.largest = largest
        self.path: Path = path
        self._dense: tuple[Any, Tensor] | None = None

    @property
    def sums(self) -> int:
        """The largest amount that a sum can have at one time step, the bias included."""
        total = self.weight.long().abs().flatten(1).sum(1) * self.largest * math.prod(self.pool)
        if self.bias is not None:
            total = total + self.bias.long().abs()
        return int(total.max())

    def forward(self, x: Tensor, steps: int = 1) -> Tensor:
        """Convolves integers.

        Args:
            x: ``[N, C, H, W]``: int8 spikes, or other integers, whose sums must be below 2**53.
            steps: how many time steps ``x`` is the sum of; the bias is added as many times.

        Returns:
            int32 ``[N, K, H', W']``; int64 if ``x`` is int64.
        """
        if x.dtype == torch.int8 and steps == 1:
            if self.path == "dense" and self.can_be_dense:
                drive = self._convolve_densely(x)
                return drive if self.bias is None else drive + self._bias(drive)
            return spike_conv(x.unsqueeze(0), self.weight, **self._arguments()).squeeze(0)
        # Sums of integers this small are exact in float64, in whatever order.
        dims = self.weight.dim() - 2
        wide = x.to(torch.float64)
        if math.prod(self.pool) > 1:
            wide = _sum_pool(wide, self.pool[-dims:])
        convolve = F.conv1d if dims == 1 else F.conv2d
        weight = self.weight.to(torch.float64)
        made = convolve(
            wide, weight, None, self.stride, self.padding, self.dilation, self.groups
        )
        drive = made.to(torch.int64 if x.dtype == torch.int64 else torch.int32)
        return drive if self.bias is None else drive + self._bias(drive) * steps

    def fire(
        self,
        x: Tensor,
        neuron: IntegerNeuron,
        state: SNMState | None,
        residual: Tensor | None,
        emit: Emit,
    ) -> SNMOutput:
        """Runs the layer and the neurons that it drives over all time steps.

        Args:
            x: int8 spikes ``[T, B, C, H, W]``.
            neuron: the neurons.
            state, residual, emit: as for :class:`snm.nn.SNMNeuron`.
        """
        if self.path == "dense" and self.can_be_dense:
            drive = self(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return neuron(drive, state, residual=residual, emit=emit)
        return snm_conv(
            x,
            self.weight,
            neuron.threshold,
            rule=neuron.rule,
            state=state,
            residual=residual,
            emit=emit,
            backend=neuron.backend,
            **self._arguments(),
        )

    @property
    def can_be_dense(self) -> bool:
        """Whether PyTorch has an exact dense convolution for this layer's device and inputs."""
        fits = self.largest * math.prod(self.pool) <= _LARGEST_DENSE and self.sums < 2**24
        return fits and self.weight.device.type == "cpu" and self.weight.dim() == 4

    def _arguments(self) -> dict[str, Any]:
        """What the ops take of this layer, beside its weight."""
        bias = None
        if self.bias is not None:
            bias = self.bias.view(-1, *[1] * (self.weight.dim() - 2))
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "pool": self.pool,
            "packed": self.packed,
            "bias": bias,
        }

    def _bias(self, drive: Tensor) -> Tensor:
        assert self.bias is not None
        return self.bias.to(drive.dtype).view(-1, *[1] * (drive.dim() - 2))

    def _convolve_densely(self, x: Tensor) -> Tensor:
        """The convolution of all of x, spikes and zeros, by oneDNN in 8 bits."""
        if math.prod(self.pool) > 1:
            x = _sum_pool(x, self.pool)
        zero = self.largest * math.prod(self.pool)
        ops = torch.ops.onednn
        if self._dense is None:
            ones = torch.ones(len(self.weight))
            shape = [1, x.shape[1], *x.shape[2:]]
            packed = ops.qconv_prepack(
                self.weight, ones, 1.0, zero, self.stride, self.padding, self.dilation,
                self.groups, shape,
            )
            self._dense = packed, ones
        packed, ones = self._dense
        shifted = x.view(torch.uint8) + zero
        shifted = shifted.contiguous(memory_format=torch.channels_last)
        made = ops.qconv2d_pointwise(
            shifted, 1.0, zero, packed, ones, torch.zeros(len(ones), dtype=torch.int32), None,
            self.stride, self.padding, self.dilation, self.groups, 1.0, 0, torch.float32,
            "none", [], "",
        )
        return made.to(torch.int32)
