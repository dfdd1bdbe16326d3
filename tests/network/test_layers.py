"""The multi-step layers for those who build a network by hand."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import snm
from snm_kernels import adaptive_running_max_pool, running_max_pool
from snm_kernels import snm as snm_op
from support.cases import channels_last

DRIVE = torch.randn(12, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0))


def test_snm_equals_the_op_and_goes_on_from_its_state() -> None:
    threshold = torch.rand(4, 6, 8) + 0.5
    layer = snm.nn.SNM(threshold, snm.preset("snm-zero"))
    expected = snm_op(DRIVE, threshold, rule=snm.preset("snm-zero"))
    sent = torch.cat([layer(DRIVE[:5]), layer(DRIVE[5:])])
    assert torch.equal(sent, expected.spikes)
    assert torch.equal(layer.state.m, expected.state.m)
    layer.reset()
    assert torch.equal(layer(DRIVE), expected.spikes)


def test_single_step_equals_multi_step() -> None:
    layer = snm.nn.SNM(0.75, step_mode="s")
    assert torch.equal(
        torch.stack([layer(drive) for drive in DRIVE]), snm.nn.SNM(0.75, step_mode="m")(DRIVE)
    )


POOLS = {
    "1d": (snm.nn.RunningMaxPool1d(3, 2, 1), nn.MaxPool1d(3, 2, 1), DRIVE[:, :, 0]),
    "2d": (
        snm.nn.RunningMaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        DRIVE,
    ),
    "2d, dilated": (
        snm.nn.RunningMaxPool2d(2, 1, dilation=(2, 3)),
        nn.MaxPool2d(2, 1, dilation=(2, 3)),
        DRIVE,
    ),
    "3d": (snm.nn.RunningMaxPool3d(2), nn.MaxPool3d(2), DRIVE.unsqueeze(2)),
    "adaptive 1d": (
        snm.nn.AdaptiveRunningMaxPool1d(5),
        nn.AdaptiveMaxPool1d(5),
        DRIVE[:, :, 0],
    ),
    "adaptive 2d": (
        snm.nn.AdaptiveRunningMaxPool2d((3, None)),
        nn.AdaptiveMaxPool2d((3, None)),
        DRIVE,
    ),
    "adaptive 3d": (
        snm.nn.AdaptiveRunningMaxPool3d((2, 3, 5)),
        nn.AdaptiveMaxPool3d((2, 3, 5)),
        DRIVE.unsqueeze(2),
    ),
}


@pytest.mark.parametrize("step_mode", ["m", "s"])
@pytest.mark.parametrize("name", POOLS)
def test_what_a_pool_has_sent_is_the_maximum_of_what_it_got(name: str, step_mode: str) -> None:
    running, pooling, drive = POOLS[name]
    running.reset()
    running.step_mode = step_mode
    # Halves and quarters, whose sums are exact.
    spikes = (drive * 2).round() / 4
    sent = running(spikes) if step_mode == "m" else torch.stack([running(x) for x in spikes])
    totals = spikes.cumsum(0)
    expected = torch.stack([pooling(total) for total in totals])
    assert torch.equal(sent.cumsum(0), expected)


def test_integer_spikes_with_a_threshold() -> None:
    spikes = DRIVE.round().sign().to(torch.int8)
    theta = torch.rand(4, 1, 1) + 0.5
    layer = snm.nn.RunningMaxPool2d(2, threshold=theta)
    expected = running_max_pool(spikes, 2, threshold=theta).spikes
    assert torch.equal(torch.cat([layer(spikes[:7]), layer(spikes[7:])]), expected)
    assert set((expected / theta).unique().tolist()) == {-1.0, 0.0, 1.0}
    adaptive = snm.nn.AdaptiveRunningMaxPool2d(2, threshold=theta)
    expected = adaptive_running_max_pool(spikes, 2, threshold=theta).spikes
    assert torch.equal(adaptive(spikes), expected)


LAYERS = {
    "SNM": snm.nn.SNM,
    "RunningMaxPool1d": partial(snm.nn.RunningMaxPool1d, 2),
    "AdaptiveRunningMaxPool2d": partial(snm.nn.AdaptiveRunningMaxPool2d, 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_a_threshold_of_its_own(name: str) -> None:
    given = torch.full((4, 1, 1), 0.5)
    layer = LAYERS[name](threshold=given)
    given.fill_(100.0)
    assert layer.state_dict().popitem()[1].eq(0.5).all()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("wrong", [-1.0, 0.0, float("nan")])
def test_thresholds_that_are_not_above_zero_are_refused(name: str, wrong: float) -> None:
    layer = "SNMNeuron" if name == "SNM" else name
    message = rf"^{layer}: threshold must be > 0 everywhere, got {wrong} \(1 of 1 values are not\)$"
    with pytest.raises(ValueError, match=message):
        LAYERS[name](threshold=wrong)
    message = rf"^{layer}: threshold must be > 0 everywhere, got {wrong} \(1 of 2 values are not\)$"
    with pytest.raises(ValueError, match=message):
        LAYERS[name](threshold=torch.tensor([1.0, wrong]))


def test_a_number_is_the_threshold_of_all() -> None:
    spikes = DRIVE.round().sign().to(torch.int8)
    expected = running_max_pool(spikes, 2, threshold=torch.tensor(0.5)).spikes
    assert torch.equal(snm.nn.RunningMaxPool2d(2, threshold=0.5)(spikes), expected)


class ByHand(nn.Sequential):
    """A multi-step network: layers of torch see the steps as more images."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            if isinstance(layer, snm.nn.SNM | snm.nn.RunningMaxPool2d):
                x = layer(x)
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x


def test_reset_reaches_every_layer() -> None:
    torch.manual_seed(0)
    net = ByHand(
        nn.Conv2d(4, 5, 3), snm.nn.SNM(0.5), snm.nn.RunningMaxPool2d(2), nn.Conv2d(5, 2, 1)
    )
    with torch.no_grad():
        first = net(channels_last(DRIVE))
        assert not torch.equal(net(channels_last(DRIVE)), first)
        snm.nn.reset(net)
        assert torch.equal(net(channels_last(DRIVE)), first)
    assert list(net.state_dict()) == [
        *("0.weight", "0.bias", "1.neuron.threshold", "3.weight", "3.bias")
    ]


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"^SNM: step_mode must be 'm' or 's', got 'multi'$"):
        snm.nn.SNM(1.0, step_mode="multi")
    with pytest.raises(ValueError, match=r"^RunningMaxPool1d: x must be \[T, B, C, ...\] with 1"):
        snm.nn.RunningMaxPool1d(2)(DRIVE)
    with pytest.raises(ValueError, match=r"^RunningMaxPool2d: x must be \[B, C, ...\] .*got 3"):
        snm.nn.RunningMaxPool2d(2, step_mode="s")(DRIVE[0, 0])


def test_another_batch_needs_a_reset() -> None:
    for layer in (snm.nn.SNM(1.0), snm.nn.RunningMaxPool2d(2)):
        layer(DRIVE)
        with pytest.raises(ValueError, match=r"as at the last call.* call reset\(\) before"):
            layer(DRIVE[:, :2])
        layer.reset()
        layer(DRIVE[:, :2])


def test_a_rule_by_name_is_refused_where_it_is_given() -> None:
    with pytest.raises(TypeError, match=r"must be an SNMRule, such as snm.preset\('snm-zero'\)"):
        snm.nn.SNM(1.0, "snm-zero")


def test_neuron_counts_its_negative_spikes() -> None:
    neuron = snm.nn.SNMNeuron(torch.rand(4, 6, 8) + 0.5, snm.preset("snm-zero"), bias=0.125)
    expected = neuron(DRIVE, residual=DRIVE, emit="spike")
    first = neuron.counted(DRIVE[:5], residual=DRIVE[:5], emit="spike")
    rest = neuron.counted(DRIVE[5:], first.state, first.negative, residual=DRIVE[5:], emit="spike")
    assert torch.equal(torch.cat([first.spikes, rest.spikes]), expected.spikes)
    assert torch.equal(rest.state.m, expected.state.m)
    assert torch.equal(rest.negative, (expected.spikes < 0).sum(0, dtype=torch.int32))
