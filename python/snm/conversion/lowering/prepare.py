"""Makes of a model the graph that calibration runs and conversion rewires."""

from typing import NamedTuple

from torch import Tensor, fx, nn

from ...errors import ConversionError
from ...network.encode import Encoder
from ...network.run import Readout
from ..analysis.domains import sort_nodes
from ..analysis.examine import examine
from ..tracing.compare import check_traced
from ..tracing.trace import Traced
from .fold import fold_batch_norms
from .layout import append_neurons, neuron_paths


class Prepared(NamedTuple):
    """A model's graph with its batch norms folded, and its neurons."""

    traced: Traced
    paths: dict[fx.Node, str]
    """Each ReLU that becomes a layer of neurons, and that layer's path."""
    example: Tensor
    """Up to four of the images it was prepared with."""
    output: fx.Node | None
    """The neurons behind the output layer, with readout="count"."""


def prepare(model: nn.Module, images: Tensor, encoder: Encoder, readout: Readout) -> Prepared:
    """Traces a copy of a model, checks that it can be converted, folds its batch norms.

    Args:
        model: checked, in evaluation mode.
        images: ``[B, ...]``, at least one, on the model's device and in its dtype.
        encoder: whether the images are to be constant in time.
        readout: whether the output layer is to drive neurons.

    Raises:
        ConversionError: operations have no spiking counterpart; or tracing misses something that
            the model does.
    """
    traced, offences = examine(model, images, images_change=encoder != "direct")
    if offences:
        raise ConversionError(offences)
    check_traced(traced, model, images)
    fold_batch_norms(traced)
    output = append_neurons(traced) if readout == "count" else None
    sort_nodes(traced, images_change=encoder != "direct")
    return Prepared(traced, neuron_paths(traced), images[:4], output)
