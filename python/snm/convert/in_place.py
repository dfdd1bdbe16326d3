"""Turns operations that write in place into ones that don't, without changing what they mean."""

import builtins
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..errors import Offence
from .operations import affine, first_argument, is_shape_query
from .shapes import holds_tensors
from .trace import Traced, bound

_OPERATORS: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_ALIASES = ("T", "expand", "expand_as", "mT", "narrow", "select", "t", "unbind", "view_as")


class _Write(NamedTuple):
    """An operation in place, and what does the same out of place."""

    written: fx.Node
    target: Any
    """None if there is nothing that does the same."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def remove_in_place(traced: Traced) -> list[Offence]:
    """Rewrites the graph so that no value is ever written over.

    What reads a written value later reads the result instead.

    Returns:
        The writes that cannot be expressed so.
    """
    offences = []
    order = {node: place for place, node in enumerate(traced.graph.nodes)}
    base: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        base[node] = base[first_argument(node)] if _may_alias(traced, node) else node
        write = _write(traced, node)
        if write is None:
            continue
        _set(node, write)
        if not holds_tensors(write.written):
            continue

        def reads_later(other: fx.Node, write: fx.Node = node) -> list[fx.Node]:
            return [user for user in other.users if order[user] > order[write]]

        base[node] = base[write.written]
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
    return offences


def _may_alias(traced: Traced, node: fx.Node) -> bool:
    """Whether a node's result may share its first argument's memory."""
    if node.op in ("placeholder", "get_attr", "output") or not holds_tensors(node):
        return False
    first = first_argument(node) if node.args or {"input", "tensors"} & set(node.kwargs) else None
    if not isinstance(first, fx.Node) or not holds_tensors(first):
        return False
    known = affine(traced, node)
    if known is not None:
        return not known.fresh
    name = node.args[1] if node.target is builtins.getattr else node.target
    return str(getattr(name, "__name__", name)) in _ALIASES


def _write(traced: Traced, node: fx.Node) -> _Write | None:
    """What a node writes in place; None if it does not."""
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
        target = name[:-1] if hasattr(Tensor, name[:-1]) else None
    elif node.op == "call_function":
        arguments = bound(node)
        name = str(getattr(node.target, "__name__", ""))
        if node.target in _OPERATORS:
            target = _OPERATORS[node.target]
        elif arguments.get("inplace"):
            args, kwargs = (), {**arguments, "inplace": False}
            target = node.target
        elif name.endswith("_") and not name.endswith("__"):
            target = getattr(torch, name[:-1], None)
        else:
            return None
    else:
        return None
    written = first_argument(node)
    return _Write(written, target, args, kwargs) if isinstance(written, fx.Node) else None


def _set(node: fx.Node, write: _Write) -> None:
    if write.target is not None:
        node.target, node.args, node.kwargs = write.target, write.args, write.kwargs
