"""Takes chosen images out of a batch."""

import torch
from torch import Tensor


def rows_of(value: Tensor, rows: Tensor) -> Tensor:
    """Chosen rows of ``[B, ...]``, at most B of them, in the same memory format.

    >>> rows_of(torch.arange(6).view(3, 2), torch.tensor([2, 0])).tolist()
    [[4, 5], [0, 1]]
    """
    kept = torch.empty_like(value[: len(rows)])
    return torch.index_select(value, 0, rows.to(value.device), out=kept)
