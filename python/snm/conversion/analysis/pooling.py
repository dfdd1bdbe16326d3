"""Recognises max pooling and reads its windows."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from ...network.program import Call, Pooling
from ..tracing.arguments import arguments_by_name, first_argument
from ..tracing.traced_model import TracedModel
from .shapes import shape_for

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


def pooling_of_node(traced: TracedModel, node: fx.Node) -> Pooling | None:
    """The windows of a node that is a max pooling of ``[B, C, ...]``; None for anything else."""
    dims, adaptive = _dims(traced, node)
    if not dims or pools_channels(traced, node):
        return None
    arguments: Mapping[str, Any]
    if node.op == "call_module":
        arguments = vars(traced.module(node))
    else:
        arguments = arguments_by_name(node, _ADAPTIVE_ARGUMENTS if adaptive else _ARGUMENTS)
    return (
        None
        if arguments.get("return_indices")
        else pooling_from_arguments(arguments, dims, adaptive)
    )


def pooling_from_arguments(arguments: Mapping[str, Any], dims: int, adaptive: bool) -> Pooling:
    """The windows of a max pooling over so many dimensions, from its arguments by name.

    >>> pooling_from_arguments({"kernel_size": 2}, 2, adaptive=False).stride
    (2, 2)
    """

    def each(name: str, otherwise: Any) -> tuple[Any, ...]:
        value = arguments.get(name)
        value = otherwise if value is None or value in ([], ()) else value
        values = tuple(value) if isinstance(value, tuple | list) else (value,)
        return values * dims if len(values) == 1 else values

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


def pooling_of_call(call: Call, layers: nn.Module) -> Pooling | None:
    """The windows of a program's call that is a max pooling; None for any other call."""
    if call.kind == "module":
        module = layers.get_submodule(str(call.target))
        adaptive = type(module) in ADAPTIVE_MODULES
        dims = (ADAPTIVE_MODULES if adaptive else MODULES).get(type(module), 0)
        return pooling_from_arguments(vars(module), dims, adaptive) if dims else None
    if call.kind != "function" or not callable(call.target):
        return None
    adaptive = call.target in ADAPTIVE_FUNCTIONS
    dims = (ADAPTIVE_FUNCTIONS if adaptive else FUNCTIONS).get(call.target, 0)
    names = _ADAPTIVE_ARGUMENTS if adaptive else _ARGUMENTS
    arguments = {**dict(zip(names, call.args, strict=False)), **(call.kwargs or {})}
    return pooling_from_arguments(arguments, dims, adaptive) if dims else None


def pools_channels(traced: TracedModel, node: fx.Node) -> bool:
    """Whether a max pooling takes a batch for a single image, and so its channels for space."""
    dims, _ = _dims(traced, node)
    return dims > 0 and len(shape_for(first_argument(node), 2)) != dims + 2


def _dims(traced: TracedModel, node: fx.Node) -> tuple[int, bool]:
    """How many spatial dimensions a max pooling has, 0 for anything else, and if it is adaptive."""
    if node.op == "call_module":
        module = type(traced.module(node))
        adaptive = module in ADAPTIVE_MODULES
        return (ADAPTIVE_MODULES if adaptive else MODULES).get(module, 0), adaptive  # type: ignore[arg-type]
    if node.op != "call_function" or not callable(node.target):
        return 0, False
    adaptive = node.target in ADAPTIVE_FUNCTIONS
    return (ADAPTIVE_FUNCTIONS if adaptive else FUNCTIONS).get(node.target, 0), adaptive
