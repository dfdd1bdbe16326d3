"""Convolutions over small maps, for which libraries are slow in channels_last."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_POSITIONS = range(2, 37)
"""How many positions a small map has. For such maps oneDNN reads all weights again for every few
rows, except in its own layout, to which it converts contiguous tensors."""
_DTYPES = (torch.float32, torch.bfloat16)
"""The dtypes in which contiguous tensors are faster."""
_LARGE = 2**18
"""How many elements of weights no longer fit in half of a second-level cache."""


class SmallMapConv2d(nn.Conv2d):
    """A convolution that runs on contiguous tensors on the CPU, whatever its input's format."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> "SmallMapConv2d":
        """Makes one from another convolution, with its parameters, but contiguous weights."""
        made = cls.__new__(cls)
        made.__dict__.update(conv.__dict__)
        made._parameters = dict(conv._parameters)
        made._pack()
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Convolves as ``nn.Conv2d`` does: ``[B, C, H, W]`` to ``[B, C', H', W']``."""
        padding = self.padding
        if x.device.type != "cpu" or x.dtype not in _DTYPES or isinstance(padding, str):
            return super().forward(x)
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._reversed_padding_repeated_twice, self.padding_mode), (0, 0)
        compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        convolve = _opaque_conv2d if compiling else _conv2d
        return convolve(x, self.weight, self.bias, self.stride, padding, self.dilation)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SmallMapConv2d":
        super()._apply(fn, recurse)
        self._pack()
        return self

    def _pack(self) -> None:
        """Makes the weights contiguous on the CPU, which spares every call a copy of them."""
        if self.weight.device.type == "cpu" and not self.weight.is_contiguous():
            grad = self.weight.requires_grad
            self.weight = nn.Parameter(self.weight.detach().contiguous(), requires_grad=grad)

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
    """Convolves contiguous copies of the input and the weights."""
    return F.conv2d(x.contiguous(), weight.contiguous(), bias, stride, padding, dilation)


# torch.compile does not look into a custom op; else it would make the tensors channels_last.
_opaque_conv2d = torch.library.custom_op("snm::contiguous_conv2d", _conv2d, mutates_args=())
_opaque_conv2d.register_fake(_conv2d)


def gains(module: nn.Module, output: tuple[int, ...]) -> bool:
    """Whether a module that makes ``[B, C', H', W']`` is faster as a :class:`SmallMapConv2d`."""
    if type(module) is not nn.Conv2d or module.groups > 1 or max(module.kernel_size) == 1:
        return False
    large = module.weight.numel() > _LARGE and module.weight.device.type == "cpu"
    return large and math.prod(output[2:]) in _POSITIONS
