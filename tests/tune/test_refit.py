"""Weights fitted by least squares, and what they were before."""

import pytest
import torch
from torch import Tensor, nn

import snm
from snm.network.fitted import before_tuning, layers_with_fitted_weights, replace_layer
from snm.tuning.weights import can_be_fitted, fit_weights

LAYERS = {
    "linear": (nn.Linear(5, 3), (5,)),
    "linear of tokens": (nn.Linear(5, 3), (4, 5)),
    "no bias": (nn.Linear(5, 3, bias=False), (5,)),
    "conv1d": (nn.Conv1d(3, 4, 3, padding=1), (3, 9)),
    "conv2d": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 8, 8)),
    "dilated": (nn.Conv2d(2, 4, 3, dilation=2), (2, 8, 8)),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 6, 6)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 6, 6)),
    "conv3d": (nn.Conv3d(2, 3, 2), (2, 4, 4, 4)),
}


def always() -> bool:
    return True


def perturbed(layer: nn.Module) -> nn.Module:
    """The layer that is to be found again."""
    torch.manual_seed(1)
    made = type(layer).__new__(type(layer))
    made.__dict__.update(layer.__dict__)
    made._parameters = {
        name: None if p is None else nn.Parameter(p + 0.3 * torch.randn_like(p))
        for name, p in layer._parameters.items()
    }
    return made


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_the_weights_that_make_what_is_wanted_are_found(name: str) -> None:
    layer, shape = LAYERS[name]
    inputs = torch.rand(96, *shape, generator=torch.Generator().manual_seed(0))
    wanted = perturbed(layer)(inputs)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    found = fit_weights(layer, inputs, wanted, always)
    assert found is not None
    assert found.error < 1e-6 < 1e-3 < found.before
    # Without a bias the mean is not made up for; the neurons behind do that.
    distance = found.layer(inputs) - wanted
    if name == "no bias":
        distance = distance - distance.mean(0)
    assert distance.abs().max() < 1e-2
    assert all(torch.equal(layer.state_dict()[key], value) for key, value in before.items())


@torch.no_grad()
def test_noise_in_what_is_read_is_weighed_as_least_squares_do() -> None:
    # Of some other weights the iterations end a few percent before the least squares.
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(6, 2)
    clean = torch.rand(4000, 6, generator=generator)
    noise = torch.randn(4000, 6, generator=generator) * torch.linspace(0.05, 0.5, 6)
    found = fit_weights(layer, clean + noise, layer(clean), always)
    assert found is not None
    fitted = torch.arange(4000) % 4 != 0
    read = torch.cat([clean + noise, torch.ones(4000, 1)], 1)[fitted].double()
    best = torch.linalg.lstsq(read, layer(clean)[fitted].double()).solution[:-1].T
    assert (found.layer.weight - best).abs().max() < 0.02 * best.abs().max()
    assert (layer.weight - best).abs().max() > 0.2 * best.abs().max()


@torch.no_grad()
def test_few_images_are_not_fitted_to_blindly() -> None:
    """More weights than images, and nothing to be learnt from these."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(200, 4)
    inputs, noise = (torch.randn(32, n, generator=generator) for n in (200, 4))
    wanted = layer(inputs) + noise
    found = fit_weights(layer, inputs, wanted, always)
    assert found is None or found.error < found.before
    others = torch.randn(2000, 200, generator=generator)
    if found is not None:
        changed = (found.layer(others) - layer(others)).square().mean()
        assert changed < noise.square().mean()
    assert fit_weights(layer, inputs[:7], wanted[:7], always) is None


@torch.no_grad()
def test_nothing_changes_where_nothing_can_become_better_or_there_is_no_time() -> None:
    layer = nn.Linear(4, 3)
    inputs = torch.rand(64, 4)
    assert fit_weights(layer, inputs, layer(inputs) + 1, always) is None
    assert fit_weights(layer, inputs, torch.rand(64, 3), lambda: False) is None


@torch.no_grad()
def test_half_precision_stays_half_precision() -> None:
    layer = nn.Linear(4, 3).bfloat16()
    inputs = torch.rand(64, 4)
    found = fit_weights(layer, inputs, inputs[:, :3], always)
    assert found is not None
    assert found.layer.weight.dtype == torch.bfloat16


def test_layers_that_are_not_linear_in_their_weights_stay() -> None:
    heard = nn.Linear(2, 2)
    heard.register_forward_hook(lambda *_: None)
    assert not can_be_fitted(heard)
    assert not can_be_fitted(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    assert not can_be_fitted(nn.BatchNorm2d(2))


def test_what_was_there_first_is_kept() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.Linear(1, 1))
    first, second, third = model[0][0], nn.Linear(1, 1), nn.Linear(1, 1)
    replace_layer(model, "0.0", second)
    replace_layer(model, "0.0", third)
    assert layers_with_fitted_weights(model) == {"0.0": third}
    given = before_tuning(model)
    assert torch.equal(given[0][0].weight, first.weight)
    assert given[1].weight is model[1].weight
    assert model[0][0] is third


class Shared(nn.Module):
    """One layer called twice, one that is a function, and one called once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.weight = nn.Parameter(torch.randn(8, 8) / 3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.twice(self.relu(self.twice(x))))
        return self.last(self.relu(nn.functional.linear(x, self.weight)))


def test_only_layers_that_are_called_once_are_fitted() -> None:
    torch.manual_seed(0)
    model, images = Shared().eval(), torch.rand(96, 6)
    tuned = snm.tune(model, images, timesteps=2)
    assert set(tuned.weights) == {"last"}
    assert set(layers_with_fitted_weights(tuned.net.model)) == (
        {"last"} if tuned.chosen == "tuned" else set()
    )
