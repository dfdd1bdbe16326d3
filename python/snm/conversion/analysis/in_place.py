"""Turns operations that write in place into ones that don't, without changing what they mean."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from ...errors import Offence
from ..tracing.arguments import bound_arguments, first_argument
from ..tracing.traced_model import TracedModel
from ..tracing.with_fx import IN_PLACE_OPERATORS
from .operations import affine, is_shape_query
from .shapes import bases_of, holds_tensors


class _Write(NamedTuple):
    """An operation that writes in place, and one that does the same without."""

    written: Any
    """What is written into: a node, if it is one value."""
    target: Any
    """The operation that does the same out of place; None if there is none."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def remove_in_place(traced: TracedModel) -> list[Offence]:
    """Rewrites the graph so that no value is ever written over.

    What reads a written value later reads the result instead.

    Returns:
        The writes that cannot be expressed so.
    """
    offences = []
    order = {node: place for place, node in enumerate(traced.graph.nodes)}
    base: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        source = _source(traced, node)
        base[node] = node if source is None else base[source]
        if node.kwargs.get("out") is not None:
            offences.append(traced.offence(node, "writes into out=; use its result"))
        write = _write(traced, node)
        if write is None:
            continue
        _set(node, write)
        if not isinstance(write.written, fx.Node):
            offences.append(traced.offence(node, "writes in place; use a form that does not"))
            continue
        if not holds_tensors(write.written):
            continue

        def reads_later(other: fx.Node, write: fx.Node = node) -> list[fx.Node]:
            return [user for user in other.users if order[user] > order[write]]

        base[node] = base[write.written]
        node.meta["bases"] = []
        others = [
            other
            for other, root in base.items()
            if root is base[node] and other not in (node, write.written)
        ]
        if base[node].op == "get_attr":
            offences.append(traced.offence(node, "writes into a parameter or buffer"))
        elif write.target is None:
            offences.append(traced.offence(node, "writes in place; use a form that does not"))
        elif any(not is_shape_query(user) for other in others for user in reads_later(other)):
            offences.append(
                traced.offence(node, "writes in place into what is read again through a view")
            )
        for user in reads_later(write.written):
            user.replace_input_with(write.written, node)
    for module in traced.root.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return offences


def _source(traced: TracedModel, node: fx.Node) -> fx.Node | None:
    """The argument whose memory a node's result shares, or may share for other images."""
    known = affine(traced, node)
    if known is not None and not known.fresh and holds_tensors(node):
        first = first_argument(node)
        if isinstance(first, fx.Node):
            return first
    return next(iter(bases_of(node)), None)


def _write(traced: TracedModel, node: fx.Node) -> _Write | None:
    """What a node writes in place; None if it writes nothing."""
    args, kwargs = tuple(node.args), dict(node.kwargs)
    target: Any = None
    if node.op == "call_module":
        module = traced.module(node)
        if not getattr(module, "inplace", False):
            return None
        target = node.target
    elif node.op == "call_method":
        name = str(node.target)
        if not name.endswith("_") or name.endswith("__"):
            return None
        target = name[:-1] if callable(getattr(Tensor, name[:-1], None)) else None
    elif node.op == "call_function":
        arguments = bound_arguments(node)
        name = str(getattr(node.target, "__name__", ""))
        if node.target in IN_PLACE_OPERATORS:
            target = IN_PLACE_OPERATORS[node.target]
        elif arguments.get("inplace"):
            args, kwargs = (), {**arguments, "inplace": False}
            target = node.target
        elif name.endswith("_") and not name.endswith("__") and not _is_operator(node.target):
            target = getattr(torch, name[:-1], None) or getattr(F, name[:-1], None)
        else:
            return None
    else:
        return None
    return _Write(first_argument(node), target, args, kwargs)


def _is_operator(function: Any) -> bool:
    """Whether a function is Python's own, such as ``and_``, named so to avoid a keyword."""
    return getattr(function, "__module__", None) == "_operator"


def _set(node: fx.Node, write: _Write) -> None:
    if write.target is not None:
        node.target, node.args, node.kwargs = write.target, write.args, write.kwargs
