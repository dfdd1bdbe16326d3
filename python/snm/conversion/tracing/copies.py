"""Copies a model, so that the one that was given stays as it is."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from ...errors import ConversionError, Offence


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy of a model, or an error that names what cannot be copied.

    Raises:
        ConversionError: something that it holds cannot be copied, such as a lock, or a result of
            forward that keeps its history.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        path, holder, name, cause = _culprit(model) or ("", model, "", error)
        what = f"its attribute {name} cannot be copied" if name else "cannot be copied"
        reason = (
            f"{what}: {_first_sentence(cause)}; conversion works on a copy, as copy.deepcopy "
            "makes it; delete what cannot be copied, or make it in forward"
        )
        raise ConversionError([Offence(path, type(holder).__name__, reason)]) from error


def _culprit(model: nn.Module) -> tuple[str, nn.Module, str, Exception] | None:
    """Path, module, attribute and error of what cannot be copied; None if no attribute is it."""
    for path, module in model.named_modules():
        for name, value in _attributes(module):
            try:
                copy.deepcopy(value)
            except Exception as error:
                return path, module, name, error
    return None


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and values of what a module itself holds, without the modules in it."""
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers"):
            yield from value.items()
        elif name != "_modules":
            yield name, value


def _first_sentence(error: Exception) -> str:
    return re.split(r"\.\s|\n", str(error))[0]
