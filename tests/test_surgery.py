"""Spiking layers put into a model in the place of its ReLUs."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from networks import exact, exact_images

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")

T = 16


def network() -> nn.Module:
    return exact(
        nn.Sequential(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
            *(nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU6(), nn.Dropout()),
            *(nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(24, 5)),
        )
    )


@pytest.mark.parametrize("preset", ["snm", "snm-zero", "if"])
@pytest.mark.parametrize("norm", ["neuron", "channel", "layer"])
def test_steps_of_the_model_equal_the_converted_network(norm: str, preset: str) -> None:
    model, calibration, images = network(), exact_images(6), exact_images(3, seed=1)
    net = snm.convert(model, calibration, norm=norm, preset=preset)
    spiking = snm.replace_relu(model, calibration.split(2), norm=norm, preset=preset)
    assert spiking is model
    assert [type(model[place]) for place in (2, 3, 5, 7)] == [
        *(snm.nn.SNM, snm.nn.RunningMaxPool2d, snm.nn.SNM, snm.nn.AdaptiveRunningMaxPool2d)
    ]
    for place in ("2", "5"):
        theirs = net.layers[place].threshold
        assert torch.equal(model.get_submodule(place).neuron.threshold, theirs)
    with torch.no_grad():
        for _ in range(2):
            current = sum(model(images.clone()) for _ in range(T))
            assert torch.equal(current / T, net(images, timesteps=T))
            snm.nn.reset(model)


def test_half_precision() -> None:
    model, images = network().bfloat16(), exact_images(6).bfloat16()
    snm.replace_relu(model, images)
    with torch.no_grad():
        assert model(images).dtype == torch.bfloat16
    threshold = model[2].neuron.threshold
    assert threshold.dtype == torch.float32
    assert torch.equal(threshold, threshold.bfloat16().float())


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu, self.pool, self.unused = nn.ReLU(), nn.MaxPool2d(2), nn.ReLU()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(x)))
        return F.max_pool2d(F.relu(self.relu(self.conv(x))), 2).flatten(1)


def test_what_surgery_cannot_reach_is_refused_at_once() -> None:
    model = Functional().eval()
    before = list(model.children())
    with pytest.raises(snm.ConversionError) as caught:
        snm.replace_relu(model, exact_images(2))
    assert [(o.path, o.operation) for o in caught.value.offences] == [
        *(("relu", "ReLU"), ("unused", "ReLU"), ("", "relu"), ("", "max_pool"))
    ]
    assert "is called 2 times, but keeps one state; use snm.convert" in str(caught.value)
    assert list(model.children()) == before
    assert not model.relu._forward_hooks


def test_no_relu() -> None:
    with pytest.raises(snm.ConversionError, match="has no ReLU module to replace"):
        snm.replace_relu(nn.Linear(2, 3).eval(), torch.rand(4, 2))
