"""Every affine operation, between neurons, is simulated as the model itself stepped through time.

Each is followed by torch.fx and, behind a branch on the size of a tensor, by torch.export.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from snm.conversion.analysis.analyse import analyse
from snm.conversion.analysis.operations import activation_cap, is_relu
from snm.conversion.tracing.trace import trace
from support.naive import naive_thresholds, simulate_naively
from support.networks import exact, exact_images

T = 8
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


class Between(nn.Module):
    """An operation on ``[B, 4, 8, ...]`` that neurons drive and that drives neurons."""

    def __init__(self, operation: Callable[..., Any], dims: int = 2, branch: bool = False) -> None:
        super().__init__()
        self.conv = CONVOLUTIONS[dims](2, 4, 3, padding=1)
        self.operation = operation
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        if self.branch and y.shape[-1] < 2:
            return y
        return torch.relu(self.operation(y)).flatten(1)


class WithWeights(nn.Module):
    """A function of a value and of weights."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


class FunctionalNorm(nn.Module):
    """Batch norms as functions: one that can be folded and one that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4, 1, 1))
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        for norm in (self.norm, self.other):
            x = F.batch_norm(
                x if norm is self.other else F.conv2d(x, self.weight),
                *(norm.running_mean, norm.running_var, norm.weight, norm.bias),
                eps=norm.eps,
            )
            x = x * 0.5
        return x


def shuffle(x: Tensor) -> Tensor:
    """A channel shuffle by hand, told the size of the batch."""
    batch, channels, height, width = x.size()
    x = x.view(batch, 2, channels // 2, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)


def halves(split: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """Takes a value apart and subtracts its parts."""

    def function(x: Tensor) -> Tensor:
        first, second = split(x)
        return second - first

    return function


PERMUTATION = torch.tensor([2, 0, 3, 1])

OPERATIONS: dict[str, Callable[..., Any]] = {
    "depthwise": nn.Conv2d(4, 8, 3, groups=4),
    "grouped, dilated": nn.Conv2d(4, 6, 3, groups=2, dilation=2),
    "circular": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    "same": nn.Conv2d(4, 4, 3, padding="same"),
    "transposed": nn.ConvTranspose2d(4, 3, 3, stride=2, output_padding=1),
    "transposed, grouped, norm": nn.Sequential(
        nn.ConvTranspose2d(4, 4, 2, groups=4), nn.BatchNorm2d(4)
    ),
    "conv2d": WithWeights(lambda x, w, b: F.conv2d(x, w, b, stride=2), (3, 4, 3, 3), (3,)),
    "conv_transpose2d": WithWeights(F.conv_transpose2d, (4, 3, 2, 2)),
    "linear": nn.Linear(8, 3),
    "F.linear": WithWeights(F.linear, (3, 8), (3,)),
    "matmul": WithWeights(torch.matmul, (8, 3)),
    "einsum, view": lambda x: torch.einsum("bchw->bchw", x[:, 1:]),
    "einsum": WithWeights(lambda x, w: torch.einsum("bchw,ck->bkhw", x, w), (4, 3)),
    "norm": nn.BatchNorm2d(4),
    "F.batch_norm": FunctionalNorm(),
    "AvgPool2d": nn.AvgPool2d(2, padding=1, count_include_pad=False),
    "AvgPool2d, ceil": nn.AvgPool2d(4, stride=3, ceil_mode=True, divisor_override=8),
    "avg_pool2d": lambda x: F.avg_pool2d(x, (2, 4), padding=(1, 0)),
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d((2, None)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 4),
    "ZeroPad2d": nn.ZeroPad2d((1, 0, 2, 0)),
    "ConstantPad2d": nn.ConstantPad2d(1, 0.5),
    "ReflectionPad2d": nn.ReflectionPad2d(2),
    "ReplicationPad2d": nn.ReplicationPad2d((1, 2, 0, 1)),
    "CircularPad2d": nn.CircularPad2d(1),
    "pad": lambda x: F.pad(x, (1, 1, 0, 0, 2, 1), value=-0.5),
    "pad, reflect": lambda x: F.pad(x, (1, 1, 2, 0), mode="reflect"),
    "pad, replicate": lambda x: F.pad(x, (1, 2, 0, 1), "replicate"),
    "pad, circular": lambda x: F.pad(x, (1, 2, 0, 1), mode="circular"),
    "padded shortcut": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)),
    "slices": lambda x: x[:, 1:, ..., : x.size(-1) // 2] - x[:, :3, 0:8, None, 4:].squeeze(3),
    "index": lambda x: x[:, PERMUTATION],
    "index, list": lambda x: x[:, [2, 0]],
    "index_select": lambda x: x.index_select(1, PERMUTATION),
    "select": lambda x: x.select(1, 2) - torch.select(x, -3, 0),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "chunk": halves(lambda x: x.chunk(2, dim=1)),
    "split": halves(lambda x: torch.split(x, 2, 1)),
    "split, sizes": halves(lambda x: x.split([4, 4], dim=-1)),
    "tensor_split": halves(lambda x: torch.tensor_split(x, 2, dim=2)),
    "unbind": halves(lambda x: x[:, :2].unbind(1)),
    "cat": lambda x: torch.cat([x, x[:, :1] * 2, torch.zeros_like(x)], 1),
    "cat, chunk": lambda x: torch.cat(x.chunk(2, 1), 2),
    "stack": lambda x: torch.stack((x, -x), dim=2),
    "stack, unbind": lambda x: torch.stack(x.unbind(1), -1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, -1),
    "swapaxes": lambda x: torch.swapaxes(x, 1, 2),
    "movedim": lambda x: torch.movedim(x, 1, -1),
    "shuffle": shuffle,
    "ChannelShuffle": nn.ChannelShuffle(2),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "PixelShuffle": nn.PixelShuffle(2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "PixelUnshuffle": nn.PixelUnshuffle(2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 4),
    "Upsample": nn.Upsample(scale_factor=2),
    "Upsample, bilinear": nn.Upsample((16, 16), mode="bilinear"),
    "UpsamplingNearest2d": nn.UpsamplingNearest2d(scale_factor=2),
    "UpsamplingBilinear2d": nn.UpsamplingBilinear2d((15, 8)),
    "interpolate": lambda x: F.interpolate(x, x.shape[2:] * 1, mode="nearest-exact"),
    "interpolate, bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "interpolate, area": lambda x: F.interpolate(x, size=(4, 4), mode="area"),
    "Fold": nn.Sequential(nn.Unfold(2, stride=2), nn.Fold((8, 8), 2, stride=2)),
    "unfold": lambda x: x.unfold(2, 2, 2),
    "expand": lambda x: x.mean(1, keepdim=True).expand(x.shape[0], 3, -1, -1),
    "expand_as": lambda x: x[:, :1].expand_as(x) - x,
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "flip": lambda x: x.flip(-1) - torch.flip(x, [1, 2]),
    "mean": lambda x: x.mean((-2, -1)),
    "sum": lambda x: torch.sum(x, dim=1, keepdim=True),
    "cumsum": lambda x: x.cumsum(1),
    "flatten": lambda x: x.flatten(1).unflatten(1, (4, -1)),
    "Flatten": nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (4, 16))),
    "reshape": lambda x: torch.reshape(x, (x.size(0), -1)).view(x.shape),
    "view_as": lambda x: x.flatten(1).view_as(x),
    "unsqueeze": lambda x: x.unsqueeze(1).squeeze(dim=1),
    "sub, alpha": lambda x: torch.sub(x, x.flip(1), alpha=0.5),
    "add, alpha": lambda x: x.add(x.flip(1), alpha=-0.5),
    "rsub": lambda x: 1 - x,
    "mul": WithWeights(lambda x, w: w * x * 0.5, (4, 1, 1)),
    "div": lambda x: torch.div(x, 2) - x / 4,
    "neg": lambda x: 3 - (-x).neg(),
    "in place": lambda x: x.mul_(0.5).add_(-0.5),
    "dropout": nn.Sequential(nn.Dropout2d(), nn.AlphaDropout(), nn.Identity()),
    "F.dropout": lambda x: F.dropout2d(F.dropout(x, training=False), 0.3, False) - 0.5,
    "MaxPool2d, one size": nn.MaxPool2d((2,)),
    "MaxPool2d": nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool2d, one size": lambda x: F.max_pool2d(x, (2,), (1,), padding=(1,)),
    "max_pool2d, no stride": lambda x: F.max_pool2d(x, 2, ()),
    "max_pool2d, channels": lambda x: F.max_pool2d(torch.cat([x, x], -3), 2),
    "max_pool2d, height": lambda x: F.max_pool2d(torch.cat([x, x], 2), 2, 1),
    "max_pool2d, width": lambda x: F.max_pool2d(torch.cat([x, x], dim=-1), 2),
    "max_pool2d, chunk": lambda x: F.max_pool2d(torch.cat(x.chunk(2, 1), 1), 2),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(3),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (2, 4)),
}
IN_OTHER_DIMENSIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "Conv1d": (nn.Conv1d(4, 4, 3, stride=2, groups=2), 1),
    "ConvTranspose1d": (nn.ConvTranspose1d(4, 2, 3), 1),
    "AvgPool1d": (nn.AvgPool1d(2, ceil_mode=True), 1),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 4), 1),
    "ReflectionPad1d": (nn.ReflectionPad1d(2), 1),
    "interpolate, linear": (lambda x: F.interpolate(x, 16, mode="linear"), 1),
    "MaxPool1d": (nn.MaxPool1d(2), 1),
    "AdaptiveMaxPool1d": (nn.AdaptiveMaxPool1d(3), 1),
    "Conv3d": (nn.Conv3d(4, 4, 3, groups=4), 3),
    "ConvTranspose3d": (nn.ConvTranspose3d(4, 2, 2), 3),
    "AvgPool3d": (nn.AvgPool3d(2), 3),
    "AdaptiveAvgPool3d": (nn.AdaptiveAvgPool3d((None, 2, 1)), 3),
    "ReplicationPad3d": (nn.ReplicationPad3d(1), 3),
    "interpolate, trilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), 3),
    "MaxPool3d": (nn.MaxPool3d(2), 3),
}
CASES = {**{name: (op, 2) for name, op in OPERATIONS.items()}, **IN_OTHER_DIMENSIONS}


@pytest.mark.parametrize("tracer", ["torch.fx", "torch.export"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_model_stepped_through_time(name: str, tracer: str) -> None:
    operation, dims = CASES[name]
    size = (2, *(8, 8, 4)[:dims])
    model = exact(Between(operation, dims, branch=tracer == "torch.export"))
    calibration, images = exact_images(5, size, seed=1), exact_images(3, size, seed=2)
    assert snm.convertible(model, images).tracer == tracer
    rule = snm.preset("snm-zero")
    thresholds = naive_thresholds(model, calibration, "neuron")
    naive = simulate_naively(model, images, thresholds, rule, T)
    double = simulate_naively(model.double(), images.double(), thresholds, rule, T)
    assert torch.equal(naive.currents.double(), double.currents)
    assert naive.currents.count_nonzero() > 0
    net = snm.convert(model.float(), calibration, preset=rule, chunk_steps=3)
    assert len(net.layers) == 2
    anytime = net.anytime(images, timesteps=T)
    for steps in (1, 2, 4, 8):
        assert torch.equal(anytime[steps - 1], naive.currents[:steps].sum(0) / steps)


def test_neurons_overwrite_what_was_written_in_place_but_no_view() -> None:
    images = exact_images(3)
    for operation, reuses in (
        (lambda x: x.mul_(0.5).add_(-0.5), True),
        (lambda x: torch.einsum("bchw,ck->bkhw", x, torch.eye(4)), False),
        (lambda x: torch.einsum("bchw->bwhc", x), False),
    ):
        net = snm.convert(exact(Between(operation)), images)
        assert net.program.neurons[-1].reuses_drive is reuses


class Capped(nn.Module):
    """ReLUs with a cap, as module, function and method; depthwise and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU6(inplace=True))
        self.depthwise, self.norm1 = nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8)
        self.point, self.norm2 = nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.up, self.norm3 = nn.ConvTranspose2d(4, 4, 2, 2, groups=4), nn.BatchNorm2d(4)
        self.activation = nn.Hardtanh(0, 1.5)
        self.head = nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.relu6(self.norm1(self.depthwise(x)))
        y = self.activation(self.norm2(self.point(y)))
        y = self.norm3(self.up(y))[:, :, 2:-2, 2:-2] + x
        y = F.avg_pool2d(y.clamp(0, 2), 2, padding=1, ceil_mode=True, divisor_override=4)
        y = F.interpolate(y, scale_factor=2, mode="bilinear")[:, :, :9, :4]
        return self.head(F.hardtanh(y, 0.0, 1.0).flatten(1))


@pytest.mark.parametrize("norm", ["neuron", "channel", "layer"])
@pytest.mark.parametrize("rule", ["snm", "snm-half", "snm-zero", "if"])
def test_capped_network_equals_the_model_stepped_through_time(rule: str, norm: str) -> None:
    model = exact(Capped())
    calibration, images = exact_images(6, seed=1), exact_images(3, seed=2)
    thresholds = naive_thresholds(model, calibration, norm)
    naive = simulate_naively(model, images, thresholds, snm.preset(rule), T)
    net = snm.convert(model, calibration, preset=rule, norm=norm, chunk_steps=3)
    assert torch.equal(net(images, timesteps=T), naive.currents.sum(0) / T)


NEURONS: dict[str, tuple[Callable[[Tensor], Tensor], float | None]] = {
    "ReLU": (nn.ReLU(), None),
    "ReLU6": (nn.ReLU6(inplace=True), 6.0),
    "Hardtanh": (nn.Hardtanh(0, 2), 2.0),
    "Threshold": (nn.Threshold(0, 0), None),
    "relu6": (lambda x: F.relu6(x, inplace=True), 6.0),
    "hardtanh": (lambda x: F.hardtanh(x, 0.0, max_val=2.5), 2.5),
    "hardtanh_": (lambda x: F.hardtanh_(x, 0.0, 2.0), 2.0),
    "threshold": (lambda x: F.threshold(x, 0, 0.0), None),
    "threshold_": (lambda x: torch.threshold_(x, 0, 0), None),
    "clamp": (lambda x: torch.clamp(x, 0, 2), 2.0),
    "Tensor.clamp": (lambda x: x.clamp(min=0), None),
    "Tensor.clamp_": (lambda x: x.clamp_(0.0, 1.5), 1.5),
    "clip": (lambda x: torch.clip(x, max=1, min=0), 1.0),
    "clamp_min": (lambda x: x.clamp_min(0), None),
    "torch.clamp_min_": (lambda x: torch.clamp_min_(x, min=0), None),
    "Tensor.relu_": (lambda x: x.relu_(), None),
}


@pytest.mark.parametrize("branch", [False, True], ids=["torch.fx", "torch.export"])
@pytest.mark.parametrize("name", NEURONS)
def test_everything_that_clips_from_zero_is_a_neuron(name: str, branch: bool) -> None:
    function, cap = NEURONS[name]
    model = exact(Between(lambda x: function(x * 8 - 2), branch=branch))
    images = exact_images(3)
    with torch.no_grad():
        traced = trace(model, images)
        offences = analyse(traced, images, images_change=False)
    assert offences == []
    neurons = [node for node in traced.graph.nodes if is_relu(traced, node)]
    assert [activation_cap(traced, node) for node in neurons] == [None, cap, None]
    simplest = exact(Between(lambda x: (x * 8 - 2).clamp(0, cap)))
    expected = snm.convert(simplest, images)(images, timesteps=T)
    assert torch.equal(snm.convert(model, images)(images, timesteps=T), expected)
    assert expected.count_nonzero() > 0


@pytest.mark.parametrize("mode", ["bicubic"])
@pytest.mark.parametrize("branch", [False, True], ids=["torch.fx", "torch.export"])
def test_interpolation_that_rounds(mode: str, branch: bool) -> None:
    model = exact(Between(nn.Upsample(scale_factor=1.5, mode=mode), branch=branch))
    images = exact_images(3)
    net = snm.convert(model, images, preset="snm-zero")
    with torch.no_grad():
        torch.testing.assert_close(net(images, timesteps=256), model(images), rtol=0, atol=0.1)
