"""A network in normalised form sends the spikes it sends in payload form.

Thresholds are rounded up to powers of two here: scaling by these is exact, and so is every float32
sum of the networks in ``networks``, so both forms must agree bit for bit.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from snm import ConversionError, SNMRule, SpikingNetwork
from snm.demo import load_images, load_network
from snm_kernels import SNMOutput
from support.networks import IMAGE_2D, NETWORKS, exact, exact_images, exact_network
from support.pairwise import every_two

T = 12
RULES = {
    **{name: snm.preset(name) for name in ("snm", "snm-zero", "if-half")},
    "burst": SNMRule(v_init=0.5, negative_threshold=0.5, max_spikes=3),
}
LINEAR = ("ends in ReLU", "read twice")
CARRIED = ("plain", "branches", "shared convolution", "read twice", "conv1d", "conv3d")

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


@pytest.fixture(autouse=True)
def powers_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds calibrated thresholds up to powers of two."""
    calibrated = snm.conversion.choose_thresholds

    def rounded(*args: Any, **kwargs: Any) -> dict[Any, Any]:
        found = calibrated(*args, **kwargs)
        return {
            node: layer._replace(threshold=layer.threshold.log2().ceil().exp2())
            for node, layer in found.items()
        }

    monkeypatch.setattr(snm.conversion, "choose_thresholds", rounded)


class Watch:
    """Keeps each layer's spike counts after every step, its last membrane and what it sends."""

    def __init__(self, net: SpikingNetwork) -> None:
        self.counts: dict[str, list[Tensor]] = {path: [] for path in net.layers}
        self.membrane: dict[str, Tensor] = {}
        self.sent: dict[str, list[Tensor]] = {path: [] for path in net.layers}
        net.chunk_steps = 1
        for path, neuron in net.layers.items():
            neuron.register_forward_hook(self.hook(path))

    def hook(self, path: str) -> Callable[..., None]:
        def note(_module: nn.Module, _drive: object, output: SNMOutput) -> None:
            self.counts[path].append(output.state.m.clone())
            self.membrane[path] = output.state.v.clone()
            if output.spikes is not None:
                self.sent[path].append(output.spikes.clone())

        return note


def both_forms(
    model: nn.Module, calibration: Tensor, **options: Any
) -> tuple[SpikingNetwork, SpikingNetwork]:
    payload = snm.convert(model, calibration, form="payload", **options)
    return payload, snm.convert(model, calibration, form="normalised", **options)


def assert_same(payload: SpikingNetwork, normalised: SpikingNetwork, images: Tensor) -> None:
    """Both send the same spikes at every step and give the same answers."""
    expected, found = Watch(payload), Watch(normalised)
    frames = images.expand(T, *images.shape) if payload.encoder == "frames" else images
    answers = payload.anytime(frames, timesteps=T)
    assert torch.equal(normalised.anytime(frames, timesteps=T), answers)
    assert list(payload.layers) == list(normalised.layers)
    for path, neuron in payload.layers.items():
        counts = torch.stack(expected.counts[path])
        assert torch.equal(torch.stack(found.counts[path]), counts)
        theta = neuron.threshold
        assert torch.equal(
            normalised.layers[path].threshold, torch.where(theta.isinf(), theta, 1.0)
        )
        silent = theta.isinf().expand_as(expected.membrane[path])
        units = torch.where(theta.isinf(), 1.0, theta)
        alive = (found.membrane[path] * units)[~silent]
        assert torch.equal(alive, expected.membrane[path][~silent])
        for sent in found.sent[path]:
            assert torch.equal(sent, sent.round())
            assert sent.abs().amax() <= neuron.rule.max_spikes
    assert torch.equal(normalised(frames, timesteps=T), payload(frames, timesteps=T))


def factors_of(net: SpikingNetwork) -> list[Tensor]:
    """What values are multiplied by where no weight could be."""
    return [factor for name, factor in net.model.named_buffers() if name.endswith("_scale")]


@pytest.mark.parametrize(
    ("name", "kind", "norm"),
    [
        *every_two([*NETWORKS], [*RULES], ("channel", "layer")),
        *((name, kind, "neuron") for name in LINEAR for kind in RULES),
    ],
)
def test_both_forms_send_the_same_spikes(name: str, kind: str, norm: str) -> None:
    model, calibration, images = exact_network(name)
    payload, normalised = both_forms(model, calibration, preset=RULES[kind], norm=norm)
    assert any((neuron.threshold > 1).any() for neuron in payload.layers.values())
    assert_same(payload, normalised, images)


@pytest.mark.parametrize("norm", ["channel", "layer"])
@pytest.mark.parametrize("name", CARRIED)
def test_weights_carry_what_they_can(name: str, norm: str) -> None:
    model, calibration, _ = exact_network(name)
    assert not factors_of(snm.convert(model, calibration, norm=norm, form="normalised"))


def test_weights_are_scaled_by_the_thresholds_around_them() -> None:
    model = exact(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU()))
    model.append(exact(nn.Linear(5, 3), seed=1))
    payload, normalised = both_forms(model, exact_images(8, (6,)), norm="neuron")
    first, second = (
        torch.where(n.threshold.isinf(), 1.0, n.threshold) for n in payload.layers.values()
    )
    layers = {name: normalised.model.get_submodule(name) for name in ("0", "2", "4")}
    assert torch.equal(layers["0"].weight, model[0].weight / first[:, None])
    assert torch.equal(layers["0"].bias, model[0].bias / first)
    assert torch.equal(layers["2"].weight, model[2].weight * first / second[:, None])
    assert torch.equal(layers["2"].bias, model[2].bias / second)
    assert torch.equal(layers["4"].weight, model[4].weight * second)
    assert torch.equal(layers["4"].bias, model[4].bias)


def test_an_identity_connection_is_multiplied() -> None:
    model, calibration, _ = exact_network("residual")
    payload, normalised = both_forms(model, calibration, norm="channel")
    [factor] = factors_of(normalised)
    theta = {path: neuron.threshold for path, neuron in payload.layers.items()}
    units = torch.where(theta["stem.1"].isinf(), 1.0, theta["stem.1"])
    assert torch.equal(factor, units / theta["layers.0.relu_1"])
    assert factor.shape == (3, 1, 1)


@pytest.mark.parametrize("norm", ["channel", "layer", "neuron"])
@pytest.mark.parametrize("name", LINEAR)
def test_the_model_stays_as_it_is(name: str, norm: str) -> None:
    model, calibration, images = exact_network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    logits = model(images)
    snm.convert(model, calibration, norm=norm, form="normalised")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(images), logits)


class Groups(nn.Sequential):
    """Grouped, depthwise and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(8, 12, 3, groups=4), nn.ReLU()),
            *(nn.Conv2d(12, 12, 3, groups=12, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(12, 6, 2, groups=3, stride=2), nn.ReLU()),
            *(nn.ConvTranspose2d(6, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(676, 5)),
        )


class NormsAfterReLUs(nn.Sequential):
    """Batch norms that follow neurons, drive them, and have no parameters."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.ReLU()),
            *(nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.ReLU()),
            *(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 5)),
        )


class Rearranged(nn.Module):
    """Channels shuffled, split, padded with zeros and spread over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.conv3, self.conv4 = nn.Conv2d(12, 4, 1), nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(392, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        left, right = F.channel_shuffle(x, 2).chunk(2, dim=1)
        y = F.pad(F.relu(self.conv2(right)), (0, 0, 0, 0, 2, 2))
        y = F.interpolate(F.avg_pool2d(torch.cat([left, y], 1), 2), scale_factor=2)
        y = F.relu(self.conv3(y) + F.pad(right[:, :2], (0, 0, 0, 0, 1, 1)))
        return self.head(F.relu(self.conv4(F.pixel_shuffle(y, 2))).flatten(1))


class Padded(nn.Sequential):
    """Zeros around positions, and in the place of channels that a batch norm reads."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3), nn.ReLU()),
            *(nn.ConstantPad3d((0, 0, 0, 0, 1, 2), 0.0), nn.BatchNorm2d(7), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(252, 5)),
        )


class Sums(nn.Module):
    """Sums with numbers, of weighted and of nested addends, of unequal shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.shift, self.level = nn.Parameter(torch.zeros(3, 1, 1)), nn.Parameter(torch.zeros(1))
        self.head = nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x) + 0.5)
        y = F.relu(torch.add(self.conv2(x), other=0.5) - self.shift)
        z = torch.add(self.conv2(y), x, alpha=2)
        z = F.relu(z.sub(self.conv2(F.adaptive_avg_pool2d(x, 1)) + self.level) + y)
        return self.head(F.relu((z + z).add(1)).flatten(1)) + self.level


class SumOfCapped(nn.Module):
    """A sum of neurons of one threshold, in a sum that drives neurons of that threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(4, 6)
        self.third, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, y = (F.hardtanh(layer(x), 0.0, 2.0) for layer in (self.first, self.second))
        return self.head(F.hardtanh(x + y + self.third(x), 0.0, 2.0))


class MaxPooled(nn.Module):
    """Max pooling of neurons, of neurons side by side, and of a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.conv3, self.head = nn.Conv2d(6, 4, 3, padding=1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        y = F.relu(self.conv2(F.max_pool2d(x, 2)))
        z = F.relu(self.conv2(F.max_pool2d(x, 3, 2, 1)))
        y = self.conv3(F.max_pool2d(torch.cat([y, z], 1), 3, 1, 1))
        return self.head(F.max_pool2d(F.relu(F.max_pool2d(y + y, 2)), 1).flatten(1))


class Functional(nn.Module):
    """Layers as functions of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 6, 3, groups=2)
        self.head = nn.Linear(384, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.first.weight))
        x = F.relu(F.conv_transpose2d(x, self.second.weight, self.second.bias, groups=2))
        return F.linear(x.flatten(1), self.head.weight, bias=self.head.bias)


class Tied(nn.Module):
    """Linear layers that share a weight, and one that is called again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.first):
            x = x + torch.relu(layer(x) - x) * 0.5
        return self.first(x)


class Tokens(nn.Module):
    """Linear layers over the last of three dimensions, and over two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.transpose(1, 2).flatten(1))


class ReLU6s(nn.Sequential):
    """Capped ReLUs."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU6()),
            *(nn.Conv2d(4, 4, 3), nn.Hardtanh(0.0, 2.0), nn.Flatten(), nn.Linear(64, 5)),
        )


MORE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "groups": (Groups, IMAGE_2D),
    "norms after ReLUs": (NormsAfterReLUs, IMAGE_2D),
    "rearranged": (Rearranged, IMAGE_2D),
    "padded": (Padded, IMAGE_2D),
    "sums": (Sums, IMAGE_2D),
    "sum of capped": (SumOfCapped, (4,)),
    "max pooled": (MaxPooled, IMAGE_2D),
    "functional": (Functional, IMAGE_2D),
    "tied": (Tied, (6,)),
    "tokens": (Tokens, (3, 4)),
    "ReLU6": (ReLU6s, IMAGE_2D),
}


@pytest.mark.parametrize("norm", ["channel", "layer"])
@pytest.mark.parametrize("name", MORE)
def test_both_forms_agree_on(name: str, norm: str) -> None:
    build, shape = MORE[name]
    calibration, images = exact_images(6, shape, seed=1), exact_images(3, shape, seed=2)
    model = exact(build())
    payload, normalised = both_forms(model, calibration, preset="snm-zero", norm=norm)
    assert_same(payload, normalised, images)
    assert payload(images, timesteps=T).count_nonzero() > 0
    if name in ("groups", "norms after ReLUs", "padded", "functional", "ReLU6"):
        assert not factors_of(normalised)


@pytest.mark.parametrize("encoder", ["direct", "frames"])
@pytest.mark.parametrize("readout", ["mean", "count"])
@pytest.mark.parametrize("name", ["residual", "pre-activation", "ends in ReLU"])
def test_both_forms_agree_with_every_input_and_readout(
    name: str, encoder: str, readout: str
) -> None:
    model, calibration, images = exact_network(name)
    options = {"encoder": encoder, "readout": readout, "norm": "layer", "preset": "snm-half"}
    payload, normalised = both_forms(model, calibration, **options)
    assert_same(payload, normalised, images)


def test_memory_format_stays() -> None:
    model, calibration, images = exact_network("plain")
    model, calibration, images = (
        value.to(memory_format=torch.channels_last) for value in (model, calibration, images)
    )
    payload, normalised = both_forms(model, calibration, norm="channel")
    assert_same(payload, normalised, images)
    weight = normalised.model.get_submodule("4").weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_refusal_names_each_layer_whose_thresholds_no_weight_can_carry() -> None:
    model, calibration, _ = exact_network("plain")
    with pytest.raises(ConversionError, match="norm='channel' or form='payload'") as caught:
        snm.convert(model, calibration, norm="neuron", form="normalised")
    assert [(o.path, o.operation) for o in caught.value.offences] == [("2", "ReLU"), ("5", "ReLU")]
    assert "[4, 8, 8]" in str(caught.value)


def test_weights_beyond_the_dtype_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval().half()
    with torch.no_grad():
        model[0].weight.fill_(64.0)
        model[2].weight.copy_(torch.tensor([512.0, -512.0, 512.0, -512.0]))
    with pytest.raises(ConversionError, match="float16 can hold; use form='payload' or a float32"):
        snm.convert(model, torch.full((2, 4), 0.5).half(), norm="layer", form="normalised")


def test_weights_that_vanish_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval().half()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.25, 2**-10, 2**-10, 2**-10])[:, None])
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([0.0, 1.0, 1.0, 1.0]))
    images = torch.full((2, 4), 32768.0).half()
    with pytest.raises(ConversionError, match="float16 can hold; use form='payload' or a float32"):
        snm.convert(model, images, norm="layer", form="normalised")


def test_a_rewritten_network_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calibration, _ = exact_network("plain")
    monkeypatch.setattr("snm.conversion.lowering.normalise.agree", lambda *_: False)
    with pytest.raises(ConversionError, match="changes what the model computes; use form='payl"):
        snm.convert(model, calibration, norm="layer", form="normalised")


def test_unknown_form_is_refused() -> None:
    model, calibration, _ = exact_network("plain")
    with pytest.raises(ValueError, match="form must be one of payload, normalised, got 'both'"):
        snm.convert(model, calibration, form="both")


def test_demo_network_is_as_accurate_in_both_forms() -> None:
    images, model = load_images(), load_network()
    payload, normalised = both_forms(
        model, images.calibration_images[:200], norm="channel", preset="snm-zero"
    )
    batch = images.test_images[:100]
    answers = [net(batch, timesteps=8).argmax(1) for net in (payload, normalised)]
    assert (answers[0] != answers[1]).sum() <= 1
