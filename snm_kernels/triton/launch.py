"""What the operators of the Triton backend share: how they are registered and launched."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from torch.library import custom_op, triton_op

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether Triton's interpreter runs the kernels, as it does under ``TRITON_INTERPRET=1``."""


def register(
    name: str, run: Callable[..., Any], fake: Callable[..., Any], written: Sequence[str] = ()
) -> None:
    """Makes ``run``, by its signature, the operator ``snm_kernels::<name>``.

    Args:
        fake: gives what ``run`` returns by shape, dtype and layout alone.
        written: the arguments that ``run`` writes to.
    """
    # PyTorch traces into a triton_op, but not into a kernel that Python interprets.
    operator: Any = custom_op if INTERPRETED else triton_op
    operator(f"snm_kernels::{name}", run, mutates_args=written).register_fake(fake)


def on_device_of(x: Tensor) -> AbstractContextManager[None]:
    """A context in which the GPU of x is the current one, if there is a GPU."""
    index = x.device.index if torch.cuda.device_count() else None
    return torch.accelerator.device_index(index)


def inexact(dtype: torch.dtype) -> bool:
    """Whether tensors of this dtype have to pass through float32.

    The interpreter truncates to bfloat16 and misreads its subnormals.
    """
    return INTERPRETED and dtype == torch.bfloat16


def exact_like(spikes: Tensor) -> Tensor:
    """The tensor that a kernel writes spikes to: this one, or a float32 one to copy from."""
    return torch.empty_like(spikes, dtype=torch.float32) if inexact(spikes.dtype) else spikes


def loop_bound(time_steps: int) -> Any:
    """Time steps as the argument of a kernel that loops over them.

    Triton 3.6's interpreter makes a number an array, which NumPy 2.4 takes for no loop bound.
    """
    return triton.language.constexpr(time_steps) if INTERPRETED else time_steps


def require(op: str, holds: bool, argument: str, expected: object, got: object) -> None:
    """Raises what the operators of csrc/ raise for a wrong argument, unless it holds."""
    if not holds:
        raise RuntimeError(f"{op}: {argument} must be {expected}, got {got}")


def check_same(
    op: str, argument: str, tensor: Tensor, shape: torch.Size, dtype: torch.dtype, like: Tensor
) -> None:
    """Refuses a tensor of another shape or dtype, or on another device than ``like``."""
    require(op, tensor.dtype == dtype, argument, dtype, tensor.dtype)
    require(op, tensor.shape == shape, argument, f"of shape {list(shape)}", list(tensor.shape))
    require(op, tensor.device == like.device, argument, f"on {like.device}", tensor.device)
