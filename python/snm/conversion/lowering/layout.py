"""Lays out the program that a spiking network executes."""

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import fx

from ...network.program import (
    Call,
    Fire,
    Program,
    Repeat,
    RunningMax,
    Step,
    Value,
    last_reads,
    replaced,
    reshape_steps,
    step_shape,
    step_size,
)
from ..analysis.domains import Domain, domain_of
from ..analysis.operations import affine, is_reshape, is_shape_query
from ..analysis.pooling import pooling_of_node
from ..analysis.shapes import bases_of, dtype_of, holds_tensors, is_batched, is_tensor, shape_for
from ..tracing.arguments import first_argument
from ..tracing.paths import own_path, path_of
from ..tracing.traced_model import TracedModel

_KINDS: dict[str, Literal["module", "function", "method", "attribute"]] = {
    "call_module": "module",
    "call_function": "function",
    "call_method": "method",
    "get_attr": "attribute",
}
# Not an identifier, so no node of a graph has it.
_BATCH = "batch size"


def lay_out(
    traced: TracedModel,
    paths: Mapping[fx.Node, str],
    *,
    per_neuron: bool,
    images_change: bool,
    caps: Mapping[str, tuple[float, ...]],
) -> Program:
    """Lays out the program that simulates a graph whose ReLUs are neurons at ``paths``.

    Args:
        per_neuron: whether each neuron has a threshold of its own.
        images_change: as the nodes were sorted.
        caps: what the ReLU at a path never exceeds, see :class:`snm.network.program.Fire`.
    """
    nodes = list(traced.graph.nodes)
    images = next(node for node in nodes if node.op == "placeholder")
    output = next(node for node in nodes if node.op == "output").args[0]
    assert isinstance(output, fx.Node)
    in_tail, read_out = _tail_of(output)
    static = [
        _call(node)
        for node in nodes
        if domain_of(node) is Domain.STATIC and node.op != "placeholder"
    ]
    temporal: list[Step] = []
    repeated: dict[fx.Node, str] = {}
    for node in nodes:
        windows = pooling_of_node(traced, node)
        if domain_of(node) is Domain.NEURON:
            fire = _fire(traced, node, paths[node], node in read_out, per_neuron)
            temporal.append(replace(fire, cap=caps.get(fire.path, ())))
        elif domain_of(node) is Domain.TEMPORAL and node.op != "placeholder":
            for operand in node.all_input_nodes:
                if _needs_repeating(operand) and operand not in repeated:
                    repeated[operand] = f"{operand.name} repeated"
                    temporal.append(Repeat(repeated[operand], operand.name))
            if windows is None:
                temporal.append(_call_over_time(node, repeated))
            else:
                operand = first_argument(node)
                fires = tuple(fire.name for fire in _side_by_side(operand))
                temporal.append(RunningMax(node.name, path_of(node), operand.name, fires, windows))
    temporal = _used(temporal)
    tail = [_call(node) for node in nodes if node in in_tail and node.op != "placeholder"]
    kept = {name for step in (*temporal, *tail) for name in step.reads}
    frees = last_reads(static, kept) | last_reads(temporal, set())
    return Program(
        images=images.name,
        batch=_BATCH,
        images_change=images_change,
        averages_images=images_change and images in in_tail,
        tail_reads_images=any(
            operand is images or (_needs_repeating(operand) and operand not in in_tail)
            for node in in_tail
            for operand in node.all_input_nodes
        ),
        tail_pools=any(pooling_of_node(traced, node) is not None for node in in_tail),
        static=tuple(static),
        temporal=tuple(temporal),
        tail=tuple(tail),
        output=output.name,
        frees=frees,
        elements_per_step=_most_at_once(nodes, temporal, frees),
    )


def _most_at_once(
    nodes: Iterable[fx.Node], steps: Iterable[Step], frees: Mapping[str, tuple[str, ...]]
) -> int:
    """How many elements the values of one time step of one image hold at once, at most."""
    shapes = {node.name: node.meta["shapes"][2] for node in nodes}
    live: dict[str, int] = {}
    most = 0
    for step in steps:
        source = step.value if isinstance(step, Repeat) else step.name
        size = sum(math.prod(shape) for shape in shapes[source]) // 2
        live |= dict.fromkeys(step.makes, size)
        most = max(most, sum(live.values()))
        for name in frees[step.name]:
            live.pop(name, None)
    return most


def _side_by_side(operand: fx.Node) -> list[fx.Node]:
    """The neurons whose outputs, concatenated along the channels, a value is; none if it is not."""
    if domain_of(operand) is Domain.NEURON:
        return [operand]
    if operand.target not in (torch.cat, torch.concat, torch.concatenate):
        return []
    parts = first_argument(operand)
    if isinstance(parts, fx.Node):
        return []
    dim = operand.args[1] if len(operand.args) > 1 else operand.kwargs.get("dim", 0)
    channels = dim in (1, 1 - len(shape_for(operand, 2)))
    neurons = all(domain_of(part) is Domain.NEURON for part in parts)
    return list(parts) if channels and neurons else []


def _used(steps: list[Step]) -> list[Step]:
    """Drops calls that nothing reads, and notes what each layer of neurons has to send."""
    read: set[str] = set()
    kept: list[Step] = []
    for step in reversed(steps):
        if isinstance(step, Fire):
            step = replace(step, sends=step.name in read, pooled=step.spikes in read)
        elif step.name not in read:
            continue
        read.update(step.reads)
        kept.append(step)
    return kept[::-1]


def _tail_of(output: fx.Node) -> tuple[set[fx.Node], set[fx.Node]]:
    """The nodes that are computed on mean values, and the neurons whose mean output they read.

    An affine node between neurons that the tail reads is computed on mean values once more.
    """
    in_tail: set[fx.Node] = set()
    read_out: set[fx.Node] = set()
    waiting = [output]
    while waiting:
        node = waiting.pop()
        if domain_of(node) is Domain.NEURON:
            read_out.add(node)
        elif domain_of(node) is not Domain.STATIC and node not in in_tail:
            in_tail.add(node)
            waiting += node.all_input_nodes
    return in_tail, read_out


def _needs_repeating(node: fx.Node) -> bool:
    return domain_of(node) is Domain.STATIC and holds_tensors(node) and is_batched(node)


def _call(node: fx.Node) -> Call:
    return Call(node.name, _KINDS[node.op], _target(node), *_arguments(node, {}))


def _call_over_time(node: fx.Node, repeated: Mapping[fx.Node, str]) -> Call:
    """The call of a node's operation on all time steps at once, ``[T*B, ...]``."""
    args, kwargs = _arguments(node, repeated)
    if is_reshape(node):
        sizes = args[1:] + tuple(v for k, v in kwargs.items() if k != "input")
        value = args[0] if args else kwargs["input"]
        return Call(node.name, "function", reshape_steps, (value, *sizes))
    if is_shape_query(node) and (node.target in ("size", "shape") or "shape" in node.args[1:]):
        source, batch = args[0], Value(_BATCH)
        dims = [*node.args[1:], *node.kwargs.values()] if node.target == "size" else []
        target = step_size if dims else step_shape
        return Call(node.name, "function", target, (source, batch, *dims))
    return Call(node.name, _KINDS[node.op], _target(node), args, kwargs)


def _target(node: fx.Node) -> Any:
    return own_path(node.target) if isinstance(node.target, str) else node.target


def _arguments(
    node: fx.Node, repeated: Mapping[fx.Node, str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a node, with the values of a program in the place of nodes."""

    def value(argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return Value(repeated.get(argument, argument.name))
        return argument

    args: tuple[Any, ...] = replaced(node.args, value)
    return args, replaced(dict(node.kwargs), value)


def _fire(traced: TracedModel, node: fx.Node, path: str, read_out: bool, per_neuron: bool) -> Fire:
    drive, reader = first_argument(node), node
    residual: fx.Node | None = None
    if _adds_two(drive) and list(drive.users) == [node]:
        # The neurons add them up themselves, and may overwrite the one that nothing else reads.
        reader = drive
        drive, residual = sorted(drive.args, key=lambda n: not _may_overwrite(traced, n, reader))
    return Fire(
        name=node.name,
        path=path,
        drive=drive.name,
        constant_drive=domain_of(drive) is Domain.STATIC,
        residual=None if residual is None else residual.name,
        constant_residual=residual is not None and domain_of(residual) is Domain.STATIC,
        sends=False,
        pooled=False,
        read_out=read_out,
        reuses_drive=_may_overwrite(traced, drive, reader),
        # Neurons of the output layer share one.
        per_neuron=per_neuron and "layer" not in node.meta,
        cap=(),
    )


def _adds_two(node: fx.Node) -> bool:
    """Whether a node adds two different values of one shape and dtype, one of which changes."""
    if node.target not in (operator.add, torch.add) or node.kwargs or len(node.args) != 2:
        return False
    if domain_of(node) is not Domain.TEMPORAL or node.args[0] is node.args[1]:
        return False
    return all(
        isinstance(part, fx.Node)
        and is_tensor(part)
        and shape_for(part, 2) == shape_for(node, 2)
        and dtype_of(part) == dtype_of(node)
        for part in node.args
    )


def _may_overwrite(traced: TracedModel, value: fx.Node, reader: fx.Node) -> bool:
    """Whether a value has memory of its own for every time step, which this node alone reads."""
    if domain_of(value) is not Domain.TEMPORAL or value.op == "placeholder":
        return False
    known = affine(traced, value)
    fresh = pooling_of_node(traced, value) is not None or (known is not None and known.fresh)
    return fresh and not bases_of(value) and list(value.users) == [reader]
