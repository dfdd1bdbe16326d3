"""Sums that layers read, averages, batch norms and zero padding have integer forms, or are refused
in words that say what to do."""

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from snm.bench.vision import torchvision_model
from snm.network.integer import most_steps
from snm.network.relu import relu_logits, relu_pass
from snm.nn.integer import IntegerConv, IntegerNeuron, IntegerScale

T = 48
CLOSE = 0.05
"""How far answers at T = 48 may be from those in floating point, in parts of the largest; the
farthest that was measured is 0.041, and 0.012 at T = 768."""
RELU_CLOSE = 0.02
"""The same of the networks with ReLUs, whose farthest is 0.017."""


class Bottlenecks(nn.Module):
    """Residual blocks whose sums no neurons read: the next block and the next sum do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.blocks = nn.ModuleList(self.block() for _ in range(3))
        self.last, self.head = nn.Conv2d(6, 8, 1), nn.Linear(8, 5)

    @staticmethod
    def block() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12), nn.ReLU6()),
            *(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU6()),
            *(nn.Conv2d(12, 6, 1), nn.BatchNorm2d(6)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = x + block(x)
        return self.head(F.relu(self.last(x)).mean([2, 3]))


class BeforeConvolutions(nn.Module):
    """Residual blocks with batch norm and ReLU before convolutions, and one without the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.convolutions = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for norm, conv in zip([*self.norms, nn.Identity()], self.convolutions, strict=True):
            x = x + conv(F.relu(norm(x)))
        return self.head(F.relu(self.last(x)).mean([2, 3]))


class Shared(nn.Module):
    """What drives neurons is read by other neurons, in a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        drive = self.first(x)
        return self.head(F.relu(self.second(F.relu(drive)) + drive).mean([2, 3]))


class Linear(nn.Module):
    """Layers without neurons between them, and sums of what they make at each depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for layer in self.layers:
            x = x + layer(x)
        return self.head(F.relu(x))


class Behind(nn.Module):
    """Sums behind the last neurons, of what layers make and of what the neurons sent."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.head(x + self.norm(self.second(x) + x) + self.third(F.relu(self.third(x))))


class Averages(nn.Module):
    """A batch norm behind ReLUs, average poolings that overlap, and one of what a layer made."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.mix, self.beside = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.norm(F.relu(self.stem(x))), 3, 1, 1)
        x = F.relu(self.mix(x) + F.avg_pool2d(self.beside(x), kernel_size=3, stride=1, padding=1))
        return self.head(F.avg_pool2d(x, (3, 2), 2).flatten(1)[:, :36])


NETWORKS: dict[type[nn.Module], tuple[int, ...]] = {
    Bottlenecks: (2, 8, 8),
    BeforeConvolutions: (2, 8, 8),
    Shared: (2, 8, 8),
    Linear: (12,),
    Behind: (12,),
    Averages: (2, 8, 8),
}


def converted(model: nn.Module, images: Tensor, **options: Any) -> snm.SpikingNetwork:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        return snm.convert(model, images, **{"norm": "channel", "preset": "snm-zero"} | options)


def drawn(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A model with random weights and statistics of batch norms."""
    torch.manual_seed(seed)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


def check_close(net: snm.SpikingNetwork, integers: snm.SpikingNetwork, images: Tensor) -> None:
    _, exact = relu_pass(net, images)
    _, rounded = relu_pass(integers, images)
    largest = exact.abs().max()
    assert (exact - rounded).abs().max() < RELU_CLOSE * largest
    difference = net(images, timesteps=T) - integers(images, timesteps=T)
    assert difference.abs().max() < CLOSE * largest


@pytest.mark.parametrize("preset", ["snm-zero", "snm"])
@pytest.mark.parametrize("build", NETWORKS)
def test_sums_that_layers_read(build: type[nn.Module], preset: str, tmp_path: Path) -> None:
    model, images = drawn(build), torch.randn(64, *NETWORKS[build])
    net = converted(model, images, preset=preset)
    integers = snm.quantize(net, images)
    some = images[:8]
    check_close(net, integers, some)
    digest, answer = integers.digest(some, timesteps=T), integers(some, timesteps=T)
    integers.chunk_steps = 5
    assert integers.digest(some, timesteps=T) == digest
    for image, own in zip(some, answer, strict=True):
        assert torch.equal(integers(image[None], timesteps=T)[0], own)
    snm.save(integers, tmp_path / "net")
    same = snm.load(tmp_path / "net")
    assert same.digest(some, timesteps=T) == digest
    assert torch.equal(same(some, timesteps=T), answer)
    layer = snm.report(integers, some, timesteps=4).layers
    assert list(layer) == list(integers.layers)


def test_averages_of_sums_and_batch_norms_have_weights_of_one() -> None:
    images = torch.randn(64, 2, 8, 8)
    integers = snm.quantize(converted(drawn(Averages), images), images)
    overlapping = integers.model.get_submodule("avg_pool2d")
    assert isinstance(overlapping, IntegerConv)
    assert torch.equal(overlapping.weight, torch.ones_like(overlapping.weight))


def test_what_counts_coarse_units_is_multiplied() -> None:
    images = torch.randn(64, 12)
    integers = snm.quantize(converted(drawn(Linear), images), images)
    assert any(isinstance(module, IntegerScale) for module in integers.modules())


@pytest.mark.parametrize("bits", [6, 8])
def test_mobilenet_is_off_by_what_rounded_weights_are(bits: int) -> None:
    torch.manual_seed(0)
    model = torchvision_model("mobilenet_v2", width_mult=0.35, num_classes=10)
    pixels = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)
    images = (pixels / 255 - 0.5) / 0.25
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model(images)
    net = converted(model.eval(), images)
    integers = snm.quantize(net, images, bits=bits, pixels=([0.5], [0.25]))
    _, exact = relu_pass(net, images)
    _, found = relu_pass(integers, images)
    most = 2 ** (bits - 1) - 1
    for layer in net.model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rows = layer.weight.detach().flatten(1)
            unit = rows.abs().amax(1, keepdim=True) / most
            layer.weight.data.copy_(((rows / unit).round() * unit).view(layer.weight.shape))
    _, rounded = relu_pass(net, images)
    assert (exact - found).norm() < 2 * (exact - rounded).norm()
    digest = integers.digest(pixels[:3], timesteps=8)
    integers.chunk_steps = 3
    assert integers.digest(pixels[:3], timesteps=8) == digest
    # How many time steps there may be depends on the bits.
    assert (most_steps(integers.program, integers.model) > 64) == (bits == 6)


# --- averages ---


def pooled(pool: nn.Module, size: tuple[int, ...] = (7, 7)) -> tuple[nn.Module, Tensor]:
    """A network that pools what neurons sent, and images for it."""
    torch.manual_seed(3)
    images = torch.randn(32, 2, *size)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), pool]
    behind = nn.Sequential(*layers)(images).flatten(1).shape[1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(behind, 5)).eval(), images


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (nn.AvgPool2d(2), (3, 3)),
        (nn.AvgPool2d(2), (7, 7)),
        (nn.AvgPool2d(3), (7, 8)),
        (nn.AvgPool2d((5, 2)), (7, 7)),
        (nn.AvgPool2d(2, ceil_mode=True), (8, 6)),
        (nn.AvgPool2d(2, stride=3), (3, 3)),
        (nn.AvgPool2d(3, 2, 1), (7, 7)),
        (nn.AvgPool2d(2, padding=1), (6, 6)),
        (nn.AvgPool2d(3, 1), (7, 7)),
        (nn.AdaptiveAvgPool2d((2, 1)), (8, 6)),
        (nn.AdaptiveAvgPool2d((None, 2)), (5, 6)),
    ],
    ids=str,
)
def test_averages_of_as_many_places_everywhere(pool: nn.Module, size: tuple[int, ...]) -> None:
    model, images = pooled(pool, size)
    net = converted(model, images)
    check_close(net, snm.quantize(net, images), images[:8])


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (nn.AvgPool2d(2, ceil_mode=True), "fewer places, at the border; give it count_include_pad"),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "fewer places, at the border"),
        (nn.AvgPool2d(2, divisor_override=3), "and no divisor_override"),
        (nn.AdaptiveAvgPool2d(3), r"differ in size or overlap; pool \[7, 7\] to sizes that divide"),
    ],
    ids=str,
)
def test_averages_of_fewer_places_are_refused(pool: nn.Module, message: str) -> None:
    model, images = pooled(pool)
    with pytest.raises(snm.ConversionError, match=f"2: {type(pool).__name__}: .*{message}"):
        snm.quantize(converted(model, images), images)


class Nearly(nn.Module):
    """What is an average but for a small part."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean([2, 3]) * 1.0001


def test_what_is_nearly_an_average_is_none() -> None:
    model, images = pooled(Nearly())
    with pytest.raises(snm.ConversionError, match="mul: mul: it has no integer form"):
        snm.quantize(converted(model, images), images)


def test_averages_over_channels_are_refused() -> None:
    class OverChannels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(1)

    model, images = pooled(OverChannels())
    with pytest.raises(snm.ConversionError, match="mean: mean: it averages over other dimensions"):
        snm.quantize(converted(model, images), images)


@pytest.mark.parametrize(
    ("pool", "fixed"), [(nn.AvgPool2d(2, stride=3), False), (nn.AvgPool2d(2, 2, 0, True), True)]
)
def test_windows_of_images_of_another_size(pool: nn.Module, fixed: bool) -> None:
    # Of both it takes a larger image to tell that their windows are not side by side.
    torch.manual_seed(4)
    images, larger = torch.randn(32, 2, 4, 4), torch.randn(4, 2, 5, 5)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(4, 4, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(4, 3, 1)).eval()
    net = converted(model, images)
    integers = snm.quantize(net, images)
    assert integers.fixed_size == fixed
    if not fixed:
        check_close(net, integers, larger)


# --- zeros around images and spikes ---


def padded(*pads: nn.Module, padding: int = 0) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        *(pads[0], nn.Conv2d(2, 4, 3, padding=padding), nn.ReLU()),
        *(*pads[1:], nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)),
    )


class Pad(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (1, 2, 0, 1))


@pytest.mark.parametrize("pixels", [None, ([0.4817], [0.25])])
@pytest.mark.parametrize("pad", [nn.ZeroPad2d((1, 2, 0, 1)), Pad(), nn.ConstantPad2d(2, 0.0)])
def test_zeros_around_images_and_spikes(pad: nn.Module, pixels: Any) -> None:
    torch.manual_seed(0)
    images = (torch.randint(0, 256, (32, 2, 8, 8)) / 255 - 0.4817) / 0.25
    model = padded(pad, pad)
    model(images)
    net = converted(model.eval(), images)
    check_close(net, snm.quantize(net, images, pixels=pixels), images[:8])


def test_other_numbers_around_spikes_are_refused() -> None:
    images = torch.randn(8, 2, 8, 8)
    model = padded(nn.Identity(), nn.ConstantPad2d(1, 0.5))
    model(images)
    with pytest.raises(snm.ConversionError, match="ConstantPad2d: it has no integer form"):
        snm.quantize(converted(model.eval(), images), images)


class Drives(snm.Observer):
    """Keeps what drives neurons at a step, the neurons' bias included, in thresholds."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def asks(self, fire: Any) -> tuple[Any, ...]:  # noqa: ARG002
        return ("drive",)

    def see(self, launch: Any) -> None:
        bias = 0 if launch.neuron.bias is None else launch.neuron.bias
        self.seen.append((launch.drive[0] + bias) / launch.neuron.threshold.double())


@pytest.mark.parametrize("pad", [nn.Identity(), nn.ZeroPad2d(1)])
def test_zeros_around_images_are_not_the_nearest_pixel(pad: nn.Module) -> None:
    torch.manual_seed(0)
    # No pixel stands for 0, and all are near it.
    pixels = torch.randint(126, 130, (32, 2, 8, 8), dtype=torch.uint8)
    images = (pixels / 255 - 0.5) / 0.25
    model = padded(pad, nn.Identity(), padding=1)
    model(images)
    net = converted(model.eval(), images)
    integers = snm.quantize(net, images, pixels=([0.5], [0.25]))
    exact, rounded = Drives(), Drives()
    net.simulation(images, timesteps=1, observers=[exact]).answer()
    integers.simulation(pixels, timesteps=1, observers=[rounded]).answer()
    assert torch.allclose(exact.seen[0].double(), rounded.seen[0], atol=0.02)
    assert isinstance(integers.layers["2"], IntegerNeuron)
    assert integers.fixed_size
    assert integers.layers["2"].bias is not None
    # What all places have in common is no bias of the neurons.
    inside = integers.layers["2"].bias[:, 2:-2, 2:-2]
    assert torch.equal(inside, torch.zeros_like(inside))


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
@pytest.mark.parametrize("sizes", [(64, 64, 64, 4), (64, 32, 32, 10)], ids=str)
def test_linear_layers_in_a_row_keep_their_bits(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    width = sizes[0]
    rest = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), *rest).eval()
    images = torch.rand(64, 8)
    net = snm.convert(model, images, preset="snm-zero", norm="channel")
    made = snm.quantize(net, images)
    for layer in made.model.modules():
        if isinstance(layer, IntegerConv):
            assert layer.weight.long().abs().amax(1).min() >= 64
    expected, logits = relu_logits(net, images), relu_logits(made, images)
    assert (logits - expected).abs().max() < 0.1 * expected.std(0).mean()


class SumsBesideSpikes(nn.Module):
    """A layer that reads a sum and, beside it, spikes, whose units are of very different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(16, 16)
        self.d = nn.Linear(32, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        return self.d(torch.cat([y, F.relu(self.c(y))], 1))


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_weights_that_rounding_changes_a_lot_are_warned_of() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 8)
    net = snm.convert(SumsBesideSpikes().eval(), images, preset="snm-zero", norm="channel")
    with pytest.warns(UserWarning, match="quantize: rounded weights change the logits"):
        snm.quantize(net, images)
