"""Traces a model with torch.export, which runs it and sees the sizes of tensors."""

import io
import logging
import operator
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils._pytree import tree_unflatten

from .lines import line_in
from .paths import PREFIX, free_path, own_path

# What torch.export calls by another name than people do, or with other arguments.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"adaptive_avg_pool{dims}d": getattr(F, f"adaptive_avg_pool{dims}d") for dims in (1, 2, 3)},
    **{f"conv{dims}d": getattr(F, f"conv{dims}d") for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": getattr(F, f"conv_transpose{dims}d") for dims in (1, 2, 3)},
    "col2im": F.fold,
    "constant_pad_nd": F.pad,
    "im2col": F.unfold,
    "native_channel_shuffle": torch.channel_shuffle,
    "relu": F.relu,
}
_METHODS = {
    "_unsafe_view": "reshape",
    "reshape": "reshape",
    "unflatten": "unflatten",
    "unfold": "unfold",
}
_SAME = ("alias", "lift_fresh", "lift_fresh_copy")
_CHECKS = ("_assert", "sym_constrain")
_MODES = {
    "upsample_nearest": "nearest",
    "_upsample_nearest_exact": "nearest-exact",
    "upsample_linear": "linear",
    "upsample_bilinear": "bilinear",
    "upsample_bicubic": "bicubic",
    "upsample_trilinear": "trilinear",
}


def trace_with_export(root: nn.Module, images: Tensor) -> fx.Graph:
    """The graph of what a model does to images of this size, in terms of torch's functions.

    A module of torch's own that does one thing stays a module. Constants of forward are put on
    ``root``.

    Args:
        root: keeps the model.
        images: at least two; their number is left open.

    Raises:
        Exception: whatever torch.export or the model raises.
    """
    with _quietly():
        program = torch.export.export(
            root, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )
    graph: fx.Graph = program.graph
    _read_attributes(root, program)
    modules = {path for path, _ in root.named_modules()}
    for node in graph.nodes:
        stack = (node.meta.get("nn_module_stack") or {}).items()
        inside = [(call, path) for call, (path, _) in stack if path in modules]
        node.meta["call"], path = inside[-1] if inside else ("", "")
        node.meta["path"] = own_path(path)
        node.meta["line"] = line_in(node.meta.get("stack_trace") or "")
    for node in list(graph.nodes):
        if node.op == "call_function":
            _rename(graph, node)
        elif node.op == "output":
            node.args = (tree_unflatten(node.args[0], program.call_spec.out_spec),)
    _restore_modules(root, graph)
    return graph


@contextmanager
def _quietly() -> Iterator[None]:
    """Hides what torch.export warns of, logs and prints, as it raises what matters."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _read_attributes(root: nn.Module, program: torch.export.ExportedProgram) -> None:
    """Lets a graph read parameters, buffers and constants from ``root``; they are no inputs."""
    graph = program.graph
    inputs = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        node, path = inputs[spec.arg.name], str(spec.target)
        if spec.kind is InputKind.CONSTANT_TENSOR:
            path = free_path(f"constant_{node.name}", {name for name, _ in root.named_buffers()})
            root.register_buffer(path, program.constants[str(spec.target)])
        with graph.inserting_before(node):
            attribute = graph.create_node("get_attr", path, name=node.name)
        node.replace_all_uses_with(attribute)
        graph.erase_node(node)


def _rename(graph: fx.Graph, node: fx.Node) -> None:
    """Turns an ATen operation into the function or method that people call."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    name = _aten_name(node)
    if name.startswith(_CHECKS):
        graph.erase_node(node)
    elif name in _SAME:
        _replace(graph, node, node.args[0])
    elif name.startswith(tuple(_MODES)):
        _interpolate(node, name)
    elif name in _SPECIAL:
        _SPECIAL[name](graph, node)
    elif name in _METHODS:
        node.op, node.target = "call_method", _METHODS[name]
    else:
        homes = (_FUNCTIONS, vars(torch), vars(F))
        function = next((home[name] for home in homes if callable(home.get(name))), None)
        if function is not None:
            node.target = function
        elif callable(getattr(Tensor, name, None)):
            node.op, node.target = "call_method", name


def _aten_name(node: fx.Node) -> str:
    """The name of an ATen operation without its namespace and overload."""
    assert isinstance(node.target, torch._ops.OpOverload)
    return str(node.target._schema.name).rpartition("::")[2]


def _replace(graph: fx.Graph, node: fx.Node, value: Any) -> None:
    node.replace_all_uses_with(value)
    graph.erase_node(node)


def _slice(graph: fx.Graph, node: fx.Node) -> None:
    given: tuple[Any, ...] = node.args
    defaults: tuple[Any, ...] = (0, None, None, 1)
    value, dim, start, end, step = given + defaults[len(given) - 1 :]
    part = slice(start or None, None if end == sys.maxsize else end, step)
    if part == slice(None, None, 1):
        _replace(graph, node, value)
    else:
        before = (slice(None),) * (dim % value.meta["val"].dim())
        node.target, node.args, node.kwargs = operator.getitem, (value, (*before, part)), {}


def _index(_graph: fx.Graph, node: fx.Node) -> None:
    value: Any = node.args[0]
    indices: Any = node.args[1]
    entries = tuple(slice(None) if index is None else index for index in indices)
    node.target, node.args, node.kwargs = operator.getitem, (value, entries), {}


def _size(_graph: fx.Graph, node: fx.Node) -> None:
    node.op, node.target = "call_method", "size"


def _batch_norm(_graph: fx.Graph, node: fx.Node) -> None:
    value, weight, bias, mean, variance, training, momentum, eps = node.args[:8]
    node.target, node.kwargs = F.batch_norm, {}
    node.args = (value, mean, variance, weight, bias, training, momentum, eps)


def _hardtanh(_graph: fx.Graph, node: fx.Node) -> None:
    limits = (*node.args[1:], *(-1.0, 1.0)[len(node.args) - 1 :])
    in_place = node.target is torch.ops.aten.hardtanh_.default
    node.target, node.args = F.hardtanh, (node.args[0], *limits, in_place)


def _relu6_in_place(_graph: fx.Graph, node: fx.Node) -> None:
    node.target, node.args = F.relu6, (node.args[0], True)


def _maximum(graph: fx.Graph, node: fx.Node) -> None:
    """Turns an adaptive max pooling into torch's function; the indices that it hands out as well
    are left out if nothing reads them."""
    node.target = getattr(F, _aten_name(node))
    read = [user for user in node.users if user.users]
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in read):
        node.kwargs = {"return_indices": True}
        return
    for user in list(node.users):
        _replace(graph, user, node)


def _interpolate(node: fx.Node, name: str) -> None:
    """Turns an upsampling into ``torch.nn.functional.interpolate``, with a size or factors."""
    mode = next(mode for start, mode in _MODES.items() if name.startswith(start))
    given: tuple[Any, ...] = node.args
    value, size, *rest = given
    factors = rest.pop() if rest and isinstance(rest[-1], list | tuple) else None
    corners = rest[0] if rest and isinstance(rest[0], bool) else None
    node.target, node.args = F.interpolate, (value,)
    node.kwargs = {
        "size": None if size is None else list(size),
        "scale_factor": factors if size is None else None,
        "mode": mode,
        "align_corners": corners,
    }


_SPECIAL: dict[str, Callable[[fx.Graph, fx.Node], None]] = {
    "batch_norm": _batch_norm,
    "hardtanh": _hardtanh,
    "hardtanh_": _hardtanh,
    "index": _index,
    "relu6_": _relu6_in_place,
    "slice": _slice,
    "sym_size": _size,
    **{f"adaptive_max_pool{dims}d": _maximum for dims in (1, 2, 3)},
}


def _restore_modules(root: nn.Module, graph: fx.Graph) -> None:
    """Turns operations that are all that one of torch's modules does into calls of it again."""
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op in ("call_function", "call_method"):
            calls.setdefault(node.meta["call"], []).append(node)
    for nodes in calls.values():
        [node, *others] = nodes
        path = node.meta["path"]
        module = root.get_submodule(_full(path))
        operands = [n for n in node.all_input_nodes if n.op != "get_attr"]
        own = type(module).__module__.startswith("torch.nn.modules.")
        # It may have been told its output's size.
        own = own and not isinstance(module, _ConvTransposeNd)
        if others or not own or len(operands) != 1 or not path:
            continue
        inside = _full(path) + "."
        if all(str(n.target).startswith(inside) for n in node.all_input_nodes if n not in operands):
            node.op, node.target = "call_module", _full(path)
            node.args, node.kwargs = (operands[0],), {}
    unused = [node for node in graph.nodes if node.op == "get_attr" and not node.users]
    for node in unused:
        graph.erase_node(node)


def _full(path: str) -> str:
    return f"{PREFIX}.{path}" if path else PREFIX
