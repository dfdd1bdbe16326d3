"""Knows which operations are ReLUs and which are affine, and in which arguments."""

import builtins
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ..tracing.arguments import argument, arguments_by_name, bound_arguments, first_argument
from ..tracing.traced_model import TracedModel
from .shapes import depends_on_batch, dtype_of, holds_tensors, is_tensor, shape_for


class Operands(Enum):
    """Which arguments of an affine operation may change over time."""

    FIRST = auto()
    """Only the first argument may, as in a convolution."""
    ONE = auto()
    """Any single argument may, as in a product."""
    ALL = auto()
    """All arguments may at once, as in a sum or a concatenation."""


@dataclass(frozen=True, slots=True)
class Affine:
    """An operation that commutes with the mean over time."""

    operands: Operands = Operands.FIRST
    fresh: bool = True
    """Whether the result has memory of its own; False where it may be a view of an argument."""


_FRESH = Affine()
_VIEW = Affine(fresh=False)
_SUM = Affine(Operands.ALL)
_VIEW_OF_SUM = Affine(Operands.ALL, fresh=False)
_PRODUCT = Affine(Operands.ONE)
_VIEW_OF_PRODUCT = Affine(Operands.ONE, fresh=False)

CONVOLUTIONS: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_FRESH_MODULES: tuple[type[nn.Module], ...] = (
    *CONVOLUTIONS,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
)
# Some of these hand back their argument, or a view of it, when there is nothing to do.
_VIEW_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    *(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    *(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    *(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
    *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
    *(nn.Flatten, nn.Unflatten, nn.Fold, nn.Unfold),
    *(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
)
MODULES: dict[type[nn.Module], Affine] = {
    **dict.fromkeys(_FRESH_MODULES, _FRESH),
    **dict.fromkeys(_VIEW_MODULES, _VIEW),
}

# Names of functions of torch and methods of Tensor alike, as far as there are such.
_NAMES: dict[str, Affine] = {
    **dict.fromkeys(("div", "divide", "true_divide", "mean", "neg", "negative", "sum"), _FRESH),
    **dict.fromkeys(("clone", "cumsum", "flip", "fliplr", "flipud", "repeat"), _FRESH),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like"), _FRESH),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unbind"), _VIEW),
    **dict.fromkeys(("index_select", "narrow", "select", "unfold"), _VIEW),
    **dict.fromkeys(("flatten", "reshape", "unflatten", "view"), _VIEW),
    **dict.fromkeys(("squeeze", "unsqueeze", "expand", "broadcast_to"), _VIEW),
    **dict.fromkeys(("movedim", "moveaxis", "permute", "swapaxes", "swapdims"), _VIEW),
    **dict.fromkeys(("transpose", "contiguous", "detach", "positive", "float", "to"), _VIEW),
    **dict.fromkeys(("channel_shuffle", "pixel_shuffle", "pixel_unshuffle"), _VIEW),
    **dict.fromkeys(("add", "sub", "subtract", "rsub"), _SUM),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "dstack"), _SUM),
    **dict.fromkeys(("expand_as", "reshape_as", "view_as"), _VIEW_OF_SUM),
    **dict.fromkeys(("mul", "multiply", "matmul", "bmm", "mm"), _PRODUCT),
}
METHODS = {name: known for name, known in _NAMES.items() if hasattr(Tensor, name)}
FUNCTIONS: dict[Callable[..., Any], Affine] = {
    **{getattr(torch, name): known for name, known in _NAMES.items() if hasattr(torch, name)},
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d, F.linear, F.batch_norm), _FRESH),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _FRESH),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), _FRESH),
    **dict.fromkeys((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d), _VIEW),
    **dict.fromkeys((F.adaptive_avg_pool3d, F.pad, F.interpolate, F.upsample), _VIEW),
    **dict.fromkeys((F.upsample_nearest, F.upsample_bilinear, F.fold, F.unfold), _VIEW),
    **dict.fromkeys((F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle), _VIEW),
    **dict.fromkeys((operator.neg, operator.truediv), _FRESH),
    **dict.fromkeys((operator.getitem, operator.pos), _VIEW),
    **dict.fromkeys((operator.add, operator.sub), _SUM),
    **dict.fromkeys((operator.mul, operator.matmul), _PRODUCT),
    torch.einsum: _VIEW_OF_PRODUCT,
}

_CLAMPS = ("clamp", "clamp_", "clip", "clip_")
_CLAMPS_FROM = ("clamp_min", "clamp_min_")
_RELUS = ("relu", "relu_")
SHAPE_METHODS = ("dim", "ndimension", "size")
SHAPE_ATTRIBUTES = ("device", "dtype", "ndim", "shape")
_RESHAPES = ("reshape", "view")
_EXPANSIONS = ("expand", "broadcast_to")
_DIVISIONS = ("div", "divide", "true_divide")
# Where a call names the dimension that it takes apart; dimension 0 unless it does.
_TAKES_APART = {
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), 2),
    **dict.fromkeys(("index_select", "narrow", "select", "unbind", "unflatten", "unfold"), 1),
}

PICKS = "picks from the batch"


@dataclass(frozen=True, slots=True)
class Clip:
    """An operation that clips its first argument to a range."""

    low: Any
    """Lower end of the range: a number, None for -inf, or something that is not known."""
    high: Any

    @property
    def is_neuron(self) -> bool:
        """Whether a spiking neuron does the same: from 0 to a number above it, or to inf."""
        starts_at_zero = _is_number(self.low) and self.low == 0
        return starts_at_zero and (self.high is None or (_is_number(self.high) and self.high > 0))


def clip_of(traced: TracedModel, node: fx.Node) -> Clip | None:
    """The range of a ReLU or of another operation that clips; None for anything else."""
    if node.op == "call_module":
        return clip_of_module(traced.module(node))
    if node.op not in ("call_function", "call_method"):
        return None
    name = node.target if node.op == "call_method" else _torch_name(node.target)
    if name in _RELUS:
        return Clip(0, None)
    if name in _CLAMPS:
        arguments = arguments_by_name(node, ("input", "min", "max"))
        return Clip(arguments.get("min"), arguments.get("max"))
    if name in _CLAMPS_FROM:
        return Clip(argument(node, 1, "min"), None)
    if name == "relu6":
        return Clip(0, 6)
    if name in ("hardtanh", "hardtanh_"):
        arguments = arguments_by_name(node, ("input", "min_val", "max_val"))
        return Clip(arguments.get("min_val", -1), arguments.get("max_val", 1))
    if name in ("_threshold", "threshold", "threshold_"):
        arguments = arguments_by_name(node, ("input", "threshold", "value"))
        return _threshold(arguments["threshold"], arguments["value"])
    return None


def clip_of_module(module: nn.Module | None) -> Clip | None:
    """The range of a ReLU module or of another that clips; None for anything else."""
    if type(module) is nn.ReLU:
        return Clip(0, None)
    if type(module) in (nn.ReLU6, nn.Hardtanh):
        assert isinstance(module, nn.Hardtanh)
        return Clip(module.min_val, module.max_val)
    if type(module) is nn.Threshold:
        return _threshold(module.threshold, module.value)
    return None


def _threshold(threshold: Any, value: Any) -> Clip | None:
    """The range of ``threshold``: with 0 below 0 it is a ReLU; other numbers make it jump."""
    zero = _is_number(threshold) and _is_number(value) and threshold == value == 0
    return Clip(0, None) if zero else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _torch_name(function: Any) -> str:
    """A function's name if it is torch's, whichever module of torch has it; else empty."""
    name = getattr(function, "__name__", "")
    homes = (torch, F, torch._C._nn)
    return name if any(getattr(home, name, None) is function for home in homes) else ""


def is_relu(traced: TracedModel, node: fx.Node) -> bool:
    """Whether a node is a ReLU, capped or not: module, function or method."""
    clip = clip_of(traced, node)
    return clip is not None and clip.is_neuron


def activation_cap(traced: TracedModel, node: fx.Node) -> float | None:
    """The largest value that a ReLU lets through, such as 6 for ReLU6; None if there is none."""
    clip = clip_of(traced, node)
    if clip is None or clip.high is None or math.isinf(clip.high):
        return None
    return float(clip.high)


def affine(traced: TracedModel, node: fx.Node) -> Affine | None:
    """In what way a node is affine; None if it is not, or conversion does not know it."""
    if node.op == "call_module":
        return MODULES.get(type(traced.module(node)))  # type: ignore[arg-type]
    if node.op == "call_method":
        return METHODS.get(str(node.target))
    if node.op == "call_function" and callable(node.target):
        return FUNCTIONS.get(node.target)
    return None


def is_shape_query(node: fx.Node) -> bool:
    """Whether a node asks for a tensor's shape, dtype or device and reads no value of it."""
    if node.op == "call_method":
        return node.target in SHAPE_METHODS
    return (
        node.op == "call_function"
        and node.target is builtins.getattr
        and node.args[1] in SHAPE_ATTRIBUTES
    )


def is_reshape(node: fx.Node) -> bool:
    """Whether a node is a reshape, which is told the sizes of its result, the batch's first."""
    if node.op == "call_method":
        return node.target in _RESHAPES
    return node.op == "call_function" and node.target is torch.reshape


def is_expansion(node: fx.Node) -> bool:
    """Whether a node expands a tensor to sizes that it is told, the batch's first."""
    if node.op == "call_method":
        return node.target in _EXPANSIONS
    return node.op == "call_function" and node.target is torch.broadcast_to


def objection(traced: TracedModel, node: fx.Node) -> str | None:
    """What in the arguments of an affine operation makes it something else; None if nothing."""
    name = _name(node)
    if _lacks_statistics(traced, node):
        return "has no running statistics (track_running_stats=False)"
    if name in _DIVISIONS and node.kwargs.get("rounding_mode") is not None:
        return "rounds"
    if name in _TAKES_APART and _dim(node) in (0, -_rank(node)):
        return PICKS if name in ("index_select", "narrow", "select") else "splits the batch"
    if node.target is operator.getitem:
        return _objection_to_index(node)
    if is_reshape(node) and any(isinstance(size, torch.dtype) for size in node.args):
        return "reads the bits as another dtype"
    operands = {dtype_of(operand) for operand in node.all_input_nodes if is_tensor(operand)}
    if operands and is_tensor(node) and dtype_of(node) not in operands:
        return "computes in another dtype"
    return None


def _name(node: fx.Node) -> str:
    return str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))


def _dim(node: fx.Node) -> Any:
    name = "dimension" if _name(node) == "unfold" else "dim"
    return argument(node, _TAKES_APART[_name(node)], name, 0)


def _lacks_statistics(traced: TracedModel, node: fx.Node) -> bool:
    module = traced.module(node)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.running_mean is None
    if node.target is not F.batch_norm:
        return False
    arguments = bound_arguments(node)
    return bool(arguments["training"]) or arguments["running_mean"] is None


def _objection_to_index(node: fx.Node) -> str | None:
    if not is_tensor(_first(node)):
        return None
    if picks_images(node):
        return PICKS
    if any(isinstance(n, fx.Node) and depends_on_batch(n) for n in _index_tensors(node)):
        return "picks by a tensor that holds the images"
    return None


def _index_tensors(node: fx.Node) -> list[fx.Node]:
    return [n for n in node.all_input_nodes if n is not _first(node) and holds_tensors(n)]


def picks_images(node: fx.Node) -> bool:
    """Whether a node indexes the first dimension of a tensor by anything but ``:``."""
    if node.target is not operator.getitem or not is_tensor(_first(node)):
        return False
    index = node.args[1]
    entries = index if isinstance(index, tuple | list) else (index,)
    if entries[0] is ... and len(entries) - 1 - entries.count(None) == _rank(node):
        entries = entries[1:]
    return not (entries[0] is ... or entries[0] == slice(None))


def squeezes_all(node: fx.Node) -> bool:
    """Whether a node takes away every dimension of size 1, the batch's too."""
    named = node.op == "call_method" and node.target == "squeeze"
    return (named or node.target is torch.squeeze) and len(node.args) + len(node.kwargs) == 1


def _first(node: fx.Node) -> fx.Node:
    first = first_argument(node)
    assert isinstance(first, fx.Node)
    return first


def _rank(node: fx.Node) -> int:
    """How many dimensions a call's first argument has."""
    return len(shape_for(_first(node), 2))
