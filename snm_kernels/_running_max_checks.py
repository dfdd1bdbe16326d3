"""Checks of the arguments that both max poolings take, for their ops and Triton operators."""

import torch
from torch import Tensor

from ._checks import check_broadcast, check_threshold, dtype_names, require
from ._types import AMPLITUDE_DTYPES


def check_x(op: str, x: Tensor) -> int:
    """Refuses what is no input of max pooling; returns the number of spatial dimensions."""
    require(isinstance(x, Tensor), TypeError, "x", "a tensor", x, op)
    dtypes = (torch.int8, *AMPLITUDE_DTYPES)
    require(x.dtype in dtypes, TypeError, "x", f"one of {dtype_names(dtypes)}", x.dtype, op)
    fits = 4 <= x.dim() <= 6 and x.shape[0] >= 1 and all(size >= 1 for size in x.shape[3:])
    expected = "[T, B, C, *spatial] with T >= 1 and 1 to 3 spatial sizes >= 1"
    require(fits, ValueError, "x", expected, list(x.shape), op)
    return x.dim() - 3


def checked_threshold(op: str, value: Tensor | float, x: Tensor) -> Tensor:
    """Returns the threshold as a float32 tensor that broadcasts to ``[C, *spatial]``."""
    if not isinstance(value, Tensor):
        number = check_threshold(value, "a tensor", op)
        return torch.full((), number, dtype=torch.float32, device=x.device)
    require(value.is_floating_point(), TypeError, "threshold", "floating point", value.dtype, op)
    require(value.device == x.device, ValueError, "threshold", f"on {x.device}", value.device, op)
    check_broadcast("threshold", value.shape, x.shape[2:], op)
    return value.to(torch.float32)


def check_total(op: str, total: Tensor, x: Tensor, dtype: torch.dtype) -> None:
    """Refuses totals that do not belong to the input x."""
    require(isinstance(total, Tensor), TypeError, "total", "a tensor", total, op)
    require(total.dtype == dtype, TypeError, "total", dtype, total.dtype, op)
    shape = x.shape[1:]
    require(
        total.shape == shape, ValueError, "total", f"of shape {list(shape)}", list(total.shape), op
    )
    require(total.device == x.device, ValueError, "total", f"on {x.device}", total.device, op)


def check_arguments(
    op: str,
    x: Tensor,
    threshold: Tensor | None,
    total: Tensor | None,
    sent_dtype: torch.dtype,
) -> None:
    """Checks what an operator is given where it is called without its op."""
    check_x(op, x)
    counted = x.dtype == torch.int8
    expected = "given for int8 x" if counted else "None for floating x"
    require(counted == (threshold is not None), ValueError, "threshold", expected, threshold, op)
    if threshold is not None:
        require(
            threshold.dtype == torch.float32, TypeError, "threshold", "float32", threshold.dtype, op
        )
        checked_threshold(op, threshold, x)
    if total is not None:
        check_total(op, total, x, torch.int32 if counted else torch.float32)
    spikes = threshold is not None and is_shared(threshold, x.dim() - 3)
    dtypes = (*AMPLITUDE_DTYPES, torch.int8) if spikes else AMPLITUDE_DTYPES
    require(
        sent_dtype in dtypes, TypeError, "sent", f"one of {dtype_names(dtypes)}", sent_dtype, op
    )


def is_shared(threshold: Tensor, spatial: int) -> bool:
    """Whether a threshold that broadcasts to ``[C, *spatial]`` is the same in a whole window."""
    return all(size == 1 for size in threshold.shape[max(0, threshold.dim() - spatial) :])
