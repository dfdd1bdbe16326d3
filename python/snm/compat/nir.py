"""Networks as graphs of NIR, the Neuromorphic Intermediate Representation, and back."""

import os
from typing import TYPE_CHECKING, Literal

from ..network.spiking import SpikingNetwork
from ..optional import check_installed
from .nir_error import GraphError

if TYPE_CHECKING:
    import nir

__all__ = ["GraphError", "from_nir", "read", "to_nir"]

Reset = Literal["subtract"]


def to_nir(net: SpikingNetwork, *, image_shape: tuple[int, ...] | None = None) -> "nir.NIRGraph":
    """A network as a NIR graph; ``nir.write`` writes it, :func:`read` and :func:`from_nir` make
    the same network of it.

    NIR's neurons have neither signed spikes nor memory, so layers of neurons are nodes of a type of
    their own, :class:`snm.compat.nir_nodes.SignedNeuronMemory`, and max poolings
    :class:`snm.compat.nir_nodes.RunningMaxPool`: a tool that does not know them stops at them, as
    ``nir.read`` does with an AssertionError. All other nodes are NIR's own. A sum is several edges
    into one node, in the order of its terms; where no neurons take it, that is a ``nir.Scale`` by
    1. The graph's metadata say how it is simulated, each node's its path in the network and how
    often it is computed.

    Args:
        net: in float32.
        image_shape: shape of one image; None for that of calibration.

    Returns:
        A graph with one input and one output, whose types are all filled in.

    Raises:
        ModuleNotFoundError: nir is not installed.
        GraphError: operations that NIR cannot express, such as concatenation; it names each.
        TypeError: net is no SpikingNetwork, or in another dtype than float32.
        ValueError: the network takes no images of that shape, or is one of integers.

    Source: Pedersen et al., "Neuromorphic intermediate representation: A unified instruction set
    for interoperable brain-inspired computing", Nature Communications 2024.

    >>> import torch
    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> graph = to_nir(convert(model, torch.rand(32, 4)))
    >>> [type(node).__name__ for node in graph.nodes.values()]
    ['Input', 'Affine', 'SignedNeuronMemory', 'Affine', 'Output']
    """
    check_installed("to_nir", "nir", extra="interchange")
    from .nir_graph import graph_of_network

    return graph_of_network(net, image_shape)


def from_nir(graph: "nir.NIRGraph", *, if_reset: Reset | None = None) -> SpikingNetwork:
    """The network of a NIR graph; of one that :func:`to_nir` made, the same bit for bit.

    Graphs from elsewhere may hold ``Linear``, ``Affine``, ``Conv1d``, ``Conv2d``, ``Scale``,
    ``AvgPool2d``, ``SumPool2d``, ``Flatten``, and ``IF`` under a condition. They are simulated in
    time steps of 1 and in float32: the image is a constant current, and the answer the mean output
    over time.

    Args:
        graph: with one input and one output, without cycles.
        if_reset: what ``nir.IF`` nodes do when they fire. NIR's definition, to fire above the
            threshold and then to be at ``v_reset``, is no rule of this family, so None refuses
            them. ``"subtract"``, for graphs of tools whose neuron is reset by subtraction and
            which have no other node for it: to fire at the threshold, and to lose as much; preset
            ``if``. Their ``v_reset`` must be 0. Such neurons send 1, not their threshold.

    Raises:
        ModuleNotFoundError: nir is not installed.
        GraphError: the graph has nodes or connections that no network here has; it names each.
        TypeError: graph is no NIRGraph.
        ValueError: if_reset is unknown.

    >>> import torch
    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
    >>> same = from_nir(to_nir(net))
    >>> torch.equal(same(images, timesteps=8), net(images, timesteps=8))
    True
    """
    check_installed("from_nir", "nir", extra="interchange")
    from .nir_network import network_of_graph

    if if_reset not in (None, "subtract"):
        raise ValueError(f"from_nir: if_reset must be None or 'subtract', got {if_reset!r}")
    return network_of_graph(graph, subtract=if_reset == "subtract")


def read(path: str | os.PathLike[str]) -> "nir.NIRGraph":
    """Reads a file that ``nir.write`` wrote, with the nodes that NIR lacks.

    Args:
        path: the file.

    Raises:
        ModuleNotFoundError: nir is not installed.
        ValueError: the file holds no graph, or a node of a type that neither NIR nor this package
            has, or one of this package's that lacks a field or has another.
        OSError: there is no such file, or it is no HDF5 file.

    >>> import nir, torch
    >>> from tempfile import TemporaryDirectory
    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
    >>> with TemporaryDirectory() as folder:
    ...     nir.write(f"{folder}/net.nir", to_nir(net))
    ...     graph = read(f"{folder}/net.nir")
    >>> torch.equal(from_nir(graph)(images, timesteps=8), net(images, timesteps=8))
    True
    """
    check_installed("read", "nir", extra="interchange")
    from .nir_nodes import read_graph

    return read_graph(path)
