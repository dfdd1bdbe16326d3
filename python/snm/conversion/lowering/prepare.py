"""Makes of a model the graph that calibration runs and that is lowered to a spiking network."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from ...errors import refuse
from ...network.encode import Encoder
from ...network.run import Readout
from ..analysis.analyse import analyse
from ..analysis.domains import sort_nodes
from ..tracing.compare import check_traced
from ..tracing.trace import trace
from ..tracing.traced_model import Runner, TracedModel
from .fold import fold_batch_norms
from .neurons import append_neurons, caps_of, neuron_paths


class Prepared(NamedTuple):
    """A model's graph with its batch norms folded, and its neurons."""

    traced: TracedModel
    """A copy of the model, and the graph of what it does."""
    paths: dict[fx.Node, str]
    """Each ReLU that becomes a layer of neurons, and that layer's path."""
    caps: dict[str, float]
    """What the activations of a layer never exceed, such as 6 for ReLU6, by its path."""
    example: Tensor
    """Up to four of the images it was prepared with."""
    output: fx.Node | None
    """The neurons behind the output layer, with readout="count"."""

    def watch(self, images: Tensor, see: Callable[[fx.Node, Tensor], None]) -> None:
        """Runs over images and hands on the activations of each layer of neurons.

        Args:
            see: is called with each ReLU that becomes neurons, and with its activations
                ``[B, ...]``.
        """
        _Watch(self, see).run(images)


class _Watch(Runner):
    """Runs a prepared model and hands on the activations of each layer of neurons."""

    def __init__(self, prepared: Prepared, see: Callable[[fx.Node, Tensor], None]) -> None:
        super().__init__(prepared.traced)
        self.neurons = prepared.paths.keys()
        self.see = see

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.neurons:
            self.see(n, result)
        return result


def prepare(model: nn.Module, images: Tensor, encoder: Encoder, readout: Readout) -> Prepared:
    """The passes that come before calibration, in the order in which they run.

    Args:
        model: checked, in evaluation mode; its copy is changed.
        images: ``[B, ...]``, at least one, on the model's device and in its dtype.
        encoder: whether the images are to be constant in time.
        readout: whether the output layer is to drive neurons.

    Raises:
        ConversionError: operations have no spiking counterpart; or tracing misses something that
            the model does.
    """
    images_change = encoder != "direct"
    traced = trace(model, images)
    refuse(analyse(traced, images, images_change=images_change))
    check_traced(traced, model, images)
    fold_batch_norms(traced)
    output = append_neurons(traced) if readout == "count" else None
    sort_nodes(traced, images_change=images_change)
    paths = neuron_paths(traced)
    return Prepared(traced, paths, caps_of(traced, paths), images[:4], output)
