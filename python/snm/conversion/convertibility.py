"""Says whether a model can be converted."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConversionError, Offence
from .analysis.analyse import analyse
from .inputs import batches_of, check_model
from .tracing.compare import check_traced, result_of
from .tracing.trace import trace
from .tracing.traced_model import Tracer

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SIZES = (224, 299, 96, 64, 32, 28, 16)
# A large volume takes too much memory to try.
_SIZES_OF_VOLUMES = (16, 28, 32, 64, 96)


@dataclass(frozen=True, slots=True)
class Convertibility:
    """Whether a model can be converted, and what stands in the way; true if nothing does.

    >>> report = convertible(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Softmax(1)).eval())
    >>> print(report)
    convert: 1 operation cannot be converted:
      2: Softmax: is not affine; leave it off, the largest logit stays the largest
    """

    tracer: Tracer | None
    """The tracer that follows the model's forward; None if none can."""
    offences: tuple[Offence, ...]
    """Each operation that is refused, in the order of execution."""

    @property
    def ok(self) -> bool:
        """Whether the model can be converted."""
        return not self.offences

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:
            return f"convertible, followed by {self.tracer}"
        return str(ConversionError(self.offences))


@torch.no_grad()
def convertible(model: nn.Module, images: Tensor | None = None) -> Convertibility:
    """Says whether a model can be converted, without converting it or changing it.

    Args:
        model: as for :func:`snm.convert`.
        images: ``[N, ...]``, at least one, of the size, dtype and device that the model takes;
            None for noise of the first common size that it takes.

    Raises:
        ValueError: the model is in training mode, on several devices or in another dtype; no
            images are given and the model takes no common size.
        TypeError: an argument is of the wrong type.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    >>> report = convertible(model.eval(), torch.rand(2, 3, 8, 8))
    >>> report.ok, report.tracer, report.offences
    (True, 'torch.fx', ())
    """
    device, dtype = check_model(model, "convertible")
    try:
        if images is None:
            images = _example(model, device, dtype)
        images = next(batches_of([images], None, device, dtype, "convertible"), None)
        if images is None:
            raise ValueError("convertible: images must hold at least one image, got none")
        traced = trace(model, images)
        offences = analyse(traced, images, images_change=False)
    except ConversionError as error:
        return Convertibility(None, error.offences)
    if not offences:
        try:
            check_traced(traced, model, images)
        except ConversionError as error:
            return Convertibility(traced.tracer, error.offences)
    return Convertibility(traced.tracer, tuple(offences))


def _example(model: nn.Module, device: torch.device | None, dtype: torch.dtype | None) -> Tensor:
    """Two images of noise, of the first common size that a model takes."""
    tried = []
    failure: Exception | None = None
    generator = torch.Generator().manual_seed(0)
    for shape in _common_shapes(model):
        images = torch.rand(2, *shape, generator=generator).to(device, dtype)
        try:
            result_of(model, images)
        except ConversionError:
            raise
        except Exception as error:
            tried.append(list(shape))
            failure = error
        else:
            return images
    why = "in which no layer tells their size"
    if tried:
        why = f"which fails on those of {', '.join(map(str, tried))}: {failure}"
    raise ValueError(f"convertible: images must be given for this model, {why}") from failure


def _common_shapes(model: nn.Module) -> Iterator[tuple[int, ...]]:
    """The common shapes of images that a model's first layer may take."""
    first = next((module for module in model.modules() if isinstance(module, _LAYERS)), None)
    if isinstance(first, nn.Linear):
        yield (first.in_features,)
    elif first is not None:
        dims = len(first.kernel_size)
        for size in _SIZES_OF_VOLUMES if dims == 3 else _SIZES:
            yield (first.in_channels, *[size] * dims)
