"""Traces a copy of a model into a graph of its operations."""

import copy
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ..errors import ConversionError, Offence
from .paths import PREFIX, own_path, path_of

_NO_OP_MODULES = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
_DROPOUTS = (
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
)


IN_PLACE_OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    getattr(operator, f"i{name.rstrip('_')}"): getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"),
        *("and_", "or_", "xor", "lshift", "rshift"),
    )
}
"""Operators that write into their left operand, and what does the same out of place."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A model's copy and the graph of what it does to one batch of images."""

    root: nn.Module
    graph: fx.Graph

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module a node calls; None if it calls none."""
        if node.op != "call_module":
            return None
        return self.root.get_submodule(str(node.target))

    def attribute(self, node: fx.Node) -> Any:
        """The parameter, buffer or constant a ``get_attr`` node reads."""
        return reduce(getattr, str(node.target).split("."), self.root)

    def operation(self, node: fx.Node) -> str:
        """What a node does, by the name people call it."""
        module = self.module(node)
        if module is not None:
            return type(module).__name__
        if node.op == "call_method":
            return f"Tensor.{node.target}"
        return str(getattr(node.target, "__name__", node.target))

    def offence(self, node: fx.Node, reason: str) -> Offence:
        """The refusal of a node."""
        return Offence(path_of(node), self.operation(node), reason)


def bound(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call of a Python function by name; empty for anything else."""
    if node.op != "call_function" or not inspect.isfunction(node.target):
        return {}
    arguments = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    arguments.apply_defaults()
    return dict(arguments.arguments)


def trace(model: nn.Module) -> Traced:
    """Traces a copy of ``model``; what does nothing in evaluation is left out.

    Args:
        model: in evaluation mode; takes the images as its first argument.

    Raises:
        ConversionError: its forward cannot be followed, e.g. it branches on values.
    """
    root = _OneInput(copy.deepcopy(model).requires_grad_(False)).eval()
    _bake_parametrizations(root)
    tracer = _Tracer()
    try:
        graph = tracer.trace(root)
    except Exception as error:
        reason = (
            "cannot be followed by torch.fx; forward may not branch on the values of tensors "
            f"or write into them ({str(error).splitlines()[0] if str(error) else error!r})"
        )
        raise ConversionError([Offence(tracer.failed_in, "forward", reason)]) from error
    traced = Traced(root, graph)
    for node in graph.nodes:
        if node.op == "call_function" and node.target is torch._assert:
            graph.erase_node(node)
        elif _does_nothing(traced, node):
            node.replace_all_uses_with(node.args[0] if node.args else node.kwargs["input"])
            graph.erase_node(node)
    return traced


def remove_unused(graph: fx.Graph) -> None:
    """Drops the nodes that nothing reads; right only where nothing is written in place."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


class _OneInput(nn.Module):
    """Calls a model with the images alone, so that its other arguments take their defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits


class _Proxy(fx.Proxy):
    """Records ``x += y`` as what it is; fx's own proxy records an addition out of place."""


def _recorder(function: Callable[..., Any]) -> Callable[..., Any]:
    def record(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


for _operator in IN_PLACE_OPERATORS:
    setattr(_Proxy, f"__{_operator.__name__}__", _recorder(_operator))


class _Tracer(fx.Tracer):
    # Else what forward does to buffers alone would happen now and not be recorded.
    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
        self.failed_in = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        inside = module_qualified_name != PREFIX
        return inside and super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in or own_path(self.path_of_module(m))
            raise

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["path"] = own_path(self.scope.module_path)
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def _bake_parametrizations(root: nn.Module) -> None:
    """Weight norm and its like become plain weights."""
    for module in root.modules():
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            # A copy shares the class that torch made for the original, and baking changes it.
            shared = type(module)
            module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _does_nothing(traced: Traced, node: fx.Node) -> bool:
    module = traced.module(node)
    if module is not None:
        return type(module) in _NO_OP_MODULES and not has_hooks(module)
    if node.op != "call_function":
        return False
    if node.target is torch.dropout:
        return not _argument(node, 2, "train")
    return node.target in _DROPOUTS and not bound(node)["training"]


def is_active_dropout(node: fx.Node) -> bool:
    """Whether a node drops values at random although the model is in evaluation mode."""
    return node.op == "call_function" and (node.target in _DROPOUTS or node.target is torch.dropout)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling a module does more than its class says."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs[name]
