"""Checks that a traced graph computes what its model does."""

import copy

import torch
from torch import Tensor, fx, nn

from ..errors import ConversionError, Offence
from .trace import Traced


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether two results of the same operations on the same numbers differ by rounding alone.

    The bound is relative to the largest value. Both run the same kernels, but these may round
    otherwise at another place of a batch, and TF32 keeps no more than 10 bits of a float32.
    """
    if found.shape != expected.shape:
        return False
    if expected.numel() == 0:
        return True
    largest = expected.float().nan_to_num(0.0, 0.0, 0.0).abs().amax().item()
    bound = max(1e-3, 8 * torch.finfo(expected.dtype).eps) * largest
    return torch.allclose(found.float(), expected.float(), rtol=0.0, atol=bound, equal_nan=True)


def check_traced(traced: Traced, model: nn.Module, images: Tensor) -> None:
    """Compares a graph with the model it was traced from, on these images.

    Raises:
        ConversionError: they differ by more than rounding.
    """
    expected = copy.deepcopy(model)(images.clone())
    found = fx.Interpreter(traced.root, graph=traced.graph).run(images.clone())
    if agree(found, expected):
        return
    if found.shape == expected.shape:
        difference = f"largest difference {(found.float() - expected.float()).abs().amax():.3g}"
    else:
        difference = f"{list(found.shape)} instead of {list(expected.shape)}"
    reason = (
        f"the traced graph computes something else than the model: {difference}; forward writes "
        "in place, branches or draws random numbers in a way that tracing does not see"
    )
    raise ConversionError([Offence("", "forward", reason)])
