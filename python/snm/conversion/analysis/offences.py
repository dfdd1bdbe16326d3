"""Finds what cannot be converted, all of it at once."""

from typing import Any

from torch import fx
from torch.fx.node import map_aggregate

from ...errors import Offence
from ..tracing.arguments import first_argument
from ..tracing.trace import altered, is_active_dropout
from ..tracing.traced_model import TracedModel
from .domains import Domain, changes_over_time, domain_of, neuron_nodes
from .operations import (
    PICKS,
    Affine,
    Operands,
    affine,
    is_shape_query,
    objection,
    picks_images,
    squeezes_all,
)
from .pooling import pooling_of_node
from .refusals import known_refusal, refusal
from .shapes import (
    depends_on_batch,
    holds_tensors,
    is_batched,
    is_tensor,
    mixes_images,
    unbatched_shape,
)

_POOLING = Affine()
"""Max pooling is not affine, but may read what an affine operation may: spikes go through a
running maximum."""
_MIXES = (
    "mixes the images of a batch: its result for an image depends on the others, on their order "
    "or on chance"
)


def find_offences(traced: TracedModel) -> list[Offence]:
    """Each operation of a graph that has no spiking counterpart, in order of execution."""
    none = not neuron_nodes(traced)
    offences = []
    for node in traced.graph.nodes:
        reason = _reason(traced, node)
        if reason is None and none and holds_tensors(node) and not _is_known(traced, node):
            reason = known_refusal(traced, node)
        if reason is not None:
            offences.append(traced.offence(node, reason))
    if none:
        reason = "no ReLU lies between the images and what forward returns; nothing would spike"
        offences.append(Offence("", "forward", reason))
    return offences


def _is_known(traced: TracedModel, node: fx.Node) -> bool:
    return affine(traced, node) is not None or pooling_of_node(traced, node) is not None


def _reason(traced: TracedModel, node: fx.Node) -> str | None:
    if node.op == "placeholder":
        return None
    if node.op == "output":
        result = node.args[0]
        if isinstance(result, fx.Node) and is_tensor(result):
            return None
        return f"returns {_name_of_result(result)}; it must return one tensor, the logits"
    module = traced.module(node)
    other = None if module is None else altered(module)
    if other is not None:
        return other
    if is_active_dropout(node):
        return "drops at random in evaluation too; pass training=self.training"
    if squeezes_all(node) and depends_on_batch(node):
        return "takes away the batch of a single image; use flatten(1) or squeeze(dim)"
    if domain_of(node) is Domain.STATIC:
        return _reason_once(node)
    if domain_of(node) is Domain.NEURON:
        return _reason_of_batch(node)
    return _reason_over_time(traced, node)


def _name_of_result(result: Any) -> str:
    """A name for what a model returns instead of a tensor; torch.fx has collections of its own."""
    if isinstance(result, fx.Node):
        return "several tensors" if holds_tensors(result) else "no tensor"
    return type(result).__name__.removeprefix("immutable_")


def _reason_once(node: fx.Node) -> str | None:
    """Why a node that no neuron comes before is refused; None if it is not."""
    if holds_tensors(node) and is_batched(node) and picks_images(node):
        return PICKS
    return _MIXES if mixes_images(node) else None


def _reason_over_time(traced: TracedModel, node: fx.Node) -> str | None:
    """Why a node that comes after a neuron is refused; None if it is not."""
    if is_shape_query(node) or not (holds_tensors(node) or _reads_tensors(node)):
        return None
    if node.target is getattr and not is_tensor(node.all_input_nodes[0]):
        return None
    known = _POOLING if pooling_of_node(traced, node) is not None else affine(traced, node)
    if known is None:
        return refusal(traced, node, at_end=all(n.op == "output" for n in node.users))
    changing = _signals_in((node.args, node.kwargs))
    if known.operands is Operands.ONE and len(changing) > 1:
        return (
            "multiplies two values that both change over time; a gate, such as that of "
            "squeeze-and-excitation or attention, has to be left out and the model fine-tuned"
        )
    if known.operands is Operands.FIRST and changing != _signals_in(first_argument(node)):
        return "may change over time in its first argument alone"
    if any(
        holds_tensors(n) and not is_tensor(n) and n not in changing for n in node.all_input_nodes
    ):
        return "takes a tuple of tensors that are constant in time"
    if any(_hides_images(n) for n in node.all_input_nodes):
        return "reads a value that holds the images in another dimension than the first"
    if not changing:
        return (
            "makes a tensor from the shape of one that changes over time; torch.zeros_like is known"
        )
    return objection(traced, node) or _reason_of_batch(node)


def _reason_of_batch(node: fx.Node) -> str | None:
    wrong = unbatched_shape(node)
    if wrong is None:
        return _MIXES if mixes_images(node) else None
    batch, shape = wrong
    return (
        f"mixes the images of a batch: from {batch} image{'' if batch == 1 else 's'} its result is "
        f"{list(shape)}, and its first dimension must stay that of the images"
    )


def _hides_images(node: fx.Node) -> bool:
    static = domain_of(node) is Domain.STATIC
    return static and holds_tensors(node) and depends_on_batch(node) and not is_batched(node)


def _reads_tensors(node: fx.Node) -> bool:
    return any(holds_tensors(n) for n in node.all_input_nodes)


def _signals_in(arguments: Any) -> list[fx.Node]:
    """The nodes whose values, not just shapes, change over time; as often as they occur."""
    found: list[fx.Node] = []

    def note(value: Any) -> Any:
        if isinstance(value, fx.Node) and changes_over_time(value) and holds_tensors(value):
            found.append(value)
        return value

    map_aggregate(arguments, note)
    return found
