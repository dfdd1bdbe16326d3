"""Finds what cannot be converted, all of it at once."""

from typing import Any

from torch import fx
from torch.fx.node import map_aggregate

from ..errors import Offence
from .domains import Domain, changes_over_time, domain_of, neurons_of
from .operations import (
    Operands,
    affine,
    first_argument,
    is_shape_query,
    objection,
    refusal,
)
from .shapes import holds_tensors, is_batched, is_tensor, shape_for
from .trace import Traced, has_hooks, is_active_dropout


def find_offences(traced: Traced) -> list[Offence]:
    """Each operation of a graph that has no spiking counterpart, in order of execution."""
    offences = []
    for node in traced.graph.nodes:
        reason = _reason(traced, node)
        if reason is not None:
            offences.append(traced.offence(node, reason))
    if not neurons_of(traced):
        reason = "no ReLU lies between the images and what forward returns; nothing would spike"
        offences.append(Offence("", "forward", reason))
    return offences


def _reason(traced: Traced, node: fx.Node) -> str | None:
    if node.op == "output":
        result = node.args[0]
        if isinstance(result, fx.Node) and is_tensor(result):
            return None
        return f"returns {type(result).__name__}; it must return one tensor, the logits"
    module = traced.module(node)
    if module is not None and has_hooks(module):
        return "has forward hooks; remove them before conversion"
    if is_active_dropout(node):
        return "drops at random in evaluation too; pass training=self.training"
    if domain_of(node) is Domain.STATIC:
        return None
    if domain_of(node) is Domain.NEURON:
        return _reason_of_shape(node)
    return _reason_over_time(traced, node)


def _reason_over_time(traced: Traced, node: fx.Node) -> str | None:
    """Why a node that comes after a neuron is refused; None if it is not."""
    if is_shape_query(node) or not (holds_tensors(node) or _reads_tensors(node)):
        return None
    known = affine(traced, node)
    if known is None:
        return refusal(traced.operation(node))
    changing = _signals_in((node.args, node.kwargs))
    if known.operands is Operands.ONE and len(changing) > 1:
        return "multiplies two values that both change over time"
    if known.operands is Operands.FIRST and changing != _signals_in(first_argument(node)):
        return "may change over time in its first argument alone"
    if any(
        holds_tensors(n) and not is_tensor(n) and n not in changing for n in node.all_input_nodes
    ):
        return "takes a tuple of tensors that are constant in time"
    if not changing:
        return "makes a tensor from the shape of one that changes over time"
    return objection(traced, node) or _reason_of_shape(node)


def _reason_of_shape(node: fx.Node) -> str | None:
    if is_batched(node):
        return None
    return (
        "mixes the images of a batch: from 2 images its result is "
        f"{list(shape_for(node, 2))}, and its first dimension must stay that of the images"
    )


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
