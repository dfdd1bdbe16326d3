"""A converted network equals the model stepped through time, spike for spike, logit for logit.

Every float32 sum in these networks is exact, so the order of summation cannot matter.
"""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import snm
from snm import SNMRule, SpikingNetwork
from snm_kernels import SNMOutput, SNMState
from support.naive import Simulated, naive_thresholds, simulate_naively
from support.networks import NETWORKS, exact, exact_images, exact_network
from support.pairwise import every_two

T = 16
RULES = {
    **{name: snm.preset(name) for name in snm.PRESETS},
    "both signs": SNMRule(v_init=0.25, negative_threshold=0.5, count_min=-3, count_max=4),
}

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def naive_run(name: str, rule: SNMRule, norm: str, dtype: torch.dtype) -> Simulated:
    model, calibration, images = exact_network(name)
    model, calibration, images = model.to(dtype), calibration.to(dtype), images.to(dtype)
    thresholds = naive_thresholds(model, calibration, norm)
    return simulate_naively(model, images, thresholds, rule, T)


def converted(name: str, rule: SNMRule, norm: str = "neuron", **options: int) -> SpikingNetwork:
    model, calibration, _ = exact_network(name)
    return snm.convert(model, calibration.split(4), preset=rule, norm=norm, **options)


class Watch:
    """Keeps what each layer of neurons sends and its state after the last step."""

    def __init__(self, net: SpikingNetwork) -> None:
        self.sent: dict[str, list[Tensor]] = {path: [] for path in net.layers}
        self.state: dict[str, SNMState] = {}
        for path, neuron in net.layers.items():
            neuron.register_forward_hook(partial(self.note, path))

    def note(self, path: str, _module: nn.Module, _drive: object, output: SNMOutput) -> None:
        if output.spikes is not None:
            self.sent[path].append(output.spikes.clone())
        self.state[path] = output.state


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_sums_are_exact(name: str, rule: SNMRule) -> None:
    single, double = (naive_run(name, rule, "neuron", d) for d in (torch.float32, torch.float64))
    assert torch.equal(single.currents.double(), double.currents)
    assert torch.equal(single.currents.cumsum(0).double(), double.currents.cumsum(0))
    for a, b in zip(single.neurons, double.neurons, strict=True):
        assert torch.equal(a.v.double(), b.v)


@pytest.mark.parametrize(
    ("name", "kind", "norm"), every_two([*NETWORKS], [*RULES], ("neuron", "channel", "layer"))
)
def test_equals_the_model_stepped_through_time(name: str, kind: str, norm: str) -> None:
    rule = RULES[kind]
    naive = naive_run(name, rule, norm, torch.float32)
    net = converted(name, rule, norm, chunk_steps=5)
    watch = Watch(net)
    images = exact_network(name)[2]
    anytime = net.anytime(images, timesteps=T)

    assert anytime.shape == naive.currents.shape
    for steps in range(1, T + 1):
        mean = naive.currents[:steps].sum(0) / steps
        if steps & (steps - 1) == 0:
            assert torch.equal(anytime[steps - 1], mean)
        else:
            torch.testing.assert_close(anytime[steps - 1], mean, rtol=1e-6, atol=1e-5)
    assert len(net.layers) == len(naive.neurons)
    for (path, neuron), expected in zip(net.layers.items(), naive.neurons, strict=True):
        spikes = torch.stack(expected.spikes)
        assert neuron.threshold.dtype == torch.float32
        assert torch.equal(
            neuron.threshold.expand_as(spikes[0]), expected.threshold.expand_as(spikes[0])
        )
        sent = torch.cat(watch.sent[path])
        if sent.dtype != torch.int8:
            spikes = torch.where(neuron.threshold.isinf(), 0.0, spikes * neuron.threshold)
        assert torch.equal(sent, spikes.to(sent.dtype))
        assert torch.equal(watch.state[path].v, expected.v)
        assert torch.equal(watch.state[path].m, expected.m.to(torch.int32))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_do_spike(name: str) -> None:
    naive = naive_run(name, snm.preset("snm-zero"), "neuron", torch.float32)
    for neurons in naive.neurons:
        spikes = torch.stack(neurons.spikes)
        assert (spikes > 0).any()
    assert any((torch.stack(neurons.spikes) < 0).any() for neurons in naive.neurons)
    assert (naive.currents != naive.currents[0]).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_call_equals_the_model_stepped_through_time(name: str) -> None:
    rule = snm.preset("snm-half")
    naive = naive_run(name, rule, "neuron", torch.float32)
    net = converted(name, rule)
    watch = Watch(net)
    assert torch.equal(net(exact_network(name)[2], timesteps=T), naive.currents.sum(0) / T)
    for path, expected in zip(net.layers, naive.neurons, strict=True):
        assert torch.equal(watch.state[path].v, expected.v)
        assert torch.equal(watch.state[path].m, expected.m.to(torch.int32))


@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_change_nothing(name: str) -> None:
    images = exact_network(name)[2]
    net = converted(name, snm.preset("snm-zero"))
    whole, logits = [], []
    for net.chunk_steps in (1, 3, T, 100):
        whole.append(net.anytime(images, timesteps=T))
        logits.append(net(images, timesteps=T))
    assert all(torch.equal(other, whole[0]) for other in whole)
    assert all(torch.equal(other, whole[0][-1]) for other in logits)


@pytest.mark.parametrize("name", NETWORKS)
def test_anytime_equals_a_call_of_as_many_steps(name: str) -> None:
    images = exact_network(name)[2]
    net = converted(name, snm.preset("snm"), chunk_steps=3)
    anytime = net.anytime(images, timesteps=7)
    for steps in range(1, 8):
        assert torch.equal(anytime[steps - 1], net(images, timesteps=steps))


@pytest.mark.parametrize("name", ["plain", "residual", "pre-activation"])
def test_channels_last_changes_nothing(name: str) -> None:
    model, calibration, images = exact_network(name)
    expected = snm.convert(model, calibration)(images, timesteps=T)
    model, calibration, images = (
        value.to(memory_format=torch.channels_last) for value in (model, calibration, images)
    )
    net = snm.convert(model, calibration)
    assert torch.equal(net(images, timesteps=T), expected)
    threshold = next(iter(net.layers.values())).threshold
    assert threshold.unsqueeze(0).is_contiguous(memory_format=torch.channels_last)
    assert not threshold.is_contiguous()


@pytest.mark.parametrize("name", NETWORKS)
def test_images_do_not_touch_each_other(name: str) -> None:
    images = exact_network(name)[2]
    net = converted(name, snm.preset("snm-zero"))
    together = net(images, timesteps=T)
    alone = [net(image.unsqueeze(0), timesteps=T) for image in images]
    assert torch.equal(together, torch.cat(alone))


class BatchSized(nn.Module):
    """Multiplies what changes over time by the number of images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        z = torch.relu(self.second(y * y.size(0) + y.shape[0] - y.size()[-2]))
        return z * z.size(dim=0)


def test_the_batch_is_as_large_at_every_step_as_it_is() -> None:
    model, images = exact(BatchSized()), exact_images(3, (6,))
    naive = simulate_naively(
        model, images, naive_thresholds(model, images, "neuron"), snm.preset("snm"), T
    )
    net = snm.convert(model, images)
    assert naive.currents.count_nonzero() > 0
    assert torch.equal(net(images, timesteps=T), naive.currents.sum(0) / T)
