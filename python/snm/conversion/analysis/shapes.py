"""Finds out the shape of every value of a graph, and which dimension holds the images."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from ...errors import ConversionError
from ..tracing.compare import agree
from ..tracing.traced_model import Runner, TracedModel

_BATCHES = (2, 3)

Shape = tuple[int, ...]


def record_shapes(traced: TracedModel, images: Tensor) -> None:
    """Runs the graph on small batches; notes on each node its tensors' shapes, what it is a view
    of, and whether it treats each image by itself.

    Args:
        images: at least one, of the size that the model takes.

    Raises:
        ConversionError: the model fails on a batch of 2 or 3 images.
    """
    for node in traced.graph.nodes:
        node.meta.update(shapes={}, bases=[], mixes=False)
    three = _three_different(images)
    recorder = _Recorder(traced)
    recorder.record(three[:2])
    recorder.record(three)
    recorder.record(three[1:])
    # A model may take no single image; what ran before it failed is noted all the same.
    with suppress(ConversionError):
        recorder.record(three[:1])


def holds_tensors(node: fx.Node) -> bool:
    """Whether a node's result is or holds a tensor."""
    return bool(node.meta["shapes"][_BATCHES[0]])


def is_tensor(node: fx.Node) -> bool:
    """Whether a node's result is one tensor."""
    return node.meta["dtype"] is not None


def dtype_of(node: fx.Node) -> torch.dtype:
    """The dtype of a node's tensor."""
    dtype: torch.dtype = node.meta["dtype"]
    return dtype


def shape_for(node: fx.Node, batch: int) -> Shape:
    """The shape of a node's tensor, for a batch of 2 or 3 images."""
    shape: Shape = node.meta["shapes"][batch][0]
    return shape


def unbatched_shape(node: fx.Node) -> tuple[int, Shape] | None:
    """A number of images for which a tensor of a node does not have them, alone, in its first
    dimension, and its shape then; None if all tensors do."""
    for batch, shapes in node.meta["shapes"].items():
        for shape, reference in zip(shapes, node.meta["shapes"][_BATCHES[0]], strict=True):
            if shape[:1] != (batch,) or shape[1:] != reference[1:]:
                return batch, shape
    return None


def is_batched(node: fx.Node) -> bool:
    """Whether the first dimension of a node's tensors is that of the images, and no other is."""
    return unbatched_shape(node) is None


def depends_on_batch(node: fx.Node) -> bool:
    """Whether the shape of a node's tensors depends on the number of images."""
    small, large = (node.meta["shapes"][batch] for batch in _BATCHES)
    return bool(small != large)


def mixes_images(node: fx.Node) -> bool:
    """Whether a node is the first whose result for an image depends on the rest of its batch."""
    return bool(node.meta["mixes"]) and not any(n.meta["mixes"] for n in node.all_input_nodes)


def bases_of(node: fx.Node) -> list[fx.Node]:
    """The arguments with which a node's result shares memory."""
    bases: list[fx.Node] = node.meta["bases"]
    return bases


def _three_different(images: Tensor) -> Tensor:
    """Three images, scaled so that copies of one differ and no value is larger than before."""
    chosen = images[[place % len(images) for place in range(3)]]
    if not images.is_floating_point():
        return chosen
    scale = torch.tensor([1.0, 0.875, 0.75], dtype=images.dtype, device=images.device)
    return chosen * scale.view(-1, *[1] * (images.dim() - 1))


def _tensors_in(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(part: Any) -> Any:
        if isinstance(part, Tensor):
            found.append(part)
        return part

    map_aggregate(value, note)
    return found


def _memory(value: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors_in(value)} - {0}


class _Recorder(Runner):
    """Runs a graph on batches of images and notes on its nodes what :func:`record_shapes` says."""

    def __init__(self, traced: TracedModel) -> None:
        super().__init__(traced)
        self.traced = traced
        self.batch = 0
        self.size = torch.Size()
        self.second: dict[fx.Node, list[Tensor]] = {}

    def record(self, images: Tensor) -> None:
        self.batch, self.size = len(images), images.shape[1:]
        self.run(images.clone())

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:
            size = list(self.size)
            reason = f"fails on {self.batch} images of {size} each, the batch first: {error}"
            raise ConversionError([self.traced.offence(n, reason)]) from error
        tensors = _tensors_in(result)
        n.meta["shapes"][self.batch] = [tuple(tensor.shape) for tensor in tensors]
        n.meta["dtype"] = result.dtype if isinstance(result, Tensor) else None
        n.meta["bases"] = [
            operand for operand in n.all_input_nodes if _memory(result) & _memory(self.env[operand])
        ]
        tensors = [t for t in tensors if self.batch == 2 and t.dim() and t.is_floating_point()]
        if self.batch == 2 and n not in self.second:
            self.second[n] = [tensor[1:].clone() for tensor in tensors]
        elif self.batch == 2 and is_batched(n):
            pairs = zip(tensors, self.second.pop(n), strict=True)
            n.meta["mixes"] = not all(agree(tensor[:1], before) for tensor, before in pairs)
        return result
