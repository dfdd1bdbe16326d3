"""Rewrites what is told how many images there are, so that it is right for any number."""

from torch import fx

from .operations import first_argument, is_expansion
from .shapes import shape_for


def leave_batch_open(graph: fx.Graph) -> None:
    """An expansion keeps its first size, that of the batch, instead of being told it."""
    for node in graph.nodes:
        if not is_expansion(node):
            continue
        first = first_argument(node)
        sizes = node.args[1:] or tuple(v for k, v in node.kwargs.items() if k != "input")
        told = sizes[0] if isinstance(sizes[0], tuple | list) else sizes
        shape = shape_for(first, 2)
        if isinstance(told, tuple | list) and len(told) == len(shape) and shape[0] == 2:
            node.args, node.kwargs = (first, (-1, *told[1:])), {}
