"""Reads the weights of operations that have an integer form with weights."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...network.interpret import Values
from ...network.program import Call, Pooling, Value, replaced

CONVOLUTIONS = (F.conv1d, F.conv2d, torch.conv1d, torch.conv2d)
_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_NORM_PARAMETERS = (
    *("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
)


@dataclass
class Weighted:
    """An operation with weights."""

    name: str
    """The name of what it reads."""
    weight: Tensor
    """``[K, C / groups, ...]``"""
    bias: Tensor | None
    places: tuple[Any, ...] = ()
    """Stride, padding, dilation and groups; none for a linear layer."""

    @property
    def dims(self) -> int:
        """How many spatial dimensions it has."""
        return self.weight.dim() - 2

    @property
    def groups(self) -> int:
        """How many groups of channels it has."""
        return self.places[-1] if self.places else 1

    def on_inputs(self, values: Tensor) -> Tensor:
        """Values ``[C]`` as they broadcast to the weight of what reads these channels."""
        outputs = len(self.weight)
        shared = values.view(self.groups, 1, -1).expand(self.groups, outputs // self.groups, -1)
        return shared.reshape(outputs, -1, *[1] * self.dims)

    def summed(self, x: Tensor) -> Tensor:
        """What its weights make of one image ``[C, ...]``, without the bias."""
        weight = self.weight.to(x.dtype)
        if not self.places:
            return F.linear(x, weight)
        convolve = F.conv1d if self.dims == 1 else F.conv2d
        return convolve(x.unsqueeze(0), weight, None, *self.places).squeeze(0)


def weighted(call: Call, model: nn.Module, values: Values) -> Weighted | None:
    """The weights of a convolution, a linear layer or a batch norm; None of anything else."""
    if call.kind == "module":
        module = model.get_submodule(str(call.target))
        if isinstance(module, _BatchNorm):
            return _norm(call, values, vars(module) | module._parameters | module._buffers)
        if isinstance(module, nn.Linear):
            return Weighted(call.reads[0], module.weight, module.bias)
        if isinstance(module, nn.Conv1d | nn.Conv2d) and module.padding_mode == "zeros":
            geometry = (module.stride, module.padding, module.dilation, module.groups)
            return Weighted(call.reads[0], module.weight, module.bias, geometry)
        return None
    if call.target is F.batch_norm:
        return _norm(call, values, _arguments(call, values, _NORM_PARAMETERS))
    if call.target not in (F.linear, *CONVOLUTIONS):
        return None
    given = _arguments(call, values, _PARAMETERS)
    places: tuple[Any, ...] = ()
    if call.target is not F.linear:
        places = tuple(given.get(name, default) for name, default in _DEFAULTS.items())
    return Weighted(call.reads[0], given["weight"], given.get("bias"), places)


def averaging(call: Call, pooling: Pooling, channels: int, like: Tensor) -> Weighted:
    """An average pooling as a convolution of each channel by itself."""
    part = 1 / torch.Size(pooling.kernel_size).numel()
    weight = like.new_full((channels, 1, *pooling.kernel_size), part, dtype=torch.float64)
    dilation = (1,) * len(pooling.kernel_size)
    places = (pooling.stride, pooling.padding, dilation, channels)
    return Weighted(call.reads[0], weight, None, places)


def _norm(call: Call, values: Values, given: dict[str, Any]) -> Weighted | None:
    """A batch norm: each channel by itself has one weight."""
    dims = values[call.reads[0]].dim() - 2
    if not 0 <= dims <= 2:
        return None
    mean, variance = given["running_mean"].double(), given["running_var"].double()
    scale, shift = given.get("weight"), given.get("bias")
    weight = torch.rsqrt(variance + given.get("eps", 1e-5))
    weight = weight if scale is None else weight * scale.double()
    bias = -mean * weight
    bias = bias if shift is None else bias + shift.double()
    if dims == 0:
        return Weighted(call.reads[0], torch.diag(weight), bias)
    places = ((1,) * dims, (0,) * dims, (1,) * dims, len(weight))
    return Weighted(call.reads[0], weight.view(-1, 1, *[1] * dims), bias, places)


def _arguments(call: Call, values: Values, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a call of a function by name."""

    def fetch(part: Any) -> Any:
        return values[part.name] if isinstance(part, Value) else part

    given: dict[str, Any] = dict(zip(names, replaced(call.args, fetch), strict=False))
    given.update(replaced(dict(call.kwargs or {}), fetch))
    return given
