"""Paths of modules, parameters and layers of neurons, and which are still free."""

from collections.abc import Iterable

from torch import fx

PREFIX = "model"
"""The name under which the root of a traced model keeps the model."""


def own_path(target: str) -> str:
    """The path of a node's target in the model that the user gave.

    >>> own_path("model.features.0"), own_path("model")
    ('features.0', '')
    """
    return target.removeprefix(PREFIX).removeprefix(".")


def path_of(node: fx.Node) -> str:
    """The path of the module in which a node happens; for a call of a module, its path."""
    path: str = node.meta["path"]
    return path


def used_paths(nodes: Iterable[fx.Node]) -> set[str]:
    """The paths of everything that nodes call or read, and of the modules that hold it."""
    used = set()
    for node in nodes:
        if node.op in ("call_module", "get_attr"):
            parts = str(node.target).split(".")
            used |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    return used


def free_path(path: str, used: set[str]) -> str:
    """A path that is not used: ``path``, or the first of path_1, path_2, ... that is free.

    >>> free_path("block.relu", {"block", "block.relu"})
    'block.relu_1'
    """
    number = 0
    while (path if number == 0 else f"{path}_{number}") in used:
        number += 1
    return path if number == 0 else f"{path}_{number}"
