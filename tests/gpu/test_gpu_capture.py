"""A network captured in a CUDA graph gives what a call gives, and waits for nothing."""

import pytest
import torch
from torch import Tensor

import snm
from snm_kernels import backends
from support.networks import exact_network

if not torch.cuda.is_available():
    pytest.skip(backends()["cuda"].reason, allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")

DEVICE = "cuda"
T = 16
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def network(name: str, layout: str = "contiguous") -> tuple[snm.SpikingNetwork, Tensor]:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, preset="snm-zero", chunk_steps=5).to(DEVICE)
    net = net.to(memory_format=FORMATS[layout])
    return net, images.to(DEVICE, memory_format=FORMATS[layout])


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", ["plain", "residual", "branches", "pooled", "ends in ReLU"])
def test_replays_give_what_calls_give(name: str, layout: str) -> None:
    net, images = network(name, layout)
    captured = net.capture(images, timesteps=T)
    several = [images, images.flip(0), images / 2]
    answers = [captured(each) for each in several]
    for each, answer in zip(several, answers, strict=True):
        assert torch.equal(answer, net(each, timesteps=T))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    net, images = network("residual", "channels_last")
    net, images = net.to(dtype), images.to(dtype)
    captured = net.capture(images, timesteps=T)
    assert torch.equal(captured(images), net(images, timesteps=T))


def test_chunks_are_those_of_the_capture() -> None:
    net, images = network("plain")
    net.chunk_steps = None
    captured = net.capture(images, timesteps=T)
    assert torch.equal(captured(images), net(images, timesteps=T))


def test_nothing_waits_for_the_gpu() -> None:
    net, images = network("pooled")
    captured = net.capture(images, timesteps=T)
    captured(images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        captured(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_on_the_current_stream() -> None:
    net, images = network("plain")
    captured = net.capture(images, timesteps=T)
    late = torch.zeros_like(images)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # The images are written on this stream only after a long wait.
        torch.cuda._sleep(100_000_000)
        late.copy_(images)
        answer = captured(late)
    stream.synchronize()
    assert torch.equal(answer, net(images, timesteps=T))


def test_written_parameters_are_seen_and_moved_ones_kept() -> None:
    net, images = network("plain")
    captured = net.capture(images, timesteps=T)
    before = captured(images)
    for parameter in net.parameters():
        parameter.data.mul_(0.5)
    expected = net(images, timesteps=T)
    assert not torch.equal(expected, before)
    assert torch.equal(captured(images), expected)
    net.cpu()
    torch.empty(2**24, device=DEVICE).fill_(float("nan"))
    assert torch.equal(captured(images), expected)


def test_images_of_another_batch_are_refused() -> None:
    net, images = network("plain")
    captured = net.capture(images, timesteps=T)
    with pytest.raises(ValueError, match="CapturedNetwork: images must be"):
        captured(images[:1])


def test_example_may_be_a_view_and_made_in_inference_mode() -> None:
    net, images = network("plain")
    wide = torch.cat([images, images], dim=-1)
    with torch.inference_mode():
        captured = net.capture(wide[..., : images.shape[-1]], timesteps=T)
    assert torch.equal(captured(images), net(images, timesteps=T))
