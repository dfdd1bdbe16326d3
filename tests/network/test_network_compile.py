"""A converted network under torch.compile is one graph and gives the same."""

import pytest
import torch
from torch import nn

import snm
from support.networks import NETWORKS, exact_network

T = 7

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


@pytest.mark.parametrize("name", NETWORKS)
def test_one_graph(name: str) -> None:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, preset="snm-half", chunk_steps=5)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images, timesteps=T), net(images, timesteps=T))


@pytest.mark.parametrize("encoder", ["direct", "frames"])
def test_inductor(encoder: str) -> None:
    model, calibration, images = exact_network("branches")
    net = snm.convert(model, calibration, encoder=encoder)
    images = images.expand(8, *images.shape) if encoder == "frames" else images
    torch._dynamo.reset()
    compiled = torch.compile(net)
    assert torch.equal(compiled(images, timesteps=8), net(images, timesteps=8))


def test_another_number_of_steps_is_another_graph() -> None:
    model, calibration, images = exact_network("plain")
    net = snm.convert(model, calibration, preset="snm-zero")
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for steps in (8, 9, 64, 256):
        assert torch.equal(compiled(images, timesteps=steps), net(images, timesteps=steps))


def test_another_size_is_another_graph() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = snm.convert(model.eval(), torch.rand(16, 1, 8, 8), norm="channel")
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for size in ((5, 1, 8, 8), (3, 1, 8, 8), (4, 1, 8, 8), (4, 1, 12, 8), (4, 1, 9, 10)):
        images = torch.rand(size)
        assert torch.equal(compiled(images, timesteps=8), net(images, timesteps=8))
