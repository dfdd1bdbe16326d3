"""Finds out what the operations of a traced model are, and which of them cannot be converted."""

from torch import Tensor, fx

from ...errors import Offence
from ..tracing.arguments import first_argument
from ..tracing.trace import remove_unused
from ..tracing.traced_model import TracedModel
from .domains import sort_nodes
from .in_place import remove_in_place
from .offences import find_offences
from .operations import is_expansion
from .shapes import record_shapes, shape_for


def analyse(traced: TracedModel, images: Tensor, *, images_change: bool) -> list[Offence]:
    """Rewrites a graph so that nothing writes in place, and notes on its nodes what they are.

    Args:
        traced: its graph is changed.
        images: ``[B, ...]``, at least one, on the model's device and in its dtype.
        images_change: the images are another frame at every time step.

    Returns:
        Each operation that is refused.

    Raises:
        ConversionError: the model fails on the images.
    """
    record_shapes(traced, images)
    offences = remove_in_place(traced)
    remove_unused(traced.graph)
    _leave_batch_open(traced.graph)
    sort_nodes(traced, images_change=images_change)
    return offences + find_offences(traced)


def _leave_batch_open(graph: fx.Graph) -> None:
    """Lets an expansion keep its first size, that of the batch, instead of being told it."""
    for node in graph.nodes:
        if not is_expansion(node):
            continue
        first = first_argument(node)
        sizes = node.args[1:] or tuple(v for k, v in node.kwargs.items() if k != "input")
        told = sizes[0] if isinstance(sizes[0], tuple | list) else sizes
        shape = shape_for(first, 2)
        if isinstance(told, tuple | list) and len(told) == len(shape) and shape[0] == 2:
            node.args, node.kwargs = (first, (-1, *told[1:])), {}
