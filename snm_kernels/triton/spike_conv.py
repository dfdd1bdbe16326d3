"""The Triton operators of convolutions of spikes, which do what those of csrc/ops.cpp do."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from torch.library import wrap_triton

from .._fakes import snm_conv_fake, spike_conv_fake
from .._layout import dense_strides, slices_have
from .launch import INTERPRETED, check_same, loop_bound, on_device_of, register, require
from .snm import multiprocessors
from .spike_conv_kernel import spike_conv_kernel

STAGES = 3
"""How many blocks of inputs are on their way to shared memory, or there."""

MOST_NARROW = 2**31 - 2**16
"""How far apart what a program reads or writes at once may lie for places of 32 bits."""


class Tile(NamedTuple):
    """What a program computes at once."""

    outputs: int
    pixels: int
    steps: int
    warps: int

    def programs(self, outputs: int, pixels: int, groups: int) -> int:
        """How many programs compute so many outputs of each group at so many pixels."""
        over_outputs: int = triton.cdiv(outputs, self.outputs)
        over_pixels: int = triton.cdiv(pixels, self.pixels)
        return over_pixels * groups * over_outputs


class Along(NamedTuple):
    """The convolution along height or width."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    pool: int

    @property
    def output(self) -> int:
        """How many outputs there are."""
        room = self.size // self.pool + 2 * self.padding - self.dilation * (self.kernel - 1) - 1
        return room // self.stride + 1

    def check(self, op: str) -> None:
        """Refuses sizes that make no convolution."""
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1), ("pool", 1)):
            value = getattr(self, name)
            require(op, value >= least, name, f"at least {least}", value)
        require(op, self.kernel >= 1, "weight", "with a kernel of at least 1", self.kernel)
        fits = self.size >= self.pool and self.output >= 1
        require(op, fits, "x", "as large as the kernel with its padding", self.size)


class Neurons(NamedTuple):
    """The arguments of ``snm_conv`` that ``spike_conv`` lacks; the last says whether it sends."""

    threshold: Tensor
    v: Tensor | None
    m: Tensor | None
    residual: Tensor | None
    v_init: float
    negative_threshold: float | None
    strict: bool
    max_spikes: int
    count_min: int
    count_max: int
    sends: bool


def _spike_conv_triton(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,  # noqa: ARG001
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    pool: Sequence[int],
    dense: bool,  # noqa: ARG001
) -> Tensor:
    """Does what ``spike_conv`` of csrc/ops.cpp does; the kernel takes the weight itself."""
    places = (stride, padding, dilation, pool)
    return _run("spike_conv", x, weight, bias, places, groups, None)[0]


def _snm_conv_triton(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,  # noqa: ARG001
    threshold: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    pool: Sequence[int],
    dense: bool,  # noqa: ARG001
    v_init: float,
    negative_threshold: float | None,
    strict: bool,
    max_spikes: int,
    count_min: int,
    count_max: int,
    sends: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Does what ``snm_conv`` of csrc/ops.cpp does; the kernel takes the weight itself."""
    rule = (v_init, negative_threshold, strict, max_spikes, count_min, count_max)
    neurons = Neurons(threshold, v, m, residual, *rule, sends)
    places = (stride, padding, dilation, pool)
    spikes, v_out, m_out = _run("snm_conv", x, weight, bias, places, groups, neurons)
    return spikes, v_out, m_out


def _run(
    op: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    places: Sequence[Sequence[int]],
    groups: int,
    neurons: Neurons | None,
) -> tuple[Tensor, ...]:
    """Runs the kernel on x's device and current stream.

    Args:
        places: stride, padding, dilation and pool.

    Returns:
        The sums; or spikes, v and m.
    """
    axes = _checked(op, x, weight, places, groups)
    sizes = (*x.shape[:2], weight.shape[0], *(along.output for along in axes))
    strides = dense_strides(sizes, True)
    theta = residual = v = m = v_out = m_out = result = None
    rule: tuple[Any, ...] = (0.0, None, 1, 0, 0)
    strict, graded, sends = False, False, True
    if neurons is not None:
        theta, sends, strict = neurons.threshold, neurons.sends, neurons.strict
        rule = (neurons.v_init, neurons.negative_threshold, *neurons[-4:-1])
        graded = neurons.max_spikes > 1
        _check_parameter(op, "threshold", theta, sizes, x)
        residual = _laid_out(op, "residual", neurons.residual, sizes, x)
        v = _laid_out_state(op, "v", neurons.v, sizes, x)
        m = _laid_out_state(op, "m", neurons.m, sizes, x)
        v_out = x.new_empty_strided(sizes[1:], strides[1:], dtype=torch.int32)
        m_out = torch.empty_like(v_out)
    if bias is not None:
        _check_parameter(op, "bias", bias, sizes, x)
    if sends:
        dtype = torch.int32 if neurons is None else torch.int8
        result = x.new_empty_strided(sizes, strides, dtype=dtype)
    sent = x.new_empty(0) if result is None else result
    made = (sent,) if v_out is None or m_out is None else (sent, v_out, m_out)
    pixels = sizes[1] * sizes[3] * sizes[4]
    if pixels * weight.shape[0] == 0:
        return made

    spikes = _dense(x)
    together = groups_together(weight.shape[1], groups)
    rows = _rows(weight, groups, together)
    groups //= together
    outputs, inputs = weight.shape[0] // groups, weight.shape[1] * together
    major = capability(x.device)
    tile = tile_for(outputs, pixels, groups, x.shape[0], multiprocessors(x.device), major)
    of_block, gathered = block_for(inputs, axes[0].kernel * axes[1].kernel, major)
    windows = axes[0].pool * axes[1].pool
    farthest = max(spikes.stride(0), x[0].numel(), strides[0], _step(residual))
    run = spike_conv_kernel if INTERPRETED else wrap_triton(spike_conv_kernel)
    with on_device_of(x):
        run[(tile.programs(outputs, pixels, groups),)](
            spikes,
            spikes.stride(0),
            rows,
            bias,
            theta,
            v,
            m,
            residual,
            _step(residual),
            v_out,
            m_out,
            result,
            loop_bound(x.shape[0]),
            pixels,
            groups,
            inputs,
            outputs,
            *(along.size for along in axes),
            *(along.output for along in axes),
            *(along.stride for along in axes),
            *(along.padding for along in axes),
            *(along.dilation for along in axes),
            loop_bound(windows * triton.cdiv(rows[0].numel(), of_block)),
            *rule,
            KERNEL_HEIGHT=axes[0].kernel,
            KERNEL_WIDTH=axes[1].kernel,
            POOL_HEIGHT=axes[0].pool,
            POOL_WIDTH=axes[1].pool,
            PADDED=any(along.padding > 0 for along in axes),
            THRESHOLD_PIXELS=theta is not None and theta.dim() == 3,
            BIAS_PIXELS=bias is not None and bias.dim() == 3,
            STRICT=strict,
            GRADED=graded,
            WHOLE=x.shape[0] % tile.steps == 0,
            NARROW=max(tile.steps * farthest, rows.numel()) <= MOST_NARROW,
            GATHERED=gathered,
            HALVES=takes_no_int8(major),
            OUTPUTS=tile.outputs,
            PIXELS=tile.pixels,
            STEPS=tile.steps,
            INPUTS=of_block,
            STAGES=STAGES,
            num_warps=tile.warps,
            enable_fp_fusion=False,
        )
    return made


@cache
def capability(device: torch.device) -> int:
    """The first number of a GPU's compute capability; 0 where there is no GPU."""
    if not torch.cuda.is_available():
        return 0
    major: int = torch.cuda.get_device_capability(device)[0]
    return major


def takes_no_int8(major: int) -> bool:
    """Whether Triton has no products of int8 for GPUs of this capability."""
    return 0 < major < 8


def tile_for(
    outputs: int, pixels: int, groups: int, time_steps: int, multiprocessors: int, major: int
) -> Tile:
    """Chooses the tile of 128 outputs if they fill it and it fills the device, else a smaller one.

    Sums lie in registers: at most 64 of each thread, and 32 of small tiles.
    """
    steps = triton.next_power_of_2(time_steps)
    each = 16 if steps > 1 else 32
    wide = Tile(128, each, min(steps, 8), 8)
    fills = wide.programs(outputs, pixels, groups) >= multiprocessors
    if outputs > 64 and fills and not takes_no_int8(major):
        return wide
    most = 32 if takes_no_int8(major) else 64
    fitting = min(most, max(16, triton.next_power_of_2(outputs)))
    return Tile(fitting, each, min(steps, 4), 4)


def block_for(inputs: int, taps: int, major: int) -> tuple[int, bool]:
    """How many inputs a block has, and whether they may be of several places of the kernel."""
    most = 32 if takes_no_int8(major) else 128 if major in (9, 10) else 64
    for block in (128, 64, 32):
        if block <= most and inputs and inputs % block == 0:
            return block, False
    return min(most, 64 if inputs * taps > 32 else 32), True


def groups_together(inputs: int, groups: int) -> int:
    """How many groups of so few inputs are convolved as one, with weights of 0 between them.

    A block has 32 inputs at least, and what lies side by side is loaded together.
    """
    most = min(groups, 32 // max(1, inputs))
    return max((n for n in range(1, most + 1) if groups % n == 0), default=1)


def _rows(weight: Tensor, groups: int, together: int) -> Tensor:
    """The weight ``[K, taps, inputs]`` of groups taken together, inputs side by side as in x."""
    rows = weight.permute(0, 2, 3, 1).contiguous()
    if together == 1:
        return rows
    outputs, height, width, inputs = rows.shape
    apart = rows.view(groups // together, together, outputs // groups, height * width, 1, inputs)
    own = torch.eye(together, dtype=torch.int8, device=rows.device)
    side_by_side = (apart * own.view(together, 1, 1, together, 1)).contiguous()
    return side_by_side.view(outputs, height, width, -1)


def _checked(
    op: str, x: Tensor, weight: Tensor, places: Sequence[Sequence[int]], groups: int
) -> list[Along]:
    """Refuses what makes no convolution; returns it along height and width."""
    shape, of_weight = list(x.shape), list(weight.shape)
    require(op, x.dim() == 5 and shape[0] >= 1, "x", "[T, B, C, H, W] with T >= 1", shape)
    require(op, x.dtype == torch.int8, "x", "int8", x.dtype)
    fits = weight.dim() == 4 and weight.dtype == torch.int8
    require(op, fits, "weight", "int8 [K, C / groups, kernel, kernel]", of_weight)
    require(op, weight.device == x.device, "weight", f"on {x.device}", weight.device)
    fits = groups >= 1 and of_weight[0] % groups == 0 and of_weight[1] * groups == shape[2]
    require(op, fits, "weight", "for the channels of x", of_weight)
    for two in places:
        name = "stride, padding, dilation and pool"
        require(op, len(two) == 2, name, "two numbers each", list(two))
    axes = [Along(*each) for each in zip(shape[3:], of_weight[2:], *places, strict=True)]
    for along in axes:
        along.check(op)
    return axes


def _check_parameter(
    op: str, argument: str, given: Tensor, sizes: Sequence[int], x: Tensor
) -> None:
    """Refuses a threshold or bias that is not int32 ``[K]`` or ``[H, W, K]`` of the outputs."""
    shared, own = [sizes[2]], [sizes[3], sizes[4], sizes[2]]
    fits = list(given.shape) in (shared, own)
    fits = fits and given.dtype == torch.int32 and given.is_contiguous()
    require(op, fits, argument, f"int32 {shared} or {own}", list(given.shape))
    require(op, given.device == x.device, argument, f"on {x.device}", given.device)


def _dense(x: Tensor) -> Tensor:
    """The tensor with channels_last time slices; copied only if it has others."""
    strides = dense_strides(x.shape, True)
    if slices_have(x, strides):
        return x
    return x.new_empty_strided(x.shape, strides).copy_(x)


def _laid_out(
    op: str, argument: str, given: Tensor | None, sizes: Sequence[int], x: Tensor
) -> Tensor | None:
    """A tensor of the outputs' shape with time, channels_last."""
    if given is None:
        return None
    check_same(op, argument, given, torch.Size(sizes), torch.int32, x)
    return _dense(given)


def _laid_out_state(
    op: str, argument: str, given: Tensor | None, sizes: Sequence[int], x: Tensor
) -> Tensor | None:
    """A part of the state, channels_last."""
    if given is None:
        return None
    check_same(op, argument, given, torch.Size(sizes[1:]), torch.int32, x)
    return _dense(given[None])


def _step(tensor: Tensor | None) -> int:
    """A tensor's step from time slice to time slice."""
    return 0 if tensor is None else tensor.stride(0)


register("spike_conv_triton", _spike_conv_triton, spike_conv_fake)
register("snm_conv_triton", _snm_conv_triton, snm_conv_fake)
