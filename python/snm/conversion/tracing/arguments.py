"""Reads the arguments with which a node of a graph calls something."""

import inspect
from typing import Any

from torch import fx


def bound_arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call of a Python function by name; empty for anything else."""
    if node.op != "call_function" or not inspect.isfunction(node.target):
        return {}
    arguments = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    arguments.apply_defaults()
    return dict(arguments.arguments)


def arguments_by_name(node: fx.Node, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a call by name, from the names of positional arguments in their order."""
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def argument(node: fx.Node, position: int, name: str, otherwise: Any = None) -> Any:
    """One argument of a call, however it is passed."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, otherwise)


def first_argument(node: fx.Node) -> Any:
    """The first argument of a call, however it is passed."""
    if node.args:
        return node.args[0]
    return node.kwargs["tensors" if "tensors" in node.kwargs else "input"]
