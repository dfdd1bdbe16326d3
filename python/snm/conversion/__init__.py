"""Conversion of a trained ReLU network into a spiking network.

The passes of :func:`convert`, in the order in which they run:

1. ``trace`` (tracing/trace.py) makes a graph of a copy of the model.
2. ``analyse`` (analysis/analyse.py) finds out what each operation is and when it is computed.
3. ``refuse`` (errors.py) stops where operations have no spiking counterpart, and ``check_traced``
   (tracing/compare.py) where the graph computes something else than the model.
4. ``fold_batch_norms`` (lowering/fold.py) folds batch norms into the layers before them.
5. ``observe`` (calibration.py) runs the graph over calibration images.
6. ``choose_thresholds`` (thresholds.py) chooses thresholds from what was seen.
7. ``normalise`` (lowering/normalise.py) moves thresholds into weights, with form="normalised".
8. ``lower`` (lowering/lower.py) puts neurons in the place of ReLUs and lays out the program.

The first four are ``prepare`` (lowering/prepare.py), which calibration alone needs as well.

``quantize`` (quantization/quantize.py) makes a network of integers of what they made.
"""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from snm_kernels import SNMRule

from ..network.checks import check_count
from ..network.encode import ENCODERS, Encoder
from ..network.run import READOUTS, Readout
from ..network.spiking import SpikingNetwork
from ..network.tree import origin_of
from .calibration import calibrate, observe, open_calibration
from .inputs import Progress, one_of, rule_of
from .lowering.lower import lower
from .lowering.normalise import normalise
from .lowering.prepare import prepare
from .statistics import Norm, Statistic, Statistics
from .thresholds import Choice, Dead, choose_thresholds

__all__ = ["Dead", "Form", "Norm", "Progress", "Statistic", "Statistics", "calibrate", "convert"]

Form = Literal["payload", "normalised"]
FORMS: tuple[Form, ...] = get_args(Form)


@torch.no_grad()
def convert(
    model: nn.Module,
    calibration: Tensor | Iterable[Any] | Statistics,
    *,
    preset: str | SNMRule = "snm",
    norm: Norm = "neuron",
    statistic: Statistic = "max",
    percentile: float = 99.9,
    levels: int = 32,
    dead: Dead = "silent",
    form: Form = "payload",
    encoder: Encoder = "direct",
    readout: Readout = "mean",
    chunk_steps: int | None = None,
    progress: Progress | None = None,
) -> SpikingNetwork:
    """Turns a trained ReLU network into a spiking network of signed neurons with memory.

    A copy of the model is traced, its batch norms are folded, and it is run over calibration
    images; each ReLU becomes a layer of neurons whose threshold follows from the activations
    seen. The model itself is left as it is.

    Args:
        model: in evaluation mode, on one device, in float32, float16 or bfloat16. Its forward
            takes the images first, ``[B, ...]``, and returns one tensor, the logits.
        calibration: images ``[N, ...]``, or batches of them, such as a data loader: tensors, or
            tuples that start with one. They are moved to the model's device. Or what
            :func:`snm.calibrate` made of them, with the same norm.
        preset: the neuron: a name in :data:`snm.PRESETS`, or a rule.
        norm: what shares a threshold: ``"neuron"`` nothing, the paper's NeuronNorm, for images
            of the calibrated size alone; ``"channel"`` the neurons of a channel, dimension 1;
            ``"layer"`` all of a layer.
        statistic: the threshold, from the activations that share it: ``"max"``, the largest;
            ``"percentile"``, what ``percentile`` percent of those above zero do not exceed, for a
            ReLU's zeros say nothing of its range; ``"mse"``, where clipping and rounding to
            ``levels`` equal steps has the least mean squared error. The last two are read from
            histograms, see :class:`snm.Statistics`, and are never above the largest.
        percentile: above 0; 100 is the largest activation.
        levels: steps from 0 to the threshold for which ``"mse"`` is best, such as the number of
            time steps, >= 1.
        dead: the threshold of a neuron that never fired in calibration: ``"silent"``, +inf;
            ``"channel"`` or ``"layer"``, the largest threshold of its channel or layer, and +inf
            where all of that is dead. What shares a threshold must be smaller than that.
        form: ``"payload"``: weights stay as they are and a spike carries its neuron's threshold.
            ``"normalised"``: thresholds are moved into weights, so every threshold is 1 and a spike
            ±1; what no weight can scale, such as an identity connection, is multiplied by a factor
            per channel. Both send the same spikes up to float rounding; with norm="neuron" the
            second is for networks of linear layers alone.
        encoder: how images become the frames of the time steps: ``"direct"``, a constant
            current; ``"poisson"``, random spikes, see :class:`snm.network.encode.Poisson`;
            ``"frames"``, as they are given, such as an event camera's. Calibration takes images,
            the mean of their frames.
        readout: what a call returns: ``"mean"``, the mean current of the output layer;
            ``"count"``, the spikes of a layer of neurons that the output layer drives, one
            threshold for all of them; what is negative counts 0.
        chunk_steps: how many time steps are simulated at once, >= 1; None for as many as fit in
            64 MiB (1 GiB on a GPU) and in a quarter of the free memory. The result does not depend
            on it, but for rounding in the model's own layers.
        progress: wraps the calibration batches, as ``tqdm`` does.

    Returns:
        The network. A neuron whose threshold is +inf is silent.

    Raises:
        ConversionError: the model holds operations that have no spiking counterpart; it names
            each. Or tracing misses something that the model does. Or weights cannot carry the
            thresholds, with form="normalised".
        ValueError: the model is in training mode, on several devices or in another dtype;
            calibration holds no image, NaN or infinity, or is of other layers, norm or
            kind; the preset, norm, statistic or dead is unknown; percentile is not in (0, 100];
            levels or chunk_steps is less than 1.
        TypeError: an argument is of the wrong type.

    Warns:
        DeadNeuronWarning: neurons never fired in calibration; it counts them.

    Source: Wang, Zhang, Chen, Qu, "Signed Neuron with Memory", IJCAI 2022, section 4 (NeuronNorm).
    Percentiles: Rueckauer et al., "Conversion of Continuous-Valued Deep Networks to Efficient
    Event-Driven Networks for Image Classification", Frontiers in Neuroscience 2017. Least squared
    error: Banner, Nahshan, Soudry, "Post Training 4-bit Quantization of Convolutional Networks for
    Rapid-Deployment", NeurIPS 2019; Li et al., "A Free Lunch From ANN", ICML 2021.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    >>> net = convert(model.eval(), torch.rand(16, 1, 8, 8), preset="snm-zero")
    >>> net(torch.rand(2, 1, 8, 8), timesteps=16).shape
    torch.Size([2, 10])
    """
    rule = rule_of(preset)
    choice = Choice(norm, statistic, percentile, levels, dead)
    choice.check()
    _check_rest(form, encoder, readout, chunk_steps)

    images = open_calibration(model, calibration, choice, progress)
    prepared = prepare(model, images.first, encoder, readout)
    statistics = observe(prepared, images, norm, statistic)
    caps = prepared.caps
    chosen = choose_thresholds(prepared, statistics, choice, caps=caps, max_spikes=rule.max_spikes)
    fires_at = {node: layer.threshold for node, layer in chosen.items()}
    capped_at: dict[str, tuple[float, ...]] = {path: (cap,) for path, cap in caps.items()}
    if form == "normalised":
        fires_at, capped_at = normalise(prepared, fires_at)
    layers, program = lower(
        prepared,
        fires_at,
        capped_at,
        rule,
        per_neuron=norm == "neuron",
        images_change=encoder != "direct",
    )
    return SpikingNetwork(
        layers,
        program,
        image_shape=tuple(prepared.example.shape[1:]),
        fixed_size=prepared.traced.fixed_size is not None,
        dtype=prepared.example.dtype,
        encoder=encoder,
        readout=readout,
        tracer=prepared.traced.tracer,
        origin=origin_of(model),
        dead={prepared.paths[node]: layer.dead for node, layer in chosen.items()},
        chunk_steps=chunk_steps,
    )


def _check_rest(form: str, encoder: str, readout: str, chunk_steps: int | None) -> None:
    """Refuses arguments of :func:`convert` that have nothing to do with thresholds."""
    one_of("form", form, FORMS)
    one_of("encoder", encoder, ENCODERS)
    one_of("readout", readout, READOUTS)
    if chunk_steps is not None:
        check_count("convert", "chunk_steps", chunk_steps)
