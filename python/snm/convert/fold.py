"""Folds batch normalisation into the layer before it."""

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .operations import CONVOLUTIONS
from .paths import free_path, used_paths
from .shapes import shape_for
from .trace import Traced

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batch_norms(traced: Traced) -> None:
    """Folds each batch norm into the convolution or linear layer that it alone reads.

    One that cannot be folded stays: it is affine.
    """
    for node in traced.graph.nodes:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or list(source.users) != [node]:
            continue
        fused = _fuse(traced, source, node)
        if fused is None:
            continue
        source.target = _place(traced, source, fused)
        node.replace_all_uses_with(source)
        traced.graph.erase_node(node)


def _fuse(traced: Traced, source: fx.Node, node: fx.Node) -> nn.Module | None:
    """A layer and the batch norm that reads it in one; None if they are not, or cannot be."""
    layer, norm = traced.module(source), traced.module(node)
    if type(norm) not in _NORMS:
        return None
    assert isinstance(norm, _BatchNorm)
    if norm.running_mean is None:
        return None
    if type(layer) in CONVOLUTIONS:
        assert isinstance(layer, _ConvNd)
        return fuse_conv_bn_eval(layer, norm, transpose=layer.transposed)
    # With more dimensions a linear layer's features are not what the norm takes as channels.
    if type(layer) is nn.Linear and len(shape_for(node, 2)) == 2:
        return fuse_linear_bn_eval(layer, norm)
    return None


def _place(traced: Traced, source: fx.Node, fused: nn.Module) -> str:
    """Puts a fused layer in its first half's place, or beside it if others use that one too."""
    path = str(source.target)
    others = used_paths(node for node in traced.graph.nodes if node is not source)
    if path in others:
        path = free_path(path, others)
    traced.root.set_submodule(path, fused)
    return path
