"""Finds out the shape of every value of a graph, and which dimension holds the images."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from ..errors import ConversionError
from .trace import Traced

_BATCHES = (2, 3)

Shape = tuple[int, ...]


def record_shapes(traced: Traced, image: Tensor) -> None:
    """Runs the graph on two batch sizes and notes on each node the shapes of its tensors.

    Args:
        image: ``[1, ...]``, an image of the size that the model takes.

    Raises:
        ConversionError: the model fails on one of the batches.
    """
    for node in traced.graph.nodes:
        node.meta["shapes"] = []
    for batch in _BATCHES:
        _Recorder(traced).run(image.repeat(batch, *[1] * (image.dim() - 1)))


def holds_tensors(node: fx.Node) -> bool:
    """Whether a node's result is or holds a tensor."""
    return bool(node.meta["shapes"][0])


def is_tensor(node: fx.Node) -> bool:
    """Whether a node's result is one tensor."""
    return bool(node.meta["is_tensor"])


def shape_for(node: fx.Node, batch: int) -> Shape:
    """Shape of a node's tensor, for a batch of 2 or 3 images."""
    shape: Shape = node.meta["shapes"][_BATCHES.index(batch)][0]
    return shape


def is_batched(node: fx.Node) -> bool:
    """Whether the first dimension of a node's tensors is that of the images, and no other is."""
    small, large = node.meta["shapes"]
    return all(
        len(a) == len(b) > 0 and (a[0], b[0]) == _BATCHES and a[1:] == b[1:]
        for a, b in zip(small, large, strict=True)
    )


class _Recorder(fx.Interpreter):
    def __init__(self, traced: Traced) -> None:
        super().__init__(traced.root, graph=traced.graph)
        self.traced = traced

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:
            reason = f"fails on a batch of {_BATCHES[len(n.meta['shapes'])]} images: {error}"
            raise ConversionError([self.traced.offence(n, reason)]) from error
        shapes: list[Shape] = []

        def note(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                shapes.append(tuple(value.shape))
            return value

        map_aggregate(result, note)
        n.meta["shapes"].append(shapes)
        n.meta["is_tensor"] = isinstance(result, torch.Tensor)
        return result
