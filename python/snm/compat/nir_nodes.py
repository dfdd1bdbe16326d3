"""What NIR lacks: nodes for signed neurons with memory and for max pooling of spikes."""

import math
import os
from dataclasses import dataclass
from dataclasses import fields as fields_of
from operator import index
from typing import Any, ClassVar

import h5py
import nir
import numpy as np
import torch
from nir.serialization import hdf2dict

from snm_kernels import SNMRule
from snm_kernels.windows import max_pool_windows

from ..network.program import Pooling
from ..nn import SNMNeuron


class _Extension(nir.NIRNode):
    """A node of a type that NIR lacks; fields that are None are left out of files."""

    needs: ClassVar[tuple[str, ...]]
    """The fields that a file must have, since without them it would hold another node."""

    def to_dict(self) -> dict[str, Any]:
        """The fields of the node that are set, as NIR writes them."""
        return {name: value for name, value in super().to_dict().items() if value is not None}


@dataclass(eq=False)
class SignedNeuronMemory(_Extension):
    r"""Signed neurons with memory, in discrete time; no plain ``nir.IF`` does the same.

    Per neuron and step, in float32 with one rounding per operation, from ``v = v_init * threshold``
    and ``m = 0``::

        u = v + (input + bias)      # several inputs: (input_1 + bias) + input_2
        s = min(floor(u / threshold), max_spikes, count_max - m)  if u >= threshold, m < count_max
        s = -1    else if u <= -negative_threshold * threshold and m > count_min (u < if strict)
        s = 0     otherwise
        v = u - s * threshold ;  m = m + s

    and ``s * threshold`` is sent. A neuron whose threshold is +inf starts at 0 and sends nothing.

    Args:
        threshold: float32, > 0, a NumPy number or array, broadcastable to ``shape``.
        shape: of the neurons of one image.
        bias: float32, broadcastable to ``shape``; None for none.
        v_init, strict, max_spikes: as of :class:`snm_kernels.SNMRule`.
        negative_threshold: None for no negative spikes, which files hold as NaN.
        count_min, count_max: None for no bound.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022.

    >>> node = SignedNeuronMemory(np.array([[1.0], [2.0]], np.float32), (2, 4), v_init=0.5)
    >>> node.rule == SNMRule.integrate_and_fire_half()
    True
    """

    needs: ClassVar = (
        *("threshold", "shape", "v_init", "negative_threshold", "strict", "max_spikes"),
    )

    threshold: np.ndarray[Any, Any]
    shape: np.ndarray[Any, Any]
    bias: np.ndarray[Any, Any] | None = None
    v_init: float = 0.0
    negative_threshold: float | None = None
    strict: bool = False
    max_spikes: int = 1
    count_min: int | None = None
    count_max: int | None = None

    def __post_init__(self) -> None:
        self.shape = np.array(self.shape, dtype=np.int64)
        self.input_type = {"input": self.shape}
        self.output_type = {"output": self.shape}

    def to_dict(self) -> dict[str, Any]:
        """The fields of the node that are set; no negative spikes are NaN."""
        found = super().to_dict()
        return {**found, "negative_threshold": found.get("negative_threshold", math.nan)}

    @classmethod
    def of(cls, neuron: SNMNeuron, shape: tuple[int, ...]) -> "SignedNeuronMemory":
        """The node of a layer whose neurons have that shape for one image."""
        rule = neuron.rule
        return cls(
            array_of(neuron.threshold),
            np.array(shape),
            None if neuron.bias is None else array_of(neuron.bias),
            v_init=float(rule.v_init),
            negative_threshold=rule.negative_threshold,
            strict=rule.strict,
            max_spikes=rule.max_spikes,
            count_min=rule.count_min,
            count_max=rule.count_max,
        )

    @property
    def rule(self) -> SNMRule:
        """The rule by which the neurons fire.

        Raises:
            TypeError, ValueError: a field is out of its range.
        """
        given = self.negative_threshold
        negative = math.nan if given is None else float(given)
        return SNMRule(
            v_init=float(self.v_init),
            negative_threshold=None if math.isnan(negative) else negative,
            strict=bool(self.strict),
            max_spikes=index(self.max_spikes),
            count_min=None if self.count_min is None else index(self.count_min),
            count_max=None if self.count_max is None else index(self.count_max),
        )


@dataclass(eq=False)
class RunningMaxPool(_Extension):
    """Max pooling of spikes: with C_i(t) what input i has sent up to step t, a window sends
    ``max C_i(t) - max C_i(t - 1)``.

    What a window has sent in total is the largest total of its inputs. Of an input that is the
    same at every step it is plain max pooling.

    Args:
        input_shape: ``[C, ...]`` of one image.
        kernel_size, stride, padding, dilation, ceil_mode: as of ``torch.nn.MaxPool2d``, one
            number per spatial dimension; None of an adaptive pooling.
        output_size: of an adaptive pooling, 0 where it keeps the input's; None of any other.

    >>> node = RunningMaxPool((2, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1))
    >>> node.output_type["output"].tolist()
    [2, 4, 4]
    """

    needs: ClassVar = ("input_shape",)

    input_shape: np.ndarray[Any, Any]
    kernel_size: np.ndarray[Any, Any] | None = None
    stride: np.ndarray[Any, Any] | None = None
    padding: np.ndarray[Any, Any] | None = None
    dilation: np.ndarray[Any, Any] | None = None
    ceil_mode: bool = False
    output_size: np.ndarray[Any, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("input_shape", "kernel_size", "stride", "padding", "dilation", "output_size"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, np.array(value, dtype=np.int64))
        channels, *sizes = self.input_shape.tolist()
        self.input_type = {"input": self.input_shape}
        self.output_type = {"output": np.array([channels, *_pooled(sizes, self.pooling)])}

    @classmethod
    def of(cls, pooling: Pooling, shape: tuple[int, ...]) -> "RunningMaxPool":
        """The node of a max pooling of values that have that shape for one image."""
        if pooling.output_size is not None:
            sizes = [0 if size is None else size for size in pooling.output_size]
            return cls(np.array(shape), output_size=np.array(sizes))
        windows = (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation)
        return cls(np.array(shape), *map(np.array, windows), pooling.ceil_mode)

    @property
    def pooling(self) -> Pooling:
        """The windows over which it takes maxima."""
        if self.output_size is not None:
            return Pooling(output_size=tuple(size or None for size in self.output_size.tolist()))
        windows = (self.kernel_size, self.stride, self.padding, self.dilation)
        kernel_size, stride, padding, dilation = (
            () if window is None else tuple(window.tolist()) for window in windows
        )
        return Pooling(kernel_size, stride, padding, dilation, bool(self.ceil_mode))


def _pooled(sizes: list[int], pooling: Pooling) -> list[int]:
    """The spatial sizes of the result of a max pooling."""
    if pooling.output_size is not None:
        return [wanted or size for size, wanted in zip(sizes, pooling.output_size, strict=True)]
    windows = (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation)
    along = zip(sizes, *windows, strict=True)
    return [max_pool_windows(*each, pooling.ceil_mode).output for each in along]


EXTENSIONS: dict[str, type[_Extension]] = {
    cls.__name__: cls for cls in (SignedNeuronMemory, RunningMaxPool)
}
"""The nodes that NIR lacks, by the type that files name."""


def array_of(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor's values, contiguous; a NumPy number of one without dimensions, for which NIR's
    compressed arrays have no form.

    >>> array_of(torch.nn.Parameter(torch.ones(2))), array_of(torch.tensor(0.5))
    (array([1., 1.], dtype=float32), np.float32(0.5))
    """
    values = tensor.detach().cpu().numpy()
    return np.ascontiguousarray(values) if values.ndim else values[()]


def read_graph(path: str | os.PathLike[str]) -> nir.NIRGraph:
    """The graph in a file; ``nir.read`` knows no nodes but NIR's own."""
    with h5py.File(path, "r") as file:
        content = hdf2dict(file["node"]) if "node" in file else {}
    if content.get("type") != "NIRGraph":
        raise ValueError(f"nir: {os.fspath(path)}: holds no graph")
    nodes = {name: _node(name, fields) for name, fields in content["nodes"].items()}
    edges = [(source.decode(), target.decode()) for source, target in content["edges"]]
    metadata = content.get("metadata", {})
    return nir.NIRGraph(nodes, edges, metadata, type_check=False)


def _node(name: str, fields: dict[str, Any]) -> nir.NIRNode:
    kind = fields["type"]
    if kind in EXTENSIONS:
        return _extension(name, EXTENSIONS[kind], fields)
    if kind not in nir.ir.__all__:
        raise ValueError(f"nir: {name}: {kind}: is no node of NIR {nir.version}")
    return nir.dict2NIRNode(fields)


def _extension(name: str, kind: type[_Extension], found: dict[str, Any]) -> nir.NIRNode:
    known = {field.name for field in fields_of(kind)}
    wrong = [f"lacks {field}" for field in kind.needs if field not in found]
    wrong += [f"has {field}, which is not known" for field in found.keys() - known - {"type"}]
    if wrong:
        raise ValueError(f"nir: {name}: {kind.__name__}: {', '.join(wrong)}")
    return kind.from_dict(found)
