"""Spiking layers put into a model in the place of its ReLUs."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from support.networks import exact, exact_images

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


def test_in_every_place_of_a_module() -> None:
    model, images = exact(Aliased()), exact_images(8, (4,))
    net = snm.convert(model, images)
    snm.replace_relu(model, images)
    assert isinstance(model.body[1], snm.nn.SNM)
    assert model.layers[1] is model.body[1]
    assert model.layers[3] is model.body[3]
    with torch.no_grad():
        mean = sum(model(images) for _ in range(T)) / T
    assert mean.count_nonzero() > 0
    assert torch.equal(mean, net(images, timesteps=T))


class Aliased(nn.Module):
    """Runs its layers by their second path."""

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
        self.layers = nn.ModuleList(layers)
        self.body = nn.Sequential(*self.layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_what_conversion_leaves_stays() -> None:
    model = network()
    model.insert(0, nn.MaxPool2d(3, 1, 1)).eval()
    model[1].unused = nn.ReLU().eval()
    calibration, images = exact_images(6), exact_images(3, seed=1)
    net = snm.convert(model, calibration)
    snm.replace_relu(model, calibration)
    assert type(model[0]) is nn.MaxPool2d
    assert type(model[1].unused) is nn.ReLU
    assert type(model[4]) is snm.nn.RunningMaxPool2d
    with torch.no_grad():
        assert torch.equal(sum(model(images) for _ in range(T)) / T, net(images, timesteps=T))


def test_calibration_images_and_a_failed_model_stay_as_they_are() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    model.eval()
    images = torch.randn(6, 4)
    before = images.clone()

    def failing() -> Iterator[Tensor]:
        yield images
        raise RuntimeError("no more images")

    with pytest.raises(RuntimeError, match="no more images"):
        snm.replace_relu(model, failing())
    assert not any(module._forward_hooks for module in model.modules())
    assert type(model[0]) is nn.ReLU
    snm.replace_relu(model, images)
    assert torch.equal(images, before)


def test_a_threshold_that_its_dtype_cannot_hold_leaves_the_model_as_it_was() -> None:
    tiny = nn.Hardtanh(0.0, 2.0**-24)
    model = exact(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), tiny)).half()
    before = list(model)
    with pytest.raises(ValueError, match="threshold must be > 0 and finite in"):
        snm.replace_relu(model, exact_images(4, (4,)).half(), preset=snm.SNMRule(max_spikes=4))
    assert list(model) == before


def test_warning_points_to_the_caller() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    nn.init.constant_(model[0].bias, -9.0)
    with pytest.warns(snm.DeadNeuronWarning) as caught:
        snm.replace_relu(model, torch.rand(6, 4))
    assert [warning.filename for warning in caught] == [__file__]


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(x)))
        return F.max_pool2d(F.relu(self.relu(self.conv(x))), 2).flatten(1)


def test_what_surgery_cannot_reach_is_refused_at_once() -> None:
    model = Functional().eval()
    before = list(model.children())
    batches = iter(exact_images(2).split(1))
    with pytest.raises(snm.ConversionError) as caught:
        snm.replace_relu(model, batches)
    assert [(o.path, o.operation) for o in caught.value.offences] == [
        *(("relu", "ReLU"), ("", "relu"), ("", "max_pool2d"))
    ]
    assert "is called 2 times, but keeps one state; use snm.convert" in str(caught.value)
    assert list(model.children()) == before
    assert len(list(batches)) == 1


class Calls(nn.Module):
    """Runs a function between its layers, behind a ReLU module."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.relu, self.call = nn.Conv2d(2, 2, 3), nn.Threshold(0.0, 0.0), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.conv(self.relu(self.conv(x)))).flatten(1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda x: torch.clamp(x, min=0),
    "max_pool2d": lambda x: torch.max_pool2d(x, 2),
    "_threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "hardtanh": lambda x: F.hardtanh_(x, 0.0, 1.0),
    "relu": F.relu,
    "Tensor.relu": lambda x: x.relu_(),
}


@pytest.mark.parametrize("operation", FUNCTIONS)
def test_functions_are_refused(operation: str) -> None:
    with pytest.raises(snm.ConversionError) as caught:
        snm.replace_relu(Calls(FUNCTIONS[operation]).eval(), exact_images(2))
    [offence] = caught.value.offences
    assert (offence.path, offence.operation) == ("", operation)
    assert offence.reason.startswith("is called as a function; use snm.convert")


class Unread(Calls):
    """Calls its ReLU again for a result that nothing reads."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.relu(out)
        return out


class Unregistered(Calls):
    """Calls its ReLU by a list that torch does not see."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__(call)
        self.hidden = [self.relu]

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.conv(self.hidden[0](self.conv(x)))).flatten(1)


class Twice(Unregistered):
    """Calls its ReLU by its name too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(self.relu(x), (1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Unread, "is called 2 times"),
        (Unregistered, "another way than as a submodule"),
        (Twice, "another way than as a submodule"),
    ],
)
def test_calls_that_the_graph_does_not_tell_apart(model: type[Calls], reason: str) -> None:
    with pytest.raises(snm.ConversionError, match=f"relu: Threshold.*{reason}"):
        snm.replace_relu(model(torch.neg).eval(), exact_images(2))


def test_what_cannot_be_converted_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.GELU(), nn.Linear(4, 2)).eval()
    with pytest.raises(snm.ConversionError, match="2: GELU"):
        snm.replace_relu(model, torch.rand(4, 4))
    with pytest.raises(snm.ConversionError, match="no ReLU lies between"):
        snm.replace_relu(nn.Linear(2, 3).eval(), torch.rand(4, 2))


def test_a_relu_alone() -> None:
    with pytest.raises(snm.ConversionError, match="is the model itself; put it into"):
        snm.replace_relu(nn.ReLU().eval(), torch.rand(4, 2))
