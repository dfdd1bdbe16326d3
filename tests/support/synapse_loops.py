"""Counts synapses the slow way: a loop over everything that an operation computes, and over every
weight that it reads to do so."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

import snm

Fan = np.ndarray
"""How many synapses each value of ``[C, H, W]``, or of any other shape, reaches."""


def positions(size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All indices into an array of that size."""
    return itertools.product(*(range(n) for n in size))


def convolved(conv: nn.Module, shape: tuple[int, ...]) -> Fan:
    """How many synapses go from each value of ``[C, ...]`` to what a convolution computes of it."""
    fan = np.zeros(shape, dtype=np.int64)
    weight = conv.weight.detach().numpy()
    each = conv.out_channels // conv.groups
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(
            *(shape[1:], conv.padding, conv.dilation, conv.kernel_size, conv.stride), strict=True
        )
    ]
    for out in range(conv.out_channels):
        for place in positions(sizes):
            for tap in positions(weight.shape[1:]):
                channel = out // each * weight.shape[1] + tap[0]
                at = tuple(
                    o * s - p + k * d
                    for o, s, p, k, d in zip(
                        *(place, conv.stride, conv.padding, tap[1:], conv.dilation), strict=True
                    )
                )
                inside = all(0 <= a < n for a, n in zip(at, shape[1:], strict=True))
                if inside and weight[(out, *tap)] != 0:
                    fan[(channel, *at)] += 1
    return fan


def transposed(conv: nn.Module, shape: tuple[int, ...]) -> Fan:
    """How many synapses go from each value of ``[C, ...]`` to what a transposed convolution
    computes of it."""
    fan = np.zeros(shape, dtype=np.int64)
    weight = conv.weight.detach().numpy()
    sizes = [
        (n - 1) * s - 2 * p + d * (k - 1) + extra + 1
        for n, s, p, d, k, extra in zip(
            *(shape[1:], conv.stride, conv.padding, conv.dilation, conv.kernel_size),
            conv.output_padding,
            strict=True,
        )
    ]
    for channel, *place in positions(shape):
        for out, *tap in positions(weight.shape[1:]):
            at = [
                i * s - p + k * d
                for i, s, p, k, d in zip(
                    *(place, conv.stride, conv.padding, tap, conv.dilation), strict=True
                )
            ]
            inside = all(0 <= a < n for a, n in zip(at, sizes, strict=True))
            if inside and weight[(channel, out, *tap)] != 0:
                fan[(channel, *place)] += 1
    return fan


def connected(linear: nn.Linear, shape: tuple[int, ...]) -> Fan:
    """How many synapses go from each value, flattened, to what a linear layer computes of them."""
    weight = linear.weight.detach().numpy()
    fan = np.zeros(weight.shape[1], dtype=np.int64)
    for out, value in positions(weight.shape):
        fan[value] += int(weight[out, value] != 0)
    return fan.reshape(shape)


def window_members(
    shape: tuple[int, ...], kernel: int, stride: int, padding: int = 0, ceil: bool = False
) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """The values of ``[C, H, W]`` in each window of a pooling, by the index of the window."""
    sizes = []
    for n in shape[1:]:
        starts = [-padding]
        while starts[-1] + stride + kernel <= n + padding:
            starts.append(starts[-1] + stride)
        # With ``ceil`` one more may reach over the end, if values are left and it begins at one.
        left = starts[-1] + kernel < n + padding
        if ceil and left and starts[-1] + stride < n:
            starts.append(starts[-1] + stride)
        sizes.append(len(starts))
    members: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for channel, y, x in positions((shape[0], *sizes)):
        members[channel, y, x] = [
            (channel, row, column)
            for row in range(y * stride - padding, y * stride - padding + kernel)
            for column in range(x * stride - padding, x * stride - padding + kernel)
            if 0 <= row < shape[1] and 0 <= column < shape[2]
        ]
    return members


def through_windows(
    fan: Fan, shape: tuple[int, ...], members: dict[tuple[int, ...], list[tuple[int, ...]]]
) -> Fan:
    """How many synapses go out from each value of ``shape``, given how many do from each window."""
    made = np.zeros(shape, dtype=np.int64)
    for window, values in members.items():
        for value in values:
            made[value] += fan[window]
    return made


def spike_trains(net: snm.SpikingNetwork, run: Callable[[], object]) -> dict[str, Tensor]:
    """The spikes that each layer sends in a simulation, int8 ``[T, B, ...]``, seen by hooks."""
    trains: dict[str, list[Tensor]] = {path: [] for path in net.layers}

    def watch(path: str) -> Callable[..., None]:
        def see(neuron: nn.Module, args: tuple, kwargs: dict) -> None:
            drive, state = args
            residual = kwargs.get("residual")
            sent = neuron.forward(drive.clone(), state, residual=residual, emit="spike").spikes
            trains[path].append(sent)

        return see

    hooks = [
        neuron.register_forward_pre_hook(watch(path), with_kwargs=True)
        for path, neuron in net.layers.items()
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return {path: torch.cat(parts) for path, parts in trains.items()}


def operations(train: Tensor, fan: Fan) -> int:
    """How many synaptic operations a spike train ``[T, B, ...]`` causes, counted spike by spike."""
    total = 0
    for index in train.nonzero().tolist():
        total += abs(int(train[tuple(index)])) * int(fan[tuple(index[2:])])
    return total
