"""What conversion knows: which operations are ReLUs, which are affine, and in what."""

import builtins
import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from .shapes import shape_for
from .trace import Traced


class Operands(Enum):
    """Which arguments may change over time."""

    FIRST = auto()
    """The first alone."""
    ONE = auto()
    """Any single one: a product."""
    ALL = auto()
    """All at once: a sum, a concatenation."""


@dataclass(frozen=True, slots=True)
class Affine:
    """An operation that commutes with the mean over time."""

    operands: Operands = Operands.FIRST
    fresh: bool = True
    """The result has memory of its own; False where it may be a view of an argument."""


_FRESH = Affine()
_VIEW = Affine(fresh=False)
_SUM = Affine(Operands.ALL)
_PRODUCT = Affine(Operands.ONE)

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
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
)
# Some of these hand back their argument, or a view of it, when there is nothing to do.
_VIEW_MODULES: tuple[type[nn.Module], ...] = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.Flatten,
    nn.Unflatten,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
    nn.ConstantPad1d,
    nn.ConstantPad2d,
    nn.ConstantPad3d,
)
_MODULES: dict[type[nn.Module], Affine] = {
    **dict.fromkeys(_FRESH_MODULES, _FRESH),
    **dict.fromkeys(_VIEW_MODULES, _VIEW),
}

_FRESH_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
    F.linear,
    F.avg_pool1d,
    F.avg_pool2d,
    F.avg_pool3d,
    operator.neg,
    operator.truediv,
    torch.div,
    torch.mean,
    torch.neg,
    torch.sum,
)
_VIEW_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
    F.pad,
    operator.getitem,
    torch.chunk,
    torch.flatten,
    torch.permute,
    torch.reshape,
    torch.split,
    torch.squeeze,
    torch.transpose,
    torch.unsqueeze,
)
_SUM_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    operator.add,
    operator.sub,
    torch.add,
    torch.sub,
    torch.cat,
    torch.concat,
    torch.concatenate,
    torch.stack,
)
_PRODUCT_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    operator.matmul,
    operator.mul,
    torch.matmul,
    torch.mul,
)
_FUNCTIONS: dict[Callable[..., Any], Affine] = {
    **dict.fromkeys(_FRESH_FUNCTIONS, _FRESH),
    **dict.fromkeys(_VIEW_FUNCTIONS, _VIEW),
    **dict.fromkeys(_SUM_FUNCTIONS, _SUM),
    **dict.fromkeys(_PRODUCT_FUNCTIONS, _PRODUCT),
}

_METHODS: dict[str, Affine] = {
    **dict.fromkeys(("div", "mean", "neg", "sum"), _FRESH),
    **dict.fromkeys(
        ("chunk", "contiguous", "detach", "flatten", "permute", "reshape", "split"), _VIEW
    ),
    **dict.fromkeys(("squeeze", "transpose", "unflatten", "unsqueeze", "view"), _VIEW),
    **dict.fromkeys(("add", "sub"), _SUM),
    **dict.fromkeys(("matmul", "mul"), _PRODUCT),
    "clone": _FRESH,
}

_RELUS = (F.relu, torch.relu, F.relu_)
_SHAPE_METHODS = ("dim", "size")
_SHAPE_ATTRIBUTES = ("device", "dtype", "ndim", "shape")
_RESHAPES = ("reshape", "view")
_SPLITS = ("chunk", "split")
_DIVISIONS = ("div",)

_REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("maxpool", "max_pool"), "max pooling of spikes is not known yet; average pooling is"),
    (
        ("softmax", "softmin"),
        "is not affine; leave it off, the largest logit stays the largest",
    ),
    (
        ("layernorm", "layer_norm", "groupnorm", "group_norm", "instancenorm", "instance_norm"),
        "divides by a statistic of its own input, which changes at every step; "
        "batch normalisation is known",
    ),
    (
        ("elu", "silu", "mish", "swish", "sigmoid", "tanh", "softplus", "clamp"),
        "only ReLU has a spiking neuron",
    ),
)
PICKS = "picks from the batch"
_UNKNOWN = "conversion does not know it as an affine operation"


def is_relu(traced: Traced, node: fx.Node) -> bool:
    """Whether a node is a ReLU: module, function or method."""
    if node.op == "call_module":
        return type(traced.module(node)) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELUS


def affine(traced: Traced, node: fx.Node) -> Affine | None:
    """How a node is affine; None if it is not, or conversion does not know it."""
    if node.op == "call_module":
        return _MODULES.get(type(traced.module(node)))  # type: ignore[arg-type]
    if node.op == "call_method":
        return _METHODS.get(str(node.target))
    if node.op == "call_function" and callable(node.target):
        return _FUNCTIONS.get(node.target)
    return None


def is_shape_query(node: fx.Node) -> bool:
    """Whether a node asks for a tensor's shape, dtype or device and reads no value of it."""
    if node.op == "call_method":
        return node.target in _SHAPE_METHODS
    return (
        node.op == "call_function"
        and node.target is builtins.getattr
        and node.args[1] in _SHAPE_ATTRIBUTES
    )


def is_reshape(node: fx.Node) -> bool:
    """Whether a node is told the sizes of its result, the batch's first."""
    if node.op == "call_method":
        return node.target in _RESHAPES
    return node.op == "call_function" and node.target is torch.reshape


def refusal(operation: str) -> str:
    """Why an operation that is not affine is refused."""
    name = operation.lower()
    for words, reason in _REASONS:
        if any(word in name for word in words):
            return reason
    return _UNKNOWN


def objection(traced: Traced, node: fx.Node) -> str | None:
    """What in the arguments of an affine operation makes it something else; None if nothing."""
    module = traced.module(node)
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return "has no running statistics (track_running_stats=False)"
    if name in _DIVISIONS and node.kwargs.get("rounding_mode") is not None:
        return "rounds"
    if name in _SPLITS:
        dim = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else 0)
        if dim in (0, -_rank(node)):
            return "splits the batch"
    if node.target is operator.getitem:
        return _objection_to_index(node)
    if is_reshape(node) and any(isinstance(size, torch.dtype) for size in node.args):
        return "reads the bits as another dtype"
    return None


def _objection_to_index(node: fx.Node) -> str | None:
    if not _first(node).meta["is_tensor"]:
        return None
    index = node.args[1]
    entries = index if isinstance(index, tuple | list) else (index,)
    if not all(isinstance(entry, int | slice) or entry in (None, ...) for entry in entries):
        return "picks by a tensor; only numbers and slices are known"
    return PICKS if picks_images(node) else None


def picks_images(node: fx.Node) -> bool:
    """Whether a node indexes the first dimension of a tensor by anything but ``:``."""
    if node.target is not operator.getitem or not _first(node).meta["is_tensor"]:
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


def first_argument(node: fx.Node) -> Any:
    """The first argument of a call, however it is passed."""
    if node.args:
        return node.args[0]
    return node.kwargs["tensors" if "tensors" in node.kwargs else "input"]


def _first(node: fx.Node) -> fx.Node:
    first = first_argument(node)
    assert isinstance(first, fx.Node)
    return first


def _rank(node: fx.Node) -> int:
    """Dimensions of a call's first argument."""
    return len(shape_for(_first(node), 2))
