"""Recognises max pooling."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from ..program import Pooling
from .operations import first_argument
from .shapes import shape_for
from .trace import Traced

MODULES: dict[type[nn.Module], int] = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}
ADAPTIVE_MODULES: dict[type[nn.Module], int] = {
    nn.AdaptiveMaxPool1d: 1,
    nn.AdaptiveMaxPool2d: 2,
    nn.AdaptiveMaxPool3d: 3,
}
FUNCTIONS: dict[Callable[..., Any], int] = {
    F.max_pool1d: 1,
    F.max_pool2d: 2,
    F.max_pool3d: 3,
    torch.max_pool1d: 1,
    torch.max_pool2d: 2,
    torch.max_pool3d: 3,
}
ADAPTIVE_FUNCTIONS: dict[Callable[..., Any], int] = {
    F.adaptive_max_pool1d: 1,
    F.adaptive_max_pool2d: 2,
    F.adaptive_max_pool3d: 3,
}
_ARGUMENTS = (
    *("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
)
_ADAPTIVE_ARGUMENTS = ("input", "output_size", "return_indices")


def pooling(traced: Traced, node: fx.Node) -> Pooling | None:
    """The windows of a node that is a max pooling of ``[B, C, ...]``; None for anything else."""
    if node.op == "call_module":
        module = traced.module(node)
        dims, adaptive = _dims(type(module), MODULES, ADAPTIVE_MODULES)
        arguments: Mapping[str, Any] = vars(module)
    elif node.op == "call_function":
        dims, adaptive = _dims(node.target, FUNCTIONS, ADAPTIVE_FUNCTIONS)
        names = _ADAPTIVE_ARGUMENTS if adaptive else _ARGUMENTS
        arguments = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    else:
        return None
    operand = first_argument(node) if dims else None
    if not isinstance(operand, fx.Node) or len(shape_for(operand, 2)) != dims + 2:
        return None
    if arguments.get("return_indices"):
        return None

    def each(name: str, otherwise: Any) -> tuple[Any, ...]:
        value = arguments.get(name)
        value = otherwise if value is None or value == [] else value
        return tuple(value) if isinstance(value, tuple | list) else (value,) * dims

    if adaptive:
        return Pooling(output_size=each("output_size", None))
    kernel_size = each("kernel_size", None)
    return Pooling(
        kernel_size,
        each("stride", kernel_size),
        each("padding", 0),
        each("dilation", 1),
        bool(arguments.get("ceil_mode", False)),
    )


def _dims(target: Any, regular: Mapping[Any, int], adaptive: Mapping[Any, int]) -> tuple[int, bool]:
    """Spatial dimensions that a target pools over, 0 for none, and whether it is adaptive."""
    if target in adaptive:
        return adaptive[target], True
    return regular.get(target, 0), False
