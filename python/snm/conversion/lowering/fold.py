"""Folds batch normalisation into the layer before it."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from ..analysis.operations import CONVOLUTIONS
from ..analysis.shapes import shape_for
from ..tracing.arguments import arguments_by_name, bound_arguments, first_argument
from ..tracing.paths import free_path, own_path, used_paths
from ..tracing.traced_model import TracedModel

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (
    *("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
)
_FUNCTIONS: dict[Callable[..., Any], tuple[str, ...]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _CONVOLUTION),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _TRANSPOSED),
    F.linear: ("input", "weight", "bias"),
}


class WeightedLayer(NamedTuple):
    """The weights and settings that a convolution or linear layer computes with."""

    weight: Tensor
    bias: Tensor | None
    linear: bool
    transposed: bool
    groups: int


class _BatchNormValues(NamedTuple):
    """The statistics and weights that a batch norm computes with."""

    mean: Tensor
    variance: Tensor
    eps: float
    weight: Tensor | None
    bias: Tensor | None


def fold_batch_norms(traced: TracedModel) -> None:
    """Folds each batch norm into the convolution or linear layer that it alone reads.

    One that cannot be folded stays: it is affine.
    """
    for node in traced.graph.nodes:
        norm = _batch_norm_of(traced, node)
        source = None if norm is None else first_argument(node)
        if norm is None or not isinstance(source, fx.Node) or list(source.users) != [node]:
            continue
        layer = weighted_layer_of(traced, source)
        fused = None if layer is None else _fuse(layer, norm, len(shape_for(node, 2)))
        if fused is None:
            continue
        if source.op == "call_module":
            module = copy.copy(traced.module(source))
            assert module is not None
            # A shallow copy shares the table of parameters with what it is copied from.
            module._parameters = dict(zip(("weight", "bias"), fused, strict=True))
            replace_called_module(traced, source, module)
        else:
            replace_weights(traced, source, *fused)
        node.replace_all_uses_with(source)
        traced.graph.erase_node(node)
    for node in list(traced.graph.nodes):
        if node.op == "get_attr" and not node.users:
            traced.graph.erase_node(node)


def _batch_norm_of(traced: TracedModel, node: fx.Node) -> _BatchNormValues | None:
    """The values of a node that is a batch norm with running statistics; None for any other."""
    module = traced.module(node)
    weight: Tensor | None
    bias: Tensor | None
    if type(module) in _NORMS:
        assert isinstance(module, _BatchNorm)
        mean, variance, eps = module.running_mean, module.running_var, module.eps
        weight, bias = module.weight, module.bias
    elif node.target is F.batch_norm:
        arguments = bound_arguments(node)
        names = ("running_mean", "running_var", "weight", "bias")
        if not all(_is_read(traced, arguments[name]) for name in names):
            return None
        mean, variance, weight, bias = (_tensor(traced, arguments[name]) for name in names)
        eps = arguments["eps"]
    else:
        return None
    return (
        None
        if mean is None or variance is None
        else _BatchNormValues(mean, variance, eps, weight, bias)
    )


def weighted_layer_of(traced: TracedModel, node: fx.Node) -> WeightedLayer | None:
    """The weights of a node that is a convolution or linear layer; None for any other."""
    module = traced.module(node)
    if type(module) in CONVOLUTIONS:
        assert isinstance(module, _ConvNd)
        return WeightedLayer(module.weight, module.bias, False, module.transposed, module.groups)
    if type(module) is nn.Linear:
        return WeightedLayer(module.weight, module.bias, True, False, 1)
    if node.op != "call_function" or node.target not in _FUNCTIONS:
        return None
    names = _FUNCTIONS[node.target]
    arguments = arguments_by_name(node, names)
    if not all(_is_read(traced, arguments.get(name)) for name in ("weight", "bias")):
        return None
    weight, bias = (_tensor(traced, arguments.get(name)) for name in ("weight", "bias"))
    assert weight is not None
    groups = arguments.get("groups", 1)
    return WeightedLayer(weight, bias, node.target is F.linear, names is _TRANSPOSED, groups)


def _is_read(traced: TracedModel, value: Any) -> bool:
    """Whether an argument is left out, or is a parameter or buffer as the model holds it."""
    return value is None or _tensor(traced, value) is not None


def _tensor(traced: TracedModel, value: Any) -> Tensor | None:
    """The parameter or buffer that an argument stands for; None if it is none."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    tensor = traced.attribute(value)
    return tensor if isinstance(tensor, Tensor) else None


def _fuse(
    layer: WeightedLayer, norm: _BatchNormValues, dims: int
) -> tuple[nn.Parameter, nn.Parameter] | None:
    """Weight and bias that do what a layer and the batch norm behind it do; None if none can.

    Args:
        dims: of what the layer returns.
    """
    ones = torch.ones_like(norm.mean)
    gamma = ones if norm.weight is None else norm.weight
    beta = ones - 1 if norm.bias is None else norm.bias
    rest = (norm.mean, norm.variance, norm.eps, gamma, beta)
    if layer.linear:
        # With more dimensions a linear layer's features are not what the norm takes as channels.
        return fuse_linear_bn_weights(layer.weight, layer.bias, *rest) if dims == 2 else None
    # The fusion takes the second dimension of the weight for all output channels.
    if layer.transposed and layer.groups > 1:
        return None
    return fuse_conv_bn_weights(layer.weight, layer.bias, *rest, transpose=layer.transposed)


def replace_called_module(traced: TracedModel, source: fx.Node, module: nn.Module) -> None:
    """Lets a node call another module, which replaces the former unless other nodes use that."""
    path = str(source.target)
    others = used_paths(node for node in traced.graph.nodes if node is not source)
    if path in others:
        path = free_path(path, others)
    traced.root.set_submodule(path, module)
    source.target = path


def replace_weights(
    traced: TracedModel, source: fx.Node, weight: nn.Parameter, bias: nn.Parameter
) -> None:
    """Lets a node that calls a function read another weight and bias."""
    arguments = arguments_by_name(source, _FUNCTIONS[source.target])  # type: ignore[index]
    parent = str(arguments["weight"].target).rpartition(".")[0]
    home = traced.root.get_submodule(parent)
    for name, value in (("weight", weight), ("bias", bias)):
        path = free_path(f"folded_{name}", set(dir(home)))
        home.register_parameter(path, value)
        with traced.graph.inserting_before(source):
            node = traced.graph.create_node("get_attr", f"{parent}.{path}".removeprefix("."))
        node.meta.update(arguments["weight"].meta, path=own_path(parent))
        node.meta["shapes"] = {batch: [tuple(value.shape)] for batch in node.meta["shapes"]}
        arguments[name] = node
    source.args, source.kwargs = (), arguments
