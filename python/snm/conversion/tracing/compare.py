"""Checks that a traced graph computes what its model does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConversionError, Offence
from .copies import copy_of
from .traced_model import Runner, TracedModel

_IMAGES = 4


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether two results of the same operations on the same numbers differ by rounding alone.

    The bound is relative to the largest value. Both run the same kernels, but these may round
    otherwise at another place of a batch, and TF32 keeps no more than 10 bits of a float32.
    """
    if found.shape != expected.shape:
        return False
    if expected.numel() == 0 or not expected.is_floating_point():
        return torch.equal(found, expected)
    largest = expected.float().nan_to_num(0.0, 0.0, 0.0).abs().amax().item()
    bound = max(1e-3, 8 * torch.finfo(expected.dtype).eps) * largest
    return torch.allclose(found.float(), expected.float(), rtol=0.0, atol=bound, equal_nan=True)


@contextmanager
def _fixed_chance(images: Tensor) -> Iterator[None]:
    """Makes chance the same each time, and leaves the caller's random numbers alone."""
    with torch.random.fork_rng([images.device] if images.is_cuda else []):
        torch.manual_seed(0)
        yield


def result_of(model: nn.Module, images: Tensor) -> Any:
    """The result of a copy of a model on a copy of the images, as forward may write into either."""
    with _fixed_chance(images):
        return copy_of(model)(images.clone())


def difference(traced: TracedModel, images: Tensor, expected: Any) -> str | None:
    """How a graph's result differs from its model's by more than rounding; None if it does not.

    Args:
        expected: what the model returns for the images.
    """
    with _fixed_chance(images):
        found = Runner(traced).run(images.clone())
    if not (isinstance(found, Tensor) and isinstance(expected, Tensor)):
        if _plain_type(found) is _plain_type(expected):
            return None
        return f"{type(found).__name__} instead of {type(expected).__name__}"
    if agree(found, expected):
        return None
    if found.shape == expected.shape:
        return f"largest difference {(found.float() - expected.float()).abs().amax():.3g}"
    return f"{list(found.shape)} instead of {list(expected.shape)}"


def _plain_type(result: Any) -> type:
    """The type of a result; torch.fx's own collections count as the plain ones."""
    return next((kind for kind in (dict, list) if isinstance(result, kind)), type(result))


def check_traced(traced: TracedModel, model: nn.Module, images: Tensor) -> None:
    """Compares a graph with the model it was traced from, on a few of these images.

    Raises:
        ConversionError: they differ by more than rounding.
    """
    images = images[:_IMAGES]
    wrong = difference(traced, images, result_of(model, images))
    if wrong is not None:
        reason = (
            f"the traced graph computes something else than the model: {wrong}; forward writes in "
            "place in a way that conversion does not see"
        )
        raise ConversionError([Offence("", "forward", reason)])
