"""Two-phase starts: where membranes start after a first pass, and what the network then sends."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor, nn

import snm
import snm_kernels
from snm.demo import load_images, load_network
from snm.network.first_pass import METHODS, starting_states
from snm.network.until import lead_of
from support.naive import naive_thresholds, simulate_naively
from support.networks import NETWORKS, exact_images, exact_network

T, STEPS = 8, 5
RULES = {
    **{name: snm.preset(name) for name in ("if-half", "snm", "snm-zero", "burst")},
    "at most three": snm.SNMRule(0.5, 0.0, strict=True, count_max=3),
    "both signs": snm.SNMRule(v_init=0.25, negative_threshold=0.5, count_min=None),
}

pytestmark = pytest.mark.filterwarnings(
    "ignore::snm.DeadNeuronWarning", "ignore:SpikingNetwork. neurons send no more than"
)


def starts_of(net: snm.SpikingNetwork, images: Tensor, first: snm.FirstPass) -> list[Tensor]:
    states = starting_states(first, net.program, net.model, images)
    assert list(states) == [fire.name for fire in net.program.neurons]
    assert all(state.m.dtype == torch.int32 and not state.m.any() for state in states.values())
    return [state.v for state in states.values()]


def two_layers(
    weight: list[list[float]], calibration: list[list[float]], preset: str
) -> snm.SpikingNetwork:
    """Two inputs that fire at their own rates, and neurons that they drive, read out as they are.

    With preset "if" an input of 1 / k fires in every k-th step, for the first time in the k-th.
    """
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, len(weight)), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[2].weight.copy_(torch.tensor(weight))
        model[0].bias.zero_()
        model[2].bias.zero_()
    return snm.convert(model, torch.tensor(calibration), preset=preset)


def test_inhibition_that_comes_late() -> None:
    # Driven with 0, 1, 0, 1 - 2; and with half of the excitation alone.
    net = two_layers([[1.0, -1.0], [0.5, 0.0]], [[1.0, 0.0], [0.0, 2.0]], "if")
    assert [layer.threshold.tolist() for layer in net.layers.values()] == [[1, 2], [1, 0.5]]
    images = torch.tensor([[0.5, 0.5]])
    assert net(images, timesteps=4).tolist() == [[0.25, 0.25]]
    shifted, masked = (snm.FirstPass(method, 4) for method in ("cos", "srp"))
    assert [start.tolist() for start in starts_of(net, images, shifted)] == [[[0, 0]], [[-1, 0]]]
    assert net(images, timesteps=4, first_pass=shifted).tolist() == [[0, 0.25]]
    first, second = starts_of(net, images, masked)
    assert first.tolist() == [[0, 0]]
    assert second.isnan().tolist() == [[True, False]]
    assert net(images, timesteps=4, first_pass=masked).tolist() == [[0, 0.25]]
    # After two steps there is no inhibition yet.
    for method in METHODS:
        assert net(images, timesteps=4, first_pass=snm.FirstPass(method, 2)).tolist() == [
            [0.25, 0.25]
        ]


@pytest.mark.parametrize(
    ("image", "sent", "start", "then"),
    [
        # Driven with 0, 0, 0, 3.
        ([0.25, 0.0], [0, 0, 0, 1], 2, [1, 1, 0, 1]),
        # With 0, 3, 0, 3, which no more than four spikes can carry.
        ([0.5, 0.0], [0, 1, 1, 1], 1, [1, 1, 1, 1]),
        # With 0, -2, 0, -2, which is worth no spike.
        ([0.0, 0.5], [0, 0, 0, 0], 0, [0, 0, 0, 0]),
        # With 0, 3, 0, 3 - 2.
        ([0.5, 0.25], [0, 1, 1, 1], 1, [1, 1, 1, 1]),
        # With 3 - 2, 3 - 2, 3 - 2, 3 - 2.
        ([1.0, 1.0], [1, 1, 1, 1], 0, [1, 1, 1, 1]),
    ],
)
def test_spikes_too_few(image: list[float], sent: list[int], start: float, then: list[int]) -> None:
    net = two_layers([[3.0, -2.0]], [[1.0, 1.0]], "if")
    images, first = torch.tensor([image]), snm.FirstPass("cos", 4)
    assert [layer.threshold.tolist() for layer in net.layers.values()] == [[1, 1], [1]]
    assert net.anytime(images, timesteps=4).flatten().tolist() == running_mean(sent)
    assert starts_of(net, images, first)[1].item() == start
    found = net.anytime(images, timesteps=4, first_pass=first)
    assert found.flatten().tolist() == running_mean(then)


def running_mean(spikes: list[int]) -> list[float]:
    return (torch.tensor(spikes).cumsum(0) / torch.arange(1, len(spikes) + 1)).tolist()


def starts_step_by_step(
    model: nn.Module, images: Tensor, thresholds: list[Tensor], rule: snm.SNMRule, method: str
) -> tuple[list[Tensor], list[Tensor]]:
    """The starts of all layers, the model stepped through time anew for each; and thresholds that
    are +inf where a neuron is masked."""
    starts: list[Tensor] = []
    thresholds = list(thresholds)
    most = min(STEPS * rule.max_spikes, rule.count_bounds[1])
    for k, threshold in enumerate(thresholds):
        stepped = simulate_naively(model, images, thresholds, rule, STEPS, starts).neurons[k]
        assert stepped.v is not None
        assert stepped.m is not None
        theta = torch.where(threshold.isinf(), 0.0, threshold).double()
        start = rule.v_init * theta.expand_as(stepped.v)
        if method == "srp":
            thresholds[k] = torch.where(stepped.v < 0, torch.inf, threshold)
        else:
            # What was there at the start and what came, in thresholds.
            fits = torch.floor((stepped.v + theta * stepped.m) / threshold)
            start = start + theta * (fits.clamp(0, most) - stepped.m)
        starts.append(start.float())
    return starts, thresholds


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_model_stepped_through_time(name: str, rule: snm.SNMRule, method: str) -> None:
    model, calibration, images = exact_network(name)
    thresholds = naive_thresholds(model, calibration, "neuron")
    starts, masking = starts_step_by_step(model, images, thresholds, rule, method)
    naive = simulate_naively(model, images, masking, rule, T, starts)

    net = snm.convert(model, calibration, preset=rule, chunk_steps=3)
    first = snm.FirstPass(method, STEPS)
    found = starts_of(net, images, first)
    assert len(found) == len(starts)
    for start, expected, before, after in zip(found, starts, thresholds, masking, strict=True):
        masked = (after.isinf() & ~before.isinf()).expand_as(expected)
        assert torch.equal(start.isnan() & ~before.isinf(), masked)
        assert torch.equal(start[~start.isnan()], expected[~start.isnan()])
    by_step = net.anytime(images, timesteps=T, first_pass=first)
    for steps in (1, 2, 4, 8):
        assert torch.equal(by_step[steps - 1], naive.currents[:steps].sum(0) / steps)


def test_networks_do_mask_and_shift() -> None:
    masked, raised, lowered = 0, 0, 0
    for name in NETWORKS:
        _, net, images = converted(name, preset="if-half")
        for start in starts_of(net, images, snm.FirstPass("srp", STEPS)):
            masked += int(start.isnan().sum())
        shifted = starts_of(net, images, snm.FirstPass("cos", STEPS))
        for layer, start in zip(net.layers.values(), shifted, strict=True):
            raised += int((start > layer.threshold).sum())
            lowered += int((start < 0).sum())
    assert min(masked, raised, lowered) > 100


def converted(name: str, **options: object) -> tuple[nn.Module, snm.SpikingNetwork, Tensor]:
    model, calibration, _ = exact_network(name)
    images = exact_images(13, NETWORKS[name][1], seed=3)
    return model, snm.convert(model, calibration, **options), images


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    "rule", [*RULES.values(), *map(snm.preset, snm.PRESETS)], ids=[*RULES, *snm.PRESETS]
)
def test_a_masked_neuron_sends_nothing(rule: snm.SNMRule, backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    drive = 3 * torch.randn(20, 6, 7, generator=generator)
    masked = torch.rand(6, 7, generator=generator) < 0.5
    start = snm_kernels.SNMState(
        torch.where(masked, torch.nan, 0.5), torch.zeros(6, 7, dtype=torch.int32)
    )
    sent, state = snm_kernels.snm(drive, 0.5, rule=rule, state=start, emit="spike", backend=backend)
    assert not sent[:, masked].any()
    assert not state.m[masked].any()
    assert sent[:, ~masked].any()
    assert not state.v[~masked].isnan().any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_anytime_equals_a_call_of_as_many_steps(name: str, method: str) -> None:
    _, net, images = converted(name, preset="if-half", chunk_steps=3)
    first = snm.FirstPass(method, STEPS)
    by_step = net.anytime(images, timesteps=T, first_pass=first)
    for steps in range(1, T + 1):
        assert torch.equal(by_step[steps - 1], net(images, timesteps=steps, first_pass=first))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["plain", "residual", "pooled", "read twice"])
def test_until_answers_as_anytime(name: str, method: str) -> None:
    _, net, images = converted(name, preset="if-half")
    first = snm.FirstPass(method, STEPS)
    by_step = net.anytime(images, timesteps=T, first_pass=first)
    leads = [lead_of(answers).quantile(0.6).item() for answers in by_step]
    predictions, logits, steps = net.until(images, snm.Stop(tuple(leads)), first_pass=first)
    assert len(steps.unique()) > 1
    assert steps.min() == 1
    assert torch.equal(logits, by_step[steps - 1, torch.arange(len(images))])
    assert torch.equal(predictions, logits.argmax(1))


@pytest.mark.parametrize("method", METHODS)
def test_spikes_of_the_first_pass_do_not_count(method: str) -> None:
    _, net, images = converted("ends in ReLU", preset="if-half", readout="count")
    first = snm.FirstPass(method, STEPS)
    by_step = net.anytime(images, timesteps=T, first_pass=first)
    assert torch.equal(by_step[0], by_step[0].clamp(0, 1))
    assert torch.equal(by_step[-1], net(images, timesteps=T, first_pass=first))
    later = net(images, timesteps=T, readout_after=3, first_pass=first)
    assert torch.equal(later, by_step[-1] - by_step[2])


@pytest.mark.parametrize("method", METHODS)
def test_a_bias_of_neurons_is_a_bias_of_the_layer_before(method: str) -> None:
    model, calibration, _ = exact_network("ends in ReLU")
    images = exact_images(13, seed=3)
    net = snm.convert(model, calibration, preset="if-half")
    other = snm.convert(model, calibration, preset="if-half")
    for index, (path, layer) in zip((1, 3), list(other.layers.items()), strict=True):
        linear = other.model.get_submodule(str(index))
        made = snm.nn.SNMNeuron(layer.threshold, layer.rule, bias=linear.bias)
        other.model.set_submodule(path, made)
        assert linear.bias.any()
        linear.bias.data.zero_()
    first = snm.FirstPass(method, STEPS)
    expected = net.anytime(images, timesteps=T, first_pass=first)
    assert torch.equal(other.anytime(images, timesteps=T, first_pass=first), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision(method: str, dtype: torch.dtype) -> None:
    _, net, images = converted("residual", preset="if-half")
    net, images = net.to(dtype), images.to(dtype)
    first = snm.FirstPass(method, STEPS)
    assert all(start.dtype == torch.float32 for start in starts_of(net, images, first))
    by_step = net.anytime(images, timesteps=T, first_pass=first)
    assert by_step.dtype == dtype
    assert by_step.isfinite().all()
    assert torch.equal(by_step[-1], net(images, timesteps=T, first_pass=first))
    assert not torch.equal(by_step[-1], net(images, timesteps=T))


@pytest.mark.parametrize("method", METHODS)
def test_channels_last_changes_nothing(method: str) -> None:
    _, net, images = converted("residual", preset="if-half")
    first = snm.FirstPass(method, STEPS)
    expected = net(images, timesteps=T, first_pass=first)
    images = images.to(memory_format=torch.channels_last)
    assert torch.equal(net(images, timesteps=T, first_pass=first), expected)
    start = starts_of(net, images, first)[0]
    assert start.is_contiguous(memory_format=torch.channels_last)


def test_the_network_keeps_nothing_of_it() -> None:
    _, net, images = converted("pooled", preset="if-half")
    kept, expected = images.clone(), net(images, timesteps=2)
    net.step(images)
    for method in METHODS:
        net(images, timesteps=T, first_pass=snm.FirstPass(method, STEPS))
    assert torch.equal(images, kept)
    assert torch.equal(net.step(images), expected)
    assert torch.equal(net(images, timesteps=2), expected)


def test_no_images() -> None:
    _, net, images = converted("plain")
    for method in METHODS:
        logits = net(images[:0], timesteps=T, first_pass=snm.FirstPass(method, STEPS))
        assert logits.shape == (0, 5)


def test_what_a_first_pass_refuses() -> None:
    with pytest.raises(ValueError, match=r"FirstPass: method must be one of 'srp', 'cos', got 'x'"):
        snm.FirstPass("x", 4)
    with pytest.raises(ValueError, match="FirstPass: steps must be at least 1, got 0"):
        snm.FirstPass("cos", 0)
    for steps in (True, 2.0, None):
        with pytest.raises(TypeError, match="FirstPass: steps must be an integer, got"):
            snm.FirstPass("srp", steps)
    first = snm.FirstPass("cos", 4)
    with pytest.raises(FrozenInstanceError):
        first.steps = 5
    assert {first} == {snm.FirstPass("cos", 4)}


def test_what_a_network_refuses() -> None:
    _, net, images = converted("plain")
    first, stop = snm.FirstPass("cos", 4), snm.Stop((0.0,))
    for name in ("cos", 4, snm.FirstPass):
        with pytest.raises(TypeError, match="first_pass must be a FirstPass or None, got"):
            net(images, timesteps=T, first_pass=name)
    with pytest.raises(TypeError, match="first_pass must be a FirstPass or None, got str"):
        net.anytime(images, timesteps=T, first_pass="srp")
    with pytest.raises(TypeError, match="first_pass must be a FirstPass or None, got int"):
        net.until(images, stop, first_pass=4)
    with pytest.raises(ValueError, match="were calibrated for a drive of"):
        net(images[..., :4], timesteps=T, first_pass=first)
    with pytest.raises(ValueError, match="must be finite"):
        net(images * torch.nan, timesteps=T, first_pass=first)
    message = "SpikingNetwork: first_pass: takes a network with encoder='direct'"
    _, poisson, _ = converted("plain", encoder="poisson")
    _, frames, _ = converted("plain", encoder="frames")
    for call in (poisson, poisson.anytime):
        with pytest.raises(ValueError, match=message):
            call(images, timesteps=T, first_pass=first)
    for call in (frames, frames.anytime):
        with pytest.raises(ValueError, match=message):
            call(images.expand(T, *images.shape), first_pass=first)


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_logits_come_closer_to_the_relu_networks(method: str) -> None:
    model, images = load_network(), load_images()
    net = snm.convert(model, images.calibration_images, preset="if-half")
    some = images.test_images[:200]
    wanted = model(some)
    without = (net(some, timesteps=8) - wanted).square().mean()
    found = net(some, timesteps=8, first_pass=snm.FirstPass(method, 8))
    assert (found - wanted).square().mean() < 0.5 * without
