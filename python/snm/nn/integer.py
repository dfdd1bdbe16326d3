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
    snm_linear,
    spike_conv,
    spike_linear,
)

from .neuron import SNMNeuron

SILENT = 2**31 - 1
"""The threshold of a neuron that never fires."""

Path = Literal["events", "dense"]
"""How a layer of spikes is computed: spike by spike, or all of it, spikes and zeros."""

_DIGIT = 16
"""Integers are taken apart into digits of this base, that products of int8 take."""
_LARGEST_INT8 = 127
LARGEST_PIXEL = 2**9
"""Images are cut off at so many steps of their scale, so that sums have a bound."""


class IntegerNeuron(SNMNeuron):
    """A layer of neurons in integers; it sends spikes, whose worth is in the weights behind it.

    Args:
        threshold: int32, 1 to 2**24 - 1, or 2**31 - 1 for a neuron that stays silent; broadcastable
            to ``[B, ...]``.
        rule: the rule that the neurons follow.
        bias: int32, added to the drive of every step; None for none.
        bound: the largest amount of what drives them at a time step, the bias included.
        backend: as in :func:`snm_kernels.snm`.

    Raises:
        ValueError: a threshold is out of range, or bound is negative.
        TypeError: the threshold or bias is not int32, or rule is not an SNMRule.

    >>> neuron = IntegerNeuron(torch.tensor([10], dtype=torch.int32))
    >>> neuron(torch.full((4, 1), 5, dtype=torch.int32), emit="spike").spikes.flatten().tolist()
    [0, 1, 0, 1]
    """

    def __init__(
        self,
        threshold: Tensor,
        rule: SNMRule = SNM,
        *,
        bias: Tensor | None = None,
        bound: int = 0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(1.0, rule, backend=backend)
        for name, value in (("threshold", threshold), ("bias", bias)):
            if value is not None and value.dtype != torch.int32:
                raise TypeError(f"IntegerNeuron: {name} must be int32, got {value.dtype}")
        if bound < 0:
            raise ValueError(f"IntegerNeuron: bound must be at least 0, got {bound}")
        fits = _fits(threshold)
        if not bool(fits.all()):
            raise ValueError(
                f"IntegerNeuron: threshold must be 1 to 2**24 - 1, or 2**31 - 1, "
                f"got {threshold[~fits][0].item()}"
            )
        self.threshold = threshold.clone()
        self.bias = None if bias is None else bias.clone()
        self.bound = bound
        self.most_steps = _most_steps(threshold, rule, bound)
        """For how many time steps no membrane can leave int32, whatever the spikes."""

    def renew_bound(self, drive: int) -> None:
        """Sets how large what drives them can be at a time step, without their own bias.

        >>> neuron = IntegerNeuron(torch.tensor([100], dtype=torch.int32))
        >>> neuron.renew_bound(2**20)
        >>> neuron.most_steps
        2046
        """
        own = 0 if self.bias is None else int(self.bias.long().abs().max())
        self.bound = drive + own
        self.most_steps = _most_steps(self.threshold, self.rule, self.bound)

    @property
    def has_valid_thresholds(self) -> bool:
        """Whether all thresholds are in range, as those that are loaded may not be."""
        return bool(_fits(self.threshold).all())

    def membrane_bits(self, timesteps: int) -> int:
        """How many bits hold every membrane in so many time steps, the sign included.

        >>> IntegerNeuron(torch.tensor([100], dtype=torch.int32), bound=50).membrane_bits(8)
        10
        """
        finite = self.threshold[self.threshold != SILENT]
        largest = int(finite.max()) if finite.numel() else 0
        start = math.ceil((abs(self.rule.v_init) + 1) * largest)
        return (start + timesteps * self.bound).bit_length() + 1

    def amplitude(self, spikes: Tensor) -> Tensor:
        """What integer spikes carry: themselves."""
        return spikes

    def moved(self, fn: Callable[[Tensor], Tensor]) -> Tensor:
        """The threshold as it is after a move of the layer, in int32 as before."""
        return fn(self.threshold)

    @property
    def silent(self) -> Tensor:
        """Which neurons never fire, in the threshold's shape."""
        return self.threshold == SILENT


class IntegerConv(nn.Module):
    """A convolution of integers with int8 weights, whose sums are exact in any order.

    Args:
        weight: int8 ``[K, C / groups, *kernel]``, -127 to 127, with one or two spatial dimensions.
        bias: int32 ``[K]``, or None.
        stride, padding, dilation: as for ``torch.nn.Conv2d``, one for each spatial dimension.
        groups: as there.
        pool: sizes of windows, side by side, over which inputs are summed first.
        largest: the largest amount of an input, before pooling.
        path: how spikes are computed; both ways give the same.

    Raises:
        TypeError: the weight is not int8.
        ValueError: groups does not divide K; there is not one of stride, padding, dilation and pool
            for each dimension, or one is out of range.

    >>> conv = IntegerConv(torch.full((1, 1, 2), 3, dtype=torch.int8), None, (1,), (0,), (1,))
    >>> conv(torch.ones(1, 1, 3, dtype=torch.int8)).flatten().tolist()
    [6, 6]
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int = 1,
        pool: Sequence[int] = (1, 1),
        *,
        largest: int = 1,
        path: Path = "events",
    ) -> None:
        super().__init__()
        if weight.dtype != torch.int8:
            raise TypeError(f"IntegerConv: weight must be int8, got {weight.dtype}")
        if groups < 1 or weight.shape[0] % groups:
            raise ValueError(f"IntegerConv: groups must divide {weight.shape[0]}, got {groups}")
        _check_places(weight.dim() - 2, stride, padding, dilation, pool)
        if largest < 1:
            raise ValueError(f"IntegerConv: largest must be at least 1, got {largest}")
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.stride = tuple(stride)
        self.padding = tuple(padding)
        self.dilation = tuple(dilation)
        self.groups = groups
        self.pool = tuple(pool)
        self.largest = largest
        self.path: Path = path
        self.seconds: dict[Path, float] = {}
        """What it took each way when the network was quantized; files do not hold it."""
        self._rows = _row_sums(weight)
        self.sums = 0
        """The largest amount that a sum can have at one time step, the bias included."""
        self.renew_largest(largest)
        # Each is made when it is needed first, for it takes as much memory as the weight.
        self._packed: dict[bool, Tensor] = {}

    @property
    def sum_bits(self) -> int:
        """How many bits hold every sum at a time step, the sign included."""
        return self.sums.bit_length() + 1

    @property
    def exact_steps(self) -> int:
        """Over how many time steps its inputs may be summed with sums exact in float64."""
        return (2**53 - 1) // max(1, self.sums, self.largest)

    def renew_largest(self, largest: int) -> None:
        """Sets the largest amount of an input, before pooling, from which that of sums follows.

        >>> linear = IntegerLinear(torch.tensor([[3, -4]], dtype=torch.int8))
        >>> linear.renew_largest(10)
        >>> linear.sums
        70
        """
        self.largest = max(1, largest)
        rows: list[int] = self._rows.tolist()
        biases = [0] * len(rows) if self.bias is None else self.bias.long().abs().tolist()
        size = self.largest * math.prod(self.pool)
        self.sums = max(row * size + bias for row, bias in zip(rows, biases, strict=True))

    @property
    def packed(self) -> tuple[Tensor, ...]:
        """The forms of the weight that have been made so far."""
        return tuple(self._packed.values())

    @property
    def can_be_dense(self) -> bool:
        """Whether spikes can be computed densely: on the CPU, and if what windows sum fits in
        int8."""
        return self.weight.device.type == "cpu" and self._fits(self.largest)

    def _fits(self, largest: int) -> bool:
        return largest * math.prod(self.pool) <= _LARGEST_INT8

    def forward(self, x: Tensor, steps: int = 1) -> Tensor:
        """Convolves integers.

        Args:
            x: ``[N, C, ...]``: int8 spikes, or other integers, whose sums must be below 2**53; or
                means of integers, float64.
            steps: how many time steps ``x`` is the sum of; the bias is added as many times.

        Returns:
            int32 ``[N, K, ...]``; int64 or float64 if ``x`` is.
        """
        if x.dtype == torch.int8 and steps == 1:
            return self._drive(x.unsqueeze(0), **self._arguments(self._dense)).squeeze(0)
        if x.dtype == torch.int32 and steps == 1 and self.largest <= _DIGIT * _LARGEST_INT8:
            return self._sum_digits(x)
        # Sums of integers this small are exact in float64, in whatever order.
        summed = self._sum_densely(x.to(torch.float64))
        wide = x.dtype in (torch.int64, torch.float64)
        # A library may transform what it convolves, and be a little off.
        drive = summed if x.dtype == torch.float64 else summed.round()
        drive = drive.to(x.dtype if wide else torch.int32)
        if self.bias is None:
            return drive
        return drive + _along(self.bias.to(drive.dtype) * steps, drive.dim() - 2)

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
            x: int8 spikes ``[T, B, C, ...]``.
            neuron: the neurons.
            state, residual, emit: as for a call of :class:`snm.nn.SNMNeuron`.
        """
        arguments = self._arguments(self._dense)
        if neuron.bias is not None:
            own = arguments["bias"]
            arguments["bias"] = neuron.bias if own is None else own + neuron.bias
        return self._fire(
            x,
            self.weight,
            neuron.threshold,
            rule=neuron.rule,
            state=state,
            residual=residual,
            emit=emit,
            backend=neuron.backend,
            **arguments,
        )

    @property
    def _dense(self) -> bool:
        return self.path == "dense" and self.can_be_dense

    def _arguments(self, dense: bool) -> dict[str, Any]:
        """What the ops take of this layer, beside its weight."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "pool": self.pool[-len(self.stride) :],
            "bias": None if self.bias is None else _along(self.bias, len(self.stride)),
            **self._form(dense),
        }

    def _fire(self, *args: Any, **kwargs: Any) -> SNMOutput:
        return snm_conv(*args, **kwargs)

    def _drive(self, x: Tensor, **arguments: Any) -> Tensor:
        return spike_conv(x, self.weight, **arguments)

    def _sum_digits(self, x: Tensor) -> Tensor:
        """The sums of integers int32 ``[N, C, ...]`` up to ``largest``, the bias included."""
        high = (x + _DIGIT // 2) // _DIGIT
        digits = torch.stack([high, x - high * _DIGIT]).to(torch.int8)
        largest = max(_DIGIT // 2, self.largest // _DIGIT + 1)
        dense = x.device.type == "cpu" and self._fits(largest)
        arguments = self._arguments(dense) | {"bias": None}
        high, low = self._drive(digits, **arguments)
        drive: Tensor = low + high * _DIGIT
        return drive if self.bias is None else drive + _along(self.bias, drive.dim() - 2)

    def _sum_densely(self, x: Tensor) -> Tensor:
        """The sums of the weights of numbers in float64."""
        dims = len(self.stride)
        pooled = sum_pool(x, self.pool[-dims:])
        convolve = F.conv1d if dims == 1 else F.conv2d
        places = (self.stride, self.padding, self.dilation)
        return convolve(pooled, self.weight.to(torch.float64), None, *places, self.groups)

    def _form(self, dense: bool) -> dict[str, Any]:
        """How spikes are computed, and the weight in the order that the CPU then reads."""
        packed = None
        if self.weight.device.type == "cpu":
            if dense not in self._packed:
                self._packed[dense] = pack_spike_weight(self.weight, self.groups, dense)
            packed = self._packed[dense]
        return {"dense": dense, "packed": packed}

    def extra_repr(self) -> str:
        return f"weight={list(self.weight.shape)}, stride={self.stride}, path={self.path!r}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "IntegerConv":
        super()._apply(fn, recurse)
        self.forget()
        return self

    def forget(self) -> None:
        """Drops the forms of the weight that its paths take; they are made again when needed."""
        self._packed = {}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._rows = _row_sums(self.weight)
        self.renew_largest(self.largest)
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: the forms of the weight are made anew."""
        return {**self.__dict__, "_packed": {}}


class IntegerLinear(IntegerConv):
    """A linear layer of integers with int8 weights, like :class:`IntegerConv`.

    Args:
        weight: int8 ``[K, C]``, -127 to 127.
        bias: int32 ``[K]``, or None.
        largest, path: as for :class:`IntegerConv`.

    >>> linear = IntegerLinear(torch.tensor([[3, 4]], dtype=torch.int8))
    >>> linear(torch.tensor([[1, -1]], dtype=torch.int8)).item()
    -1
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        largest: int = 1,
        path: Path = "events",
    ) -> None:
        super().__init__(weight, bias, (), (), (), largest=largest, path=path)

    def _arguments(self, dense: bool) -> dict[str, Any]:
        return {"bias": self.bias, **self._form(dense)}

    def _fire(self, *args: Any, **kwargs: Any) -> SNMOutput:
        return snm_linear(*args, **kwargs)

    def _drive(self, x: Tensor, **arguments: Any) -> Tensor:
        return spike_linear(x, self.weight, **arguments)

    def _sum_densely(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(torch.float64))


class IntegerSumPool(nn.Module):
    """Sums integers over windows that lie side by side; an average pooling without its division.

    Args:
        size: of a window in each spatial dimension.
        flat: whether the result has no spatial dimensions, which are then of size 1.
        wide: whether int8 is too small for the sums, which are int32 then.

    >>> IntegerSumPool((2,))(torch.tensor([[[1, 1, -1, 0]]], dtype=torch.int8)).tolist()
    [[[2, -1]]]
    """

    def __init__(self, size: Sequence[int], flat: bool = False, wide: bool = False) -> None:
        super().__init__()
        self.size = tuple(size)
        self.flat = flat
        self.wide = wide

    @property
    def count(self) -> int:
        """How many places a window has."""
        return math.prod(self.size)

    def forward(self, x: Tensor) -> Tensor:
        """Sums ``[N, C, ...]`` over windows."""
        pooled = sum_pool(
            x.to(torch.int32) if self.wide and x.dtype == torch.int8 else x, self.size
        )
        return pooled.flatten(1) if self.flat else pooled

    def extra_repr(self) -> str:
        return f"size={self.size}"


class IntegerScale(nn.Module):
    """Multiplies the spikes of each channel by an integer, as a connection without weights does.

    Args:
        factor: int32 ``[C]``.

    >>> IntegerScale(torch.tensor([5], dtype=torch.int32))(torch.ones(2, 1, dtype=torch.int8))
    tensor([[5],
            [5]], dtype=torch.int32)
    """

    factor: Tensor

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies ``[N, C, ...]``; int32, and int64 if x is."""
        return x * _along(self.factor, x.dim() - 2)


class Pixels(nn.Module):
    """Makes integers of images: how many steps of the pixels' scale they are from 0.

    Args:
        step: float64 ``[C]``, the value of one step of a channel.
        zero: float64 ``[C]``, the uint8 pixel, not always a whole one, that stands for 0; None
            where images are no pixels.

    >>> pixels = Pixels(torch.tensor([0.5]).double(), torch.tensor([99.75]).double())
    >>> pixels(torch.tensor([[2.125]])).item()
    4
    >>> pixels(torch.tensor([[104]], dtype=torch.uint8)).item()
    4
    """

    step: Tensor
    zero: Tensor | None

    def __init__(self, step: Tensor, zero: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("step", step)
        self.register_buffer("zero", zero)

    @property
    def is_valid(self) -> bool:
        """Whether images have steps of a size, as those of a file may not."""
        known = self.step if self.zero is None else torch.cat([self.step, self.zero])
        return bool((self.step > 0).all() and known.isfinite().all())

    @property
    def rest(self) -> Tensor:
        """What has to be added to the integers, ``[C]``, less than 1: no pixel may stand for 0."""
        return torch.zeros_like(self.step) if self.zero is None else self.zero.round() - self.zero

    def forward(self, x: Tensor) -> Tensor:
        """Makes int32 of images ``[B, C, ...]``: uint8 pixels, or floats, which are rounded."""
        behind = x.dim() - 2
        if x.dtype == torch.uint8:
            if self.zero is None:
                raise TypeError(
                    "SpikingNetwork: takes no uint8 images; give snm.quantize the mean and std "
                    "with which pixels are standardised"
                )
            zero = self.zero.round().clamp(-SILENT, SILENT).to(torch.int32)
            steps = x.to(torch.int64) - _along(zero, behind)
            return steps.clamp(-LARGEST_PIXEL, LARGEST_PIXEL).to(torch.int32)
        steps = x.double() / _along(self.step, behind) - _along(self.rest, behind)
        return steps.round().clamp(-LARGEST_PIXEL, LARGEST_PIXEL).to(torch.int32)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Pixels":
        _keeping_dtype(self, fn, super()._apply, recurse)
        return self


class IntegerReadout(nn.Module):
    """Makes logits of the sums of an output layer: the only floating point numbers of a network.

    Args:
        unit: float64, what 1 is worth in each element of one image's sums.

    >>> IntegerReadout(torch.tensor([0.5], dtype=torch.float64))(torch.tensor([[6]]), 4)
    tensor([[0.7500]])
    """

    unit: Tensor

    def __init__(self, unit: Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", unit)
        self.largest = 1
        """The largest amount of what it reads of one time step, which a network sets."""

    @property
    def exact_steps(self) -> int:
        """Over how many time steps what it reads is exact in float64."""
        return (2**53 - 1) // max(1, self.largest)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """The mean over ``steps`` time steps of what sums ``[B, ...]`` are worth, float32."""
        return (x.to(torch.float64) * self.unit / steps).to(torch.float32)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "IntegerReadout":
        _keeping_dtype(self, fn, super()._apply, recurse)
        return self


def sum_pool(x: Tensor, size: Sequence[int]) -> Tensor:
    """Sums ``[N, C, ...]`` over windows of this size, side by side; what is left over is not read.

    >>> sum_pool(torch.ones(1, 1, 5, dtype=torch.int8), (2,)).tolist()
    [[[2, 2]]]
    """
    for dim, window in enumerate(size, x.dim() - len(size)):
        if window == 1:
            continue
        used = x.narrow(dim, 0, x.shape[dim] // window * window)
        parts = [used[(slice(None),) * dim + (slice(i, None, window),)] for i in range(window)]
        x = parts[0] + parts[1]
        for part in parts[2:]:
            x += part
    return x


def _fits(threshold: Tensor) -> Tensor:
    """Which thresholds are in range."""
    return (threshold == SILENT) | ((threshold >= 1) & (threshold < 2**24))


def _most_steps(threshold: Tensor, rule: SNMRule, bound: int) -> int:
    """For how many time steps no membrane can leave int32, driven with ``bound`` at most."""
    finite = threshold[threshold != SILENT]
    if finite.numel() == 0:
        return SILENT
    # What a spike subtracts brings a membrane nearer to 0, or one threshold beyond it at most.
    start = math.ceil((abs(rule.v_init) + 1) * int(finite.max()))
    return max(0, (SILENT - start) // max(1, bound) - 1)


def _check_places(dims: int, *places: Sequence[int]) -> None:
    """Refuses sizes of another number of dimensions, or out of range; a pool may have ones more."""
    stride, padding, dilation, pool = places
    several = len(stride) == len(padding) == len(dilation) == dims <= len(pool)
    least = min((*stride, *dilation, *pool, *(size + 1 for size in padding)), default=1)
    if not several or least < 1:
        raise ValueError(
            f"IntegerConv: stride, padding, dilation and pool must be {dims} sizes each in range, "
            f"got {', '.join(map(str, map(tuple, places)))}"
        )


def _row_sums(weight: Tensor) -> Tensor:
    """The sums of the amounts of weights, int64 ``[K]``, on the CPU."""
    return weight.to(torch.int16).abs().flatten(1).sum(1, dtype=torch.int64).cpu()


def _keeping_dtype(
    module: nn.Module, fn: Callable[[Tensor], Tensor], apply: Callable[..., Any], recurse: bool
) -> None:
    """Moves a module, whose buffers stay of the dtype that they are of."""
    before = dict(module._buffers)
    apply(fn, recurse)
    for name, buffer in before.items():
        if buffer is not None:
            moved = module.get_buffer(name)
            module._buffers[name] = buffer.to(moved.device)


def _along(values: Tensor, behind: int) -> Tensor:
    """Values of channels with so many dimensions of size 1 behind them."""
    return values.view(-1, *[1] * behind)
