"""Takes the errors of a spiking network apart."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from snm_kernels import SNMState

from ..conversion.inputs import batches_of, check_model
from ..conversion.tracing.compare import agree, result_of
from ..network.checks import check_count
from ..network.memory import images_that_fit
from ..network.program import Fire
from ..network.relu import rectified, relu_pass
from ..network.spiking import SpikingNetwork
from ..network.until import check_direct
from ..nn import SNMNeuron
from .result import PARTS, Diagnosis, LayerDiagnosis, Part, add_up

_BATCH = 50
_BYTES = 80
"""That a neuron takes for one image: its drive, state and the parts of its error."""
_BITS = 32
"""A layer's values in a batch are rounded to so many bits below the largest, so that all sums are
exact."""


@torch.no_grad()
def diagnose(
    net: SpikingNetwork,
    model: nn.Module | None,
    images: Tensor | Iterable[Any],
    *,
    timesteps: int,
) -> Diagnosis:
    """Says of each layer how far its rates are from the ReLU network's activations, and why.

    A neuron's error, its rate θ·m(T)/T minus the activation, is the sum of five parts, each the
    difference of two stages on the way from the one to the other. With d the mean over time of
    what drives the neuron, and b its bias, of a tuned network:

    - inherited: from the activation to what the ReLU makes of d: what the layers before cost, less
      what weights that tuning fitted make up for;
    - correction: to what it makes of d + b: what the bias adds to make up for the other parts;
    - clipping: to that or the largest rate, which is θ·Γ, less if the count has a bound, and 0 of a
      silent neuron;
    - quantisation: to the rate that the neuron has if d itself drives it at every step;
    - order: to its rate: what drives that come unevenly cost.

    Args:
        net: with encoder="direct".
        model: the ReLU network that it was converted from, to be held against the network with
            ReLUs in the place of its neurons; None to take the latter at its word.
        images: ``[N, ...]`` as for a call of the network, or batches of them, or tuples that start
            with one. Memory grows with the largest batch; a tensor is cut to fit.
        timesteps: T, >= 1.

    Returns:
        The errors and their parts, which add up exactly; print it for a table and a sentence of
        advice, or call its ``picture``.

    Raises:
        ValueError: the encoder is not "direct"; there are no images; the model computes something
            else than the network with ReLUs does. Or as for a call.
        TypeError, ConversionError: as for a call and for :func:`snm.convert`.

    Source of the parts: the clipping and quantisation errors of Bu et al., "Optimal ANN-SNN
    Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks", ICLR 2022, whose
    third, unevenness, is the order here, for which Wang et al., IJCAI 2022, have negative spikes.

    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)).eval()
    >>> _ = nn.init.ones_(model[0].weight)
    >>> net = convert(model, torch.tensor([[1.0]]))
    >>> layer = diagnose(net, model, torch.tensor([[1.5]]), timesteps=4).layers["1"]
    >>> layer.error.signed, layer.parts["clipping"].signed
    (-0.5, -0.5)
    """
    if not isinstance(net, SpikingNetwork):
        raise TypeError(f"diagnose: net must be a SpikingNetwork, got {type(net).__name__}")
    check_direct("diagnose", net)
    steps = check_count("diagnose", "timesteps", timesteps)
    if model is not None:
        check_model(model, "diagnose")
    watches = {
        fire.path: _Watch(fire, net.layers[fire.path], steps) for fire in net.program.neurons
    }
    seen = 0
    for batch in _batches(net, images):
        net._check_images(batch)
        if len(batch) == 0:
            continue
        seen += len(batch)
        activations, output = relu_pass(net, batch)
        if model is not None:
            check_same("diagnose", net, output, result_of(model, batch))
        hooks = [
            net.layers[path].register_forward_pre_hook(watch.see, with_kwargs=True)
            for path, watch in watches.items()
        ]
        try:
            net(batch, timesteps=steps)
        finally:
            for hook in hooks:
                hook.remove()
        for path, watch in watches.items():
            watch.compare(activations.pop(path))
    if seen == 0:
        raise ValueError("diagnose: images must hold at least one image, got none")
    layers = {path: watch.result() for path, watch in watches.items()}
    return Diagnosis(steps, seen, layers, tuned=net.tuned_for is not None)


def _batches(net: SpikingNetwork, images: Tensor | Iterable[Any]) -> Iterable[Tensor]:
    """Images in batches that there is memory for."""
    if not isinstance(images, Tensor):
        return batches_of(images, None, None, None, "diagnose")
    net._check_images(images)
    bytes_per_image = _BYTES * net._elements_per_step(images)
    batches: Iterable[Tensor] = images.split(
        min(_BATCH, images_that_fit(bytes_per_image, images.device))
    )
    return batches


def check_same(caller: str, net: SpikingNetwork, found: Tensor, expected: Tensor) -> None:
    """Refuses a model that computes something else than the network with ReLUs does.

    Args:
        found: what the latter computes.
        expected: what the model computes of the same images.
    """
    if net.readout == "count":
        expected = expected.clamp(min=0)
    if not agree(found, expected):
        difference = "another shape"
        if found.shape == expected.shape:
            difference = f"logits that differ by up to {(found - expected).abs().amax():.3g}"
        raise ValueError(
            f"{caller}: model must compute what the network with ReLUs in the place of its neurons "
            f"does, got {difference}; give the model that it was converted from, unchanged since, "
            "or None"
        )


class _Watch:
    """Gathers what a layer of neurons does.

    Args:
        fire: the layer's place in the program.
        neuron: the layer.
        timesteps: T.
    """

    def __init__(self, fire: Fire, neuron: SNMNeuron, timesteps: int) -> None:
        self.fire = fire
        self.neuron = neuron
        self.timesteps = timesteps
        self.images = 0
        self.neurons = 0
        self.spikes = self.negative = self.corrected = 0
        self.saturated = self.driven = self.clipped = self.muted = self.driven_silent = 0
        self.residual, self.silent = 0.0, 0
        self.sent_ever: Tensor | None = None
        self.activation = Fraction(0)
        # Sums of the parts and of the whole error.
        self.sums = {name: [Fraction(0)] * 3 for name in (*PARTS, "error")}
        self._start()

    def _start(self) -> None:
        self.drive: Tensor | float = 0.0
        self.state: SNMState | None = None
        self.taken_back: Tensor | None = None
        self.sent: Tensor | None = None

    def see(self, neuron: SNMNeuron, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Looks at a chunk of time steps before the layer runs it, and may write over it."""
        drive, state = args
        residual = kwargs.get("residual")
        for t in range(drive.shape[0]):
            current = drive[t].float()
            if residual is not None:
                current = current + residual[t].float()
            # One by one, so that the sum does not depend on the chunks.
            self.drive = self.drive + current.double()
        spikes, self.state = neuron.forward(drive, state, residual=residual, emit="spike")
        assert spikes is not None
        negative = spikes < 0
        self.negative += int(negative.count_nonzero())
        self.spikes += int(spikes.abs().sum())
        taken_back, sent = negative.any(0), (spikes != 0).any(0)
        self.taken_back = taken_back if self.taken_back is None else self.taken_back | taken_back
        self.sent = sent if self.sent is None else self.sent | sent

    def compare(self, activation: Tensor) -> None:
        """Holds a batch that has been simulated against the ReLU network's activations."""
        assert isinstance(self.drive, Tensor)
        assert self.state is not None
        mean = self.drive / self.timesteps
        unbiased = rectified(self.fire, mean)
        positive = unbiased
        if self.neuron.bias is not None:
            positive = rectified(self.fire, mean + self.neuron.bias)
        most = self._most(mean)
        constant = mean.float().expand(self.timesteps, *mean.shape)
        quantised = self.neuron.forward(constant, emit="none").state
        stages = [
            activation.double(),
            unbiased,
            positive,
            torch.minimum(positive, self._rate(most)),
            self._rate(quantised.m),
            self._rate(self.state.m),
        ]
        self._add(stages)
        self._count(unbiased, positive, most)
        self._start()

    def _most(self, like: Tensor) -> Tensor:
        """The largest count that each neuron can have."""
        most = self.neuron.rule.largest_count(self.timesteps)
        return torch.full_like(like, most, dtype=torch.int64)

    def _rate(self, count: Tensor) -> Tensor:
        """θ·m/T in float64, 0 of silent neurons."""
        threshold = self.neuron.threshold.double()
        return torch.where(threshold.isinf(), 0.0, threshold) * count / self.timesteps

    def _add(self, stages: Sequence[Tensor]) -> None:
        """Adds up the differences between one stage and the next."""
        largest = max(stage.abs().amax().item() for stage in stages)
        unit = Fraction(2) ** (math.frexp(largest)[1] - _BITS)
        parts, error = parts_of(stages, float(unit))
        for name, part in zip((*PARTS, "error"), (*parts, error), strict=True):
            sums = self.sums[name]
            sums[0] += int(part.sum()) * unit
            sums[1] += int((part * error.sign()).sum()) * unit
            sums[2] += int(part.abs().sum()) * unit
        self.activation += int(_on_grid(stages[0], float(unit)).sum()) * unit

    def _count(self, unbiased: Tensor, positive: Tensor, most: Tensor) -> None:
        """Counts what is dead, saturated, clipped, silent or corrected, of the mean drive after
        the ReLU without and with the bias."""
        assert self.state is not None
        assert self.sent is not None
        assert self.taken_back is not None
        self.images += positive.shape[0]
        self.neurons = positive[0].numel()
        silent = self.neuron.threshold.isinf().expand(positive.shape)
        ever = self.sent.any(0)
        self.sent_ever = ever if self.sent_ever is None else self.sent_ever | ever
        self.silent = int(silent[0].count_nonzero())
        self.saturated += int(((self.state.m == most) & ~silent).count_nonzero())
        self.driven += int((positive > 0).count_nonzero())
        self.clipped += int((positive > self._rate(most)).count_nonzero())
        self.muted += int(((unbiased > 0) & silent).count_nonzero())
        self.driven_silent += int(((positive > 0) & silent).count_nonzero())
        self.corrected += int(self.taken_back.count_nonzero())
        counting = (positive > 0) & ~silent
        residual = (self.state.v / self.neuron.threshold).abs().double()
        self.residual += torch.where(counting, residual, 0.0).sum().item()

    def result(self) -> LayerDiagnosis:
        """What was found."""
        assert self.sent_ever is not None
        counts = self.neurons * self.images
        means = _means(self.sums, counts)
        return LayerDiagnosis(
            path=self.fire.path,
            neurons=self.neurons,
            rule=self.neuron.rule,
            activation=float(self.activation / counts),
            error=means["error"],
            parts={name: means[name] for name in PARTS},
            silent=self.silent / self.neurons,
            dead=int((~self.sent_ever).count_nonzero()) / self.neurons,
            saturated=self.saturated / counts,
            clipped=self.clipped / max(1, self.driven),
            muted=self.muted / max(1, self.driven),
            residual=self.residual / max(1, self.driven - self.driven_silent),
            negative=self.negative / max(1, self.spikes),
            corrected=self.corrected / counts,
        )


def parts_of(stages: Sequence[Tensor], unit: float) -> tuple[list[Tensor], Tensor]:
    """The differences between each stage and the next, and between the first and the last.

    Args:
        stages: float64.
        unit: a power of two, of which all results are multiples.

    Returns:
        int64, so that the differences add up exactly.

    >>> parts, whole = parts_of([torch.tensor([x]) for x in (0.5, 0.75, 0.25)], 0.25)
    >>> parts, whole
    ([tensor([1]), tensor([-2])], tensor([-1]))
    """
    rounded = [_on_grid(stage, unit) for stage in stages]
    parts = [after - before for before, after in pairwise(rounded)]
    return parts, rounded[-1] - rounded[0]


def _on_grid(value: Tensor, unit: float) -> Tensor:
    return (value / unit).round().to(torch.int64)


def _means(sums: dict[str, list[Fraction]], count: int) -> dict[str, Part]:
    """Means of the parts and of the error, rounded so that the former add up to the latter."""
    largest = max(abs(value) for kinds in sums.values() for value in kinds) / count
    grid = Fraction(2) ** (math.frexp(largest)[1] - _BITS)
    columns = []
    for kind in range(2):
        parts = add_up((sums[name][kind] / count for name in PARTS), grid)
        (error,) = add_up([sums["error"][kind] / count], grid)
        columns.append(dict(zip((*PARTS, "error"), (*parts, error), strict=True)))
    sizes = {name: float(kinds[2] / count) for name, kinds in sums.items()}
    return {name: Part(columns[0][name], columns[1][name], sizes[name]) for name in sums}
