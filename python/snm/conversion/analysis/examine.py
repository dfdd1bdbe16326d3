"""Traces a model and finds what in it cannot be converted, without converting it."""

from torch import Tensor, nn

from ...errors import Offence
from ..tracing.trace import Traced, remove_unused, trace
from .domains import sort_nodes
from .in_place import remove_in_place
from .offences import find_offences
from .shapes import record_shapes
from .sizes import leave_batch_open


def examine(
    model: nn.Module, images: Tensor, *, images_change: bool
) -> tuple[Traced, list[Offence]]:
    """A model's graph, in which nothing writes in place, and each operation that is refused.

    Args:
        model: checked, in evaluation mode.
        images: ``[B, ...]``, at least one, on the model's device and in its dtype.
        images_change: the images are another frame at every time step.

    Raises:
        ConversionError: the model cannot be traced, or fails on the images.
    """
    traced = trace(model, images)
    record_shapes(traced, images)
    offences = remove_in_place(traced)
    remove_unused(traced.graph)
    leave_batch_open(traced.graph)
    sort_nodes(traced, images_change=images_change)
    return traced, offences + find_offences(traced)
