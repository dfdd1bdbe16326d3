"""Packs ternary spikes into two bits each, and unpacks them again."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_PER_BYTE = 4
"""How many spikes lie in one byte."""


def pack_spikes(spikes: Tensor) -> Tensor:
    """Packs ternary spikes into two bits each, four in a byte, the first in its lowest bits.

    Args:
        spikes: -1, 0 and 1, int8 of any shape, memory format and device.

    Returns:
        uint8 ``[ceil(n / 4)]`` of the n spikes in the order of their indices; the last byte is
        filled with zeros.

    Raises:
        TypeError: the spikes are not int8.
        ValueError: a spike is not -1, 0 or 1.

    >>> packed = pack_spikes(torch.tensor([1, -1, 0, 0, 1], dtype=torch.int8))
    >>> packed, unpack_spikes(packed, (5,))
    (tensor([13,  1], dtype=torch.uint8), tensor([ 1, -1,  0,  0,  1], dtype=torch.int8))
    """
    if not isinstance(spikes, Tensor) or spikes.dtype != torch.int8:
        got = spikes.dtype if isinstance(spikes, Tensor) else type(spikes).__name__
        raise TypeError(f"pack_spikes: spikes must be an int8 tensor, got {got}")
    flat = spikes.flatten()
    if flat.numel():
        least, most = map(int, flat.aminmax())
        if least < -1 or most > 1:
            raise ValueError(f"pack_spikes: spikes must be -1, 0 or 1, got {least} to {most}")
    packed = flat.new_zeros(math.ceil(flat.numel() / _PER_BYTE), dtype=torch.uint8)
    for position in range(_PER_BYTE):
        codes = flat[position::_PER_BYTE].view(torch.uint8) & 3
        packed[: len(codes)] |= codes << 2 * position
    return packed


def unpack_spikes(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpacks spikes: int8 of the given shape, on the same device.

    Args:
        packed: uint8 ``[ceil(n / 4)]``, as :func:`pack_spikes` makes it.
        shape: that of the n spikes.

    Raises:
        TypeError: ``packed`` is not uint8.
        ValueError: ``packed`` holds another number of spikes.

    >>> unpack_spikes(torch.tensor([0b1101], dtype=torch.uint8), (2, 2))
    tensor([[ 1, -1],
            [ 0,  0]], dtype=torch.int8)
    """
    if not isinstance(packed, Tensor) or packed.dtype != torch.uint8:
        got = packed.dtype if isinstance(packed, Tensor) else type(packed).__name__
        raise TypeError(f"unpack_spikes: packed must be a uint8 tensor, got {got}")
    count = math.prod(shape)
    expected = math.ceil(count / _PER_BYTE)
    if packed.shape != (expected,):
        raise ValueError(
            f"unpack_spikes: packed must be [{expected}] for spikes of {list(shape)}, "
            f"got {list(packed.shape)}"
        )
    # The upper of a spike's two bits is its sign.
    left = torch.arange(6, -1, -2, dtype=torch.int8, device=packed.device)
    spikes = packed.view(torch.int8).unsqueeze(1) << left >> 6
    return spikes.flatten()[:count].reshape(tuple(shape))
