"""The public ops of layers that spikes drive: convolutions and linear layers that cost what their
spikes cost, with the neurons that they drive in the same launch."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from . import _load
from ._checks import check_broadcast, check_state, check_tensor, refusal
from ._fakes import snm_conv_fake, spike_conv_fake
from ._types import Backend, Emit, SNMOutput, SNMState
from .ops import rule_arguments
from .reference import snm_reference
from .reference_spike_conv import spike_conv_reference
from .rule import SNM, SNMRule

Sizes = int | Sequence[int]

BLOCK = 64
"""Outputs whose weights lie side by side in a packed weight."""
PANEL, DEPTH = 16, 64
"""Outputs, and inputs, of a tile of a weight that is packed for products of matrices."""


def snm_conv(
    x: Tensor,
    weight: Tensor,
    threshold: Tensor,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    pool: Sizes = 1,
    packed: Tensor | None = None,
    dense: bool = False,
    rule: SNMRule = SNM,
    state: SNMState | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    emit: Emit = "spike",
    backend: Backend = "auto",
) -> SNMOutput:
    r"""A convolution of spikes and the neurons that it drives, over all T time steps in one launch.

    What drives the neurons, ``conv(sum_pool(x[t]), weight) + bias + residual[t]``, is a sum of
    int8 weights in int32, exact in any order, and is never written to memory. The neurons are
    those of :func:`snm` with int32 thresholds. On the CPU the time that it takes grows with the
    number of spikes, unless it is told to multiply all of them.

    There, weights may be float32 as well, and so are then all numbers that are int32 otherwise, but
    for the state's memory. An output adds up the weights of positive spikes, in the order of the
    kernel's places, of the windows' places in them and of channels, then takes off those of
    negative ones in that order; a spike of n is n spikes. So nothing else changes how it rounds.

    Args:
        x: spikes, int8 ``[T, B, C, H, W]`` or ``[T, B, C, L]``, time first, any numbers. Where
            slices are not channels_last, x is copied first.
        weight: int8 or float32, ``[K, C / groups, *kernel]``.
        threshold: θ, int32, broadcastable to ``[K, *output]``; as for :func:`snm`.
        stride, padding, dilation, groups: as for ``torch.nn.functional.conv2d``; padding is of
            zeros.
        pool: sizes of windows, side by side, over which spikes are summed before the convolution:
            an average pooling whose factor is in the weights.
        packed: what :func:`pack_spike_weight` makes of ``weight``, ``groups`` and ``dense``, to
            save doing it in every call; that it is made of them is not checked. Only the CPU reads
            it.
        dense: whether the CPU multiplies matrices of spikes and zeros alike, rather than adding up
            the weights of spikes; the same result. Sums over windows of ``pool`` must fit in int8
            then. Where processors have instructions for it (AVX-512 VNNI, AMX) it may be faster.
        rule, state: as for :func:`snm`; the membrane is int32.
        bias: int32, broadcastable to ``[K, *output]``; added at every step.
        residual: int32 ``[T, B, K, *output]``, added at every step; stride 0 over time allowed.
        emit: ``"spike"`` sends int8 spikes, ``"none"`` sends nothing.
        backend: as for :func:`snm`; there is no ``"cuda"``.

    Returns:
        :class:`SNMOutput`: spikes int8 ``[T, B, K, *output]``, channels_last, None for
        ``emit="none"``; and the new state, int32.

    Raises:
        TypeError, ValueError: an argument's type, dtype, shape or device is wrong; the message
            names it, what was expected and what was given.
        RuntimeError: the backend is not available.

    >>> spikes = torch.ones(3, 1, 1, 4, dtype=torch.int8)
    >>> weight = torch.full((1, 1, 2), 3, dtype=torch.int8)
    >>> out = snm_conv(spikes, weight, torch.tensor(10, dtype=torch.int32))
    >>> out.spikes[:, 0, 0].tolist(), out.state.v[0, 0].tolist()
    ([[0, 0, 0], [1, 1, 1], [0, 0, 0]], [8, 8, 8])
    """
    name = "snm_conv"
    layer = _checked(name, x, weight, packed, dense, stride, padding, dilation, groups, pool)
    return _run_neurons(
        name, layer, x.dim() - 3, threshold, rule, state, bias, residual, emit, backend
    )


def spike_conv(
    x: Tensor,
    weight: Tensor,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    pool: Sizes = 1,
    packed: Tensor | None = None,
    dense: bool = False,
    bias: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """The convolution of :func:`snm_conv` alone: what it drives neurons with.

    Args:
        x, weight, stride, padding, dilation, groups, pool, packed, dense, bias, backend: as for
            :func:`snm_conv`.

    Returns:
        int32 ``[T, B, K, *output]``, channels_last; float32 if the weight is.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`snm_conv`.

    >>> spikes = torch.tensor([1, 0, -1], dtype=torch.int8).view(1, 1, 1, 3)
    >>> spike_conv(spikes, torch.tensor([[[5, 7]]], dtype=torch.int8)).flatten().tolist()
    [5, -7]
    """
    name = "spike_conv"
    layer = _checked(name, x, weight, packed, dense, stride, padding, dilation, groups, pool)
    return _run_drive(name, layer, x.dim() - 3, bias, backend)


def snm_linear(
    x: Tensor,
    weight: Tensor,
    threshold: Tensor,
    *,
    packed: Tensor | None = None,
    dense: bool = False,
    rule: SNMRule = SNM,
    state: SNMState | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    emit: Emit = "spike",
    backend: Backend = "auto",
) -> SNMOutput:
    """A linear layer of spikes and the neurons that it drives, as :func:`snm_conv`.

    Args:
        x: spikes, int8 ``[T, B, C]``.
        weight: int8 ``[K, C]``; or float32, as there.
        threshold, bias: int32, broadcastable to ``[K]``.
        residual: int32 ``[T, B, K]``.
        packed, dense, rule, state, emit, backend: as for :func:`snm_conv`.

    Returns:
        :class:`SNMOutput`: spikes int8 ``[T, B, K]`` and the state ``[B, K]``.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`snm_conv`.

    >>> spikes = torch.tensor([[[1, 1]], [[1, -1]]], dtype=torch.int8)
    >>> weight = torch.tensor([[5, 7]], dtype=torch.int8)
    >>> snm_linear(spikes, weight, torch.tensor(10, dtype=torch.int32)).spikes.flatten().tolist()
    [1, 0]
    """
    name = "snm_linear"
    layer = _checked_linear(name, x, weight, packed, dense)
    return _run_neurons(name, layer, 0, threshold, rule, state, bias, residual, emit, backend)


def spike_linear(
    x: Tensor,
    weight: Tensor,
    *,
    packed: Tensor | None = None,
    dense: bool = False,
    bias: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """The linear layer of :func:`snm_linear` alone: what it drives neurons with.

    Args:
        x, weight, packed, dense, bias, backend: as for :func:`snm_linear`.

    Returns:
        int32 ``[T, B, K]``; float32 if the weight is.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`snm_conv`.

    >>> spikes = torch.tensor([[[1, -1]]], dtype=torch.int8)
    >>> spike_linear(spikes, torch.tensor([[5, 7]], dtype=torch.int8)).item()
    -2
    """
    name = "spike_linear"
    layer = _checked_linear(name, x, weight, packed, dense)
    return _run_drive(name, layer, 0, bias, backend)


def pack_spike_weight(weight: Tensor, groups: int = 1, dense: bool = False) -> Tensor:
    """A weight in the order in which it is read, for the argument ``packed``.

    Args:
        weight: int8 or float32, ``[K, C / groups, *kernel]`` with up to 2 spatial dimensions.
        groups: that of the convolution.
        dense: that of the convolution; False with float32.

    Returns:
        Flat, of the weight's dtype. For each group and block of 64 outputs (of int8, or two such
        blocks side by side), each place of the kernel and each input channel it has 64 weights, 0
        behind the last output: those of float32 in order; those of int8 of outputs 0 and 32 with
        128 added to the first, then those of 1 and 33, and so on.
        With ``dense`` groups are put together until they have 16 outputs; for each such group and
        16 outputs, every 4 inputs (the channels of the first place of the kernel, those of the
        second and so on, with zeros up to a multiple of 64) have 64 bytes: those of the first
        output, those of the second and so on. Where each output reads one channel, the weights of
        a place of the kernel lie side by side, with zeros up to a multiple of 16.

    Raises:
        TypeError, ValueError: the weight is not such a tensor, or groups does not divide K.

    >>> pack_spike_weight(torch.tensor([[1], [2]], dtype=torch.int8))[:4].tolist()
    [-127, 0, -126, 0]
    """
    name = "pack_spike_weight"
    _check_weight(name, weight, (2, 3, 4), "[K, C / groups, *kernel]")
    _check_groups(name, groups)
    _check_dense(name, dense, weight)
    if weight.shape[0] % groups:
        raise refusal(name, ValueError, "groups", f"a divisor of {weight.shape[0]}", groups)
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    # [groups, outputs, channels, taps]
    taps = weight.reshape(groups, outputs, inputs, math.prod(weight.shape[2:]))
    if dense:
        return _pack_densely(taps)
    blocks = -(-outputs // BLOCK)
    wide = 2 if blocks % 2 == 0 else 1
    padded = functional.pad(taps, (0, 0, 0, 0, 0, blocks * BLOCK - outputs))
    if weight.dtype != torch.int8:
        # [groups, blocks, outputs, channels, taps]
        in_order: Tensor = padded.unflatten(1, (blocks, BLOCK)).permute(0, 1, 4, 3, 2)
        return in_order.reshape(-1)
    split = padded.reshape(groups, blocks // wide, wide, 2, BLOCK // 2, *taps.shape[2:])
    raised = torch.stack([split[:, :, :, 0] ^ -128, split[:, :, :, 1]], dim=-1)
    # [groups, blocks, wide, outputs, channels, taps, halves]
    return raised.permute(0, 1, 5, 4, 2, 3, 6).reshape(-1)


def _pack_densely(weight: Tensor) -> Tensor:
    """:func:`pack_spike_weight` of ``[groups, outputs, channels, taps]`` for products of
    matrices."""
    groups, outputs, channels, taps = weight.shape
    if groups > 1 and outputs == channels == 1:
        return functional.pad(weight.view(groups, taps).T, (0, -groups % PANEL)).reshape(-1)
    together = _groups_of_a_matrix(groups, outputs)
    whole = weight.new_zeros(groups // together, together, outputs, taps, together, channels)
    # Outputs of a group read no other's channels.
    own = weight.view(groups // together, together, outputs, channels, taps).transpose(3, 4)
    for each in range(together):
        whole[:, each, :, :, each] = own[:, each]
    rows = whole.reshape(groups // together, together * outputs, taps * together * channels)
    behind = (-rows.shape[2] % DEPTH, -rows.shape[1] % PANEL)
    padded = functional.pad(rows, (0, behind[0], 0, behind[1]))
    split = padded.unflatten(2, (-1, 4)).unflatten(1, (-1, PANEL))
    # [groups, panels, fours, outputs, 4]
    packed: Tensor = split.transpose(2, 3).reshape(-1)
    return packed


def _groups_of_a_matrix(groups: int, outputs: int) -> int:
    """How many groups of so many outputs each are put together to have a panel of them, or nearly:
    what is put together grows with the square of it."""
    possible = [n for n in range(1, min(groups, PANEL) + 1) if groups % n == 0]
    return next((n for n in possible if n * outputs >= PANEL), possible[-1])


class _Layer(NamedTuple):
    """The arguments of an operator's convolution, as two-dimensional."""

    x: Tensor
    weight: Tensor
    packed: Tensor | None
    dense: bool
    places: tuple[list[int], list[int], list[int], int, list[int]]
    """Stride, padding, dilation, groups and pool."""
    output: tuple[int, ...]
    """``[K, H, W]`` of the outputs."""

    @property
    def number(self) -> torch.dtype:
        """The dtype of sums, and of what is added to them or compared with them."""
        return torch.int32 if self.weight.dtype == torch.int8 else torch.float32


def _checked(
    op: str,
    x: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    dense: bool,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
    pool: Sizes,
) -> _Layer:
    """Checks a convolution's arguments, and makes two-dimensional what is one-dimensional."""
    _check_spikes(op, x, (4, 5), "[T, B, C, *spatial] with 1 or 2 spatial dimensions")
    spatial = x.dim() - 3
    _check_weight(op, weight, (spatial + 2,), f"of {spatial + 2} dimensions")
    _check_groups(op, groups)
    if weight.shape[0] % groups or weight.shape[1] * groups != x.shape[2]:
        expected = f"[K, {x.shape[2]} / {groups}, *kernel] with K a multiple of {groups}"
        raise refusal(op, ValueError, "weight", expected, list(weight.shape))
    if min(weight.shape[2:]) < 1:
        raise refusal(op, ValueError, "weight", "with a kernel >= 1", list(weight.shape))
    places = [
        _sizes(op, name, value, spatial, least)
        for name, value, least in (
            ("stride", stride, 1),
            ("padding", padding, 0),
            ("dilation", dilation, 1),
            ("pool", pool, 1),
        )
    ]
    output = [weight.shape[0]]
    for d in range(spatial):
        step, pad, apart, window = (place[d] for place in places)
        room = x.shape[3 + d] // window + 2 * pad - apart * (weight.shape[2 + d] - 1) - 1
        if x.shape[3 + d] < window:
            raise refusal(op, ValueError, "x", "as large as a window of pool", list(x.shape))
        if room < 0:
            expected = "as large as the kernel, pooled and with its padding"
            raise refusal(op, ValueError, "x", expected, list(x.shape))
        output.append(room // step + 1)
    if spatial == 1:
        x, weight = x.unsqueeze(3), weight.unsqueeze(2)
        neutral = (1, 0, 1, 1)
        places = [[one, *place] for one, place in zip(neutral, places, strict=True)]
        output.insert(1, 1)
    return _layer(op, x, weight, packed, dense, places, groups, tuple(output))


def _checked_linear(
    op: str, x: Tensor, weight: Tensor, packed: Tensor | None, dense: bool
) -> _Layer:
    """Checks a linear layer's arguments, and makes a convolution of it."""
    _check_spikes(op, x, (3,), "[T, B, C]")
    _check_weight(op, weight, (2,), "[K, C]")
    if weight.shape[1] != x.shape[2]:
        raise refusal(op, ValueError, "weight", f"[K, {x.shape[2]}]", list(weight.shape))
    places = [[1, 1], [0, 0], [1, 1], [1, 1]]
    output = (weight.shape[0], 1, 1)
    x, weight = (each.unsqueeze(-1).unsqueeze(-1) for each in (x, weight))
    return _layer(op, x, weight, packed, dense, places, 1, output)


def _layer(
    op: str,
    x: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    dense: bool,
    places: list[list[int]],
    groups: int,
    output: tuple[int, ...],
) -> _Layer:
    """The layer, once what both kinds have is checked."""
    if weight.device != x.device:
        raise refusal(op, ValueError, "weight", f"on {x.device}", weight.device)
    _check_dense(op, dense, weight)
    if packed is not None:
        size = torch.Size((_packed_size(weight, groups, dense),))
        check_tensor(op, "packed", packed, size, weight.dtype, x.device)
    stride, padding, dilation, pool = places
    return _Layer(x, weight, packed, dense, (stride, padding, dilation, groups, pool), output)


def _packed_size(weight: Tensor, groups: int, dense: bool) -> int:
    """How many numbers a packed weight has."""
    outputs, inputs = weight.shape[0] // groups, math.prod(weight.shape[1:])
    if not dense:
        return groups * -(-outputs // BLOCK) * BLOCK * inputs
    if groups > 1 and outputs == weight.shape[1] == 1:
        return inputs * -(-groups // PANEL) * PANEL
    together = _groups_of_a_matrix(groups, outputs)
    panels = -(-(outputs * together) // PANEL)
    return groups // together * panels * PANEL * -(-(inputs * together) // DEPTH) * DEPTH


def _run_neurons(
    op: str,
    layer: _Layer,
    spatial: int,
    threshold: Tensor,
    rule: SNMRule,
    state: SNMState | None,
    bias: Tensor | None,
    residual: Tensor | None,
    emit: Emit,
    backend: Backend,
) -> SNMOutput:
    """Runs the convolution and its neurons; results have as many spatial dimensions as x."""
    x = layer.x
    if not isinstance(rule, SNMRule):
        raise refusal(op, TypeError, "rule", "an SNMRule", rule)
    if emit not in ("spike", "none"):
        raise refusal(op, ValueError, "emit", "'spike' or 'none'", emit)
    theta = _parameter(op, "threshold", threshold, layer, spatial)
    offset = None if bias is None else _parameter(op, "bias", bias, layer, spatial)
    shape = torch.Size((*x.shape[:2], *layer.output))
    own = torch.Size((*x.shape[:2], *_own(layer.output, spatial)))
    v = m = None
    if residual is not None:
        check_tensor(op, "residual", residual, own, layer.number, x.device)
        residual = residual.reshape(shape) if spatial == 0 else _two_dimensional(residual, spatial)
    if state is not None:
        check_state(state, op)
        dtypes = (layer.number, torch.int32)
        for name, part, dtype in zip(("state.v", "state.m"), state, dtypes, strict=True):
            check_tensor(op, name, part, own[1:], dtype, x.device)
        v, m = (_two_dimensional(part, spatial) for part in state)
    sends = emit == "spike"
    chosen = _chosen(op, layer, backend)
    if chosen == "reference":
        drive = spike_conv_reference(x, layer.weight, offset, *layer.places)
        sent, v, m, _ = snm_reference(
            drive,
            _as_slice(theta),
            v,
            m,
            None,
            residual,
            None,
            rule=rule,
            spikes_dtype=torch.int8 if sends else None,
        )
        spikes = _channels_last(torch.stack(sent)) if sends else x.new_empty(0)
        v, m = _channels_last(v), _channels_last(m)
    else:
        spikes, v, m = _operator("snm_conv", chosen)(
            *_inputs(layer, chosen),
            theta,
            v,
            m,
            offset,
            residual,
            *layer.places,
            layer.dense,
            *rule_arguments(rule),
            sends,
        )
    back = SNMState(_flat(v, spatial), _flat(m, spatial))
    return SNMOutput(_flat(spikes, spatial) if sends else None, back)


def _run_drive(
    op: str, layer: _Layer, spatial: int, bias: Tensor | None, backend: Backend
) -> Tensor:
    """Runs the convolution; the result has as many spatial dimensions as x."""
    offset = None if bias is None else _parameter(op, "bias", bias, layer, spatial)
    chosen = _chosen(op, layer, backend)
    if chosen == "reference":
        drive = spike_conv_reference(layer.x, layer.weight, offset, *layer.places)
    else:
        drive = _operator("spike_conv", chosen)(
            *_inputs(layer, chosen), offset, *layer.places, layer.dense
        )
    return _flat(drive, spatial)


def _chosen(op: str, layer: _Layer, backend: str) -> str:
    """The backend that runs; on a GPU that is Triton."""
    device = layer.x.device
    if backend == "auto" and device.type == "cuda":
        backend = "triton"
    if backend in ("cuda", "triton") and layer.number == torch.float32:
        raise TypeError(
            f"{op}: weight must be int8 with backend={backend!r}, got torch.float32; layers of "
            "float32 run on the CPU: move tensors there, or use torch.nn.functional and snm"
        )
    chosen = _load.choose(backend, device, op)
    if chosen == "cuda":
        raise ValueError(f"{op}: backend must be 'triton' on a GPU, got 'cuda'")
    return chosen


def _inputs(layer: _Layer, chosen: str) -> tuple[Tensor, Tensor, Tensor]:
    """The spikes, the weight, and the packed weight where the backend reads it."""
    packed = layer.packed
    if packed is None:
        reads = chosen == "cpu"
        packed = layer.x.new_empty(0)
        if reads:
            packed = pack_spike_weight(layer.weight, layer.places[3], layer.dense)
    return layer.x, layer.weight, packed


def _operator(name: str, chosen: str) -> Any:
    """The operator of that name, for tensors of x's device."""
    if chosen == "triton":
        _load.load_triton()
        name = f"{name}_triton"
    return getattr(torch.ops.snm_kernels, name).default


def _check_typed(
    op: str,
    name: str,
    value: Tensor,
    dtypes: tuple[torch.dtype, ...],
    dims: tuple[int, ...],
    expected: str,
) -> None:
    """Refuses what is no tensor of these dtypes and of so many dimensions."""
    if not isinstance(value, Tensor):
        raise refusal(op, TypeError, name, "a tensor", type(value).__name__)
    if value.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise refusal(op, TypeError, name, names, value.dtype)
    if value.dim() not in dims:
        raise refusal(op, ValueError, name, expected, list(value.shape))


def _check_weight(op: str, weight: Tensor, dims: tuple[int, ...], expected: str) -> None:
    """Refuses what is no weight of so many dimensions."""
    _check_typed(op, "weight", weight, (torch.int8, torch.float32), dims, expected)


def _check_spikes(op: str, x: Tensor, dims: tuple[int, ...], expected: str) -> None:
    """Refuses what is no int8 tensor of so many dimensions, or has no time step."""
    _check_typed(op, "x", x, (torch.int8,), dims, expected)
    if x.shape[0] == 0:
        raise refusal(op, ValueError, "x", "of T >= 1", list(x.shape))


def _check_dense(op: str, dense: bool, weight: Tensor) -> None:
    """Refuses what is no bool, and products of matrices of floats."""
    if not isinstance(dense, bool):
        raise refusal(op, TypeError, "dense", "a bool", dense)
    if dense and weight.dtype != torch.int8:
        raise refusal(op, ValueError, "dense", "False with a weight of float32", dense)


def _check_groups(op: str, groups: int) -> None:
    """Refuses what is no number of groups."""
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise refusal(op, ValueError, "groups", "an integer >= 1", groups)


def _sizes(op: str, name: str, value: Sizes, spatial: int, least: int) -> list[int]:
    """A size for each spatial dimension."""
    sizes = list(value) if isinstance(value, Sequence) else [value] * spatial
    whole = all(isinstance(size, int) and not isinstance(size, bool) for size in sizes)
    if not whole or len(sizes) != spatial or any(size < least for size in sizes):
        expected = f"an integer >= {least}, or {spatial} of them"
        raise refusal(op, ValueError, name, expected, value)
    return sizes


def _parameter(op: str, name: str, value: Tensor, layer: _Layer, spatial: int) -> Tensor:
    """A threshold or bias as operators take it: ``[K]`` or ``[H, W, K]``."""
    if not isinstance(value, Tensor) or value.dtype != layer.number:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        kind = "an int32" if layer.number == torch.int32 else "a float32"
        raise refusal(op, TypeError, name, f"{kind} tensor", got)
    if value.device != layer.x.device:
        raise refusal(op, ValueError, name, f"on {layer.x.device}", value.device)
    own = _own(layer.output, spatial)
    check_broadcast(name, tuple(value.shape), own, op)
    full = value.reshape((1,) * (len(own) - value.dim()) + tuple(value.shape))
    full = _two_dimensional(full, spatial)
    if full.shape[1:] == (1, 1):
        return full.flatten().expand(layer.output[0]).contiguous()
    return full.expand(layer.output).permute(1, 2, 0).contiguous()


def _own(output: tuple[int, ...], spatial: int) -> tuple[int, ...]:
    """``[K, H, W]`` with as many spatial dimensions as there are."""
    return (output[0], *output[3 - spatial :])


def _two_dimensional(value: Tensor, spatial: int) -> Tensor:
    """A value ``[..., K, *spatial]`` with two spatial dimensions."""
    if spatial == 2:
        return value
    return value.unsqueeze(-2) if spatial == 1 else value.unsqueeze(-1).unsqueeze(-1)


def _flat(value: Tensor, spatial: int) -> Tensor:
    """A value ``[..., K, H, W]`` with as many spatial dimensions as there are."""
    if spatial == 2:
        return value
    return value.squeeze(-2) if spatial == 1 else value.squeeze(-1).squeeze(-1)


def _channels_last(value: Tensor) -> Tensor:
    """A value ``[..., K, H, W]`` whose outputs at one place lie side by side, slices dense."""
    return value.movedim(-3, -1).contiguous().movedim(-1, -3)


def _as_slice(parameter: Tensor) -> Tensor:
    """``[K]`` or ``[H, W, K]`` as it broadcasts to ``[K, H, W]``."""
    return parameter[:, None, None] if parameter.dim() == 1 else parameter.permute(2, 0, 1)


torch.library.register_fake("snm_kernels::spike_conv", spike_conv_fake)
torch.library.register_fake("snm_kernels::snm_conv", snm_conv_fake)
