"""Keeps the layers whose weights tuning fitted, along with the layers that they replaced."""

import copy
from typing import Any, TypeVar

from torch import nn

from ..module_paths import put_at_path

_Module = TypeVar("_Module", bound=nn.Module)

_BEFORE = "_before_tuning"
"""Name of the module, among a network's modules, that keeps the replaced layers by their paths."""


def replace_layer(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Replaces a layer by one with fitted weights, and keeps the layer that was there at first.

    >>> model = nn.Sequential(nn.Linear(1, 1))
    >>> replace_layer(model, "0", nn.Linear(1, 1, bias=False))
    >>> model[0].bias, before_tuning(model)[0].bias is None, list(layers_with_fitted_weights(model))
    (None, False, ['0'])
    """
    if path not in _kept(model):
        put_at_path(model, f"{_BEFORE}.{path}", model.get_submodule(path))
    model.set_submodule(path, layer)


def layers_with_fitted_weights(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that replaced others because their weights were fitted, by their paths."""
    return {path: model.get_submodule(path) for path in _kept(model)}


def before_tuning(model: nn.Module) -> nn.Module:
    """A network's modules with every layer as it was before tuning; tensors are shared with it."""
    kept = _kept(model)
    if not kept:
        return model
    made = sharing_tensors(model)
    for path, layer in kept.items():
        made.set_submodule(path, layer)
    return made


def sharing_tensors(module: _Module) -> _Module:
    """A copy of a module that shares its parameters and buffers."""
    memo: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo)


def _kept(model: nn.Module) -> dict[str, nn.Module]:
    """The layers as they were before tuning, of those that were replaced, by their paths."""
    if _BEFORE not in model._modules:
        return {}
    modules = model.get_submodule(_BEFORE).named_modules()
    return {path: module for path, module in modules if type(module) is not nn.Module}
