"""Synaptic operations and multiply-accumulates against loops over every spike and every window."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from snm.conversion.analysis import operations as known
from snm.conversion.analysis import pooling
from snm.reports.count.synapses import wiring
from snm.reports.count.traces import LIKE, RULES, name_of
from snm.reports.result import Macs
from snm_kernels import SNMRule
from support.networks import exact, exact_images
from support.synapse_loops import (
    connected,
    convolved,
    operations,
    spike_trains,
    through_windows,
    transposed,
    window_members,
)

T = 6
SHAPE = (4, 7, 6)
"""Of the layer of neurons whose synapses are counted."""

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


class Behind(nn.Module):
    """Neurons, what is tested, neurons, a linear readout."""

    def __init__(self, tested: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, SHAPE[0], 3, padding=1)
        self.first, self.tested, self.second = nn.ReLU(), tested, nn.ReLU()
        self.head = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.tested(self.first(self.stem(x)))).flatten(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + x


class Concatenated(nn.Module):
    """Spikes twice, once shifted, once averaged over neighbours, both read by one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([F.pad(x, (1, 0))[..., :-1], F.avg_pool2d(x, 3, 1, 1)], 1))


class Flat(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def shifted(fan: np.ndarray) -> np.ndarray:
    """What is behind a shift by one to the right."""
    made = np.zeros_like(fan)
    made[..., :-1] = fan[..., 1:]
    return made


def fan_of_concatenated(model: Concatenated) -> np.ndarray:
    fan = convolved(model.conv, (8, *SHAPE[1:]))
    return shifted(fan[:4]) + through_windows(fan[4:], SHAPE, window_members(SHAPE, 3, 1, 1))


def averaged(kernel: int, stride: int, padding: int, ceil: bool) -> tuple[nn.Module, Callable]:
    pool = nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil)
    members = window_members(SHAPE, kernel, stride, padding, ceil)
    size = (SHAPE[0], *(max(w[d] for w in members) + 1 for d in (1, 2)))
    model = nn.Sequential(pool, nn.Conv2d(4, 3, 2))
    return model, lambda: through_windows(convolved(model[1], size), SHAPE, members)


def direct(layer: nn.Module, count: Callable) -> tuple[nn.Module, Callable]:
    return layer, lambda: count(layer, SHAPE)


CASES: dict[str, Callable[[], tuple[nn.Module, Callable[[], np.ndarray]]]] = {
    "padded": lambda: direct(nn.Conv2d(4, 5, 3, padding=1), convolved),
    "strided": lambda: direct(nn.Conv2d(4, 5, 3, 2, (1, 0)), convolved),
    "dilated": lambda: direct(nn.Conv2d(4, 2, (2, 3), 1, 2, dilation=(3, 2)), convolved),
    "grouped": lambda: direct(nn.Conv2d(4, 6, 3, padding=1, groups=2), convolved),
    "depthwise": lambda: direct(nn.Conv2d(4, 8, 3, 2, 1, groups=4), convolved),
    "pointwise": lambda: direct(nn.Conv2d(4, 7, 1), convolved),
    "transposed": lambda: direct(nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1), transposed),
    "transposed, grouped, dilated": lambda: direct(
        nn.ConvTranspose2d(4, 6, 2, 2, 1, groups=2, dilation=3), transposed
    ),
    "linear": lambda: (
        (model := Flat(nn.Linear(math.prod(SHAPE), 9))),
        lambda: connected(model.layer, SHAPE),
    ),
    "averaged": lambda: averaged(2, 2, 0, False),
    "averaged, overlapping, padded": lambda: averaged(3, 2, 1, False),
    "averaged, ceil": lambda: averaged(3, 2, 0, True),
    "residual": lambda: (
        (model := Residual()),
        lambda: convolved(model.conv, SHAPE) + 1,
    ),
    "concatenated": lambda: ((model := Concatenated()), lambda: fan_of_concatenated(model)),
    "nearest": lambda: (
        (model := nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3))),
        lambda: convolved(model[1], (4, 14, 12)).reshape(4, 7, 2, 6, 2).sum((2, 4)),
    ),
    "without weights": lambda: (
        nn.AvgPool2d(2, 1),
        lambda: through_windows(
            np.ones((4, 6, 5), dtype=np.int64), SHAPE, window_members(SHAPE, 2, 1)
        ),
    ),
}


def network(tested: nn.Module, rule: str | SNMRule) -> tuple[snm.SpikingNetwork, Tensor, nn.Module]:
    """A network, frames that change, so that there are spikes to take back, and the model."""
    model = Behind(tested)
    frames = exact_images(T * 3, (2, *SHAPE[1:]))
    model(frames)
    exact(model)
    net = snm.convert(model, frames, preset=rule, encoder="frames")
    return net, frames.unflatten(0, (T, 3)), model


@pytest.mark.parametrize("case", CASES)
def test_synaptic_operations_are_those_of_loops(case: str) -> None:
    tested, fan = CASES[case]()
    net, frames, _ = network(tested, "snm-zero")
    trains = spike_trains(net, lambda: net(frames, timesteps=T))
    layer = snm.report(net, frames, timesteps=T).layers["first"]
    found = fan()
    assert layer.connections == found.sum() > 0
    assert layer.synaptic_operations == operations(trains["first"], found) > 0
    assert layer.negative == int((trains["first"] < 0).sum()) > 0
    assert layer.positive == int((trains["first"] > 0).sum()) > 0


def test_a_pruned_weight_is_no_synapse() -> None:
    net, frames, model = network(nn.Conv2d(4, 5, 1), "snm")
    before = snm.report(net, frames, timesteps=T).layers["first"].connections
    used = int((model.tested.weight != 0).sum())
    assert before == used * math.prod(SHAPE[1:])
    with torch.no_grad():
        next(p for n, p in net.named_parameters() if "tested" in n and p.dim() == 4)[0] = 0
    left = int((net.model.get_submodule("tested").weight != 0).sum())
    assert left < used
    assert snm.report(net, frames, timesteps=T).layers["first"].connections == left * 42


def test_a_graded_spike_costs_as_many_operations_as_its_size() -> None:
    tested, fan = CASES["strided"]()
    net, frames, _ = network(
        tested, SNMRule(v_init=0.5, negative_threshold=0.0, strict=True, max_spikes=4)
    )
    for neuron in net.layers.values():
        neuron.threshold /= 4
    trains = spike_trains(net, lambda: net(frames, timesteps=T))
    layer = snm.report(net, frames, timesteps=T).layers["first"]
    assert int(trains["first"].max()) > 1
    assert layer.synaptic_operations == operations(trains["first"], fan())
    assert layer.positive == int(trains["first"].clamp(min=0).sum())
    assert sum(layer.rates) == 3 * math.prod(SHAPE)
    assert layer.rates[-1] == int((trains["first"].abs().sum(0) > T).sum()) > 0


def test_max_poolings_send_events() -> None:
    conv = nn.Conv2d(4, 3, 2)
    net, frames, _ = network(nn.Sequential(nn.MaxPool2d(3, 2, 1), conv), "snm-zero")
    trains = spike_trains(net, lambda: net(frames, timesteps=T))
    found = snm.report(net, frames, timesteps=T).layers
    members = window_members(SHAPE, 3, 2, 1)
    size = (4, 4, 3)
    # A spike is read once by each window that it is in.
    reads = through_windows(np.ones(size, dtype=np.int64), SHAPE, members)
    assert found["first"].synaptic_operations == operations(trains["first"], reads)
    totals = net.layers["first"].amplitude(trains["first"].int().cumsum(0))
    largest = torch.stack([F.max_pool2d(total, 3, 2, 1) for total in totals])
    events = torch.diff(largest, dim=0, prepend=torch.zeros_like(largest[:1])).sign()
    pool = found["tested.0"]
    assert (pool.kind, pool.neurons) == ("max pooling", 48)
    assert pool.positive == int((events > 0).sum()) > 0
    assert pool.negative == int((events < 0).sum()) > 0
    assert pool.synaptic_operations == operations(events, convolved(conv, size)) > 0
    assert sum(pool.rates) == 48 * 3
    assert math.isnan(pool.dead)


class Bottleneck(nn.Module):
    """A block of MobileNetV2: what the last convolution computes is read by the next block's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.wide, self.relu = nn.Conv2d(2, 6, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(6 * 42, 3)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.narrow(self.relu(self.stem(x)))
        return self.head(self.relu(self.wide(narrow)).flatten(1))


@pytest.mark.parametrize("encoder", ["direct", "poisson", "frames"])
def test_what_reads_analog_values_multiplies(encoder: str) -> None:
    model, images = exact(Bottleneck()), exact_images(3, (2, 7, 6))
    net = snm.convert(model, images, encoder=encoder)
    given = images.expand(T, *images.shape) if encoder == "frames" else images
    found = snm.report(net, given, timesteps=T)
    stem = int(convolved(model.stem, (2, 7, 6)).sum())
    wide = int(convolved(model.wide, (2, 7, 6)).sum())
    narrow = int(convolved(model.narrow, (4, 7, 6)).sum())
    head = int(connected(model.head, (6, 7, 6)).sum())
    once = 1 if encoder == "direct" else T
    assert found.macs == Macs(
        first=once * stem, steps=T * wide, readout=head, relu=stem + wide + narrow + head
    )
    assert found.layers["relu"].connections == narrow
    assert found.layers["relu_1"].connections == 0


@pytest.mark.parametrize("encoder", ["direct", "poisson", "frames"])
def test_what_pools_the_image_is_before_the_first_neurons(encoder: str) -> None:
    layers = [nn.Conv2d(2, 3, 1), nn.MaxPool2d(2), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()]
    model, images = exact(nn.Sequential(*layers, nn.Linear(16, 3))), exact_images(3, (2, 4, 4))
    net = snm.convert(model, images, encoder=encoder)
    given = images.expand(T, *images.shape) if encoder == "frames" else images
    found = snm.report(net, given, timesteps=T).macs
    stem, behind = (int((model[n].weight != 0).sum()) for n in (0, 2))
    once = 1 if encoder == "direct" else T
    assert (found.first, found.steps) == (once * (16 * stem + 4 * behind), 0)


class Gated(nn.Module):
    """Spikes times what the image gives, and matrices of the image that spikes multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value, self.gate = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(4, 6)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        sent = F.relu(self.value(x)) * self.gate(x)
        return self.head(F.relu(torch.matmul(self.key(x), sent)).flatten(1))


def test_what_an_image_gives_weighs_spikes() -> None:
    model, images = exact(Gated()), exact_images(3, (4, 4))
    net = snm.convert(model, images)
    found = snm.report(net, images, timesteps=T)
    # Each of the 4 x 6 neurons is read by all 4 rows of a product with 4 x 4 keys.
    assert found.layers["relu"].connections == 4 * 24
    linears = [model.key, model.value, model.gate]
    first = sum(4 * int((linear.weight != 0).sum()) for linear in linears)
    assert (found.macs.first, found.macs.steps) == (first, 0)
    assert found.macs.relu == first + 4 * 24 + int((model.head.weight != 0).sum())


class Odd(nn.Module):
    """Sorts the image, which nobody can say the multiplications of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(torch.fft.rfft(x).real.repeat(1, 2)[:, :4])))


def test_an_operation_that_cannot_be_counted_is_named() -> None:
    images = exact_images(3, (4,))
    net = snm.convert(exact(Odd()), images)
    with pytest.raises(ValueError, match=r"cannot count what fft_rfft costs, in fft_rfft"):
        snm.report(net, images, timesteps=T)


def test_every_operation_that_is_converted_can_be_counted() -> None:
    functions = [*known.FUNCTIONS, *pooling.FUNCTIONS, *pooling.ADAPTIVE_FUNCTIONS]
    # They call others of these.
    calling = {"upsample", "upsample_nearest", "upsample_bilinear"}
    names = {name_of(function) for function in functions if callable(function)}
    assert (names | set(known.METHODS)) - calling <= {*RULES, *LIKE}


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv1d": (lambda: nn.Conv1d(4, 2, 3), (4, 8)),
    "Conv3d": (lambda: nn.Conv3d(4, 2, 2), (4, 4, 4, 4)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 2, 3, 2), (4, 8)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 2, 2, 2), (4, 4, 4, 4)),
}


@pytest.mark.parametrize("name", MODULES)
def test_other_dimensions(name: str) -> None:
    build, shape = MODULES[name]
    torch.manual_seed(0)
    layer = build()
    convolution = getattr(nn, f"Conv{name[-2:]}")
    model = nn.Sequential(convolution(4, 4, 1), nn.ReLU(), layer, nn.ReLU(), nn.Flatten())
    model = exact(model)
    images = exact_images(3, shape)
    net = snm.convert(model, images)
    count = transposed if "Transpose" in name else convolved
    fan = count(layer, shape)
    (one,) = (t for t in wiring(net, shape).targets if t.synapses)
    assert np.array_equal(one.synapses[0].fan_out.numpy(), fan)
