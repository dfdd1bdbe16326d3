"""Names of modules and neurons."""

from collections.abc import Iterable

from torch import fx

PREFIX = "model"
"""Where the traced root keeps the model."""


def own_path(target: str) -> str:
    """A target's path in the model the user gave.

    >>> own_path("model.features.0"), own_path("model")
    ('features.0', '')
    """
    return target.removeprefix(PREFIX).removeprefix(".")


def path_of(node: fx.Node) -> str:
    """Path of the module in which a node happens; its own for a module call."""
    path: str = node.meta["path"]
    return path


def used_paths(nodes: Iterable[fx.Node]) -> set[str]:
    """Paths of everything that nodes call or read, and of what holds it."""
    used = set()
    for node in nodes:
        if node.op in ("call_module", "get_attr"):
            parts = str(node.target).split(".")
            used |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    return used


def free_path(path: str, used: set[str]) -> str:
    """``path``, or the first of path_1, path_2, ... that is not used.

    >>> free_path("block.relu", {"block", "block.relu"})
    'block.relu_1'
    """
    number = 0
    while (path if number == 0 else f"{path}_{number}") in used:
        number += 1
    return path if number == 0 else f"{path}_{number}"
