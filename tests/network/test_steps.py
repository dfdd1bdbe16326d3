"""Frames, random spikes, readouts and single steps."""

import math
import warnings
from collections.abc import Iterator

import numpy
import pytest
import torch
from torch import Tensor, nn

import snm
from snm.network.encode import Frames, Poisson
from support.naive import naive_thresholds, simulate_naively
from support.networks import NETWORKS, exact, exact_images, exact_network

T = 12

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def moving(images: Tensor, steps: int = T) -> Tensor:
    """Frames of halves that change at every step."""
    generator = torch.Generator().manual_seed(3)
    return images + torch.randint(-1, 2, (steps, *images.shape), generator=generator) / 2


def converted(name: str, **options: object) -> tuple[nn.Module, snm.SpikingNetwork, Tensor]:
    model, calibration, images = exact_network(name)
    return model, snm.convert(model, calibration, **options), images


# The other one multiplies two values that both change when the images do.
OVER_FRAMES = [name for name in NETWORKS if name != "arithmetic"]
# A sum in float32 is divided by T: equal only where T is a power of two.
STEPS = 8


@pytest.mark.parametrize("preset", ["snm", "snm-zero"])
@pytest.mark.parametrize("name", OVER_FRAMES)
def test_frames_are_seen_one_by_one(name: str, preset: str) -> None:
    model, net, images = converted(name, preset=preset, encoder="frames", chunk_steps=3)
    frames = moving(images, STEPS)
    thresholds = naive_thresholds(model, exact_network(name)[1], "neuron")
    naive = simulate_naively(model, list(frames), thresholds, snm.preset(preset), STEPS)
    expected = naive.currents.sum(0) / STEPS

    assert torch.equal(net(frames), expected)
    assert torch.equal(net(frames, timesteps=STEPS), expected)
    assert torch.equal(net(iter(frames)), expected)
    assert torch.equal(net(moving(images, T), timesteps=4), net(moving(images, T)[:4]))
    for frame in frames:
        by_step = net.step(frame)
    assert torch.equal(by_step, expected)


@pytest.mark.parametrize("name", OVER_FRAMES)
def test_every_step_of_frames_answers(name: str) -> None:
    _, net, images = converted(name, encoder="frames", chunk_steps=3)
    frames = moving(images)
    anytime = net.anytime(frames)
    assert anytime.shape[0] == T
    for steps in range(1, T + 1):
        assert torch.equal(anytime[steps - 1], net(frames[:steps]))


@pytest.mark.parametrize("name", OVER_FRAMES)
def test_equal_frames_are_an_image(name: str) -> None:
    _, direct, images = converted(name)
    _, frames, _ = converted(name, encoder="frames")
    expected = direct(images, timesteps=STEPS)
    assert torch.equal(frames(images.expand(STEPS, *images.shape)), expected)


def test_what_frames_cannot_run_is_refused() -> None:
    with pytest.raises(snm.ConversionError, match="two values that both change over time"):
        converted("arithmetic", encoder="frames")


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_equal_a_call(name: str) -> None:
    _, net, images = converted(name, preset="snm-half")
    for _ in range(2):
        for steps in range(1, T + 1):
            logits = net.step(images)
            assert torch.equal(logits, net(images, timesteps=steps))
        net.reset()


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_a_sensor_can_be_fed_to_a_direct_network(name: str) -> None:
    _, direct, images = converted(name)
    _, frames, _ = converted(name, encoder="frames")
    for frame in moving(images, STEPS):
        by_step = direct.step(frame)
    assert torch.equal(by_step, frames(moving(images, STEPS)))


def test_images_written_over_between_steps_are_seen() -> None:
    _, net, images = converted("plain")
    expected = [net.step(frame).clone() for frame in moving(images)]
    net.reset()
    buffer = torch.empty_like(images)
    for frame, logits in zip(moving(images), expected, strict=True):
        assert torch.equal(net.step(buffer.copy_(frame)), logits)


class Skip(nn.Module):
    """The logits read the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x).relu())


def test_a_tail_that_reads_the_image_needs_the_same_image() -> None:
    images = torch.rand(5, 4)
    net = snm.convert(Skip().eval(), images)
    buffer = images.clone()
    net.step(buffer)
    net.step(images.clone())
    with pytest.raises(ValueError, match="must stay the same from step to step"):
        net.step(buffer.add_(1))
    net.reset()
    net.step(buffer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tail_reads_the_mean_image_whatever_the_chunks(dtype: torch.dtype) -> None:
    model, images = exact(Skip()), exact_images(5, (4,))
    answers = []
    for chunk_steps in (1, 3, 8):
        net = snm.convert(model, images, encoder="frames", chunk_steps=chunk_steps).to(dtype)
        # Of ones alone a bfloat16 sum would stop at 256.
        ones = torch.ones(1024, 5, 4, dtype=dtype)
        constant = snm.convert(model, images).to(dtype)
        expected = constant(ones[0], timesteps=1024)
        assert torch.equal(net(ones), expected)
        assert torch.equal(net(ones, readout_after=512), expected)
        frames = torch.rand(12, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
        answers.append(net(frames))
        skipped = torch.stack([net(frames[:steps]) for steps in range(1, 13)])
        assert torch.equal(net.anytime(frames), skipped)
    assert all(torch.equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize("chunk_steps", [1, 5, None])
def test_frames_may_be_written_over_each_other(chunk_steps: int | None) -> None:
    _, net, images = converted("plain", encoder="frames", chunk_steps=chunk_steps)
    frames = moving(images)

    def camera() -> Iterator[Tensor]:
        buffer = torch.empty_like(images)
        for frame in frames:
            yield buffer.copy_(frame)

    assert torch.equal(net(camera()), net(frames))
    assert torch.equal(net.anytime(camera()), net.anytime(frames))
    buffer = images.clone()
    with pytest.raises(ValueError, match="images must be finite"):
        net(buffer.fill_(value) for value in (1.0, math.nan))


def test_a_step_that_raises_leaves_nothing_to_go_on_from() -> None:
    _, net, images = converted("plain")
    expected = net.step(images).clone()

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    hook = net.layers["5"].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        net.step(images)
    hook.remove()
    assert torch.equal(net.step(images), expected)


def test_answers_belong_to_the_caller() -> None:
    _, net, images = converted("plain", readout="count")
    for _ in range(3):
        counts = net.step(images)
    kept = counts.clone()
    counts.fill_(100)
    assert (net.step(images) - kept).abs().max() <= 1


def test_readout_after_with_a_max_pooling_behind_the_last_neurons() -> None:
    model, net, images = converted("pooled", chunk_steps=3)
    assert net.program.tail_pools
    thresholds = naive_thresholds(model, exact_network("pooled")[1], "neuron")
    naive = simulate_naively(model, images, thresholds, snm.preset("snm"), 16)
    found = net(images, timesteps=16, readout_after=8)
    assert torch.equal(found, naive.currents[8:].sum(0) / 8)


@pytest.mark.parametrize("chunk_steps", [4, None])
def test_no_images(chunk_steps: int | None) -> None:
    _, net, images = converted("plain", chunk_steps=chunk_steps)
    assert net(images[:0], timesteps=4).shape == (0, 5)
    assert net.anytime(images[:0], timesteps=4).shape == (4, 0, 5)


def test_autocast_is_refused() -> None:
    _, net, images = converted("plain")
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(RuntimeError, match="does not run under autocast"),
    ):
        net(images, timesteps=4)


@pytest.mark.parametrize("chunk_steps", [1, 3, 100])
@pytest.mark.parametrize("name", ["plain", "residual", "branches"])
def test_readout_after(name: str, chunk_steps: int) -> None:
    model, net, images = converted(name, chunk_steps=chunk_steps)
    thresholds = naive_thresholds(model, exact_network(name)[1], "neuron")
    naive = simulate_naively(model, images, thresholds, snm.preset("snm"), T)
    for first in (0, 4, 8, 10):
        steps = T - first
        expected = naive.currents[first:].sum(0) / steps
        found = net(images, timesteps=T, readout_after=first)
        if math.log2(steps).is_integer():
            assert torch.equal(found, expected)
        else:
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("encoder", ["direct", "frames"])
@pytest.mark.parametrize("norm", ["neuron", "channel", "layer"])
@pytest.mark.parametrize("name", ["plain", "residual", "ends in ReLU"])
def test_counts_of_output_neurons(name: str, norm: str, encoder: str) -> None:
    model, net, images = converted(name, norm=norm, readout="count", encoder=encoder, chunk_steps=5)
    spiking = nn.Sequential(model, nn.ReLU()).eval()
    thresholds = naive_thresholds(spiking, exact_network(name)[1], norm)
    thresholds[-1] = thresholds[-1][thresholds[-1].isfinite()].amax()
    frames = moving(images) if encoder == "frames" else images
    naive = simulate_naively(
        spiking,
        list(moving(images)) if encoder == "frames" else images,
        thresholds,
        snm.preset("snm"),
        T,
    )
    counts = torch.stack(naive.neurons[-1].spikes).cumsum(0).to(torch.int32)

    assert list(net.layers)[-1] == "output"
    assert torch.equal(net.layers["output"].threshold, thresholds[-1])
    assert torch.equal(net(frames, timesteps=T), counts[-1])
    assert torch.equal(net(frames, timesteps=T, readout_after=5), counts[-1] - counts[4])
    assert torch.equal(net.anytime(frames, timesteps=T), counts)
    assert counts[-1].count_nonzero() > 1


def test_poisson_draws_the_same_whatever_the_chunk() -> None:
    model, calibration, images = exact_network("plain")
    answers = []
    for chunk_steps in (1, 3, 50):
        net = snm.convert(model, calibration, encoder="poisson", chunk_steps=chunk_steps)
        generator = torch.Generator().manual_seed(7)
        answers.append(net(images, timesteps=T, generator=generator))
    generator = torch.Generator().manual_seed(7)
    for _ in range(T):
        by_step = net.step(images, generator=generator)
    answers.append(by_step)
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    other = net(images, timesteps=T, generator=torch.Generator().manual_seed(8))
    assert not torch.equal(other, answers[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_poisson_spikes_carry_the_image(dtype: torch.dtype) -> None:
    images = torch.tensor([[-3.0, 0.0, 1.5], [0.25, 0.5, -0.125], [0.0, 0.0, 0.0]], dtype=dtype)
    steps, frames = Poisson(images, torch.Generator().manual_seed(0)).take(4000)
    frames = frames.unflatten(0, (steps, 3))
    assert frames.dtype == dtype
    largest = images.abs().amax(1, keepdim=True)
    assert ((frames == 0) | (frames == images.sign() * largest)).all()
    # Four standard deviations of a mean over 4000 draws.
    bound = 4 * largest.float() * 0.5 / math.sqrt(steps)
    assert ((frames.float().mean(0) - images.float()).abs() <= bound).all()


def test_frames_keep_the_memory_format() -> None:
    frame = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for source in (Frames([frame, frame], lambda _: None), Poisson(frame)):
        _, frames = source.take(2)
        assert frames.is_contiguous(memory_format=torch.channels_last)


def test_frames_that_end_early_or_differ() -> None:
    _, net, images = converted("plain", encoder="frames")
    with pytest.raises(ValueError, match="frames must be at least 5 for as many timesteps, got 3"):
        net(moving(images, 3), timesteps=5)
    with pytest.raises(ValueError, match="must hold at least one frame, got none"):
        net([])
    with pytest.raises(ValueError, match=r"every frame must be \[3, 2, 8, 8\] like the first"):
        net([images, images[:1]])
    with pytest.raises(ValueError, match="images must be finite"):
        net([images, images * math.nan])
    with pytest.raises(ValueError, match="readout_after must be less than the 3 frames, got 3"):
        net(moving(images, 3), readout_after=3)


def test_arguments_of_a_call() -> None:
    _, net, images = converted("plain")
    with pytest.raises(TypeError, match="timesteps must be an integer, got None"):
        net(images)
    for first in (-1, 8, 9):
        with pytest.raises(ValueError, match="readout_after must be 0 to 7"):
            net(images, timesteps=8, readout_after=first)
    with pytest.raises(ValueError, match="generator must be None with encoder='direct'"):
        net(images, timesteps=8, generator=torch.Generator())
    net.step(images)
    with pytest.raises(ValueError, match=r"images must be \[3, 2, 8, 8\] as at the step"):
        net.step(images[:2])
    net.reset()
    net.step(images[:2])


def test_moving_the_network_forgets_its_state() -> None:
    _, net, images = converted("plain")
    first = net.step(images)
    net.float()
    assert torch.equal(net.step(images), first)


def test_more_steps_than_spikes_are_said() -> None:
    _, net, images = converted("plain", preset="st-bif")
    net(images, timesteps=15)
    with pytest.warns(UserWarning, match="neurons send no more than 15 spikes in all, so in 64"):
        net(images, timesteps=64)
    enough = converted("plain", preset=snm.preset("st-bif", levels=64))[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough(images, timesteps=64)


def test_steps_may_be_any_integer() -> None:
    _, net, images = converted("plain")
    steps = numpy.arange(3, 5)[0]
    assert torch.equal(net(images, timesteps=steps), net(images, timesteps=3))


def test_output_neurons_are_not_counted_as_dead_one_by_one() -> None:
    model = exact(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    with torch.no_grad():
        model[0].bias.fill_(2)
        model[2].weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
        model[2].bias.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = snm.convert(model, torch.rand(8, 3), readout="count")
    assert net.dead == {"1": 0, "output": 0}
