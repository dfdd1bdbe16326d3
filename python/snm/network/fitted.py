"""Layers whose weights tuning fitted, beside what they were before."""

import copy
from typing import Any, TypeVar

from torch import nn

from ..module_paths import put_at_path

_Module = TypeVar("_Module", bound=nn.Module)

_BEFORE = "_before_tuning"
"""The module of a network's modules that keeps them, by their paths."""


def replace_layer(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Puts a layer in the place of another; what was there first is kept.

    >>> model = nn.Sequential(nn.Linear(1, 1))
    >>> replace_layer(model, "0", nn.Linear(1, 1, bias=False))
    >>> model[0].bias, before_tuning(model)[0].bias is None, list(fitted_layers(model))
    (None, False, ['0'])
    """
    if path not in _kept(model):
        put_at_path(model, f"{_BEFORE}.{path}", model.get_submodule(path))
    model.set_submodule(path, layer)


def fitted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that were put in the place of others, by their paths."""
    return {path: model.get_submodule(path) for path in _kept(model)}


def before_tuning(model: nn.Module) -> nn.Module:
    """The modules with all layers as they were; they share their tensors."""
    kept = _kept(model)
    if not kept:
        return model
    made = sharing_tensors(model)
    for path, layer in kept.items():
        made.set_submodule(path, layer)
    return made


def sharing_tensors(module: _Module) -> _Module:
    """A copy with the same parameters and buffers."""
    memo: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo)


def _kept(model: nn.Module) -> dict[str, nn.Module]:
    if _BEFORE not in model._modules:
        return {}
    modules = model.get_submodule(_BEFORE).named_modules()
    return {path: module for path, module in modules if type(module) is not nn.Module}
