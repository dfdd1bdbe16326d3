"""Convolutions over small maps, at which libraries are slow in channels_last."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_POSITIONS = range(2, 37)
"""Of a small map: oneDNN reads all weights again for a few rows of so many positions at most, but
for its own layout, to which it converts contiguous tensors, it does not."""
_LARGE = 2**18
"""Elements of weights that no longer fit in half of a second-level cache."""


class SmallMapConv2d(nn.Conv2d):
    """A convolution that runs on contiguous tensors on the CPU, whatever its input's format."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "SmallMapConv2d":
        """The same convolution, with the same parameters, its weights contiguous."""
        made = cls.__new__(cls)
        made.__dict__.update(conv.__dict__)
        made._parameters = dict(conv._parameters)
        made.weight = nn.Parameter(conv.weight.detach().contiguous(), conv.weight.requires_grad)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """As ``nn.Conv2d``: ``[B, C, H, W]`` to ``[B, C', H', W']``."""
        if x.device.type != "cpu":
            return super().forward(x)
        padding = self.padding
        if self.padding_mode != "zeros" or isinstance(padding, str):
            y: Tensor = self._conv_forward(x.contiguous(), self.weight.contiguous(), self.bias)
            return y
        convolve = _opaque_conv2d if torch.compiler.is_compiling() else _conv2d
        return convolve(x, self.weight, self.bias, self.stride, padding, self.dilation)

    def _get_name(self) -> str:
        return "Conv2d"


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    return F.conv2d(x.contiguous(), weight.contiguous(), bias, stride, padding, dilation)


# What torch.compile does not look into: it would make the tensors channels_last.
_opaque_conv2d = torch.library.custom_op("snm::contiguous_conv2d", _conv2d, mutates_args=())
_opaque_conv2d.register_fake(_conv2d)


def gains(module: nn.Module, output: tuple[int, ...]) -> bool:
    """Whether a module that makes ``[B, C', H', W']`` is faster as a :class:`SmallMapConv2d`."""
    if type(module) is not nn.Conv2d or module.groups > 1 or max(module.kernel_size) == 1:
        return False
    return module.weight.numel() > _LARGE and math.prod(output[2:]) in _POSITIONS
