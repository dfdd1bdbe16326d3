"""Traces a copy of a model into a graph of its operations."""

import inspect
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ...errors import ConversionError, Offence
from .arguments import argument, bound_arguments
from .compare import difference, result_of
from .copies import copy_of
from .lines import line_of_error
from .traced_model import TracedModel
from .with_export import trace_with_export
from .with_fx import TracingError, trace_with_fx

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
_BUILTIN_DROPOUTS: tuple[Callable[..., Any], ...] = (
    torch.dropout,
    torch.alpha_dropout,
    torch.feature_dropout,
    torch.feature_alpha_dropout,
)
_PLAINLY = (
    ("cannot be used as inputs to control flow", "a branch or a loop depends on a tensor"),
    ("Proxy", "a tensor, or a size of one, is used as something else"),
    ("data-dependent", "a branch, a loop or a size depends on the values of a tensor"),
    ("Constraints violated", "another number of images is treated otherwise"),
)
# Both tracers replace how torch calls modules, and put back what they found.
_TRACING = threading.RLock()


def trace(model: nn.Module, images: Tensor) -> TracedModel:
    """Traces a copy of ``model``; what does nothing in evaluation is left out.

    With torch.fx; with torch.export, for images of this size alone, where torch.fx fails, or its
    graph computes something else, or holds a function whose inside it does not see.

    Args:
        model: in evaluation mode; takes the images as its first argument.
        images: at least one.

    Raises:
        ConversionError: neither can follow its forward, e.g. since it branches on values.
    """
    example = images[[0, -1]]
    expected = _result(model, example)
    by_fx = _attempt(_with_fx, model, example, expected)
    if isinstance(by_fx, TracedModel) and not _hides_something(by_fx):
        return by_fx
    if isinstance(expected, Exception):
        reason = f"fails on these images: {_plainly(expected)}"
        offence = Offence("", "forward", reason, line_of_error(expected))
        raise ConversionError([offence]) from expected
    by_export = _attempt(_with_export, model, example, expected)
    if isinstance(by_export, TracedModel):
        return by_export
    if isinstance(by_fx, TracedModel):
        return by_fx
    reason = (
        f"cannot be followed: torch.fx fails ({by_fx.reason}), torch.export fails "
        f"({by_export.reason}); forward may branch on the sizes of tensors, not on their values "
        "nor on what happened before"
    )
    where = by_fx if by_fx.line else by_export
    raise ConversionError([Offence(by_fx.path, "forward", reason, where.line)])


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


def _result(model: nn.Module, images: Tensor) -> Any:
    """The result of a model on images, or the error that it raises."""
    try:
        return result_of(model, images)
    except ConversionError:
        raise
    except Exception as error:
        return error


def _attempt(
    by: Callable[[nn.Module, Tensor], TracedModel], model: nn.Module, images: Tensor, expected: Any
) -> TracedModel | Offence:
    """The graph that a tracer makes of a model, or why it makes none that does the same."""
    root = _OneInput(copy_of(model).requires_grad_(False)).eval()
    _bake_parametrizations(root)
    try:
        with _TRACING:
            traced = by(root, images)
        _remove_what_does_nothing(traced)
        wrong = None if isinstance(expected, Exception) else difference(traced, images, expected)
    except Exception as error:
        path = error.path if isinstance(error, TracingError) else ""
        cause = error.__cause__ if isinstance(error, TracingError) else error
        return Offence(path, "forward", _plainly(cause or error), line_of_error(cause or error))
    if wrong is None:
        return traced
    return Offence("", "forward", f"its graph computes something else than the model: {wrong}")


def _with_fx(root: nn.Module, _images: Tensor) -> TracedModel:
    return TracedModel(root, trace_with_fx(root, _OneInput.forward.__code__), "torch.fx")


def _with_export(root: nn.Module, images: Tensor) -> TracedModel:
    return TracedModel(
        root, trace_with_export(root, images), "torch.export", tuple(images.shape[1:])
    )


def _plainly(error: BaseException) -> str:
    text = str(error)
    known = next((plain for words, plain in _PLAINLY if words in text), None)
    return known or (text.splitlines()[0] if text else repr(error))


def _hides_something(traced: TracedModel) -> bool:
    """Whether a graph calls functions whose inside it does not see."""
    return any(_is_opaque(n.target) for n in traced.graph.nodes if n.op == "call_function")


def _bake_parametrizations(root: nn.Module) -> None:
    """Turns weight norm and other parametrizations into plain weights."""
    for module in root.modules():
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            # A copy shares the class that torch made for the original, and baking changes it.
            shared = type(module)
            module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _remove_what_does_nothing(traced: TracedModel) -> None:
    graph = traced.graph
    for node in graph.nodes:
        if node.op == "call_function" and node.target is torch._assert:
            graph.erase_node(node)
        elif _does_nothing(traced, node):
            node.replace_all_uses_with(node.args[0] if node.args else node.kwargs["input"])
            graph.erase_node(node)


def _does_nothing(traced: TracedModel, node: fx.Node) -> bool:
    module = traced.module(node)
    if module is not None:
        return type(module) in _NO_OP_MODULES and altered(module) is None
    if node.op != "call_function":
        return False
    if node.target in _BUILTIN_DROPOUTS:
        return not argument(node, 2, "train")
    return node.target in _DROPOUTS and not bound_arguments(node)["training"]


def is_active_dropout(node: fx.Node) -> bool:
    """Whether a node drops values at random although the model is in evaluation mode."""
    return node.op == "call_function" and node.target in (*_DROPOUTS, *_BUILTIN_DROPOUTS)


def altered(module: nn.Module) -> str | None:
    """Why calling a module may do something else than its class says; None if it does not."""
    if "forward" in vars(module):
        return "its forward was replaced; put it back, or write a class with that forward"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks; remove them before conversion"
    return None


def _is_opaque(function: Callable[..., Any] | str) -> bool:
    """Whether a function is written in Python and not torch's: its inside is not in the graph."""
    if not inspect.isfunction(function):
        return False
    return function.__module__.partition(".")[0] != "torch"
