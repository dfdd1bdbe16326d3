"""Takes the errors of a spiking network apart."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from snm_kernels import SNMState

from .checks import check_count
from .convert.compare import agree
from .convert.inputs import check_model
from .diagnosis import PARTS, Diagnosis, LayerDiagnosis, Part, add_up
from .nn import SNMNeuron
from .program import Fire
from .relu_walk import rectified, relu_pass
from .simulate import SpikingNetwork
from .until import check_direct

_BATCH = 50
_BITS = 32
"""A layer's values are rounded to so many bits below the largest, so that all sums are exact."""


@torch.no_grad()
def diagnose(
    net: SpikingNetwork, model: nn.Module | None, images: Tensor, *, timesteps: int
) -> Diagnosis:
    """Says of each layer how far its rates are from the ReLU network's activations, and why.

    A neuron's error, its rate θ·m(T)/T minus the activation, is the sum of four parts. With d the
    mean over time of what drives the neuron:

    - inherited: what the ReLU makes of d minus the activation, which is what the layers before
      cost, and what the neuron's own bias makes up for;
    - clipping: what exceeds the largest rate of that, which is θ·Γ, less if the count has a bound,
      and 0 of a silent neuron;
    - quantisation: the rate that the neuron has if d itself drives it at every step, minus that;
    - order: its rate minus that, which is what drives that come unevenly cost.

    Args:
        net: with encoder="direct".
        model: the ReLU network that it was converted from, to be held against the network with
            ReLUs in the place of its neurons; None to take the latter at its word.
        images: ``[N, ...]``, as for a call of the network.
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
    net._check_images(images)
    if len(images) == 0:
        raise ValueError("diagnose: images must hold at least one image, got none")
    if model is not None:
        check_model(model)
    watches = {
        fire.path: _Watch(fire, net.layers[fire.path], steps) for fire in net.program.neurons
    }
    for batch in images.split(_BATCH):
        activations, output = relu_pass(net, batch)
        if model is not None:
            _check_same(net, output, model(batch))
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
            watch.compare(activations[path])
    layers = {path: watch.result() for path, watch in watches.items()}
    return Diagnosis(steps, len(images), layers)


def _check_same(net: SpikingNetwork, found: Tensor, expected: Tensor) -> None:
    if net.readout == "count":
        expected = expected.clamp(min=0)
    if not agree(found, expected):
        difference = "another shape"
        if found.shape == expected.shape:
            difference = f"logits that differ by up to {(found - expected).abs().amax():.3g}"
        raise ValueError(
            "diagnose: model must compute what the network with ReLUs in the place of its neurons "
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
        self.unit: Fraction | None = None
        self.images = 0
        self.neurons = 0
        self.spikes = self.negative = self.corrected = 0
        self.saturated = self.driven = self.clipped = self.muted = 0
        self.residual, self.silent = 0.0, 0
        self.sent_ever: Tensor | None = None
        self.activation = 0
        # Sums of the parts and of the whole error, in multiples of the unit.
        self.sums = {name: [0, 0, 0] for name in (*PARTS, "error")}
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
        constant = mean.float().expand(self.timesteps, *mean.shape)
        if self.neuron.bias is not None:
            mean = mean + self.neuron.bias
        most = self._most(mean)
        quantised = self.neuron.forward(constant, emit="none").state
        positive = rectified(self.fire, mean)
        stages = [
            activation.double(),
            positive,
            torch.minimum(positive, self._rate(most)),
            self._rate(quantised.m),
            self._rate(self.state.m),
        ]
        self._add(stages)
        self._count(positive, most)
        self._start()

    def _most(self, like: Tensor) -> Tensor:
        """The largest count that each neuron can have."""
        rule = self.neuron.rule
        most = min(self.timesteps * rule.max_spikes, rule.count_bounds[1])
        return torch.full_like(like, most, dtype=torch.int64)

    def _rate(self, count: Tensor) -> Tensor:
        """θ·m/T in float64, 0 of silent neurons."""
        threshold = self.neuron.threshold.double()
        return torch.where(threshold.isinf(), 0.0, threshold) * count / self.timesteps

    def _add(self, stages: Sequence[Tensor]) -> None:
        """Adds up the differences between one stage and the next."""
        if self.unit is None:
            largest = max(stage.abs().amax().item() for stage in stages)
            self.unit = Fraction(2) ** (math.frexp(largest)[1] - _BITS)
        parts, error = parts_of(stages, float(self.unit))
        for name, part in zip((*PARTS, "error"), (*parts, error), strict=True):
            sums = self.sums[name]
            sums[0] += int(part.sum())
            sums[1] += int((part * error.sign()).sum())
            sums[2] += int(part.abs().sum())
        self.activation += int(_on_grid(stages[0], float(self.unit)).sum())

    def _count(self, positive: Tensor, most: Tensor) -> None:
        """Counts what is dead, saturated, clipped, silent or corrected."""
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
        self.muted += int(((positive > 0) & silent).count_nonzero())
        self.corrected += int(self.taken_back.count_nonzero())
        counting = (positive > 0) & ~silent
        residual = (self.state.v / self.neuron.threshold).abs().double()
        self.residual += torch.where(counting, residual, 0.0).sum().item()

    def result(self) -> LayerDiagnosis:
        """What was found."""
        assert self.unit is not None
        assert self.sent_ever is not None
        counts = self.neurons * self.images
        means = _means(self.sums, self.unit, counts)
        return LayerDiagnosis(
            path=self.fire.path,
            neurons=self.neurons,
            rule=self.neuron.rule,
            activation=float(self.activation * self.unit / counts),
            error=means["error"],
            parts={name: means[name] for name in PARTS},
            silent=self.silent / self.neurons,
            dead=int((~self.sent_ever).count_nonzero()) / self.neurons,
            saturated=self.saturated / counts,
            clipped=self.clipped / max(1, self.driven),
            muted=self.muted / max(1, self.driven),
            residual=self.residual / max(1, self.driven - self.muted),
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


def _means(sums: dict[str, list[int]], unit: Fraction, count: int) -> dict[str, Part]:
    """Means of the parts and of the error, rounded so that the former add up to the latter."""
    columns = []
    for kind in range(2):
        parts = add_up((sums[name][kind] * unit / count for name in PARTS), unit)
        (error,) = add_up([sums["error"][kind] * unit / count], unit)
        columns.append(dict(zip((*PARTS, "error"), (*parts, error), strict=True)))
    sizes = {name: float(sums[name][2] * unit / count) for name in sums}
    return {name: Part(columns[0][name], columns[1][name], sizes[name]) for name in sums}
