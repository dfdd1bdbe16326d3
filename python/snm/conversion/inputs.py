"""Checks the model, images and names that a conversion is given."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import snm_kernels
from snm_kernels import SNMRule

from ..network.batches import cut_into_batches, images_and_labels
from ..network.checks import dtype_name

Progress = Callable[[Iterable[Any]], Iterable[Any]]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_CALIBRATION_BATCH = 64


def rule_of(preset: str | SNMRule) -> SNMRule:
    """The rule of a preset, which is given by its name or as the rule itself."""
    if isinstance(preset, SNMRule):
        return preset
    if not isinstance(preset, str):
        raise TypeError(f"convert: preset must be a name or an SNMRule, got {preset!r}")
    one_of("preset", preset, tuple(snm_kernels.PRESETS))
    return snm_kernels.preset(preset)


def one_of(argument: str, value: str, known: tuple[str, ...]) -> None:
    """Refuses an argument that is not one of the known names."""
    if value not in known:
        raise ValueError(f"convert: {argument} must be one of {', '.join(known)}, got {value!r}")


def check_model(
    model: nn.Module, caller: str = "convert"
) -> tuple[torch.device | None, torch.dtype | None]:
    """Refuses a model that cannot be run as it is; returns its device and dtype, None where it
    holds no tensors."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{caller}: model must be a torch.nn.Module, got {type(model).__name__}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            f"{caller}: the model is, or holds, a TorchScript module, whose inside cannot be "
            "followed; give the torch.nn.Module that it was made from"
        )
    if model.training:
        raise ValueError(f"{caller}: the model is in training mode; call model.eval() first")
    for path, module in model.named_modules():
        if module.training:
            raise ValueError(
                f"{caller}: {path} is in training mode; call model.eval() after it is built"
            )
    first: tuple[str, Tensor] | None = None
    dtype = None
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        first = first or (name, tensor)
        if tensor.device != first[1].device:
            raise ValueError(
                f"{caller}: the model must be on one device, but {first[0]} is on "
                f"{first[1].device} and {name} on {tensor.device}; move it with model.to(device)"
            )
        if tensor.is_meta:
            raise ValueError(f"{caller}: {name} is on device meta and holds no values")
        if tensor.is_floating_point():
            dtype = dtype or tensor.dtype
            if tensor.dtype not in _DTYPES:
                raise ValueError(
                    f"{caller}: {name} is {dtype_name(tensor.dtype)}; convert the model to one of "
                    f"{', '.join(map(dtype_name, _DTYPES))}, e.g. with model.float()"
                )
    return (None if first is None else first[1].device), dtype


def batches_of(
    images: Tensor | Iterable[Any],
    progress: Progress | None,
    device: torch.device | None,
    dtype: torch.dtype | None,
    caller: str = "convert",
    *,
    what: str = "calibration",
    size: int = _CALIBRATION_BATCH,
) -> Iterator[Tensor]:
    """Yields images batch by batch, checked, on the model's device; none is empty.

    Args:
        what: the argument's name.
        size: how many images of a tensor a batch has at most.
    """
    batches = cut_into_batches(images, size, caller=caller, what=what)
    kind = "images" if what == "images" else f"{what} images"
    for batch in batches if progress is None else progress(batches):
        found, _ = images_and_labels(batch, caller=caller, what=kind)
        if found.dim() < 2:
            raise ValueError(f"{caller}: {kind} must be [N, ...], got {list(found.shape)}")
        if dtype is not None and found.dtype != dtype:
            raise TypeError(
                f"{caller}: {kind} must be {dtype_name(dtype)} like the model, "
                f"got {dtype_name(found.dtype)}"
            )
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"{caller}: {kind} must be finite, got NaN or infinity")
        if found.shape[0] > 0:
            yield found if device is None else found.to(device)
