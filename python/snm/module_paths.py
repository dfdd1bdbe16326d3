"""Puts modules and tensors at their paths in a module."""

from typing import Any

from torch import Tensor, nn


def put_at_path(root: nn.Module, path: str, value: Any) -> None:
    """Puts a module, parameter, buffer or constant at a path; plain modules are made to lead there.

    What was there is replaced. ``root.set_submodule`` does the same for a module whose parents
    exist.

    Args:
        root: the module that the path starts from.
        path: names joined by dots.
        value: what to put there; a tensor becomes a buffer.

    Raises:
        KeyError: a name in the path is empty, or is that of another attribute.

    >>> import torch
    >>> root = nn.Module()
    >>> put_at_path(root, "block.conv", nn.Conv2d(1, 2, 3))
    >>> put_at_path(root, "block.scale", torch.ones(2))
    >>> list(root.state_dict())
    ['block.scale', 'block.conv.weight', 'block.conv.bias']
    """
    *parents, name = path.split(".")
    holder = root
    for parent in parents:
        if parent not in holder._modules:
            holder.add_module(parent, nn.Module())
        holder = holder.get_submodule(parent)
    if isinstance(value, nn.Module):
        holder.add_module(name, value)
    elif isinstance(value, nn.Parameter):
        holder.register_parameter(name, value)
    elif isinstance(value, Tensor):
        holder.register_buffer(name, value)
    else:
        setattr(holder, name, value)
